/**
 * A few small files as an ISO 9660 image (ECMA-119), with their exact names once more as Joliet has them: what NoCloud of cloud-init
 * looks for on a disk. Written whole in memory; nobody writes to it afterwards.
 *
 * Trap: the names of ECMA-119 proper are recorded in capitals with hyphens, which every reader takes, though the standard does not.
 */
const SECTOR = 2048
/** After the system area: two descriptors and their end, two pairs of path tables, two directories. */
const PRIMARY = 16
const JOLIET = 17
const END = 18
const TABLES = { primary: [19, 20], joliet: [21, 22] } as const
const ROOTS = { primary: 23, joliet: 24 } as const
const FIRST_FILE = 25

export interface IsoFile {
  /** Letters, digits, hyphens. */
  readonly name: string
  readonly content: Uint8Array
}

interface Extent {
  readonly sector: number
  readonly length: number
}

const both16 = (buffer: Buffer, at: number, value: number): void => {
  buffer.writeUInt16LE(value, at)
  buffer.writeUInt16BE(value, at + 2)
}

const both32 = (buffer: Buffer, at: number, value: number): void => {
  buffer.writeUInt32LE(value, at)
  buffer.writeUInt32BE(value, at + 4)
}

const sectors = (bytes: number): number => Math.ceil(bytes / SECTOR)

const wide = (text: string): Buffer => Buffer.from(text, "utf16le").swap16()

/** A directory record; all dates are 1970: the same files are the same image. */
const record = (name: Uint8Array, { length, sector }: Extent, isDirectory: boolean): Buffer => {
  const size = 33 + name.length + ((33 + name.length) % 2)
  const found = Buffer.alloc(size)
  found[0] = size
  both32(found, 2, sector)
  both32(found, 10, length)
  found.set([70, 1, 1], 18)
  found[25] = isDirectory ? 2 : 0
  both16(found, 28, 1)
  found[32] = name.length
  found.set(name, 33)
  return found
}

/** The path table of a volume that has only its root. */
const pathTable = (root: number, order: "LE" | "BE"): Buffer => {
  const table = Buffer.alloc(10)
  table[0] = 1
  if (order === "LE") table.writeUInt32LE(root, 2)
  else table.writeUInt32BE(root, 2)
  if (order === "LE") table.writeUInt16LE(1, 6)
  else table.writeUInt16BE(1, 6)
  return table
}

const descriptor = (kind: "primary" | "joliet", label: string, total: number): Buffer => {
  const found = Buffer.alloc(SECTOR)
  const isJoliet = kind === "joliet"
  const blank = (from: number, to: number) =>
    isJoliet ? found.set(wide(" ".repeat((to - from) >> 1)), from) : found.fill(0x20, from, to)
  const text = (value: string, from: number, to: number) => {
    blank(from, to)
    found.set(isJoliet ? wide(value) : Buffer.from(value, "latin1"), from)
  }
  found[0] = isJoliet ? 2 : 1
  found.write("CD001", 1, "latin1")
  found[6] = 1
  text("", 8, 40)
  text(label, 40, 72)
  both32(found, 80, total)
  if (isJoliet) found.write("%/E", 88, "latin1")
  both16(found, 120, 1)
  both16(found, 124, 1)
  both16(found, 128, SECTOR)
  both32(found, 132, 10)
  found.writeUInt32LE(TABLES[kind][0], 140)
  found.writeUInt32BE(TABLES[kind][1], 148)
  found.set(record(Buffer.from([0]), { sector: ROOTS[kind], length: SECTOR }, true), 156)
  for (const [from, to] of [
    [190, 318],
    [318, 446],
    [446, 574],
    [574, 702],
    [702, 739],
    [739, 776],
    [776, 813]
  ] as const) {
    blank(from, to)
  }
  for (const at of [813, 830, 847, 864]) found.fill(0x30, at, at + 16)
  found[881] = 1
  return found
}

/** The image of a volume called `label`. */
export const image = (label: string, files: ReadonlyArray<IsoFile>): Uint8Array => {
  const sorted = files.toSorted((one, other) => (one.name < other.name ? -1 : 1))
  let next = FIRST_FILE
  const placed = sorted.map(({ content, name }) => {
    const extent = { sector: next, length: content.length }
    next += sectors(content.length)
    return { name, content, extent }
  })
  const result = Buffer.alloc(next * SECTOR)
  const put = (sector: number, bytes: Uint8Array) => result.set(bytes, sector * SECTOR)
  put(PRIMARY, descriptor("primary", label, next))
  put(JOLIET, descriptor("joliet", label, next))
  put(END, Buffer.from("\xffCD001\x01", "latin1"))
  for (const kind of ["primary", "joliet"] as const) {
    const root = ROOTS[kind]
    put(TABLES[kind][0], pathTable(root, "LE"))
    put(TABLES[kind][1], pathTable(root, "BE"))
    const self = { sector: root, length: SECTOR }
    const nameOf = (name: string) => (kind === "joliet" ? wide(name) : Buffer.from(`${name.toUpperCase()};1`, "latin1"))
    put(
      root,
      Buffer.concat([
        record(Buffer.from([0]), self, true),
        record(Buffer.from([1]), self, true),
        ...placed.map(({ extent, name }) => record(nameOf(name), extent, false))
      ])
    )
  }
  for (const { content, extent } of placed) put(extent.sector, content)
  return result
}
