/**
 * `Content`: the images of this host. Blobs are stored by digest under `content/blobs`, layers unpacked once under
 * `content/layers` (see `Layers`), and the index of images and of the names that point to them lives in `State`.
 *
 * Use `importFrom` for an image on disk, `get` to turn what a person wrote into an image, `registerUsers` to tell who
 * needs which image. Order of an import: every blob synced under its final name, every layer unpacked and synced, then
 * the image's record, then its name; so a record always has its bytes, and what a kill leaves behind is unreferenced
 * bytes, which the next start and `collect` remove.
 *
 * Traps: an image is named by the digest of its *manifest*; `configDigest` is what Docker calls the image id. A name
 * can be moved to another image by `tag` and by an import; the image it left stays, nameless, until `collect`.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type {
  BlobCorrupt,
  ImageError,
  ImageInUse,
  ImageNotFound,
  ReferenceInvalid,
  StorageFailed,
  UnpackFailed
} from "./ContentError.ts"
import type { StateFailure, StateValueInvalid } from "./StateErrors.ts"
import type { Artifacts } from "./Artifacts.ts"
import { Digest } from "./Digest.ts"
import type { Look } from "./DiskRoom.ts"
import { ImageConfig, Platform } from "./OciImage.ts"
import type { RootImage, RootImageError } from "./RootImages.ts"
import type { PullNotAllowed, RegistryError } from "./registry/RegistryError.ts"
import type { Credentials } from "./registry/RegistrySettings.ts"

/** A layer of an image, lowest first. */
export const ImageLayer = Schema.Struct({
  /** Of the blob as it came (compressed). */
  digest: Digest,
  mediaType: Schema.String,
  /** Bytes of the blob. */
  size: Schema.Int,
  /** Of the tar inside. */
  diffId: Digest,
  /** Names the unpacked directory: this layer on those below. */
  chainId: Digest
})
export type ImageLayer = typeof ImageLayer.Type

/** What is known of an image; never changes, as its digest names it. */
export const Image = Schema.Struct({
  /** Of the manifest. */
  digest: Digest,
  configDigest: Digest,
  platform: Platform,
  config: ImageConfig,
  layers: Schema.Array(ImageLayer),
  /** Bytes of manifest, configuration and layers as stored. */
  size: Schema.Int,
  /** When the image was built, RFC 3339, as it says of itself. */
  created: Schema.optionalKey(Schema.String)
})
export type Image = typeof Image.Type

/** An image with what this host added to it. */
export interface ImageRecord extends Image {
  /** The names that point to it (`hello:latest`), sorted; empty for an image that lost its last name. */
  readonly references: ReadonlyArray<string>
  /** What registries call it (`hello@sha256:…`, of the manifest or of the index that led to it), sorted; empty for one that was never pulled. */
  readonly digests: ReadonlyArray<string>
  /** Milliseconds since the Unix epoch. */
  readonly importedAt: number
}

/** What an import brought. */
export interface ImportedImage extends ImageRecord {
  /** It was there already, under all these names. */
  readonly unchanged: boolean
}

/** How far an import is. Sent at every step and about every mebibyte. */
export interface ImportProgress {
  /** The name or digest of the image at work. */
  readonly image: string
  /** `done`: the image's record is stored. */
  readonly step: "layers" | "done"
  /** Layers that are there, of how many. */
  readonly layersDone: number
  readonly layersTotal: number
  /** Compressed bytes dealt with, of how many; layers that were there already count as dealt with at once. */
  readonly bytesDone: number
  readonly bytesTotal: number
  /** The same of each layer, the lowest first. */
  readonly layers: ReadonlyArray<LayerProgress>
}

export interface LayerProgress {
  readonly digest: Digest
  /** Compressed bytes dealt with, of how many. */
  readonly bytesDone: number
  readonly bytesTotal: number
  /** It is unpacked and there. */
  readonly done: boolean
}

export interface ImportOptions {
  /** Store it under this reference instead of the names it came with. The source must then hold one image, or `select` one. */
  readonly name?: string
  /** Import only the image that has this name or digest in the source. Default: all of them. */
  readonly select?: string
  /** Only tell what would be imported: the source is read but for its layers, and nothing is stored. Default: false. */
  readonly dryRun?: boolean
  /** Runs in the import's own fiber: an observer that waits slows the import down. */
  readonly onProgress?: (progress: ImportProgress) => Effect.Effect<void>
}

/** When a registry is asked: at each pull, when the image is not here, or not at all. */
export type PullPolicy = "always" | "if-not-present" | "never"

export interface PullOptions {
  /** Default: `always`. An image that has not changed since costs one request. */
  readonly policy?: PullPolicy
  /** Instead of those that are configured for the registry. */
  readonly credentials?: Credentials
  /** Default: that of this machine. */
  readonly platform?: Platform
  /** Runs in the pull's own fiber: an observer that waits slows it down. */
  readonly onProgress?: (progress: ImportProgress) => Effect.Effect<void>
}

/** What a removal did. */
export interface ImageRemoval {
  /** The names that are gone. */
  readonly references: ReadonlyArray<string>
  /** The image itself, when its last name went. */
  readonly removed: Digest | undefined
  readonly freedBytes: number
}

/** Which images go that nobody uses. Default: those without a name. */
export interface CollectOptions {
  /** Also those that have one. Default: false. */
  readonly all?: boolean
  /** Only those that nobody has used for so many milliseconds. Default: 0. */
  readonly unusedFor?: number
  /** Those unused for longest, whatever they are called, until the disk is no fuller than this. */
  readonly untilPercent?: number
  /** Only tell which. Default: false. */
  readonly dryRun?: boolean
}

/** What a collection took away. */
export interface CollectReport {
  readonly images: ReadonlyArray<{ readonly image: ImageRecord; readonly lastUsedAt: number }>
  readonly blobs: number
  readonly layers: number
  /** Of blobs and the files of unpacked layers. */
  readonly freedBytes: number
}

export interface Share {
  readonly count: number
  readonly bytes: number
  /** Of what no image in use has, and no machine a disk of. */
  readonly unusedBytes: number
}

/** What the store takes up. */
export interface ContentUsage {
  readonly images: ReadonlyArray<{
    readonly image: ImageRecord
    readonly users: ReadonlyArray<string>
    /** Milliseconds since the Unix epoch, right to the hour; when it came if nobody has used it. */
    readonly lastUsedAt: number
    readonly blobBytes: number
    readonly layerBytes: number
    /** Of both, what no other image has: what its removal frees. */
    readonly ownBytes: number
  }>
  readonly blobs: Share
  /** Unpacked. */
  readonly layers: Share
  readonly disk: Option.Option<Look>
}

export interface VerifyOptions {
  /** Only whether all is there, and as long as it must be. Default: false, every byte is read. */
  readonly quick?: boolean
  /** Remove what is damaged and unused, so that it can be pulled or imported anew. Default: false. */
  readonly repair?: boolean
  readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => Effect.Effect<void>
}

/** Something in the store that is not what it must be. */
export interface Damage {
  readonly kind: "blob" | "layer"
  /** Of the blob; of a layer its chain id. */
  readonly digest: Digest
  readonly problem: string
  /** What the images that have it are called. */
  readonly images: ReadonlyArray<string>
  /** It is gone, and the images with it. */
  readonly removed: boolean
}

export interface VerifyReport {
  readonly images: number
  readonly blobs: number
  readonly layers: number
  readonly damages: ReadonlyArray<Damage>
}

/** What an export wrote. */
export interface Exported {
  readonly path: string
  /** Of blobs. */
  readonly bytes: number
  readonly images: ReadonlyArray<Digest>
}

/** Tells who needs an image: sentences such as `container web`. Empty: nobody. */
export type ImageUsers = (digest: Digest) => Effect.Effect<ReadonlyArray<string>>

/** Why the image index or the store could not be read or written. */
export type IndexError = StorageFailed | StateFailure | StateValueInvalid

export class Content extends Context.Service<
  Content,
  {
    /**
     * Imports every image (see `ImportOptions.select`) of an OCI layout directory, an OCI archive or a Docker archive
     * (each also as one gzip or zstd file). Verified: size and digest of each blob, the diff id of each layer. Importing
     * what is there already only looks; concurrent imports of the same layer do the work once.
     */
    readonly importFrom: (
      path: string,
      options?: ImportOptions
    ) => Effect.Effect<ReadonlyArray<ImportedImage>, ImageError | ReferenceInvalid | UnpackFailed | IndexError>
    /**
     * Pulls an image from its registry (or a mirror of it) under the name that was given: the same store, the same checks.
     * Whatever is here already is not fetched; what several pulls need is fetched once.
     */
    readonly pull: (
      reference: string,
      options?: PullOptions
    ) => Effect.Effect<
      ImportedImage,
      ImageError | RegistryError | PullNotAllowed | ReferenceInvalid | UnpackFailed | IndexError
    >
    /** All images, by their first name, nameless ones last. */
    readonly list: Effect.Effect<ReadonlyArray<ImageRecord>, IndexError>
    /** By `name[:tag][@digest]`, manifest digest or configuration digest. */
    readonly get: (reference: string) => Effect.Effect<ImageRecord, ImageNotFound | ReferenceInvalid | IndexError>
    /** All its layers as one read-only file system in a file, for guests. Made when it is not there; goes with the image. */
    readonly rootImage: (image: Digest) => Effect.Effect<RootImage, RootImageError | ImageNotFound | IndexError>
    /** Fetches a layer of an artifact (no container image) unless it is here, and has something made of it. See `Artifacts`. */
    readonly useArtifact: Artifacts["use"]
    /** Whether something was made for this owner. */
    readonly isArtifactUsed: Artifacts["isUsed"]
    /** What was made for owners whose names begin so is gone. */
    readonly releaseArtifacts: Artifacts["release"]
    /** Points a name at an image; whatever it pointed at before stays. */
    readonly tag: (
      reference: string,
      name: string
    ) => Effect.Effect<ImageRecord, ImageNotFound | ReferenceInvalid | IndexError>
    /**
     * Takes a name away, and with the last name (or by digest: with all of them) the image, its blobs and its layers that
     * no other image has. Refused while somebody uses the image and this would remove it.
     */
    readonly remove: (
      reference: string
    ) => Effect.Effect<ImageRemoval, ImageNotFound | ImageInUse | ReferenceInvalid | IndexError>
    /** Removes images that nobody uses, and all blobs and layers that no image has. What a running pull or import has stays. */
    readonly collect: (options?: CollectOptions) => Effect.Effect<CollectReport, IndexError>
    /** What everything takes up. Also notes which images are used now: see `CollectOptions.unusedFor`. */
    readonly usage: Effect.Effect<ContentUsage, IndexError>
    /** Whether everything is there and right. */
    readonly verify: (options?: VerifyOptions) => Effect.Effect<VerifyReport, IndexError>
    /** Writes images as an OCI layout, or as a tar archive of one, to a path where nothing is yet. */
    readonly exportTo: (
      path: string,
      references: ReadonlyArray<string>,
      options: { readonly archive: boolean }
    ) => Effect.Effect<Exported, ImageNotFound | ReferenceInvalid | BlobCorrupt | IndexError>
    /**
     * Asks this too, from now until the scope closes, before an image is removed. `behindOthers`: users that nobody knows by
     * name as long as there are others, such as the root file system of a container.
     */
    readonly registerUsers: (
      users: ImageUsers,
      options?: { readonly behindOthers?: boolean }
    ) => Effect.Effect<void, never, Scope.Scope>
  }
>()("ironwood/storage/Content") {}
