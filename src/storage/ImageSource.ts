/**
 * Where images come from: an OCI layout directory, an OCI archive, a Docker archive (`docker save`), or both in one file as
 * newer Dockers write; an archive may be packed with gzip or zstd as a whole. All become the same thing: named manifests, and
 * blobs by digest. A registry is one more such source (`registry/RegistrySource.ts`).
 *
 * Archives are indexed, not unpacked: one pass over the headers, then blobs are read where they lie. A Docker archive has
 * no manifest of the OCI kind; one is made from its `manifest.json`, with each layer named by the digest of its bytes, so the
 * same archive always gives the same image.
 *
 * Trap: nothing here is verified against its digest. Who reads a blob does that (`Blobs.receive`, `Content`).
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { sniff } from "./Compression.ts"
import { BlobMissing, DocumentInvalid, SourceInvalid, type StorageFailed } from "./ContentError.ts"
import { Digest, ofBytes, parts } from "./Digest.ts"
import * as Files from "./Files.ts"
import {
  decode,
  type Descriptor,
  DockerArchiveManifest,
  ImageConfiguration,
  ImageIndex,
  layerMediaType,
  LayoutMarker,
  maximumDocumentBytes,
  mediaTypes
} from "./OciImage.ts"
import { familiar } from "./Reference.ts"
import { archiveTree, directoryTree, type SourceTree, unpacked } from "./SourceTree.ts"
import { fromBinary } from "./Tar.ts"

/** What a source says it holds: a manifest or an index of manifests, and the names it gives it. */
export interface SourceImage {
  readonly descriptor: Descriptor
  readonly names: ReadonlyArray<string>
  /** Where it stands, for errors: `index.json manifests[0]`. */
  readonly field: string
}

/** `E`: what reading it can fail with besides what a source on this host's own disk can. */
export interface ImageSource<E = never> {
  readonly path: string
  readonly images: ReadonlyArray<SourceImage>
  /** The bytes of a blob; `field` says for the error who asked for it. */
  readonly blob: (
    descriptor: Pick<Descriptor, "digest" | "mediaType">,
    field: string
  ) => Stream.Stream<Uint8Array, BlobMissing | StorageFailed | E>
}

/** All bytes of a stream that is known to be short. */
export const collect = <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Effect.Effect<Uint8Array, E, R> =>
  Effect.map(Stream.runCollect(stream), (pieces) => Buffer.concat([...pieces]))

/** A document of the source by name; undefined when there is none. */
const document = Effect.fnUntraced(function* (
  tree: SourceTree,
  name: string
): Effect.fn.Return<Uint8Array | undefined, DocumentInvalid | StorageFailed> {
  const found = yield* tree.find(name)
  if (found === undefined) return undefined
  if (found.size > maximumDocumentBytes) {
    return yield* new DocumentInvalid({
      document: name,
      problem: `it has ${found.size} bytes, more than the ${maximumDocumentBytes} allowed`
    })
  }
  return yield* collect(found.read())
})

/** The name that an entry of `index.json` has; a bare tag is put behind the source's own name. */
const nameOf = (descriptor: Descriptor, sourceName: string): string | undefined => {
  const full = descriptor.annotations?.["io.containerd.image.name"]
  if (full !== undefined) return familiar(full)
  const reference = descriptor.annotations?.["org.opencontainers.image.ref.name"]
  if (reference === undefined) return undefined
  return /[:/@]/.test(reference) ? familiar(reference) : `${sourceName}:${reference}`
}

const layout = Effect.fnUntraced(function* (tree: SourceTree, source: string, marker: Uint8Array) {
  yield* decode(LayoutMarker, "oci-layout")(marker)
  const index = yield* document(tree, "index.json")
  if (index === undefined) return yield* new SourceInvalid({ path: source, problem: "it has no index.json" })
  const { manifests } = yield* decode(ImageIndex, "index.json")(index)
  const sourceName = path
    .basename(source)
    .replace(/\.(?:tar|oci|tgz|gz|zst)(?:\.(?:gz|zst))?$/, "")
    .toLowerCase()
  const images = manifests.map((descriptor, position): SourceImage => {
    const name = nameOf(descriptor, sourceName)
    return { descriptor, names: name === undefined ? [] : [name], field: `index.json manifests[${position}]` }
  })
  const blob: ImageSource["blob"] = ({ digest }, field) =>
    Stream.unwrap(
      Effect.gen(function* () {
        const { algorithm, hex } = parts(digest)
        const found = yield* tree.find(`blobs/${algorithm}/${hex}`)
        return found === undefined ? yield* new BlobMissing({ digest, source, field }) : found.read()
      })
    )
  return { path: source, images, blob } satisfies ImageSource
})

/** A Docker archive: its manifest.json as OCI manifests, made on the spot. */
const docker = Effect.fnUntraced(function* (tree: SourceTree, source: string, manifest: Uint8Array) {
  const items = yield* decode(DockerArchiveManifest, "manifest.json")(manifest)
  const made = new Map<Digest, Uint8Array>()
  const files = new Map<Digest, string>()
  const images: Array<SourceImage> = []
  for (const [position, item] of items.entries()) {
    const field = `manifest.json [${position}]`
    const missing = (name: string, what: string) =>
      new BlobMissing({ digest: fromBinary(name), source, field: `${field}.${what}` })
    const configBytes = yield* document(tree, item.Config)
    if (configBytes === undefined) return yield* missing(item.Config, "Config")
    const configuration = yield* decode(ImageConfiguration, `configuration ${fromBinary(item.Config)}`)(configBytes)
    const config = { mediaType: mediaTypes.configuration[0], digest: ofBytes(configBytes), size: configBytes.length }
    made.set(config.digest, configBytes)
    const layers: Array<Descriptor> = []
    for (const [index, name] of (item.Layers ?? []).entries()) {
      const found = yield* tree.find(name)
      if (found === undefined) return yield* missing(name, `Layers[${index}]`)
      const compression = sniff(yield* collect(found.read(4)))
      const diffId = configuration.rootfs.diff_ids?.[index]
      // A plain tar's digest is its diff id; only packed layers must be read to know theirs.
      const digest = compression === "none" && diffId !== undefined ? diffId : yield* hashOf(found.read())
      files.set(digest, name)
      layers.push({ mediaType: layerMediaType(compression), digest, size: found.size })
    }
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.manifest[0], config, layers }))
    const descriptor: Descriptor = { mediaType: mediaTypes.manifest[0], digest: ofBytes(bytes), size: bytes.length }
    made.set(descriptor.digest, bytes)
    images.push({ descriptor, names: (item.RepoTags ?? []).map(familiar), field })
  }
  const blob: ImageSource["blob"] = ({ digest }, field) =>
    Stream.unwrap(
      Effect.gen(function* () {
        const bytes = made.get(digest)
        if (bytes !== undefined) return Stream.succeed(bytes)
        const name = files.get(digest)
        const found = name === undefined ? undefined : yield* tree.find(name)
        return found === undefined ? yield* new BlobMissing({ digest, source, field }) : found.read()
      })
    )
  return { path: source, images, blob } satisfies ImageSource
})

const hashOf = <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Effect.Effect<Digest, E, R> =>
  Effect.suspend(() => {
    const hash = createHash("sha256")
    return Effect.map(
      Stream.runForEach(stream, (bytes) => Effect.sync(() => void hash.update(bytes))),
      () => Digest.make(`sha256:${hash.digest("hex")}`)
    )
  })

/** In a file that is both kinds at once, Docker's manifest.json has all names of its one image; index.json has one. */
const withDockerNames = Effect.fnUntraced(function* (source: ImageSource, manifest: Uint8Array) {
  const items = yield* decode(DockerArchiveManifest, "manifest.json")(manifest)
  const only = source.images.length === 1 ? source.images[0] : undefined
  const item = items.length === 1 ? items[0] : undefined
  if (only === undefined || item?.RepoTags === undefined || item.RepoTags.length === 0) return source
  return { ...source, images: [{ ...only, names: item.RepoTags.map(familiar) }] }
})

/** Opens whatever `source` is. Files made on the way lie in `temporary` and go with the scope. */
export const open = Effect.fnUntraced(function* (
  source: string,
  temporary: string
): Effect.fn.Return<ImageSource, SourceInvalid | DocumentInvalid | BlobMissing | StorageFailed, Scope.Scope> {
  const invalid = (problem: string) => new SourceInvalid({ path: source, problem })
  const stat = yield* Files.ifThere(Files.attempt("stat", source, () => fs.stat(source)))
  if (stat === undefined) return yield* invalid("there is no such file or directory")
  if (!stat.isDirectory() && !stat.isFile()) return yield* invalid("it is neither a directory nor a regular file")
  let tree: SourceTree = directoryTree(source)
  if (stat.isFile()) {
    const compression = sniff(yield* collect(Files.read(source, { length: Math.min(4, stat.size) })))
    tree = yield* archiveTree(compression === "none" ? source : yield* unpacked(source, compression, temporary), source)
  }
  const marker = yield* document(tree, "oci-layout")
  const manifest = yield* document(tree, "manifest.json")
  if (marker !== undefined) {
    const found = yield* layout(tree, source, marker)
    return manifest === undefined ? found : yield* withDockerNames(found, manifest)
  }
  if (manifest !== undefined) return yield* docker(tree, source, manifest)
  return yield* invalid("it has neither oci-layout (an OCI layout or archive) nor manifest.json (a Docker archive)")
})
