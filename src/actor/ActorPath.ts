/**
 * The name of an actor: where it hangs in the tree.
 *
 * A path is the ids from the root down, joined by `/`; the root is `init`, so a container's actor is
 * `init/runtime/<sandbox>/<container>`. A path names a *place*, not a life: it stays the same over all incarnations.
 *
 * Traps: an id holds no slash and is not empty, or the path could not be taken apart again. `kind` says what an actor
 * is; the path does not repeat it.
 */
import type * as Brand from "effect/Brand"
import * as Schema from "effect/Schema"

/** Schema of a path: non-empty segments joined by `/`. */
export const ActorPath = Schema.String.pipe(
  Schema.check(Schema.isPattern(/^[^/]+(\/[^/]+)*$/)),
  Schema.brand("ActorPath")
)

/** Where an actor hangs in the tree, e.g. `init/storage/state`. */
export type ActorPath = string & Brand.Brand<"ActorPath">

const isActorPath = (text: string): text is ActorPath => text.length > 0

/** True when `id` may be a segment of a path: not empty, no slash. */
export const isId = (id: string): boolean => id.length > 0 && !id.includes("/")

/** The path of a root actor. Dies when `id` is no id: a spec is code, so a wrong one is a bug. */
export const root = (id: string): ActorPath => {
  if (isId(id) && isActorPath(id)) return id
  throw new TypeError(`actor id ${JSON.stringify(id)} must be a non-empty string without "/"`)
}

/** The path of the child `id` below `parent`. The caller has checked `id` with {@link isId}. */
export const child = (parent: ActorPath, id: string): ActorPath => {
  const path = `${parent}/${id}`
  if (isActorPath(path)) return path
  throw new TypeError("unreachable: a path below another is never empty")
}

/** The last segment: the actor's id among its siblings. */
export const id = (path: ActorPath): string => path.slice(path.lastIndexOf("/") + 1)

/** The path of the supervisor above, or `undefined` for the root. */
export const parent = (path: ActorPath): ActorPath | undefined => {
  const cut = path.lastIndexOf("/")
  if (cut < 0) return undefined
  const above = path.slice(0, cut)
  return isActorPath(above) ? above : undefined
}
