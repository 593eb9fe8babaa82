/**
 * Presets against the systems they are named after: a small model of each, written from its documented rules and knowing
 * nothing of policies, tells when it would start again after random exits at random times; the dry run must say the same.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { explain } from "../../src/actor/Explain.ts"
import type { ExitView } from "../../src/actor/ExitView.ts"
import { RestartPolicy } from "../../src/actor/RestartPolicy.ts"
import * as RestartPreset from "../../src/actor/RestartPreset.ts"

/** How a run ended, and after how many milliseconds. */
const Ending = Schema.Literals(["code 0", "code 1", "SIGTERM", "SIGPIPE", "SIGKILL", "out of memory"])
type Ending = typeof Ending.Type
const Run = Schema.Struct({
  // Short ones, long ones, and those at the edges of what any of the systems calls healthy.
  ran: Schema.Union([
    Schema.Literals([0, 1, 99, 100, 2_400, 9_899, 9_900, 9_999, 10_000, 10_001, 599_999, 600_001]),
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 4_000 }))),
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 700_000 })))
  ]),
  ending: Ending
})
type Run = typeof Run.Type
const Runs = Schema.Array(Run).pipe(Schema.check(Schema.isMaxLength(40)))

/** Milliseconds since the first start of every start, and how it rests if it does. */
interface Schedule {
  readonly starts: ReadonlyArray<number>
  readonly rests: "finished" | "failed" | "parked" | undefined
}

/** A system: what it does when a run that began at `startedAt` ends so; a number is the next start. */
type System = (run: Run, startedAt: number) => number | "finished" | "failed" | "parked"

const playedBy = (system: System, runs: ReadonlyArray<Run>): Schedule => {
  const starts = [0]
  for (const run of runs) {
    const next = system(run, starts.at(-1) ?? 0)
    if (typeof next === "string") return { starts, rests: next }
    starts.push(next)
  }
  return { starts, rests: undefined }
}

const exitOf = (ending: Ending): ExitView => {
  const view = { at: 0, message: ending, detail: "", beforeReady: false }
  switch (ending) {
    case "code 0":
      return { ...view, class: "normal", tag: "Normal" }
    case "code 1":
      return { ...view, class: "failure", tag: "ContainerExited", facts: { exitCode: 1 } }
    case "out of memory":
      return { ...view, class: "failure", tag: "ContainerOomKilled", facts: { outOfMemory: true } }
    default:
      return { ...view, class: "failure", tag: "ContainerSignaled", facts: { signal: ending } }
  }
}

const playedByPreset = (
  name: RestartPreset.Name,
  runs: ReadonlyArray<Run>,
  intensity?: { readonly restarts: number; readonly within: number }
): Schedule => {
  const { outcome, steps } = explain({
    policy: RestartPreset.presets[name].policy,
    exits: runs.map(({ ending, ran }) => ({ when: { after: ran }, exit: exitOf(ending) })),
    intensity
  })
  const { state } = outcome
  return {
    starts: [0, ...steps.flatMap(({ nextStartAt }) => nextStartAt ?? [])],
    rests: state === "running" || state === "backing-off" ? undefined : state
  }
}

/** moby, restartmanager: the delay doubles from 100 ms to a minute, and begins anew after a run of 10 s. */
const docker = (restarts: (ending: Ending) => boolean): System => {
  let timeout = 0
  return ({ ending, ran }, startedAt) => {
    if (ran >= 10_000) timeout = 0
    timeout = timeout === 0 ? 100 : timeout < 60_000 ? timeout * 2 : timeout
    if (timeout > 60_000) timeout = 60_000
    return restarts(ending) ? startedAt + ran + timeout : "finished"
  }
}

/** kubelet: the first restart at once; then none before 10 s × 2 … 5 min since the end; forgotten after 10 min up. */
const kubernetes = (): System => {
  let entry: { backoff: number; lastUpdate: number } | undefined
  return ({ ran }, startedAt) => {
    const finishedAt = startedAt + ran
    if (entry === undefined || finishedAt - entry.lastUpdate > 600_000) {
      entry = { backoff: 10_000, lastUpdate: finishedAt }
      return finishedAt
    }
    const start = finishedAt + entry.backoff
    entry = { backoff: Math.min(entry.backoff * 2, 300_000), lastUpdate: start }
    return start
  }
}

/** systemd, Restart=on-failure: RestartSec after the end, if the start limit (5 starts in 10 s, ratelimit.c) lets it. */
const systemd = (): System => {
  let begin = 0
  let starts = 1
  const startIsBelowLimit = (now: number): boolean => {
    if (now - begin > 10_000) {
      begin = now
      starts = 1
      return true
    }
    starts++
    return starts <= 5
  }
  const clean: ReadonlyArray<Ending> = ["code 0", "SIGTERM", "SIGPIPE"]
  return ({ ending, ran }, startedAt) => {
    if (clean.includes(ending)) return "finished"
    const start = startedAt + ran + 100
    return startIsBelowLimit(start) ? start : "parked"
  }
}

const intensity = { restarts: 3, within: 5_000 }

/** Erlang/OTP's supervisor, whose window we count in milliseconds. */
const otp = (restarts: (ending: Ending) => boolean): System => {
  let events: ReadonlyArray<number> = []
  return ({ ending, ran }, startedAt) => {
    const now = startedAt + ran
    if (!restarts(ending)) return ending === "code 0" ? "finished" : "failed"
    events = [now, ...events].filter((at) => now - at < intensity.within)
    return events.length > intensity.restarts ? "failed" : now
  }
}

const always = () => true
const never = () => false
const onFailure = (ending: Ending) => ending !== "code 0"

const systems: { readonly [Key in RestartPreset.Name]: () => System } = {
  permanent: () => otp(always),
  transient: () => otp(onFailure),
  temporary: () => otp(never),
  "on-failure": () => docker(onFailure),
  kubernetes,
  systemd,
  docker: () => docker(always),
  "unless-stopped": () => docker(always),
  "docker-always": () => docker(always)
}

describe("a preset starts when the system it is named after does", () => {
  for (const name of RestartPreset.names) {
    const limit = name === "permanent" || name === "transient" || name === "temporary" ? intensity : undefined
    it.effect.prop(
      name,
      { runs: Runs },
      ({ runs }) =>
        Effect.sync(() => assert.deepStrictEqual(playedByPreset(name, runs, limit), playedBy(systems[name](), runs))),
      { arbitrary: { runs: 500, size: 40 } }
    )
  }

  it("to the letter, where it crashes all the time", () => {
    const crashes = (count: number, ran: number) =>
      Array.from({ length: count }, (): Run => ({ ran, ending: "code 1" }))
    const waits = (name: RestartPreset.Name, runs: ReadonlyArray<Run>) => {
      const { starts } = playedByPreset(name, runs)
      return starts.slice(1).map((start, index) => start - (starts[index] ?? 0) - (runs[index]?.ran ?? 0))
    }
    assert.deepStrictEqual(
      waits("kubernetes", crashes(8, 1_000)),
      [0, 10, 20, 40, 80, 160, 300, 300].map((s) => s * 1e3)
    )
    assert.deepStrictEqual(
      waits("docker", crashes(11, 0)),
      [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000]
    )
    assert.deepStrictEqual(playedByPreset("systemd", crashes(9, 0)), {
      starts: [0, 100, 200, 300, 400],
      rests: "parked"
    })
  })
})

describe("a preset", () => {
  it("can be said otherwise in parts", () => {
    const expanded = RestartPreset.expand("kubernetes", { restart: "transient", backoff: { max: 60_000 } })
    const policy = Schema.decodeSync(RestartPolicy)(expanded)
    assert.strictEqual(policy.restart, "transient")
    assert.deepInclude(Schema.encodeSync(RestartPolicy)(policy).backoff, { first: 0, initial: 10_000, max: 60_000 })
  })
  it("of docker's remembers a person's stop or not", () => {
    assert.isTrue(RestartPreset.presets.docker.policy.rememberStop)
    assert.isFalse(RestartPreset.presets["docker-always"].policy.rememberStop)
  })
})
