/**
 * What tests of imports share: a simple image, importing it from files or bytes below the store's directory, what the
 * store holds afterwards, and a test that has a store.
 */
import { it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Content, type ImportOptions } from "../../src/storage/Content.ts"
import type { Layers } from "../../src/storage/Layers.ts"
import type { Processes } from "../../src/taproot/Processes.ts"
import { buildImage, type BuiltImage, directory, file, layoutFiles, type NamedImage, writeFiles } from "./images.ts"
import * as Store from "./store.ts"
import type * as Taproot from "./taproot.ts"

export const simple = (text = "hello"): BuiltImage =>
  buildImage({ layers: [[directory("etc"), file("etc/motd", text)]], config: { Cmd: ["/bin/true"] } })

/** A path for the test's own files. */
export const own = (name: string) => Effect.map(Store.Store, (store) => join(store.directory, name))

export const fromFiles = Effect.fnUntraced(function* (files: ReadonlyMap<string, Uint8Array>, options?: ImportOptions) {
  const path = yield* own("source")
  rmSync(path, { recursive: true, force: true })
  writeFiles(path, files)
  return yield* (yield* Content).importFrom(path, options)
})

export const fromBytes = Effect.fnUntraced(function* (name: string, bytes: Uint8Array, options?: ImportOptions) {
  const path = yield* own(name)
  writeFileSync(path, bytes)
  return yield* (yield* Content).importFrom(path, options)
})

export const fromImages = (images: ReadonlyArray<NamedImage>, options?: ImportOptions) =>
  fromFiles(layoutFiles(images), options)

/** Everything in the store but its directories: what a failed import must not change. */
export const stored = Effect.map(Store.Store, ({ directory: home }) =>
  ["content/blobs/sha256", "content/blobs/sha512", "content/layers", "content/temporary"]
    .flatMap((name) => readdirSync(join(home, name)).map((entry) => `${name}/${entry}`))
    .filter((entry) => !entry.includes("/empty-"))
)

/** A test with a store of its own. */
export const test = <A, E>(
  name: string,
  effect: Effect.Effect<A, E, Content | Layers | Store.Store | Processes | Taproot.Taproot>
) => it.live(name, () => effect.pipe(Effect.provide(Store.layer())))

/** Where a blob lies in an OCI layout. */
export const blobPath = (digest: string) => `blobs/${digest.replace(":", "/")}`
