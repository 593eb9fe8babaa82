/** Cgroups that a test makes for itself, named by their directories; they go with the scope. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { mkdirSync, rmdirSync } from "node:fs"
import { eventually } from "./eventually.ts"

/** Makes one. The kernel holds it for a moment after its last process was reaped: its end waits for that. */
export const temporaryCgroup = (directory: string): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => mkdirSync(directory)),
    () =>
      eventually(`nothing holds ${directory}`, () => {
        try {
          rmdirSync(directory)
        } catch {
          return false
        }
        return true
      }).pipe(Effect.orDie)
  )
