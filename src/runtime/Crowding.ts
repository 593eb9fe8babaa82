/**
 * Tells when a container has as many processes as it may have and its forks fail, for as long as they do: from outside it
 * looks like a program that hangs, and nothing of it is in any log.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Cgroups } from "../host/Cgroups.ts"

/** A container that forks without end would have us look without end. */
const BETWEEN_LOOKS = "1 second"
/** Whoever starts a hundred containers has other things to do; and what has been refused until then is seen all the same. */
const FIRST_LOOK = "1 second"
/** So many looks in a row at which no more forks had been refused: it is over. */
const QUIET_LOOKS = 30

/**
 * Calls `tell` with why, and with an empty text when it is over; in the scope. `limit`: what it may have. Of a container that has
 * no trouble nothing waits but the kernel's watch.
 */
export const follow = (
  cgroups: Cgroups["Service"],
  path: string,
  limit: number,
  tell: (why: string) => void
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    const fork = Effect.runForkWith(yield* Effect.context<Scope.Scope>())
    let before = 0
    let looks = false
    let news = false
    /** From the first refused fork to the end of the trouble; at once when there is none. */
    const look = Effect.gen(function* () {
      let quiet = 0
      let told = false
      do {
        news = false
        // what was refused while nobody looked counts, too
        const now = yield* cgroups.refusedForks(path)
        quiet = now > before ? 0 : quiet + 1
        if (now > before) {
          tell(`it has as many processes as it may (${limit}): ${now} ${now === 1 ? "fork was" : "forks were"} refused`)
          told = true
          before = now
        }
        if (told) yield* Effect.sleep(BETWEEN_LOOKS)
      } while (news || (told && quiet < QUIET_LOOKS))
      if (told) tell("")
      looks = false
    })
    const changed = (): void => {
      news = true
      if (looks) return
      looks = true
      fork(Effect.forkScoped(look))
    }
    yield* cgroups
      .onRefusedForks(path, changed)
      .pipe(Effect.andThen(Effect.sync(changed)), Effect.delay(FIRST_LOOK), Effect.forkScoped)
  })
