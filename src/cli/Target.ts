/**
 * From what a person types to what the API wants: an actor by its path or, shorter, by a name that only one has.
 *
 * `web` is the container of that name; failing that, the one actor whose last segment it is (`grpc` =
 * `init/gateway/grpc`). Anything with a slash, and `init`, is a path. A name nobody has is an error that says the nearest one.
 */
import * as Effect from "effect/Effect"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { type Actor, ProcessSelection, TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "./ActorText.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import { exitCodes } from "./ExitCode.ts"
import { failure } from "./Failure.ts"
import * as Listing from "./Listing.ts"
import { nearest } from "./Suggest.ts"

/** What was meant. */
export type Target =
  | { readonly _tag: "Container"; readonly name: string }
  | { readonly _tag: "Actor"; readonly path: string }

/** All actors at and below a path (empty: all), the pages put together, with the revision of the last one. */
export const allActors = Effect.fnUntraced(function* (path: string, processes = ProcessSelection.UNSPECIFIED) {
  const client = yield* Client
  const actors: Array<Actor> = []
  let pageToken = ""
  for (;;) {
    const page = yield* client.call(TreeService.method.getTree, { path, pageToken, processes })
    actors.push(...page.actors)
    if (page.nextPageToken === "") return { actors, revision: page.revision }
    pageToken = page.nextPageToken
  }
})

/** All containers, the pages put together. */
export const allContainers = Effect.fnUntraced(function* (
  filter: { readonly sandbox?: string; readonly labels?: Record<string, string> } = {}
) {
  const client = yield* Client
  return yield* Listing.allPages(
    (pageToken) => client.call(ContainerService.method.listContainers, { ...filter, pageToken }),
    (page) => page.containers
  )
})

const isPath = (word: string): boolean => word.includes("/") || word === "init"

/** A sentence like `did you mean "web"?`, and where to look. */
const advice = (word: string, candidates: Iterable<string>, list: string): string => {
  const near = nearest(word, candidates)
  return near === undefined ? `\`${list}\` shows what there is` : `Did you mean "${near}"? \`${list}\` shows all`
}

const noSuchPath = Effect.fnUntraced(function* (path: string) {
  const { actors } = yield* allActors("")
  return yield* failure(`no actor has the path "${path}"`, {
    exitCode: exitCodes.notFound,
    next: advice(
      path,
      actors.map((actor) => actor.path),
      "ironwood tree"
    )
  })
})

/** The actor of a path, or a failure that names the nearest path. */
export const actorOf = Effect.fnUntraced(function* (path: string) {
  const client = yield* Client
  const { actor } = yield* client
    .call(TreeService.method.getActor, { path })
    .pipe(orElseStatus(status.notFound, () => noSuchPath(path)))
  return actor ?? (yield* noSuchPath(path))
})

/** Whoever the word means; see the head of this file. */
export const resolve = Effect.fnUntraced(function* (word: string) {
  const client = yield* Client
  if (isPath(word)) {
    const actor = yield* actorOf(word)
    const target: Target =
      actor.kind === "container"
        ? { _tag: "Container", name: ActorText.idOf(actor.path) }
        : { _tag: "Actor", path: actor.path }
    return target
  }
  const found = yield* client.call(ContainerService.method.getContainer, { name: word }).pipe(
    Effect.as(true),
    orElseStatus(status.notFound, () => Effect.succeed(false))
  )
  if (found) return { _tag: "Container", name: word } satisfies Target
  const { actors } = yield* allActors("")
  const same = actors.filter((actor) => ActorText.idOf(actor.path) === word)
  const [only, other] = same
  if (only !== undefined && other === undefined) return { _tag: "Actor", path: only.path } satisfies Target
  if (only !== undefined) {
    return yield* failure(`"${word}" is the name of several actors`, {
      exitCode: exitCodes.usage,
      details: same.map((actor) => actor.path),
      next: "Say which by its path"
    })
  }
  return yield* failure(`no container or actor is named "${word}"`, {
    exitCode: exitCodes.notFound,
    next: advice(word, new Set(actors.map((actor) => ActorText.idOf(actor.path))), "ironwood tree")
  })
})

/** The name of the container the word means; a failure when it means something else. */
export const container = Effect.fnUntraced(function* (word: string) {
  if (isPath(word)) {
    const target = yield* resolve(word)
    if (target._tag === "Container") return target.name
    return yield* failure(`${target.path} is not a container`, {
      exitCode: exitCodes.usage,
      next: "`ironwood ps -a` lists the containers"
    })
  }
  const client = yield* Client
  return yield* client.call(ContainerService.method.getContainer, { name: word }).pipe(
    Effect.as(word),
    orElseStatus(status.notFound, () =>
      Effect.flatMap(allContainers(), (containers) =>
        failure(`no container is named "${word}"`, {
          exitCode: exitCodes.notFound,
          next: advice(
            word,
            containers.flatMap(({ spec }) => (spec === undefined ? [] : [spec.name])),
            "ironwood ps -a"
          )
        })
      )
    )
  )
})

const pathOfContainer = Effect.fnUntraced(function* (name: string) {
  const client = yield* Client
  const { container } = yield* client.call(ContainerService.method.getContainer, { name })
  return container?.actorPath ?? ""
})

/** The path of whoever the word means; see {@link resolve}. */
export const pathOf = Effect.fnUntraced(function* (word: string) {
  const target = yield* resolve(word)
  return target._tag === "Actor" ? target.path : yield* pathOfContainer(target.name)
})
