/**
 * Modules of a guest's kernel that it needs for some things only: loaded when one of those comes. `scripts/guest.ts` says which.
 *
 * Trap: a kernel of one's own has none here, so it must have them built in.
 */
import * as Effect from "effect/Effect"
import { textOf } from "../../host/SystemFiles.ts"
import type { System } from "../System.ts"

/** Of a module that is there. */
const EEXIST = 17

/** `kernel`: its release. Loading one that is there is fine. Fails with a sentence. */
export const load = (
  { files, processes }: Pick<System, "files" | "processes">,
  kernel: string,
  purpose: "network" | "shares"
): Effect.Effect<void, string> =>
  Effect.gen(function* () {
    const modules = `/usr/lib/modules/${kernel}`
    const listed = yield* Effect.orElseSucceed(textOf(files, `${modules}/${purpose}`), () => "")
    for (const file of listed.split("\n").filter((line) => line !== "")) {
      yield* Effect.catch(processes.loadModule(`${modules}/${file}`, ""), ({ errno, message }) =>
        errno === EEXIST ? Effect.void : Effect.fail(message)
      )
    }
  })
