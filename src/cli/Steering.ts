/**
 * What `start`, `stop` and `restart` share: each takes containers and other actors alike, several at once. A container is
 * steered through its own service, which remembers the wish; any other actor through the tree.
 */
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import { Client, type Connection } from "./Client.ts"
import type { Failure } from "./Failure.ts"
import { forEach } from "./ForEach.ts"
import * as Target from "./Target.ts"

/** The argument: one name or path at least. */
export const targets = Argument.String("NAME|PATH").pipe(
  Argument.withDescription("Containers, or other actors by path or name"),
  Argument.variadic({ min: 1 })
)

/** Does it to each of them and prints their names; see `forEach` for what happens when some fail. */
export const steer = Effect.fnUntraced(function* (
  words: ReadonlyArray<string>,
  how: {
    readonly container: (client: Connection, name: string) => Effect.Effect<unknown, Failure>
    readonly actor: (client: Connection, path: string) => Effect.Effect<unknown, Failure>
  }
) {
  const client = yield* Client
  yield* forEach(
    words,
    Effect.fnUntraced(function* (word) {
      const target = yield* Target.resolve(word)
      yield* target._tag === "Container" ? how.container(client, target.name) : how.actor(client, target.path)
      return word
    })
  )
})
