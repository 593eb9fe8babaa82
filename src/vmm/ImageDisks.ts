/**
 * Disks in artifacts: which layer of one is a disk, and the file that a machine gets of it. Pure of registries: `DiskSources` brings the
 * layer.
 *
 * A disk is a raw or a qcow2 image, as it is or packed with gzip or zstd: ironcore's root file systems, or the only layer of an
 * artifact whose media type does not say that it is something else.
 *
 * Trap: an artifact is a stranger's. What it unpacks to is bounded while it is written, and looked at before a hypervisor sees it.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Layer } from "../storage/Artifacts.ts"
import { decompress, sniff } from "../storage/Compression.ts"
import * as DiskRoom from "../storage/DiskRoom.ts"
import * as Files from "../storage/Files.ts"
import { collect } from "../storage/ImageSource.ts"
import { type Descriptor, layerCompression } from "../storage/OciImage.ts"
import type { Processes } from "../taproot/Processes.ts"
import * as DiskCopies from "./DiskCopies.ts"
import * as Disks from "./Disks.ts"
import type { DiskSpec } from "./VmSpec.ts"
import { dirname } from "node:path"

/** As ironcore names the root file system of a machine, and onmetal, which it was before. */
const rootFileSystem = /^application\/vnd\.(ironcore|onmetal)\.image\.rootfs\.v1alpha1\.rootfs(\+gzip|\+zstd)?$/

/** What says of a layer that it is bytes, or a disk. */
const bytesOrDisk = /^application\/(octet-stream|(x-)?gzip|zstd|[a-z0-9.+-]*(disk|qcow2|\braw\b|\bimg\b)[a-z0-9.+-]*)$/

/** The most bytes that a disk unpacks to, and that a guest finds on it: 4 TiB. */
const MOST_BYTES = 2 ** 42
/** So many bytes are written between two looks at the room that is left. */
const LOOK_EVERY = 64 * 1024 * 1024

/** The layer that is a disk, or what there is instead. */
export const choose = (layers: ReadonlyArray<Descriptor>): Effect.Effect<Descriptor, string> => {
  const named = layers.filter(({ mediaType }) => rootFileSystem.test(mediaType))
  const [only, second] = named.length > 0 ? named : layers
  const found = layers.map(({ mediaType }) => mediaType.slice(0, 200)).join(", ")
  if (only === undefined) return Effect.fail("it has no layers, so it holds no disk")
  if (second !== undefined) {
    return Effect.fail(
      `it has ${named.length > 0 ? named.length : layers.length} layers that could be the disk (${found})`
    )
  }
  if (named.length > 0 || bytesOrDisk.test(only.mediaType)) return Effect.succeed(only)
  return Effect.fail(
    layerCompression(only.mediaType) === undefined
      ? `it holds no disk but ${found}`
      : `it holds no disk but the files of a container (${found}); a disk is pushed as application/octet-stream`
  )
}

const roomFor = (directory: string, bytes: number): Effect.Effect<void, string> =>
  Effect.flatMap(DiskRoom.look(directory), (found) =>
    found.left - found.floor >= bytes
      ? Effect.void
      : Effect.fail(`there is no room for it: ${DiskRoom.describe(found)}`)
  )

const wordsOf = ({ message }: { readonly message: string }): string => message

/** Unpacks into a new file, which has holes where there are only zeros. */
const unpack = (layer: Layer, compression: "gzip" | "zstd", to: string) =>
  Effect.gen(function* () {
    const handle = yield* Effect.mapError(Files.open(to, "wx"), wordsOf)
    const zeros = Buffer.alloc(1024 * 1024)
    let position = 0
    let unlooked = LOOK_EVERY
    const write = Effect.fnUntraced(function* (piece: Uint8Array): Effect.fn.Return<void, string> {
      const at = position
      position += piece.length
      if (position > MOST_BYTES) return yield* Effect.fail(`it unpacks to more than the ${MOST_BYTES} bytes allowed`)
      if (zeros.subarray(0, piece.length).equals(piece)) return
      unlooked += piece.length
      if (unlooked >= LOOK_EVERY) {
        unlooked = 0
        yield* roomFor(dirname(to), LOOK_EVERY)
      }
      yield* Effect.mapError(
        Files.attempt("write", to, async () => {
          for (let done = 0; done < piece.length;) {
            done += (await handle.write(piece, done, piece.length - done, at + done)).bytesWritten
          }
        }),
        wordsOf
      )
    })
    const packed = Stream.mapError(Files.read(layer.file), wordsOf)
    yield* Stream.runForEach(
      decompress(packed, compression, (problem) => problem),
      write
    )
    yield* Effect.mapError(
      Files.attempt("write", to, async () => {
        await handle.truncate(position)
        await handle.sync()
      }),
      wordsOf
    )
  }).pipe(Effect.scoped)

/** Writes the disk in a layer to `to`, which must not be there: all of it on the disk, and what it should be. Else fails with why not. */
export const write = (
  processes: Processes["Service"],
  layer: Layer,
  format: DiskSpec["format"],
  to: string
): Effect.Effect<void, string> =>
  Effect.gen(function* () {
    const start = yield* Effect.mapError(collect(Files.read(layer.file, { length: Math.min(4, layer.size) })), wordsOf)
    const compression = sniff(start)
    if (compression === "none") {
      yield* roomFor(dirname(to), layer.size)
      yield* Effect.mapError(DiskCopies.copy(processes, { from: layer.file, to }), wordsOf)
    } else yield* unpack(layer, compression, to)
    if (format === "raw" && (yield* Disks.looksLikeQcow2(to))) {
      return yield* Effect.fail("it holds a qcow2 image, and the disk is to be raw: say format=qcow2")
    }
    yield* Disks.inspect({ format, path: to })
    const bytes = yield* Disks.sizeOf({ format, path: to })
    if (bytes > MOST_BYTES) {
      return yield* Effect.fail(`the guest would find ${bytes} bytes on it, more than the ${MOST_BYTES} allowed`)
    }
  })
