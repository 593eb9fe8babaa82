/**
 * Builds container images out of nothing: layers with arbitrary tar entries (hostile ones too), OCI layouts, OCI archives
 * and Docker archives. Deterministic: the same input gives the same bytes.
 *
 * Use: `const image = buildImage({ layers: [[file("etc/motd", "hi")]], config: { Cmd: ["/bin/sh"] } })`, then
 * `writeLayout(directory, [{ image, name: "hello:latest" }])`, `ociArchive([...])` or `dockerArchive([...])`.
 *
 * Trap: nothing is checked here. A digest is right unless `buildImage` was told otherwise; an entry is what you say.
 */
import { createHash } from "node:crypto"
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { paddingAfter, type TarEntry, toBinary } from "../../src/storage/Tar.ts"
import { encodeEntry, endOfArchive } from "../../src/storage/TarWriter.ts"

/** A tar entry with its content, or bytes that go into the archive as they are. */
export type LayerEntry = { readonly entry: TarEntry; readonly content: Uint8Array } | { readonly raw: Uint8Array }

/** What an entry may say besides name and type. `name` and `linkName` are texts here; use `binaryName` for bytes that are no UTF-8. */
export interface EntryOptions {
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly seconds?: number
  readonly nanoseconds?: number
  readonly xattrs?: Readonly<Record<string, Uint8Array | string>>
}

const make = (
  name: string,
  type: TarEntry["type"],
  options: EntryOptions,
  rest: Partial<TarEntry>,
  content: Uint8Array = new Uint8Array()
): LayerEntry => ({
  entry: {
    name: toBinary(name),
    type,
    mode: options.mode ?? (type === "directory" ? 0o755 : 0o644),
    uid: options.uid ?? 0,
    gid: options.gid ?? 0,
    size: content.length,
    modified: { seconds: options.seconds ?? 1_000_000_000, nanoseconds: options.nanoseconds ?? 0 },
    linkName: "",
    major: 0,
    minor: 0,
    xattrs: new Map(Object.entries(options.xattrs ?? {}).map(([key, value]) => [key, Buffer.from(value)])),
    ...rest
  },
  content
})

export const file = (name: string, content: Uint8Array | string = "", options: EntryOptions = {}): LayerEntry =>
  make(name, "file", options, {}, Buffer.from(content))
export const directory = (name: string, options: EntryOptions = {}): LayerEntry =>
  make(name.endsWith("/") ? name : `${name}/`, "directory", options, {})
export const symlink = (name: string, target: string, options: EntryOptions = {}): LayerEntry =>
  make(name, "symlink", { mode: 0o777, ...options }, { linkName: toBinary(target) })
export const hardlink = (name: string, target: string, options: EntryOptions = {}): LayerEntry =>
  make(name, "hardlink", options, { linkName: toBinary(target) })
export const device = (
  name: string,
  type: "character" | "block",
  major: number,
  minor: number,
  options: EntryOptions = {}
): LayerEntry => make(name, type, options, { major, minor })
export const fifo = (name: string, options: EntryOptions = {}): LayerEntry => make(name, "fifo", options, {})
/** `.wh.NAME` for a path: takes it away from the layers below. */
export const whiteout = (path: string): LayerEntry => {
  const slash = path.lastIndexOf("/") + 1
  return file(`${path.slice(0, slash)}.wh.${path.slice(slash)}`)
}
/** Hides everything that lower layers have in a directory. */
export const opaque = (path: string): LayerEntry => file(path === "" ? ".wh..wh..opq" : `${path}/.wh..wh..opq`)
export const raw = (bytes: Uint8Array): LayerEntry => ({ raw: bytes })
/** The same entry with a name that is bytes (one character each). */
export const binaryName = (entry: LayerEntry, name: string): LayerEntry =>
  "raw" in entry ? entry : { ...entry, entry: { ...entry.entry, name } }

/** An archive of these entries, with its end. */
export const tar = (entries: ReadonlyArray<LayerEntry>): Buffer => {
  const pieces: Array<Uint8Array> = []
  for (const item of entries) {
    if ("raw" in item) pieces.push(item.raw)
    else pieces.push(encodeEntry(item.entry), item.content, new Uint8Array(paddingAfter(item.content.length)))
  }
  return Buffer.concat([...pieces, endOfArchive])
}

export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`

export type LayerCompression = "none" | "gzip" | "zstd"

/** A layer: entries, or entries with how they are packed, or a tar that is already there. */
export type LayerInput =
  | ReadonlyArray<LayerEntry>
  | { readonly entries: ReadonlyArray<LayerEntry>; readonly compression?: LayerCompression }
  | { readonly tar: Uint8Array; readonly compression?: LayerCompression }

/** The `config` object of an image configuration, as Docker spells it. */
export interface ConfigInput {
  readonly Entrypoint?: ReadonlyArray<string>
  readonly Cmd?: ReadonlyArray<string>
  readonly Env?: ReadonlyArray<string>
  readonly User?: string
  readonly WorkingDir?: string
  readonly StopSignal?: string
  readonly Volumes?: Readonly<Record<string, object>>
  readonly ExposedPorts?: Readonly<Record<string, object>>
  readonly Labels?: Readonly<Record<string, string>>
}

export interface ImageInput {
  readonly layers: ReadonlyArray<LayerInput>
  readonly config?: ConfigInput
  readonly platform?: { readonly os: string; readonly architecture: string; readonly variant?: string }
  readonly created?: string
  /** Changes to the documents before they are hashed: for wrong ones. */
  readonly changeConfiguration?: (configuration: object) => unknown
  readonly changeManifest?: (manifest: object) => unknown
}

export interface DescriptorInput {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
  readonly annotations?: Readonly<Record<string, string>>
  readonly platform?: object
}

export interface BuiltImage {
  readonly blobs: ReadonlyMap<string, Uint8Array>
  readonly manifest: DescriptorInput
  readonly configuration: DescriptorInput
  readonly layers: ReadonlyArray<DescriptorInput>
  /** Uncompressed, by position. */
  readonly tars: ReadonlyArray<Uint8Array>
}

/** The OCI name of the architecture that tests run on. */
export const hostArchitecture: string = process.arch === "x64" ? "amd64" : process.arch

const compress = (bytes: Uint8Array, compression: LayerCompression): Buffer =>
  compression === "gzip"
    ? gzipSync(bytes, { level: 6 })
    : compression === "zstd"
      ? zstdCompressSync(bytes)
      : Buffer.from(bytes)

const isEntries = (layer: LayerInput): layer is ReadonlyArray<LayerEntry> => Array.isArray(layer)

export const descriptor = (mediaType: string, bytes: Uint8Array): DescriptorInput => ({
  mediaType,
  digest: sha256(bytes),
  size: bytes.length
})

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

export const buildImage = (input: ImageInput): BuiltImage => {
  const blobs = new Map<string, Uint8Array>()
  const add = (mediaType: string, bytes: Uint8Array): DescriptorInput => {
    const made = descriptor(mediaType, bytes)
    blobs.set(made.digest, bytes)
    return made
  }
  const tars: Array<Uint8Array> = []
  const layers = input.layers.map((layer) => {
    const bytes = isEntries(layer) ? tar(layer) : "tar" in layer ? layer.tar : tar(layer.entries)
    const compression = (isEntries(layer) ? undefined : layer.compression) ?? "gzip"
    tars.push(bytes)
    const suffix = compression === "none" ? "" : `+${compression}`
    return add(`application/vnd.oci.image.layer.v1.tar${suffix}`, compress(bytes, compression))
  })
  const platform = input.platform ?? { os: "linux", architecture: hostArchitecture }
  const plainConfiguration = {
    created: input.created ?? "2001-09-09T01:46:40Z",
    ...platform,
    config: input.config ?? {},
    rootfs: { type: "layers", diff_ids: tars.map(sha256) }
  }
  const configuration = add(
    "application/vnd.oci.image.config.v1+json",
    json(input.changeConfiguration?.(plainConfiguration) ?? plainConfiguration)
  )
  const plainManifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: configuration,
    layers
  }
  const manifest = add(plainManifest.mediaType, json(input.changeManifest?.(plainManifest) ?? plainManifest))
  return { blobs, manifest: { ...manifest, platform }, configuration, layers, tars }
}

export interface NamedImage {
  readonly image: BuiltImage
  /** `name:tag`; none: the image has no name in the layout. */
  readonly name?: string
}

const blobPath = (digest: string): string => `blobs/${digest.replace(":", "/")}`

const indexOf = (manifests: ReadonlyArray<unknown>) => ({
  schemaVersion: 2,
  mediaType: "application/vnd.oci.image.index.v1+json",
  manifests
})

const named = ({ image, name }: NamedImage): DescriptorInput => {
  const { platform: _, ...manifest } = image.manifest
  return name === undefined
    ? manifest
    : {
        ...manifest,
        annotations: {
          "io.containerd.image.name": name,
          "org.opencontainers.image.ref.name": name.slice(name.lastIndexOf(":") + 1)
        }
      }
}

/** The files of an OCI layout, by path. */
export const layoutFiles = (images: ReadonlyArray<NamedImage>): Map<string, Uint8Array> => {
  const files = new Map<string, Uint8Array>([["oci-layout", json({ imageLayoutVersion: "1.0.0" })]])
  for (const { image } of images) for (const [digest, bytes] of image.blobs) files.set(blobPath(digest), bytes)
  return files.set("index.json", json(indexOf(images.map(named))))
}

/** Images for several platforms behind one name, as a nested index. */
export const multiPlatformFiles = (name: string, images: ReadonlyArray<BuiltImage>): Map<string, Uint8Array> => {
  const files = layoutFiles(images.map((image) => ({ image })))
  const nested = json(indexOf(images.map((image) => image.manifest)))
  const reference = {
    ...descriptor("application/vnd.oci.image.index.v1+json", nested),
    annotations: { "org.opencontainers.image.ref.name": name }
  }
  return files.set(blobPath(reference.digest), nested).set("index.json", json(indexOf([reference])))
}

/** The files of `docker save`: `manifest.json` and what it names; `both` adds an OCI layout, as newer Dockers do. */
export const dockerFiles = (
  images: ReadonlyArray<NamedImage>,
  options: { readonly both?: boolean } = {}
): Map<string, Uint8Array> => {
  const files = options.both === true ? layoutFiles(images) : new Map<string, Uint8Array>()
  const manifest = images.map(({ image, name }) => {
    const configuration = image.blobs.get(image.configuration.digest) ?? new Uint8Array()
    const hex = image.configuration.digest.slice(7)
    const config = options.both === true ? blobPath(image.configuration.digest) : `${hex}.json`
    files.set(config, configuration)
    const layers = image.tars.map((bytes, index) => {
      const layer = image.layers[index]
      if (options.both === true && layer !== undefined) return blobPath(layer.digest)
      const name = `${sha256(bytes).slice(7)}/layer.tar`
      files.set(name, bytes)
      return name
    })
    return { Config: config, RepoTags: name === undefined ? null : [name], Layers: layers }
  })
  return files.set("manifest.json", json(manifest))
}

/** Files as one tar; parent directories are not written. */
export const archive = (files: ReadonlyMap<string, Uint8Array>): Buffer =>
  tar([...files].map(([name, bytes]) => file(name, bytes)))

export const ociArchive = (images: ReadonlyArray<NamedImage>): Buffer => archive(layoutFiles(images))
export const dockerArchive = (images: ReadonlyArray<NamedImage>, options?: { readonly both?: boolean }): Buffer =>
  archive(dockerFiles(images, options))

/** Writes files below a directory, parents made. */
export const writeFiles = (root: string, files: ReadonlyMap<string, Uint8Array>): void => {
  for (const [name, bytes] of files) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), bytes)
  }
}

/** An OCI layout directory with these images. */
export const writeLayout = (root: string, images: ReadonlyArray<NamedImage>): void =>
  writeFiles(root, layoutFiles(images))
