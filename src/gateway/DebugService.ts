/**
 * `ironwood.v1.DebugService`: failures on purpose, of the brain and of taproot, for the tests of a booted machine, where nobody can send a
 * signal. Never part of the services unless the kernel command line says `ironwood.debug=1`.
 */
import * as Effect from "effect/Effect"
import { kill } from "node:process"
import * as Proto from "../../proto/generated/ironwood/v1/debug_pb.ts"
import { service, unary } from "./EffectGrpc.ts"
import { invalid } from "./Request.ts"

const megabyte = 1024 * 1024

/** Outside of V8's heap, whose own limit would end it first. */
const fillMemory = (): void => {
  const held: Array<Buffer> = []
  setInterval(() => void held.push(Buffer.alloc(16 * megabyte, 1)), 1)
}

const hang = (): never => {
  for (;;);
}

const failures: ReadonlyMap<Proto.BrainFailure, () => void> = new Map([
  [Proto.BrainFailure.KILL, () => void kill(process.pid, "SIGKILL")],
  [
    Proto.BrainFailure.THROW,
    () => {
      throw new Error("asked to fail by DebugService")
    }
  ],
  [Proto.BrainFailure.HANG, hang],
  [Proto.BrainFailure.OUT_OF_MEMORY, fillMemory],
  [Proto.BrainFailure.TAPROOT, () => void kill(1, "SIGSEGV")]
])

/** Time for the answer to go out. */
const pause = 50

export const makeDebugService = () =>
  service(Proto.DebugService, {
    failBrain: unary(
      Proto.DebugService.method.failBrain,
      Effect.fnUntraced(function* ({ failure }) {
        const fail = failures.get(failure)
        if (fail === undefined) return yield* invalid("failure", "must say how to fail, like BRAIN_FAILURE_KILL")
        yield* Effect.sync(() => void setTimeout(() => fail(), pause))
        return {}
      })
    )
  })
