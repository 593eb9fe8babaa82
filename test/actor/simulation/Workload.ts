/**
 * The workloads of a simulated host: what they are like, under which policies they run, and how they end. What a life does
 * is drawn from the seed, the path and the number of the life, so that it does not depend on who ran before whom.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Actor from "../../../src/actor/Actor.ts"
import { ExitFacts } from "../../../src/actor/ExitView.ts"
import * as RestartPolicy from "../../../src/actor/RestartPolicy.ts"
import { presets } from "../../../src/actor/RestartPreset.ts"
import { SeededRandom } from "./SeededRandom.ts"
import type { World } from "./World.ts"

/** The process ended: by a code, by a signal, out of memory, or after a probe had failed. */
export class ProcessEnded extends Schema.TaggedError<ProcessEnded>()("ProcessEnded", { exitFacts: ExitFacts }) {
  override get message(): string {
    return `ended: ${JSON.stringify(this.exitFacts)}`
  }
}

/** The registry does not answer: no start. */
export class ImagePullFailed extends Schema.TaggedError<ImagePullFailed>()("ImagePullFailed", {}) {
  override get message(): string {
    return "the registry does not answer"
  }
}

const second = 1_000
const minute = 60 * second
const hour = 60 * minute

/**
 * `steady`: ends every few hours; `job`: does something for some minutes, mostly with success; `loop`: fails slowly, again
 * and again; `hungry`: is out of memory now and then; `client`: ends soon while the database of the world is down.
 */
export const tempers = ["steady", "steady", "steady", "job", "loop", "hungry", "client"] as const
export type Temper = (typeof tempers)[number]

/** What operators set: budgets of every kind, rules, presets of other systems, nothing at all. */
export const policies: ReadonlyArray<RestartPolicy.RestartPolicy> = [
  RestartPolicy.workload,
  RestartPolicy.workload,
  RestartPolicy.make({ budget: { restarts: 5, within: "10 minutes" }, whenSpent: "park" }),
  RestartPolicy.make({ backoff: { jitter: 0, max: "5 minutes" }, maxConsecutive: 6, whenSpent: "park" }),
  RestartPolicy.make({ backoff: { curve: "linear", initial: "1 second", max: "30 seconds", jitter: 0.5 } }),
  RestartPolicy.make({ backoff: { curve: "fibonacci", initial: "2 seconds", max: "2 minutes", first: 0 } }),
  RestartPolicy.make({
    rules: [
      { on: { outOfMemory: true }, consecutive: 3, whenSpent: "park" },
      { on: { tags: ["ImagePullFailed"] }, backoff: { initial: "10 seconds", max: "5 minutes" }, counts: false },
      { on: { exitCodes: [78] }, then: "park" },
      { on: { classes: ["defect"] }, then: "finish" }
    ],
    budget: { restarts: 8, within: "1 hour" }
  }),
  RestartPolicy.make({ restart: "on-success", backoff: { initial: "1 minute", factor: 1 } }),
  RestartPolicy.make({ restart: "transient", budget: { restarts: 3, within: "1 minute" }, whenSpent: "park" }),
  RestartPolicy.temporary,
  presets.kubernetes.policy,
  presets.docker.policy,
  presets.systemd.policy,
  presets["on-failure"].policy
]

const facts = (random: SeededRandom, temper: Temper | "own"): ExitFacts => {
  if (temper === "hungry" && random.chance(0.7)) return { exitCode: 137, signal: "SIGKILL", outOfMemory: true }
  const kind = random.between(0, 9)
  if (kind < 5) return { exitCode: random.pick([1, 1, 2, 78]) }
  if (kind < 8) return { signal: random.pick(["SIGKILL", "SIGSEGV", "SIGTERM"]) }
  return { exitCode: 143, probe: "liveness" }
}

const lifetime = (random: SeededRandom, temper: Temper | "own", world: World, path: string): number => {
  if (world.flapping(path)) return random.between(1, 3 * second)
  switch (temper) {
    case "own":
    case "steady":
      return random.exponential(8 * hour)
    case "job":
      return random.exponential(30 * minute)
    case "loop":
      return random.exponential(40 * minute)
    case "hungry":
      return random.exponential(2 * hour)
    case "client":
      return world.databaseDown ? random.between(1, 2 * second) : random.exponential(8 * hour)
  }
}

/** The body of a workload, or of a part of the host itself, which needs no image. */
export const run = (world: World, path: string, temper: Temper | "own") =>
  Effect.gen(function* () {
    const self = yield* Actor.Self
    const random = new SeededRandom(world.seed, path, self.incarnation)
    world.begins(path, self.incarnation)
    const closing = random.chance(0.1) ? Effect.sleep(random.between(1, 300)) : Effect.void
    yield* Effect.addFinalizer(() =>
      Effect.andThen(
        closing,
        Effect.sync(() => world.ends(path))
      )
    )
    yield* Actor.onStop(random.chance(0.3) ? Effect.sleep(random.between(1, 2 * second)) : Effect.void)
    if (temper !== "own" && world.registryDown && random.chance(0.5)) {
      yield* Effect.sleep(random.between(1, 500))
      return yield* new ImagePullFailed({})
    }
    if (random.chance(0.5)) yield* Effect.sleep(random.between(1, 400))
    if (!world.calm && random.chance(0.01)) return yield* new ProcessEnded({ exitFacts: facts(random, temper) })
    yield* Actor.ready({ life: `${self.incarnation}` })
    const told = Effect.callback<"told">((resume) => world.onStorm(path, () => resume(Effect.succeed("told"))))
    const how = yield* Effect.timeoutOrElse(told, {
      duration: lifetime(random, temper, world, path),
      orElse: () => Effect.undefined
    })
    if (how === undefined && world.calm) return yield* Effect.never
    if (how === undefined && temper === "job" && random.chance(0.8)) return
    if (random.chance(0.02)) return yield* Effect.die(new RangeError("a bug"))
    return yield* new ProcessEnded({ exitFacts: facts(random, temper) })
  })
