/**
 * `ironwood.v1.ImageService`: images over gRPC. Mapping functions first, then the service.
 *
 * Trap: an import or a pull must not wait for a client that reads slowly, so progress is dropped (oldest first) rather than waited
 * for; the images at the end are not.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { isAbsolute } from "node:path"
import * as Proto from "../../proto/generated/ironwood/v1/image_pb.ts"
import { Content } from "../storage/Content.ts"
import type { ImageRecord, ImportProgress, PullPolicy, Share } from "../storage/Content.ts"
import type { Platform } from "../storage/OciImage.ts"
import { isImageError, StoreDamaged } from "../storage/ContentError.ts"
import { RemoteImageInvalid } from "../storage/registry/RegistryError.ts"
import { serverStreaming, service, unary } from "./EffectGrpc.ts"
import { hasLabels, pageBy } from "./Page.ts"
import { invalid } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import { millisOf, timestamp, uint32 } from "./Time.ts"

/** An image as it goes over the wire. */
export const imageToProto = (image: ImageRecord): MessageInitShape<typeof Proto.ImageSchema> => {
  const { config } = image
  const built = Date.parse(image.created ?? "")
  return {
    digest: image.digest,
    names: [...image.references],
    sizeBytes: BigInt(image.size),
    buildTime: Number.isNaN(built) ? undefined : timestamp(built),
    importTime: timestamp(image.importedAt),
    architecture: image.platform.architecture,
    os: image.platform.os,
    config: {
      entrypoint: [...config.entrypoint],
      command: [...config.cmd],
      environment: [...config.env],
      user: config.user,
      workingDirectory: config.workingDir,
      stopSignal: config.stopSignal,
      volumes: [...config.volumes],
      exposedPorts: [...config.exposedPorts],
      labels: { ...config.labels }
    },
    digests: [...image.digests],
    layers: image.layers.map(({ digest, mediaType, size }) => ({ digest, mediaType, sizeBytes: BigInt(size) }))
  }
}

/** How far an import is, as it goes over the wire. */
export const progressToProto = (progress: ImportProgress): MessageInitShape<typeof Proto.ImportProgressSchema> => ({
  step: progress.step,
  doneBytes: BigInt(progress.bytesDone),
  totalBytes: BigInt(progress.bytesTotal),
  image: progress.image,
  doneLayers: uint32(progress.layersDone),
  totalLayers: uint32(progress.layersTotal),
  layers: progress.layers.map(({ bytesDone, bytesTotal, digest, done }) => ({
    digest,
    doneBytes: BigInt(bytesDone),
    totalBytes: BigInt(bytesTotal),
    done
  }))
})

type Imported = MessageInitShape<typeof Proto.ImportImageResponseSchema>

/** Progress as it comes, then the images. */
const importImage = (request: Proto.ImportImageRequest) =>
  Stream.unwrap(
    Effect.gen(function* () {
      if (!isAbsolute(request.path)) {
        return yield* invalid("path", "must be an absolute path on the host that Ironwood runs on")
      }
      const content = yield* Content
      const steps = yield* Queue.sliding<ImportProgress, Cause.Done>(16)
      const work = content
        .importFrom(request.path, {
          ...(request.name === "" ? {} : { name: request.name }),
          ...(request.select === "" ? {} : { select: request.select }),
          dryRun: request.validateOnly,
          onProgress: (progress) => Effect.asVoid(Queue.offer(steps, progress))
        })
        .pipe(
          Effect.catchTag("ReferenceInvalid", (error) => Effect.fail(invalid("name", error.message))),
          Effect.ensuring(Queue.end(steps))
        )
      const fiber = yield* Effect.forkScoped(work)
      return Stream.concat(
        Stream.map(Stream.fromQueue(steps), (progress): Imported => ({
          event: { case: "progress", value: progressToProto(progress) }
        })),
        Stream.map(Stream.fromIterableEffect(Fiber.join(fiber)), (image): Imported => ({
          event: { case: "image", value: imageToProto(image) },
          unchanged: image.unchanged
        }))
      )
    })
  )

/** The enum as the store knows it. */
export const pullPolicy = (policy: Proto.PullPolicy): PullPolicy | undefined => {
  switch (policy) {
    case Proto.PullPolicy.UNSPECIFIED:
      return undefined
    case Proto.PullPolicy.ALWAYS:
      return "always"
    case Proto.PullPolicy.IF_NOT_PRESENT:
      return "if-not-present"
    case Proto.PullPolicy.NEVER:
      return "never"
    // of a client that knows more than we do
    default:
      return undefined
  }
}

/** `linux/arm64/v8`; undefined for the empty text. */
const platformOf = Effect.fnUntraced(function* (text: string) {
  if (text === "") return undefined
  const [, os, architecture, variant] = /^([a-z0-9]+)\/([a-z0-9_]+)(?:\/([a-z0-9]+))?$/.exec(text) ?? []
  if (os === undefined || architecture === undefined) {
    return yield* invalid("platform", "must be os/architecture or os/architecture/variant, like linux/arm64")
  }
  const platform: Platform = { os, architecture, ...(variant === undefined ? {} : { variant }) }
  return platform
})

/** Credentials of a request; a name without a password is what was meant only by mistake. */
const credentialsOf = Effect.fnUntraced(function* (given: Proto.RegistryCredentials | undefined) {
  if (given === undefined) return undefined
  const { identityToken, password, username } = given
  if (identityToken === "" && (username === "" || password === "")) {
    return yield* invalid("credentials", "needs a username and a password, or an identity_token")
  }
  return { username, password, ...(identityToken === "" ? {} : { identityToken }) }
})

type Pulled = MessageInitShape<typeof Proto.PullImageResponseSchema>

/** Progress as it comes, then the image. */
const pullImage = (request: Proto.PullImageRequest) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const { reference } = request
      const policy = pullPolicy(request.policy)
      const platform = yield* platformOf(request.platform)
      const credentials = yield* credentialsOf(request.credentials)
      const content = yield* Content
      const steps = yield* Queue.sliding<ImportProgress, Cause.Done>(16)
      const work = content
        .pull(reference, {
          ...(policy === undefined ? {} : { policy }),
          ...(platform === undefined ? {} : { platform }),
          ...(credentials === undefined ? {} : { credentials }),
          onProgress: (progress) => Effect.asVoid(Queue.offer(steps, progress))
        })
        .pipe(
          Effect.catchTag("ReferenceInvalid", (error) => Effect.fail(invalid("reference", error.message))),
          Effect.mapError((error) => (isImageError(error) ? RemoteImageInvalid.of(reference, error) : error)),
          Effect.ensuring(Queue.end(steps))
        )
      const fiber = yield* Effect.forkScoped(work)
      return Stream.concat(
        Stream.map(Stream.fromQueue(steps), (progress): Pulled => ({
          event: { case: "progress", value: progressToProto(progress) }
        })),
        Stream.map(Stream.fromEffect(Fiber.join(fiber)), (image): Pulled => ({
          event: { case: "image", value: imageToProto(image) },
          unchanged: image.unchanged
        }))
      )
    })
  )

const listImages = Effect.fn("ImageService.listImages")(function* (request: Proto.ListImagesRequest) {
  const { labels, namePrefix } = request
  const all = yield* (yield* Content).list
  const { nextPageToken, page } = yield* pageBy(
    "images",
    { labels, namePrefix },
    request,
    all.filter(
      ({ config, references }) =>
        (namePrefix === "" || references.some((name) => name.startsWith(namePrefix))) &&
        hasLabels(config.labels, labels)
    ),
    { schema: Proto.ImageSchema, toProto: imageToProto, key: ({ digest }) => digest }
  )
  return { images: page, nextPageToken }
})

const share = ({ bytes, count, unusedBytes }: Share): MessageInitShape<typeof Proto.StoreShareSchema> => ({
  count: uint32(count),
  bytes: BigInt(bytes),
  unusedBytes: BigInt(unusedBytes)
})

const getImageUsage = Effect.fn("ImageService.getImageUsage")(function* () {
  const usage = yield* (yield* Content).usage
  const disk = Option.getOrElse(usage.disk, () => ({ left: 0, total: 0 }))
  return {
    images: usage.images.map(({ blobBytes, image, lastUsedAt, layerBytes, ownBytes, users }) => ({
      image: imageToProto(image),
      users: [...users],
      lastUsedTime: timestamp(lastUsedAt),
      blobBytes: BigInt(blobBytes),
      layerBytes: BigInt(layerBytes),
      ownBytes: BigInt(ownBytes)
    })),
    blobs: share(usage.blobs),
    layers: share(usage.layers),
    diskBytes: BigInt(disk.total),
    diskLeftBytes: BigInt(disk.left)
  }
})

const collectImages = Effect.fn("ImageService.collectImages")(function* (request: Proto.CollectImagesRequest) {
  const unusedFor = request.unusedFor === undefined ? 0 : millisOf(request.unusedFor)
  if (unusedFor < 0) return yield* invalid("unused_for", "must not be negative")
  if (request.untilPercent > 100) return yield* invalid("until_percent", "must be 0 to 100")
  const report = yield* (yield* Content).collect({
    all: request.all,
    unusedFor,
    dryRun: request.validateOnly,
    ...(request.untilPercent === 0 ? {} : { untilPercent: request.untilPercent })
  })
  return {
    images: report.images.map(({ image }) => imageToProto(image)),
    blobs: uint32(report.blobs),
    layers: uint32(report.layers),
    freedBytes: BigInt(report.freedBytes)
  }
})

type Verified = MessageInitShape<typeof Proto.VerifyImagesResponseSchema>

/** Progress as it comes, then the report. */
const verifyImages = ({ quick, repair }: Proto.VerifyImagesRequest) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const content = yield* Content
      const steps = yield* Queue.sliding<{ readonly done: number; readonly total: number }, Cause.Done>(16)
      const work = content.verify({ quick, repair, onProgress: (step) => Effect.asVoid(Queue.offer(steps, step)) })
      const fiber = yield* Effect.forkScoped(Effect.ensuring(work, Queue.end(steps)))
      return Stream.concat(
        Stream.map(Stream.fromQueue(steps), ({ done, total }): Verified => ({
          event: { case: "progress", value: { done: uint32(done), total: uint32(total) } }
        })),
        Stream.map(Stream.fromEffect(Fiber.join(fiber)), ({ blobs, damages, images, layers }): Verified => ({
          event: {
            case: "report",
            value: {
              images: uint32(images),
              blobs: uint32(blobs),
              layers: uint32(layers),
              damages: damages.map((damage) => ({ ...damage, images: [...damage.images] }))
            }
          }
        }))
      )
    })
  )

const exportImages = Effect.fn("ImageService.exportImages")(function* (request: Proto.ExportImagesRequest) {
  const { archive, path, references } = request
  if (!isAbsolute(path)) return yield* invalid("path", "must be an absolute path on the host that Ironwood runs on")
  if (references.length === 0) return yield* invalid("references", "must name at least one image")
  const exported = yield* (yield* Content).exportTo(path, references, { archive }).pipe(
    Effect.catchTags({
      ReferenceInvalid: (error) => Effect.fail(invalid("references", error.message)),
      BlobCorrupt: (error) => Effect.fail(new StoreDamaged({ problem: error.message }))
    })
  )
  return { path: exported.path, bytes: BigInt(exported.bytes), digests: [...exported.images] }
})

/** The service. One value remembers request ids for as long as it lives: make it once per brain. */
export const makeImageService = () => {
  const { method } = Proto.ImageService
  return service(Proto.ImageService, {
    importImage: serverStreaming(method.importImage, importImage),
    pullImage: serverStreaming(method.pullImage, pullImage),
    listImages: unary(method.listImages, listImages),
    getImage: unary(
      method.getImage,
      Effect.fn("ImageService.getImage")(function* ({ reference }) {
        const image = yield* Effect.catchTag((yield* Content).get(reference), "ReferenceInvalid", (error) =>
          Effect.fail(invalid("reference", error.message))
        )
        return { image: imageToProto(image) }
      })
    ),
    removeImage: unaryOnce(
      method.removeImage,
      Effect.fn("ImageService.removeImage")(function* ({ reference }) {
        const removal = yield* Effect.catchTag((yield* Content).remove(reference), "ReferenceInvalid", (error) =>
          Effect.fail(invalid("reference", error.message))
        )
        return {
          names: [...removal.references],
          digest: removal.removed ?? "",
          freedBytes: BigInt(removal.freedBytes)
        }
      })
    ),
    collectImages: unaryOnce(method.collectImages, collectImages),
    getImageUsage: unary(method.getImageUsage, getImageUsage),
    verifyImages: serverStreaming(method.verifyImages, verifyImages),
    exportImages: unaryOnce(method.exportImages, exportImages),
    tagImage: unaryOnce(
      method.tagImage,
      Effect.fn("ImageService.tagImage")(function* ({ source, target }) {
        const image = yield* Effect.catchTag((yield* Content).tag(source, target), "ReferenceInvalid", (error) =>
          Effect.fail(invalid(error.reference === target.slice(0, 300) ? "target" : "source", error.message))
        )
        return { image: imageToProto(image) }
      })
    )
  })
}
