/**
 * A content store for tests: a real taproot, a real `State`, `Content`, `Layers` and `Rootfs` in a directory on tmpfs that goes with the
 * scope. `Store.directory` is where it lives; beside the store there is room for the test's own files.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Coming } from "../../src/storage/Blobs.ts"
import { Content } from "../../src/storage/Content.ts"
import * as ContentLive from "../../src/storage/ContentLive.ts"
import type { LayerLimits } from "../../src/storage/LayerFilter.ts"
import { usualSettings } from "../../src/storage/registry/RegistrySettings.ts"
import * as RootfsLive from "../../src/storage/RootfsLive.ts"
import * as State from "../../src/storage/State.ts"
import { buildImage, type LayerInput, writeLayout } from "./images.ts"
import * as Taproot from "./taproot.ts"

export class Store extends Context.Service<Store, { readonly directory: string }>()("ironwood/test/support/Store") {}

/** A directory on tmpfs, removed with the scope. */
export const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync("/dev/shm/ironwood-store-")),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** These bytes as a blob; of `size` there may be more that have not come, which `rest` waits for. */
export const coming = <E = never>(
  bytes: Uint8Array,
  { rest, size }: { readonly rest: Effect.Effect<number, E>; readonly size: number } = {
    rest: Effect.never,
    size: bytes.length
  }
): Effect.Effect<Coming<E>, never, Scope.Scope> =>
  Effect.map(scratch, (directory) => {
    const file = join(directory, "blob")
    writeFileSync(file, bytes)
    return {
      file,
      size,
      beyond: (position) => (position < bytes.length ? Effect.succeed(bytes.length) : rest)
    }
  })

/** An image of these layers, imported under this name. */
export const importImage = Effect.fnUntraced(function* (name: string, layers: ReadonlyArray<LayerInput>) {
  const { directory } = yield* Store
  const path = join(directory, `layout-${name}`)
  writeLayout(path, [{ image: buildImage({ layers }), name: `${name}:latest` }])
  const [image] = yield* (yield* Content).importFrom(path)
  if (image === undefined) return yield* Effect.die(new Error("nothing was imported"))
  return image
})

/** `Content`, `Layers` and `State` in this directory; without `Rootfs`, it may be one that only taproot's namespace has. */
export const images = (directory: string, limits: Partial<LayerLimits> = {}, registries = usualSettings) =>
  ContentLive.layer({ directory: join(directory, "content"), limits: () => limits, registries: () => registries }).pipe(
    Layer.provideMerge(State.layer({ path: join(directory, "state.db") })),
    Layer.provideMerge(Layer.succeed(Store, Store.of({ directory })))
  )

/**
 * A store in this directory, on the taproot that is there. Provide it with `{ local: true }`; a second one, after the first
 * is closed, is what a restart of the brain is.
 */
export const inDirectory = (directory: string, limits: Partial<LayerLimits> = {}, registries = usualSettings) =>
  Layer.provideMerge(
    RootfsLive.layer({ directory: join(directory, "runtime/rootfs") }),
    images(directory, limits, registries)
  )

/** A store in a directory of its own, with a taproot of its own. */
export const layer = (limits: Partial<LayerLimits> = {}, registries = usualSettings) =>
  Layer.unwrap(
    Effect.map(scratch, (directory) => Layer.provideMerge(inDirectory(directory, limits, registries), Taproot.layer()))
  )
