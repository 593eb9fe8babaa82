/**
 * Looking at disks for the one that keeps a machine's state: which block devices there are, which has an ext4 file system with
 * a label, which is empty. Reads superblocks itself, since there is no udev, and trusts nothing in them but the label.
 *
 * Trap: a read from a disk that hangs cannot be taken back, and keeps one of Node's four threads for files. So a disk that has
 * not answered is not asked again before it does, and after {@link mostSilent} of them none is.
 */
import { open, readdir, readFile, stat } from "node:fs/promises"
import { basename } from "node:path"

/** Where ext4's superblock is, and what in it. */
const superblock = { at: 1024, magicAt: 56, magic: 0xef53, labelAt: 120, labelBytes: 16 } as const

/**
 * What must be zero of a disk that counts as empty: where file systems, partition tables, volume managers and RAID keep what
 * tells of them (all within a mebibyte of either end, but for a mirror's log), and a sample between. Reading all of a large
 * disk would hold up the start for minutes.
 */
export const endBytes = 4 * 1024 * 1024
export const sample = { pieces: 256, bytes: 4_096 } as const

/** How long a disk may take for one read, in milliseconds. */
const patience = 10_000

const mostSilent = 2

/** Disks from which an answer is still to come. */
const silent = new Set<string>()

/** Those that do not answer. */
export const silentDisks = (): ReadonlyArray<string> => [...silent]

const readAnyhow = async (device: string, position: number, length: number): Promise<Buffer> => {
  const file = await open(device, "r")
  try {
    const buffer = Buffer.alloc(length)
    const { bytesRead } = await file.read(buffer, 0, length, position)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

/** So many bytes from there, or fewer at its end. Fails when the disk takes longer than `deadline` milliseconds. */
export const read = async (device: string, position: number, length: number, deadline = patience): Promise<Buffer> => {
  if (silent.has(device)) throw new Error(`${device} does not answer`)
  if (silent.size >= mostSilent) throw new Error(`it is not read, as ${silentDisks().join(" and ")} do not answer`)
  const reading = readAnyhow(device, position, length)
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    silent.add(device)
    const forget = () => void silent.delete(device)
    reading.then(forget, forget)
    late.reject(new Error(`${device} does not answer within ${deadline / 1_000} s`))
  }, deadline)
  try {
    return await Promise.race([reading, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

/** The label of the ext4 in these bytes, the superblock of a device; undefined when there is none. */
export const labelIn = (bytes: Uint8Array): string | undefined => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length < superblock.labelAt + superblock.labelBytes) return undefined
  if (view.getUint16(superblock.magicAt, true) !== superblock.magic) return undefined
  const label = bytes.subarray(superblock.labelAt, superblock.labelAt + superblock.labelBytes)
  const end = label.indexOf(0)
  return Buffer.from(end < 0 ? label : label.subarray(0, end)).toString("utf8")
}

/** All block devices, partitions included, but for those that live in memory. */
export const devices = async (): Promise<ReadonlyArray<string>> => {
  const names = await readdir("/sys/class/block").catch((): Array<string> => [])
  return names
    .filter((name) => !/^(loop|ram|zram)/.test(name))
    .toSorted()
    .map((name) => `/dev/${name}`)
}

/** The devices with an ext4 of this label. A disk that cannot be read has none. */
export const withLabel = async (label: string): Promise<ReadonlyArray<string>> => {
  const found: Array<string> = []
  for (const device of await devices()) {
    const bytes = await read(device, superblock.at, 1024).catch(() => new Uint8Array())
    if (labelIn(bytes) === label) found.push(device)
  }
  return found
}

/** The pieces of a disk of `size` bytes that are looked at, each once. */
export const piecesOf = (size: number): ReadonlyArray<{ readonly position: number; readonly length: number }> => {
  if (size <= 2 * endBytes) return [{ position: 0, length: size }]
  const step = Math.max(sample.bytes, Math.floor((size - 2 * endBytes) / sample.pieces / 512) * 512)
  const between = []
  for (let position = endBytes; position + sample.bytes <= size - endBytes; position += step) {
    between.push({ position, length: sample.bytes })
  }
  return [{ position: 0, length: endBytes }, { position: size - endBytes, length: endBytes }, ...between]
}

/** Bytes of a block device, of a file too. The kernel counts devices in units of 512 whatever their sectors are. */
const sizeOf = async (device: string): Promise<number> => {
  const sectors = await readFile(`/sys/class/block/${basename(device)}/size`, "utf8").catch(() => undefined)
  return sectors === undefined ? (await stat(device)).size : Number(sectors) * 512
}

/** Whether nothing is on it that anybody could miss, as far as {@link piecesOf} shows. */
export const isEmpty = async (device: string): Promise<boolean> => {
  const size = await sizeOf(device)
  if (size === 0) return false
  for (const { length, position } of piecesOf(size)) {
    const bytes = await read(device, position, length)
    if (bytes.length < length || !bytes.every((byte) => byte === 0)) return false
  }
  return true
}
