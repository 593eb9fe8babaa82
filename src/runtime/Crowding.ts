/**
 * Tells when a container has as many processes as it may have and its forks fail, for as long as they do: from outside it
 * looks like a program that hangs, and nothing of it is in any log.
 */
import * as Effect from "effect/Effect"
import type { Cgroups } from "../host/Cgroups.ts"

/** A container that forks without end would have us look without end. */
const BETWEEN_LOOKS = "1 second"
/** Whoever starts a hundred containers has other things to do; and what has been refused until then is seen all the same. */
const FIRST_LOOK = "1 second"
/** As long as no fork has been refused it is over. */
const OVER_AFTER = "30 seconds"

/** Calls `tell` with why, and with an empty text when it is over; for ever. `limit`: what it may have. */
export const follow = (
  cgroups: Cgroups["Service"],
  path: string,
  limit: number,
  tell: (why: string) => void
): Effect.Effect<never> =>
  Effect.gen(function* () {
    let before = 0
    let told = false
    yield* Effect.sleep(FIRST_LOOK)
    for (;;) {
      // what was refused while nobody looked counts, too
      const now = yield* cgroups.refusedForks(path)
      if (now > before) {
        tell(`it has as many processes as it may (${limit}): ${now} ${now === 1 ? "fork was" : "forks were"} refused`)
        told = true
        before = now
        yield* Effect.sleep(BETWEEN_LOOKS)
        continue
      }
      if (!told) {
        yield* cgroups.moreRefusedForks(path)
        continue
      }
      const more = yield* Effect.timeoutOption(cgroups.moreRefusedForks(path), OVER_AFTER)
      if (more._tag === "None" && (yield* cgroups.refusedForks(path)) === before) {
        tell("")
        told = false
      }
    }
  })
