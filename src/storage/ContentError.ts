/**
 * Everything that can go wrong with images, layers and root filesystems, as data: one tagged error per kind, each with
 * a message that a person can act on. The gateway maps them to gRPC statuses; nothing else should read the messages.
 *
 * `SourceInvalid`, `DocumentInvalid`, `Blob…`, `LayerRefused`, `MediaTypeUnsupported` and `PlatformMissing` mean that the *input*
 * is wrong and a second try gives the same; `StorageFailed` and `UnpackFailed` mean that *this host* could not.
 */
import * as Schema from "effect/Schema"

/** The path is no image that can be imported: not there, neither layout nor archive, cut off, two things at once. */
export class SourceInvalid extends Schema.TaggedError<SourceInvalid>()("SourceInvalid", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `cannot import ${this.path}: ${this.problem}`
  }
}

/** A JSON document of the image (index, manifest, configuration) is not what it must be; `problem` names the field. */
export class DocumentInvalid extends Schema.TaggedError<DocumentInvalid>()("DocumentInvalid", {
  /** What it is: `index.json`, `manifest sha256:…`, `configuration sha256:…`. */
  document: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.document} is not valid: ${this.problem}`
  }
}

/** A document refers to a blob that the source does not hold. */
export class BlobMissing extends Schema.TaggedError<BlobMissing>()("BlobMissing", {
  digest: Schema.String,
  /** Where it was looked for. */
  source: Schema.String,
  /** Which field asked for it, such as `layers[2]`. */
  field: Schema.String
}) {
  override get message(): string {
    return `blob ${this.digest} (${this.field}) is missing in ${this.source}`
  }
}

/** A blob's bytes are not those that its descriptor or diff id promises. */
export class BlobCorrupt extends Schema.TaggedError<BlobCorrupt>()("BlobCorrupt", {
  digest: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `blob ${this.digest} is corrupt: ${this.problem}`
  }
}

/** A descriptor's media type is none that this program can use in that place. */
export class MediaTypeUnsupported extends Schema.TaggedError<MediaTypeUnsupported>()("MediaTypeUnsupported", {
  digest: Schema.String,
  mediaType: Schema.String,
  field: Schema.String
}) {
  override get message(): string {
    return `${this.field} (${this.digest}) has media type "${this.mediaType}", which is not supported`
  }
}

/** The image exists, but not for this machine. */
export class PlatformMissing extends Schema.TaggedError<PlatformMissing>()("PlatformMissing", {
  wanted: Schema.String,
  available: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `the image is not made for ${this.wanted}; it has ${this.available.length === 0 ? "no platform at all" : this.available.join(", ")}`
  }
}

/** An entry of a layer's tar is hostile, damaged or over a limit. Nothing of the layer was kept. */
export class LayerRefused extends Schema.TaggedError<LayerRefused>()("LayerRefused", {
  /** The layer's digest, or what else it is called. */
  layer: Schema.String,
  /** The name in the tar, control characters escaped; or the offset of a header that could not be read. */
  entry: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `layer ${this.layer} refused: entry "${this.entry}" ${this.problem}`
  }
}

/** The layer was fine as far as can be told, but it could not be written. Nothing of it was kept. */
export class UnpackFailed extends Schema.TaggedError<UnpackFailed>()("UnpackFailed", {
  layer: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `layer ${this.layer} could not be unpacked: ${this.problem}`
  }
}

/** The root file system of an image for microVMs could not be made. Nothing of it was kept. */
export class RootImageFailed extends Schema.TaggedError<RootImageFailed>()("RootImageFailed", {
  image: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `the root file system of image ${this.image} for microVMs could not be made: ${this.problem}`
  }
}

/** The file system refused an operation: full, read-only, broken, not permitted. */
export class StorageFailed extends Schema.TaggedError<StorageFailed>()("StorageFailed", {
  operation: Schema.String,
  path: Schema.String,
  /** The errno name, such as `ENOSPC`. */
  code: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    const hint =
      this.code === "ENOSPC" || this.code === "EDQUOT" ? " (the disk is full: free space or remove images)" : ""
    return `cannot ${this.operation} ${this.path}: ${this.problem}${hint}`
  }
}

/** What is in the store is not what it must be any more. */
export class StoreDamaged extends Schema.TaggedError<StoreDamaged>()("StoreDamaged", {
  problem: Schema.String
}) {
  override get message(): string {
    return `the store is damaged: ${this.problem}; ${this.hint}`
  }
  get hint(): string {
    return "look through all of it (ironwood image verify), then pull or import what is damaged again (--repair makes way)"
  }
}

/** No image has this name or digest. */
export class ImageNotFound extends Schema.TaggedError<ImageNotFound>()("ImageNotFound", {
  reference: Schema.String
}) {
  override get message(): string {
    return `no image ${this.reference} here; ${this.hint}`
  }
  get hint(): string {
    return "pull or import it first (ironwood image pull NAME, ironwood image import PATH)"
  }
}

/** The image cannot be removed while somebody needs it. */
export class ImageInUse extends Schema.TaggedError<ImageInUse>()("ImageInUse", {
  reference: Schema.String,
  /** Who needs it, such as `container web`. */
  users: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `image ${this.reference} is in use by ${this.users.join(", ")}; ${this.hint}`
  }
  get hint(): string {
    return "remove those first"
  }
}

/** A text that is no image reference. */
export class ReferenceInvalid extends Schema.TaggedError<ReferenceInvalid>()("ReferenceInvalid", {
  reference: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `"${this.reference}" is no image reference: ${this.problem}`
  }
}

/** The name of a root filesystem that cannot be a directory name. */
export class RootfsKeyInvalid extends Schema.TaggedError<RootfsKeyInvalid>()("RootfsKeyInvalid", {
  key: Schema.String
}) {
  override get message(): string {
    return `"${this.key}" cannot name a root filesystem: 1 to 128 letters, digits, ".", "_" or "-", the first a letter or digit`
  }
}

/** A root filesystem of this name exists and is another one: release it first. */
export class RootfsConflict extends Schema.TaggedError<RootfsConflict>()("RootfsConflict", {
  key: Schema.String,
  /** What it is, and what was asked for. */
  existing: Schema.String,
  wanted: Schema.String
}) {
  override get message(): string {
    return `the root filesystem ${this.key} exists with ${this.existing}, not ${this.wanted}; release it first`
  }
}

/** What an import can fail with because of the image itself. */
export const ImageError = Schema.Union([
  SourceInvalid,
  DocumentInvalid,
  BlobMissing,
  BlobCorrupt,
  MediaTypeUnsupported,
  PlatformMissing,
  LayerRefused
])
export type ImageError = typeof ImageError.Type

export const isImageError = Schema.is(ImageError)
