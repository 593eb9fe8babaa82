/**
 * The actor of a sandbox's microVM: it has one (the one that is still there, or, as soon as a container wants to run, a new one),
 * waits for its end, and ends with why. Its containers hear of that by themselves: what they ran in is gone.
 *
 * *Stop* ends the machine, after the containers, which come later in their sandbox. *Release* touches nothing.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Actor from "../../actor/Actor.ts"
import type { ChildSpec } from "../../actor/ChildSpec.ts"
import * as RestartPolicy from "../../actor/RestartPolicy.ts"
import * as ProcessAge from "../../taproot/ProcessAge.ts"
import { MicroVmEnded, type MicroVmFailed } from "../ContainerExit.ts"
import type { Records, SandboxRecord } from "../Records.ts"
import { Systems } from "../System.ts"
import { type MicroVm, MicroVms } from "./MicroVms.ts"

/** No container can be called so. */
export const ID = "microVM"

const IDLE = "no container wants it yet"

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
      yield* Actor.onStop(microVms.stop(name))
      const containers = Effect.map(
        Effect.orElseSucceed(records.containers.partition, () => ({ records: [] })),
        (found) => found.records.flatMap(({ value }) => (value.sandbox === name ? [value] : []))
      )
      const start = Effect.gen(function* () {
        yield* systems.expect(name)
        yield* Actor.ready({ note: IDLE })
        yield* systems.wanted(name)
        yield* Actor.annotate({ note: "its guest comes up" })
        const started = yield* microVms
          .start(sandbox, yield* containers)
          .pipe(Effect.tapError((failed) => systems.settle(name, Exit.fail(failed))))
        yield* Actor.annotate(factsOf(started))
        return started
      })
      const found = yield* microVms.find(name)
      if (Option.isSome(found)) yield* Actor.adopted(factsOf(found.value), yield* ProcessAge.of(found.value.process))
      const machine = Option.isSome(found) ? found.value : yield* start
      return yield* new MicroVmEnded({ name, detail: yield* machine.ended })
    })
  )
}
