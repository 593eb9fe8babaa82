/**
 * The documents of an image as the OCI image specification 1.1 and Docker define them: index, manifest, configuration,
 * and the `manifest.json` of a Docker archive; with the media types that this program takes.
 *
 * All of them come from strangers. `decode` is the only way in: it bounds size and nesting before `JSON.parse`, decodes
 * with the schema, and answers with a `DocumentInvalid` that names the field. Fields that nobody here reads are ignored, as
 * the specification asks.
 *
 * Trap: Go programs write `null` for an empty list or map; such fields decode to "not there".
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { DocumentInvalid } from "./ContentError.ts"
import { Digest } from "./Digest.ts"

export const mediaTypes = {
  index: ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"],
  manifest: ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"],
  configuration: ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"]
} as const

/** How the bytes of a layer are packed. */
export type Compression = "none" | "gzip" | "zstd"

const layerMediaTypes: ReadonlyMap<string, Compression> = new Map([
  ["application/vnd.oci.image.layer.v1.tar", "none"],
  ["application/vnd.oci.image.layer.v1.tar+gzip", "gzip"],
  ["application/vnd.oci.image.layer.v1.tar+zstd", "zstd"],
  ["application/vnd.oci.image.layer.nondistributable.v1.tar", "none"],
  ["application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip"],
  ["application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "zstd"],
  ["application/vnd.docker.image.rootfs.diff.tar", "none"],
  ["application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"],
  ["application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"],
  ["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"]
])

/** The compression that a layer's media type declares; undefined when it is no layer that can be applied. */
export const layerCompression = (mediaType: string): Compression | undefined => layerMediaTypes.get(mediaType)

export const layerMediaType = (compression: Compression): string =>
  `application/vnd.oci.image.layer.v1.tar${compression === "none" ? "" : `+${compression}`}`

const isOneOf = (list: ReadonlyArray<string>, mediaType: string): boolean => list.includes(mediaType)
export const isIndex = (mediaType: string): boolean => isOneOf(mediaTypes.index, mediaType)
export const isManifest = (mediaType: string): boolean => isOneOf(mediaTypes.manifest, mediaType)
export const isConfiguration = (mediaType: string): boolean => isOneOf(mediaTypes.configuration, mediaType)

/** An optional field whose JSON may also be `null`, meaning the same as absent. */
const optional = <S extends Schema.Top>(schema: S) =>
  Schema.optionalKey(Schema.NullOr(schema)).pipe(
    Schema.decodeTo(
      Schema.optionalKey(Schema.toType(schema)),
      SchemaTransformation.transformOptional({
        decode: Option.filter((value) => value !== null),
        encode: (value) => value
      })
    )
  )

const Text = Schema.String.pipe(Schema.check(Schema.isMaxLength(65_536)))
const TextMap = Schema.Record(Schema.String, Text)
/** Go's `map[string]struct{}`: a set. Only the keys count. */
const TextSet = Schema.Record(Schema.String, Schema.Unknown)
const Size = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })))

/** What an image was made for. */
export const Platform = Schema.Struct({
  architecture: Text,
  os: Text,
  variant: optional(Text)
})
export type Platform = typeof Platform.Type

/** A reference to a blob: type, digest and size in bytes. */
export const Descriptor = Schema.Struct({
  mediaType: Text,
  digest: Digest,
  size: Size,
  annotations: optional(TextMap),
  platform: optional(Platform)
})
export type Descriptor = typeof Descriptor.Type

/** An image index (`index.json` of a layout, a manifest list): alternatives by platform or by name. */
export const ImageIndex = Schema.Struct({
  schemaVersion: Schema.Literal(2),
  mediaType: optional(Text),
  manifests: Schema.Array(Descriptor).pipe(Schema.check(Schema.isMaxLength(1024)))
})
export type ImageIndex = typeof ImageIndex.Type

/** The most layers an image may have: Docker's own limit, and what the overlay mount options have room for. */
export const maximumLayers = 127

/** One image for one platform. */
export const ImageManifest = Schema.Struct({
  schemaVersion: Schema.Literal(2),
  mediaType: optional(Text),
  config: Descriptor,
  layers: Schema.Array(Descriptor).pipe(Schema.check(Schema.isMaxLength(maximumLayers)))
})
export type ImageManifest = typeof ImageManifest.Type

/** The part of an image's configuration that says how to run it; field names as in the specification, in camel case. */
export const ImageConfig = Schema.Struct({
  entrypoint: Schema.Array(Schema.String),
  cmd: Schema.Array(Schema.String),
  /** `NAME=value`, in order. */
  env: Schema.Array(Schema.String),
  /** `user`, `uid`, `user:group`, `uid:gid`… as in the specification; "" when not set. */
  user: Schema.String,
  /** "" when not set. */
  workingDir: Schema.String,
  /** As the image says it (`SIGTERM`, `15`); "" when not set. */
  stopSignal: Schema.String,
  /** Mount points that want a volume. */
  volumes: Schema.Array(Schema.String),
  /** `port/protocol`. */
  exposedPorts: Schema.Array(Schema.String),
  labels: Schema.Record(Schema.String, Schema.String)
})
export type ImageConfig = typeof ImageConfig.Type

const TextList = Schema.Array(Text).pipe(Schema.check(Schema.isMaxLength(4096)))

/** The configuration blob. */
export const ImageConfiguration = Schema.Struct({
  architecture: Text,
  os: Text,
  variant: optional(Text),
  /** RFC 3339. */
  created: optional(Text),
  config: optional(
    Schema.Struct({
      User: optional(Text),
      ExposedPorts: optional(TextSet),
      Env: optional(TextList),
      Entrypoint: optional(TextList),
      Cmd: optional(TextList),
      Volumes: optional(TextSet),
      WorkingDir: optional(Text),
      Labels: optional(TextMap),
      StopSignal: optional(Text)
    })
  ),
  rootfs: Schema.Struct({
    type: Schema.Literal("layers"),
    diff_ids: optional(Schema.Array(Digest).pipe(Schema.check(Schema.isMaxLength(maximumLayers))))
  })
})
export type ImageConfiguration = typeof ImageConfiguration.Type

/** `manifest.json` of a Docker archive (`docker save`): one item per image. */
export const DockerArchiveManifest = Schema.Array(
  Schema.Struct({ Config: Text, RepoTags: optional(TextList), Layers: optional(TextList) })
).pipe(Schema.check(Schema.isMaxLength(1024)))
export type DockerArchiveManifest = typeof DockerArchiveManifest.Type

/** `oci-layout`. */
export const LayoutMarker = Schema.Struct({ imageLayoutVersion: Schema.Literal("1.0.0") })

/** The run part of a configuration blob, with every field there. */
export const imageConfig = (configuration: ImageConfiguration): ImageConfig => {
  const config = configuration.config
  return {
    entrypoint: config?.Entrypoint ?? [],
    cmd: config?.Cmd ?? [],
    env: config?.Env ?? [],
    user: config?.User ?? "",
    workingDir: config?.WorkingDir ?? "",
    stopSignal: config?.StopSignal ?? "",
    volumes: Object.keys(config?.Volumes ?? {}),
    exposedPorts: Object.keys(config?.ExposedPorts ?? {}),
    labels: config?.Labels ?? {}
  }
}

/** The most bytes that any of these documents may have (registries and containerd have limits of the same size). */
export const maximumDocumentBytes = 4 * 1024 * 1024
const maximumNesting = 32

/** The deepest nesting of brackets outside of strings: known before anything recursive touches the text. */
const nesting = (bytes: Uint8Array): number => {
  let depth = 0
  let deepest = 0
  let quoted = false
  for (let index = 0; index < bytes.length; index++) {
    const byte = bytes[index]
    if (quoted) {
      if (byte === 0x5c) index++
      else if (byte === 0x22) quoted = false
    } else if (byte === 0x22) quoted = true
    else if (byte === 0x7b || byte === 0x5b) deepest = Math.max(deepest, ++depth)
    else if (byte === 0x7d || byte === 0x5d) depth--
  }
  return deepest
}

/** Decodes a document of an image; `document` is what the error calls it. */
export const decode = <A, I>(schema: Schema.Codec<A, I>, document: string) => {
  const decodeValue = Schema.decodeUnknownEffect(schema, { errors: "all" })
  return Effect.fnUntraced(function* (bytes: Uint8Array): Effect.fn.Return<A, DocumentInvalid> {
    const invalid = (problem: string) => new DocumentInvalid({ document, problem: problem.slice(0, 2000) })
    if (bytes.length > maximumDocumentBytes) {
      return yield* invalid(`it has ${bytes.length} bytes, more than the ${maximumDocumentBytes} allowed`)
    }
    const depth = nesting(bytes)
    if (depth > maximumNesting)
      return yield* invalid(`it is nested ${depth} deep, more than the ${maximumNesting} allowed`)
    const value = yield* Effect.try({
      try: (): unknown => JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)),
      catch: (cause) => invalid(cause instanceof Error ? cause.message : "it is not JSON")
    })
    return yield* decodeValue(value).pipe(Effect.mapError((error) => invalid(error.message)))
  })
}
