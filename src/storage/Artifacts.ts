/**
 * Artifacts: what registries hold besides container images, such as the disks of virtual machines. One layer of an artifact is fetched as a
 * blob, by the same client and the same checks as images, and handed on to whoever makes something of it.
 *
 * What was made has an owner, by whose name the blob stays until it is released: another machine with the same disk needs no
 * registry. That there is such a note also says that something was made once.
 *
 * Trap: a blob that nothing could be made of stays until the next clean-up, so that the next try does not fetch it again.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Blobs } from "./Blobs.ts"
import type { BlobCorrupt, BlobMissing, ReferenceInvalid, StorageFailed } from "./ContentError.ts"
import { Digest } from "./Digest.ts"
import { noConflict } from "./ImageImport.ts"
import { document, hostPlatform, manifestOf, type ResolveError } from "./ImageResolver.ts"
import type { KeyedLock } from "./KeyedLock.ts"
import { decode, type Descriptor, ImageManifest } from "./OciImage.ts"
import type { Repository } from "./registry/RegistryClient.ts"
import type { RegistryError } from "./registry/RegistryError.ts"
import * as RegistrySource from "./registry/RegistrySource.ts"
import * as RemoteName from "./registry/RemoteName.ts"
import type { State } from "./State.ts"
import type { StateFailure, StateValueInvalid } from "./StateErrors.ts"

/** A layer that is here. */
export interface Layer extends Descriptor {
  /** A name by which it can be opened while it is in use. */
  readonly file: string
}

export interface Wanted<A, E, E2> {
  /** `registry/name:tag` or `registry/name@digest`. */
  readonly reference: string
  /** Who has what is made of it. */
  readonly owner: string
  /** Which of its layers. */
  readonly choose: (layers: ReadonlyArray<Descriptor>) => Effect.Effect<Descriptor, E>
  /** Makes something of it. */
  readonly use: (layer: Layer) => Effect.Effect<A, E2>
}

export type ArtifactError =
  | RegistryError
  | ResolveError
  | BlobCorrupt
  | BlobMissing
  | ReferenceInvalid
  | StorageFailed
  | StateFailure
  | StateValueInvalid

export interface Artifacts {
  /** Fetches a layer unless it is here, and has it used; nobody takes it meanwhile, and once it was used, before `release`. */
  readonly use: <A, E, E2>(wanted: Wanted<A, E, E2>) => Effect.Effect<A, ArtifactError | E | E2>
  /** Whether something was made for this owner. */
  readonly isUsed: (owner: string) => Effect.Effect<boolean, StateValueInvalid>
  /** Of all owners whose names begin so. */
  readonly release: (prefix: string) => Effect.Effect<void, StateFailure | StateValueInvalid>
}

/** What the store lends. */
export interface Lent {
  readonly state: State["Service"]
  readonly blobs: Blobs
  readonly locks: KeyedLock
  readonly pinned: <A, E, R>(keys: ReadonlyArray<string>, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly repository: (name: RemoteName.RemoteName) => Effect.Effect<Repository>
}

/** As it is stored, by owner. A field that is added later needs a default for decoding. */
const Use = Schema.Struct({ blob: Digest })

export const make = Effect.fnUntraced(function* ({ blobs, locks, pinned, repository, state }: Lent) {
  const uses = yield* state.collection("artifact", Use)

  const use = Effect.fnUntraced(function* <A, E, E2>({
    choose,
    owner,
    reference,
    use: used
  }: Wanted<A, E, E2>): Effect.fn.Return<A, ArtifactError | E | E2> {
    const name = yield* RemoteName.parse(reference)
    const from = yield* repository(name)
    const found = yield* from.find
    const source = RegistrySource.make(from, name, found)
    const { descriptor, field } = yield* manifestOf(source, found.descriptor, reference, hostPlatform)
    const bytes = yield* document(source, descriptor, field)
    const manifest = yield* decode(ImageManifest, `manifest ${descriptor.digest}`)(bytes)
    const layer = yield* choose(manifest.layers)
    const { digest, size } = layer
    const receive = Effect.gen(function* () {
      if (yield* blobs.has(digest, size)) return
      yield* blobs.receive(digest, size, source.blob(layer, `manifest ${descriptor.digest} layers`), () => Effect.void)
    })
    const work = Effect.gen(function* () {
      yield* locks.withLock(digest)(receive)
      const { file } = yield* blobs.open(digest, size)
      const made = yield* used({ ...layer, file })
      yield* noConflict(uses.put(owner, { blob: digest }))
      return made
    })
    return yield* pinned([digest], Effect.scoped(work))
  })

  return {
    use,
    isUsed: (owner: string) => Effect.map(uses.get(owner), Option.isSome),
    release: (prefix: string) =>
      Effect.gen(function* () {
        for (const { name } of (yield* uses.partition).records) {
          if (name.startsWith(prefix)) yield* noConflict(uses.remove(name))
        }
      }),
    /** Blobs that stay. */
    kept: Effect.map(uses.partition, ({ records }) => records.map(({ value }) => value.blob))
  }
})
