/**
 * What a driver finds out about a program that makes machines by KVM only: whether it is there, which version it is, what of the
 * host it must see, and whether it really runs a guest here.
 */
import * as Effect from "effect/Effect"
import type { Processes, RunRequest } from "../taproot/Processes.ts"
import * as Accelerator from "./Accelerator.ts"
import type { Capabilities, DriverFacts, DriverName, PlaceFailed } from "./Hypervisor.ts"
import * as Launching from "./Launching.ts"

export interface Options {
  /** For what is tried; made when it is not there. */
  readonly directory: string
  /** Where the program is looked for. */
  readonly path?: string
}

/** A program, which is called as its driver. */
export interface Program {
  readonly name: DriverName
  readonly capabilities: Capabilities
  /** A run of it whose guest is `Accelerator.KERNEL`. */
  readonly trial: (path: string, sees: ReadonlyArray<string> | undefined) => Effect.Effect<RunRequest, PlaceFailed>
}

export const examine = (
  processes: Processes["Service"],
  launching: Launching.Launching,
  options: Options,
  { capabilities, name, trial }: Program
) => {
  let sees: ReadonlyArray<string> | undefined
  const failing = (path: string, version: string, problem: string): DriverFacts => ({
    name,
    path,
    version,
    problem,
    acceleration: undefined,
    capabilities
  })
  const look = Effect.gen(function* () {
    const path = yield* Launching.locate(name, options.path)
    if (path === undefined) return failing("", "", `there is no ${name}`)
    const words = yield* Effect.result(launching.versionOf(path, "--version"))
    if (words._tag === "Failure") return failing(path, "", words.failure)
    const version = /v(\d\S*)/.exec(words.success)?.[1] ?? ""
    sees = yield* launching.enough(path, "--version", Launching.LIBRARIES)
    const run = yield* Effect.result(trial(path, sees))
    if (run._tag === "Failure") return failing(path, version, run.failure.message)
    const acceleration = yield* Accelerator.find(processes, run.success, Accelerator.saidByWord)
    return acceleration.accelerator === "kvm"
      ? { ...failing(path, version, ""), problem: undefined, acceleration }
      : failing(path, version, `it needs KVM: ${acceleration.problem ?? ""}`)
  })
  return {
    facts: Launching.remembered(look),
    /** What it sees of the host's files, once `facts` are there; undefined: what its user sees. */
    sees: (): ReadonlyArray<string> | undefined => sees
  }
}
