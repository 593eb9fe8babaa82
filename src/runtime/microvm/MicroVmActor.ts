/**
 * The actor of a sandbox's microVM: it has one (the one that is still there, or, as soon as a container wants to run, a new one),
 * waits for its end, and ends with why. Its containers hear of that by themselves: what they ran in is gone.
 *
 * When nobody wants any of its containers to run any more, the machine is ended, and its memory given back; the next one that
 * is wanted has a new one started, with the images that there are then.
 *
 * *Stop* ends the machine, after the containers, which come later in their sandbox. *Release* touches nothing.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Actor from "../../actor/Actor.ts"
import * as ActorPath from "../../actor/ActorPath.ts"
import type { ChildSpec } from "../../actor/ChildSpec.ts"
import * as RestartPolicy from "../../actor/RestartPolicy.ts"
import { Tree } from "../../actor/Tree.ts"
import * as ProcessAge from "../../taproot/ProcessAge.ts"
import { MicroVmEnded, type MicroVmFailed } from "../ContainerExit.ts"
import type { Records, SandboxRecord } from "../Records.ts"
import { anyLabel } from "../RuntimePaths.ts"
import { Systems } from "../System.ts"
import type { MicroVm } from "./Connection.ts"
import { MicroVms } from "./MicroVms.ts"
import * as Users from "./Users.ts"

/** No container can be called so. */
export const ID = "microVM"

const IDLE = "no container wants it"
/** The states of containers that are not started again by themselves. */
const over: ReadonlySet<string> = new Set(["stopped", "parked", "finished", "failed"])
const OTHERS_COME = Duration.millis(300)
const BETWEEN_LOOKS = Duration.seconds(2)
const IDLE_LOOKS = 2

const factsOf = ({ kernel, process }: MicroVm) => ({ pid: String(process.pid), kernel, note: "" })

export const microVmActor = (
  sandbox: SandboxRecord,
  records: Records
): ChildSpec<MicroVmFailed | MicroVmEnded, MicroVms | Systems> => {
  const { name } = sandbox.spec
  return Actor.make(
    ID,
    {
      kind: "microvm",
      description: "a kernel of its own",
      policy: RestartPolicy.workload,
      shutdown: Duration.seconds(45)
    },
    Effect.gen(function* () {
      const microVms = yield* MicroVms
      const systems = yield* Systems
      const { path } = yield* Actor.Self
      const tree = yield* Tree
      // another sandbox of this name may be one of namespaces
      yield* Actor.onStop(Effect.andThen(microVms.stop(name), systems.forget(name)))
      const containers = Effect.map(
        Effect.orElseSucceed(records.containers.partition, () => ({ records: [] })),
        (found) => found.records.flatMap(({ value }) => (value.sandbox === name ? [value] : []))
      )

      /** Whoever makes a pod makes its containers one after the other: all of them shall have their images in it. */
      const complete = Effect.flatMap(containers, (found) =>
        found.some(({ spec }) => spec.name === name) ? Effect.void : Effect.sleep(OTHERS_COME)
      )
      const start = Effect.gen(function* () {
        yield* systems.wanted(name)
        yield* Actor.annotate({ note: "its guest comes up" })
        yield* complete
        const started = yield* microVms
          .start(sandbox, yield* containers, yield* Users.userOf(records, name))
          .pipe(Effect.tapError((failed) => systems.settle(name, Exit.fail(failed))))
        yield* Actor.annotate(factsOf(started))
        return started
      })

      const siblings = Effect.orElseSucceed(tree.children(ActorPath.parent(path) ?? path), () => [])
      /** Returns when for a while no container was wanted, nor anything of one left in the guest. */
      const idle = ({ system }: MicroVm) =>
        Effect.gen(function* () {
          for (let looks = 0; looks < IDLE_LOOKS;) {
            yield* Effect.sleep(BETWEEN_LOOKS)
            const inUse = (yield* siblings).some((node) => node.path !== path && !over.has(node.state))
            looks = inUse || (yield* system.processes.takeAll(anyLabel)).length > 0 ? 0 : looks + 1
          }
        })

      let present = yield* microVms.find(name)
      if (Option.isSome(present)) {
        yield* Actor.adopted(factsOf(present.value), yield* ProcessAge.of(present.value.process))
      } else {
        yield* systems.expect(name)
        yield* Actor.ready({ note: IDLE })
      }
      while (true) {
        const machine = Option.isSome(present) ? present.value : yield* start
        const why = yield* Effect.raceFirst(machine.ended, Effect.as(idle(machine), undefined))
        if (why !== undefined) return yield* new MicroVmEnded({ name, detail: why })
        yield* microVms.stop(name)
        present = Option.none()
        yield* Actor.annotate({ pid: "", kernel: "", note: IDLE })
      }
    })
  )
}
