/**
 * From what a source says it holds to images that can be stored: chooses the platform, reads manifests and configurations
 * (bounded, each checked against its digest before it is looked at) and makes sure that they fit each other.
 *
 * Trap: several entries of an index may be one image for several platforms, or several images. Entries with the same
 * name, or nameless ones that state different platforms, are alternatives; otherwise each is an image of its own.
 */
import * as Effect from "effect/Effect"
import type { Image } from "./Content.ts"
import {
  BlobCorrupt,
  type BlobMissing,
  DocumentInvalid,
  MediaTypeUnsupported,
  PlatformMissing,
  SourceInvalid,
  type StorageFailed
} from "./ContentError.ts"
import { chainIds, type Digest, finish, hasher } from "./Digest.ts"
import { collect, type ImageSource, type SourceImage } from "./ImageSource.ts"
import {
  type Compression,
  decode,
  type Descriptor,
  imageConfig,
  ImageConfiguration,
  ImageIndex,
  ImageManifest,
  isConfiguration,
  isIndex,
  isManifest,
  layerCompression,
  maximumDocumentBytes,
  type Platform
} from "./OciImage.ts"
import * as Stream from "effect/Stream"

/** An image of a source, read and checked but for its layers. */
export interface ResolvedImage {
  readonly image: Image
  readonly names: ReadonlyArray<string>
  /** Manifest and configuration, as they came. */
  readonly documents: ReadonlyArray<{ readonly digest: Digest; readonly bytes: Uint8Array }>
  /** By position, how each of `image.layers` is packed. */
  readonly compressions: ReadonlyArray<Compression>
}

export type ResolveError =
  | SourceInvalid
  | BlobCorrupt
  | BlobMissing
  | DocumentInvalid
  | MediaTypeUnsupported
  | PlatformMissing
  | StorageFailed

const architectures: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386" }

/** What images for this machine say: Go's names. */
export const hostPlatform: Platform = { os: "linux", architecture: architectures[process.arch] ?? process.arch }

const platformText = (platform: Platform): string =>
  [platform.os, platform.architecture, ...(platform.variant === undefined ? [] : [platform.variant])].join("/")

const runsOn = (platform: Platform, host: Platform): boolean =>
  platform.os === host.os && platform.architecture === host.architecture

/** The specification allows indexes in indexes; nobody needs more than this. */
const maximumIndexDepth = 4

/** The bytes of a manifest, index or configuration: bounded, and exactly those that the descriptor names. */
export const document = Effect.fnUntraced(function* <E>(
  source: ImageSource<E>,
  descriptor: Descriptor,
  field: string
): Effect.fn.Return<Uint8Array, BlobMissing | BlobCorrupt | DocumentInvalid | StorageFailed | E> {
  const { digest, size } = descriptor
  if (size > maximumDocumentBytes) {
    const problem = `its size is given as ${size} bytes, more than the ${maximumDocumentBytes} allowed`
    return yield* new DocumentInvalid({ document: `${field} ${digest}`, problem })
  }
  let count = 0
  const bounded = Stream.takeWhile(source.blob(descriptor, field), (piece) => {
    const wanted = count <= size
    count += piece.length
    return wanted
  })
  const bytes = yield* collect(bounded)
  if (bytes.length !== size) {
    const found = bytes.length > size ? "more" : String(bytes.length)
    return yield* new BlobCorrupt({ digest, problem: `it has ${found} bytes, not the ${size} declared (${field})` })
  }
  const actual = finish(hasher(digest).update(bytes), digest)
  if (actual !== digest) {
    return yield* new BlobCorrupt({ digest, problem: `its bytes have the digest ${actual} (${field})` })
  }
  return bytes
})

/** Attestations and signatures ride along in indexes as manifests for the platform `unknown/unknown`. */
const isImage = (descriptor: Descriptor): boolean =>
  descriptor.platform?.os !== "unknown" && descriptor.annotations?.["vnd.docker.reference.type"] === undefined

/** The alternative for this host: one that states its platform, the plainest variant first; else one that states none. */
const choose = Effect.fnUntraced(function* <A extends { readonly descriptor: Descriptor }>(
  alternatives: ReadonlyArray<A>,
  host: Platform
): Effect.fn.Return<A, PlatformMissing> {
  const stated = alternatives.filter(({ descriptor: { platform } }) => platform !== undefined && runsOn(platform, host))
  const chosen =
    stated.find(({ descriptor }) => descriptor.platform?.variant === undefined) ??
    stated[0] ??
    alternatives.find(({ descriptor }) => descriptor.platform === undefined)
  return (
    chosen ??
    (yield* new PlatformMissing({
      wanted: platformText(host),
      available: alternatives.flatMap(({ descriptor: { platform } }) =>
        platform === undefined ? [] : [platformText(platform)]
      )
    }))
  )
})

/** Follows indexes to the manifest for this host. */
export const manifestOf = Effect.fnUntraced(function* <E>(
  source: ImageSource<E>,
  start: Descriptor,
  startField: string,
  host: Platform
): Effect.fn.Return<{ readonly descriptor: Descriptor; readonly field: string }, ResolveError | E> {
  let descriptor = start
  let field = startField
  for (let depth = 0; ; depth++) {
    if (isManifest(descriptor.mediaType)) return { descriptor, field }
    if (!isIndex(descriptor.mediaType)) {
      return yield* new MediaTypeUnsupported({ digest: descriptor.digest, mediaType: descriptor.mediaType, field })
    }
    const name = `index ${descriptor.digest}`
    if (depth === maximumIndexDepth) {
      return yield* new DocumentInvalid({
        document: name,
        problem: `indexes are nested more than ${maximumIndexDepth} deep`
      })
    }
    const index = yield* decode(ImageIndex, name)(yield* document(source, descriptor, field))
    const chosen = yield* choose(
      index.manifests
        .map((descriptor, position) => ({ descriptor, field: `${name} manifests[${position}]` }))
        .filter(({ descriptor }) => isImage(descriptor)),
      host
    )
    descriptor = chosen.descriptor
    field = chosen.field
  }
})

/** Reads one image: its manifest, its configuration, and whether they fit. */
const read = Effect.fnUntraced(function* <E>(
  source: ImageSource<E>,
  item: SourceImage,
  host: Platform
): Effect.fn.Return<ResolvedImage, ResolveError | E> {
  const { descriptor, field } = yield* manifestOf(source, item.descriptor, item.field, host)
  const manifestName = `manifest ${descriptor.digest}`
  const manifestBytes = yield* document(source, descriptor, field)
  const manifest = yield* decode(ImageManifest, manifestName)(manifestBytes)
  const configName = `configuration ${manifest.config.digest}`
  if (!isConfiguration(manifest.config.mediaType)) {
    return yield* new MediaTypeUnsupported({ ...manifest.config, field: `${manifestName} config` })
  }
  const configBytes = yield* document(source, manifest.config, `${manifestName} config`)
  const configuration = yield* decode(ImageConfiguration, configName)(configBytes)
  const platform: Platform = {
    os: configuration.os,
    architecture: configuration.architecture,
    ...(configuration.variant === undefined ? {} : { variant: configuration.variant })
  }
  if (!runsOn(platform, host)) {
    return yield* new PlatformMissing({ wanted: platformText(host), available: [platformText(platform)] })
  }
  const diffIds = configuration.rootfs.diff_ids ?? []
  if (diffIds.length !== manifest.layers.length) {
    return yield* new DocumentInvalid({
      document: configName,
      problem: `rootfs.diff_ids has ${diffIds.length} items, but the manifest has ${manifest.layers.length} layers`
    })
  }
  const chain = chainIds(diffIds)
  const layers: Array<Image["layers"][number]> = []
  const compressions: Array<Compression> = []
  for (const [position, { digest, mediaType, size }] of manifest.layers.entries()) {
    const layerField = `${manifestName} layers[${position}]`
    const compression = layerCompression(mediaType)
    const diffId = diffIds[position]
    const chainId = chain[position]
    if (compression === undefined || diffId === undefined || chainId === undefined) {
      return yield* new MediaTypeUnsupported({ digest, mediaType, field: layerField })
    }
    layers.push({ digest, mediaType, size, diffId, chainId })
    compressions.push(compression)
  }
  return {
    image: {
      digest: descriptor.digest,
      configDigest: manifest.config.digest,
      platform,
      config: imageConfig(configuration),
      layers,
      size: manifestBytes.length + configBytes.length + layers.reduce((sum, layer) => sum + layer.size, 0),
      ...(configuration.created === undefined ? {} : { created: configuration.created })
    },
    names: item.names,
    documents: [
      { digest: descriptor.digest, bytes: manifestBytes },
      { digest: manifest.config.digest, bytes: configBytes }
    ],
    compressions
  }
})

/** Puts alternatives for several platforms together and chooses among them. */
const distinct = Effect.fnUntraced(function* (images: ReadonlyArray<SourceImage>, host: Platform) {
  const groups = new Map<string, Array<SourceImage>>()
  for (const item of images.filter(({ descriptor }) => isImage(descriptor))) {
    const group =
      item.names[0] ?? (item.descriptor.platform === undefined ? item.descriptor.digest : "(nameless, with a platform)")
    const members = groups.get(group)
    if (members === undefined) groups.set(group, [item])
    else members.push(item)
  }
  return yield* Effect.forEach(groups.values(), (alternatives) =>
    alternatives.length === 1 && alternatives[0] !== undefined
      ? Effect.succeed(alternatives[0])
      : choose(alternatives, host)
  )
})

/** The images of a source, or the one that `select` (a name or a digest) means. */
export const resolve = Effect.fnUntraced(function* <E>(
  source: ImageSource<E>,
  options: { readonly select?: string | undefined; readonly host?: Platform } = {}
): Effect.fn.Return<ReadonlyArray<ResolvedImage>, ResolveError | E> {
  const host = options.host ?? hostPlatform
  const { select } = options
  const wanted =
    select === undefined
      ? source.images
      : source.images.filter(
          ({ descriptor, names }) =>
            descriptor.digest === select || names.includes(select) || names.includes(`${select}:latest`)
        )
  if (wanted.length === 0) {
    const names = source.images.flatMap((item) => item.names)
    return yield* new SourceInvalid({
      path: source.path,
      problem:
        select === undefined
          ? "it holds no image"
          : `it holds no image "${select}"${names.length === 0 ? "" : `, only ${names.slice(0, 20).join(", ")}`}`
    })
  }
  return yield* Effect.forEach(yield* distinct(wanted, host), (item) => read(source, item, host))
})
