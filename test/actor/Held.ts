/** What a tree holds besides its actors when nothing goes on in it: nothing. For leak checks. */
import type { Root } from "../../src/actor/Root.ts"
import type * as Effect from "effect/Effect"

export const nothingHeld: Omit<Effect.Success<Root["resources"]>, "actors"> = {
  timers: 0,
  watchers: 0,
  bonds: 0,
  names: 0,
  turns: 0,
  unwritten: 0
}
