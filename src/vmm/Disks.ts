/**
 * What is in the files that a machine is to have: looked at before its hypervisor sees them, so that what is wrong is said in
 * words, and by ourselves, so that no hypervisor is led astray by what an image says about itself.
 *
 * Trap: between the look and the start a file can change. The hypervisor locks the disks that it has; that another process of
 * the host has one is its to find out.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { constants } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import type { DiskSpec } from "./VmSpec.ts"

/** A file on this host: two paths with the same name the same file. */
export interface Identity {
  readonly device: number
  readonly inode: number
}

const SECTOR = 512
const QCOW2_MAGIC = 0x514649fb
/** The image's data are in another file. */
const EXTERNAL_DATA = 4n

const codes: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EACCES: "it may not be read",
  ENOTDIR: "there is no such file"
}

const wordsOf = (error: unknown): string =>
  Predicate.hasProperty(error, "code") && typeof error.code === "string"
    ? (codes[error.code] ?? error.code)
    : String(error)

const attempt = <A>(run: () => Promise<A>): Effect.Effect<A, string> => Effect.tryPromise({ try: run, catch: wordsOf })

/** Opens a file without waiting for anybody, whatever it is. */
const opened = <A>(path: string, use: (file: FileHandle) => Effect.Effect<A, string>): Effect.Effect<A, string> =>
  Effect.acquireUseRelease(
    attempt(() => open(path, constants.O_RDONLY | constants.O_NONBLOCK)),
    use,
    (file) => Effect.promise(() => file.close())
  )

const looked = (file: FileHandle) =>
  Effect.gen(function* () {
    const stat = yield* attempt(() => file.stat())
    if (!stat.isFile() && !stat.isBlockDevice()) return yield* Effect.fail("it is neither a file nor a block device")
    return stat
  })

/** A kernel, an initrd, firmware. */
export const plain = (path: string): Effect.Effect<void, string> =>
  opened(path, (file) =>
    Effect.flatMap(looked(file), (stat) =>
      stat.isFile() && stat.size === 0 ? Effect.fail("it is empty") : Effect.void
    )
  )

const qcow2Problem = (header: Buffer): string | undefined => {
  if (header.length < 80 || header.readUInt32BE(0) !== QCOW2_MAGIC) return "it is no qcow2 image"
  const version = header.readUInt32BE(4)
  if (version !== 2 && version !== 3) return `it is a qcow2 image of version ${version}, which is not known`
  if (header.readBigUInt64BE(8) !== 0n)
    return "it is a qcow2 image on top of another one; flatten it with `qemu-img convert`"
  if (header.readUInt32BE(32) !== 0) return "it is an encrypted qcow2 image"
  if (version === 3 && (header.readBigUInt64BE(72) & EXTERNAL_DATA) !== 0n) {
    return "it is a qcow2 image whose data are in another file; convert it with `qemu-img convert`"
  }
  return undefined
}

/** Looks at a disk; fails with what is wrong with it. */
export const inspect = ({ format, path }: Pick<DiskSpec, "format" | "path">): Effect.Effect<Identity, string> =>
  opened(path, (file) =>
    Effect.gen(function* () {
      const stat = yield* looked(file)
      const header = Buffer.alloc(104)
      const { bytesRead } = yield* attempt(() => file.read(header, 0, header.length, 0))
      const start = header.subarray(0, bytesRead)
      if (format === "qcow2") {
        const problem = qcow2Problem(start)
        if (problem !== undefined) return yield* Effect.fail(problem)
      } else if (stat.isFile() && (stat.size < SECTOR || stat.size % SECTOR !== 0)) {
        return yield* Effect.fail(`a raw disk has a multiple of ${SECTOR} bytes, and it has ${stat.size}`)
      }
      return stat.isBlockDevice() ? { device: -1, inode: stat.rdev } : { device: stat.dev, inode: stat.ino }
    })
  )

/** What a file begins with: at most so many bytes of it, however long it is. */
export const start = (path: string, bytes: number): Effect.Effect<Buffer, string> =>
  opened(path, (file) =>
    attempt(async () => {
      const found = Buffer.alloc(bytes)
      let length = 0
      while (length < bytes) {
        const { bytesRead } = await file.read(found, length, bytes - length, length)
        if (bytesRead === 0) break
        length += bytesRead
      }
      return found.subarray(0, length)
    })
  )

/** How many bytes the guest finds on a disk that is a file. */
export const sizeOf = ({ format, path }: Pick<DiskSpec, "format" | "path">): Effect.Effect<number, string> =>
  opened(path, (file) =>
    Effect.gen(function* () {
      const stat = yield* looked(file)
      if (stat.isBlockDevice()) return yield* Effect.fail("a block device grows where it was made, not here")
      if (format === "raw") return stat.size
      const header = Buffer.alloc(104)
      const { bytesRead } = yield* attempt(() => file.read(header, 0, header.length, 0))
      const problem = qcow2Problem(header.subarray(0, bytesRead))
      return problem === undefined ? Number(header.readBigUInt64BE(24)) : yield* Effect.fail(problem)
    })
  )

/** Whether a raw disk looks like a qcow2 image, which is a mistake where a person says so for the first time. */
export const looksLikeQcow2 = (path: string): Effect.Effect<boolean> =>
  Effect.orElseSucceed(
    opened(path, (file) =>
      Effect.map(
        attempt(() => file.read(Buffer.alloc(4), 0, 4, 0)),
        ({ buffer, bytesRead }) => bytesRead === 4 && buffer.readUInt32BE(0) === QCOW2_MAGIC
      )
    ),
    () => false
  )

export const isSame = (one: Identity, other: Identity): boolean =>
  one.device === other.device && one.inode === other.inode
