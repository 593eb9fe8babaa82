/**
 * How a process ended, with what it used: the typed form of the `exit` that taproot keeps for every process until it
 * is acknowledged. A schema, so that it can be stored and shown.
 *
 * Traps: `Exited` with code 0 is the only success, but what counts as a failure is the caller's policy.
 * `NotExecuted` means that the program was never reached (a wrong directory, an unknown command): the process existed
 * for a moment, has a pid and is acknowledged like every other. A shell's `128 + n` is an `Exited`, not a `Signaled`.
 */
import * as Match from "effect/Match"
import * as Schema from "effect/Schema"
import { describeErrno } from "./Errno.ts"
import { SignalName } from "./Signals.ts"

/** What the child was doing when it could not go on to `exec`. */
export const ExecStage = Schema.Literals(["cgroup", "rlimit", "identity", "directory", "stdio", "session", "exec"])
export type ExecStage = typeof ExecStage.Type

/** When it ended (nanoseconds since the Unix epoch, taproot's clock) and what it used, its waited-for children included. */
const usage = {
  time: Schema.BigInt,
  userMicroseconds: Schema.Finite,
  systemMicroseconds: Schema.Finite,
  maxRssKib: Schema.Finite
}

/** The program returned or called `exit(code)`. */
export const Exited = Schema.TaggedStruct("Exited", { code: Schema.Int, ...usage })
export type Exited = typeof Exited.Type

/** A signal ended it. */
export const Signaled = Schema.TaggedStruct("Signaled", {
  signal: SignalName,
  number: Schema.Int,
  coreDumped: Schema.Boolean,
  ...usage
})
export type Signaled = typeof Signaled.Type

/** The child never became the program; `errno` is the one of the call that failed at `stage`. */
export const NotExecuted = Schema.TaggedStruct("NotExecuted", {
  stage: ExecStage,
  errno: Schema.Int,
  message: Schema.String,
  ...usage
})
export type NotExecuted = typeof NotExecuted.Type

export const ProcessExit = Schema.Union([Exited, Signaled, NotExecuted])
export type ProcessExit = typeof ProcessExit.Type

/** True for `Exited` with code 0. */
export const isSuccess = (exit: ProcessExit): boolean => exit._tag === "Exited" && exit.code === 0

/** One line for people: `exited with code 3`, `killed by SIGKILL`, `could not be executed: …`. */
export const describe = (exit: ProcessExit): string =>
  Match.valueTags(exit, {
    Exited: ({ code }) => `exited with code ${code}`,
    Signaled: ({ coreDumped, signal }) => `killed by ${signal}${coreDumped ? " (core dumped)" : ""}`,
    NotExecuted: ({ message }) => message
  })

/** The sentence that `NotExecuted` carries. */
export const notExecutedMessage = (stage: ExecStage, errno: number): string =>
  `could not be executed: ${stage} failed (${describeErrno(errno)})`
