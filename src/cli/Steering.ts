/**
 * What `start`, `stop` and `restart` share: each takes containers and other actors alike, several at once. A container is
 * steered through its own service, which remembers the wish; any other actor through the tree. `pause` and `resume` take
 * containers alone ({@link steerContainers}).
 */
import { create } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import { type Container, ContainerSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { type Actor, ActorSchema } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { Client, type Connection } from "./Client.ts"
import type { Failure } from "./Failure.ts"
import { answered, forEach } from "./ForEach.ts"
import * as Target from "./Target.ts"

/** The argument: one name or path at least. */
export const targets = Argument.String("NAME|PATH").pipe(
  Argument.withDescription("Containers, or other actors by path or name"),
  Argument.variadic({ min: 1 })
)

/** What a service answers about a container. */
interface AboutContainer {
  readonly container?: Container | undefined
}

const containerAnswered = (word: string, name: string, { container }: AboutContainer) =>
  answered(word, ContainerSchema, container ?? create(ContainerSchema, { spec: { name } }))

/** Does it to each of them and prints their names (with `-o json` what they are then); see `forEach` for what happens when some fail. */
export const steer = Effect.fnUntraced(function* (
  words: ReadonlyArray<string>,
  how: {
    readonly container: (client: Connection, name: string) => Effect.Effect<AboutContainer, Failure>
    readonly actor: (client: Connection, path: string) => Effect.Effect<{ readonly actor?: Actor | undefined }, Failure>
  }
) {
  const client = yield* Client
  yield* forEach(
    words,
    Effect.fnUntraced(function* (word) {
      const target = yield* Target.resolve(word)
      if (target._tag === "Container") {
        return containerAnswered(word, target.name, yield* how.container(client, target.name))
      }
      const { actor } = yield* how.actor(client, target.path)
      return answered(word, ActorSchema, actor ?? create(ActorSchema, { path: target.path }))
    })
  )
})

/** The argument: one name at least. */
export const containers = Argument.String("NAME").pipe(
  Argument.withDescription("Containers"),
  Argument.variadic({ min: 1 })
)

/** As {@link steer}, of containers alone. */
export const steerContainers = Effect.fnUntraced(function* (
  words: ReadonlyArray<string>,
  how: (client: Connection, name: string) => Effect.Effect<AboutContainer, Failure>
) {
  const client = yield* Client
  yield* forEach(
    words,
    Effect.fnUntraced(function* (word) {
      const name = yield* Target.container(word)
      return containerAnswered(word, name, yield* how(client, name))
    })
  )
})
