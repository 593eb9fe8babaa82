/**
 * What crun makes of a seccomp profile, kept: to compile one takes it 10 to 30 ms at every start, and it comes out the same.
 * crun leaves the program that it compiled (`seccomp.bpf`, as the kernel reads it) in its state of the container, and takes
 * one that is given to it in an annotation instead of compiling. So the first container with a profile has it compiled, and
 * those after it get what came out.
 *
 * Traps: in memory only, so that what a new crun would make of it is never overlooked for longer than a brain lives. Other
 * runtimes leave no such file and ignore the annotation: {@link SeccompFilters.learn} then learns nothing. The profile stays in
 * `config.json` beside the annotation.
 */
import * as Effect from "effect/Effect"
import { ofHost, type SystemFiles } from "../host/SystemFiles.ts"
import type { Seccomp } from "./Seccomp.ts"

/** The kernel takes programs of at most 4,096 instructions of 8 bytes. */
const INSTRUCTION = 8
const MOST_INSTRUCTIONS = 4_096

export class SeccompFilters {
  /** By the profile itself: there is one for each kind of container. */
  readonly #byProfile = new WeakMap<Seccomp, string>()

  /** The filter of a profile, in base64; undefined until it has been learnt. */
  of(profile: Seccomp | undefined): string | undefined {
    return profile === undefined ? undefined : this.#byProfile.get(profile)
  }

  /** Reads what the runtime made of `profile` for a container, unless it is known; `directory`: its state of the container. */
  learn(profile: Seccomp | undefined, directory: string, files: SystemFiles = ofHost): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (profile === undefined || this.of(profile) !== undefined) return Effect.void
      const read = files.read(`${directory}/seccomp.bpf`)
      return Effect.ignore(
        Effect.map(read, (program) => {
          const isProgram = program.length % INSTRUCTION === 0 && program.length <= INSTRUCTION * MOST_INSTRUCTIONS
          if (program.length === 0 || !isProgram) return
          this.#byProfile.set(profile, program.toString("base64"))
        })
      )
    })
  }
}
