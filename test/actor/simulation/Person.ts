/**
 * Persons at work on a simulated host. Each commits what he wants first and acts then, as the API does; what he does is
 * told to the auditor.
 */
import * as Effect from "effect/Effect"
import type { Tree } from "../../../src/actor/Tree.ts"
import type { Auditor } from "./Auditor.ts"
import type { Host } from "./Host.ts"
import type { SeededRandom } from "./SeededRandom.ts"
import { policies } from "./Workload.ts"

const registered = { wait: "registered" } as const

export class Person {
  readonly #host: Host
  readonly #auditor: Auditor
  readonly #random: SeededRandom

  constructor(host: Host, auditor: Auditor, random: SeededRandom) {
    this.#host = host
    this.#auditor = auditor
    this.#random = random
  }

  /** Does one thing. */
  act(tree: Tree["Service"]): Effect.Effect<void> {
    const random = this.#random
    const all = [...this.#auditor.fold.nodes.keys()].filter((path) => path !== "init" && path !== "init/audit").sort()
    // Mostly about workloads; rarely about the parts that hold everything.
    const workloads = all.filter((path) => this.#host.find(path) !== undefined)
    const path = random.pick(random.chance(0.95) ? workloads : all)
    const wanted = this.#host.find(path)
    const wish = wanted?.wish ?? wanted?.sandbox
    switch (random.between(0, 6)) {
      case 0:
        if (wish !== undefined) wish.stopped = true
        return this.#asked(Effect.andThen(tree.stop(path), tree.get(path)), ({ state }) => {
          // Another may have wanted otherwise in the meantime.
          if (state === "stopped") this.#auditor.stopped(path)
        })
      case 1:
      case 2: {
        // What is stopped is more often started than what runs.
        const stopped = all.filter((path) => this.#auditor.fold.nodes.get(path)?.state === "stopped")
        return this.#start(tree, stopped.length > 0 && random.chance(0.8) ? random.pick(stopped) : path, "start")
      }
      case 3:
        return this.#start(tree, path, "restart")
      case 4: {
        const policy = random.pick(policies)
        if (wanted?.wish === undefined || wanted.sandbox.handle === undefined) return Effect.void
        wanted.wish.policy = policy
        return this.#asked(tree.setPolicy(path, policy))
      }
      case 5: {
        if (wanted?.sandbox.kind !== "replicas" || wanted.sandbox.handle === undefined) return Effect.void
        const { handle } = wanted.sandbox
        const spec = this.#host.container(wanted.sandbox, this.#host.wish(wanted.sandbox))
        return this.#asked(handle.startChild(spec, registered))
      }
      default: {
        if (wanted?.sandbox.kind !== "replicas" || wanted.wish === undefined) return Effect.void
        wanted.sandbox.containers.delete(wanted.wish.id)
        return this.#asked(Effect.andThen(tree.stop(path), Effect.ignore(tree.remove(path))))
      }
    }
  }

  #start(tree: Tree["Service"], path: string, how: "start" | "restart"): Effect.Effect<void> {
    const wanted = this.#host.find(path)
    const wish = wanted?.wish ?? wanted?.sandbox
    if (wish !== undefined) wish.stopped = false
    const refused = this.#auditor.forgiven(path)
    return Effect.match(how === "start" ? tree.start(path, registered) : tree.restart(path, registered), {
      onSuccess: () => {},
      onFailure: refused
    })
  }

  /** Ends take time, and nobody waits here. A refusal is an answer. */
  #asked<A>(call: Effect.Effect<A, unknown>, done: (answer: A) => void = () => {}): Effect.Effect<void> {
    return Effect.asVoid(Effect.forkDetach(Effect.ignore(Effect.map(call, done))))
  }
}
