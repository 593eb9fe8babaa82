/**
 * Writes tar entries so that GNU tar (and Go's and Python's) read exactly what was meant: long names as GNU long-name
 * entries (bytes as they are, no character set), fractions of seconds and extended attributes as PAX records, numbers
 * beyond octal in base 256. Pure.
 *
 * Trap: contents are the caller's to append, and `paddingAfter` (Tar.ts) zeros after them.
 */
import { blockSize, paddingAfter, type TarEntry, type TarTime, type TarType } from "./Tar.ts"

const flags: { readonly [Type in TarType]: string } = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  character: "3",
  block: "4",
  directory: "5",
  fifo: "6"
}

/** Two blocks of zeros. */
export const endOfArchive: Uint8Array = new Uint8Array(2 * blockSize)

const octal = (block: Buffer, start: number, length: number, value: number): void => {
  if (value >= 0 && value < 8 ** (length - 1)) {
    block.write(value.toString(8).padStart(length - 1, "0"), start, "latin1")
    return
  }
  let rest = BigInt(value)
  for (let index = start + length - 1; index > start; index--) {
    block.writeUInt8(Number(rest & 0xffn), index)
    rest >>= 8n
  }
  block.writeUInt8(value < 0 ? 0xff : 0x80, start)
}

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(paddingAfter(bytes.length))])

interface HeaderFields extends Omit<TarEntry, "xattrs" | "type"> {
  readonly flag: string
}

const headerBlock = (entry: HeaderFields): Buffer => {
  const block = Buffer.alloc(blockSize)
  block.write(entry.name.slice(0, 100), 0, "latin1")
  octal(block, 100, 8, entry.mode)
  octal(block, 108, 8, entry.uid)
  octal(block, 116, 8, entry.gid)
  octal(block, 124, 12, entry.size)
  octal(block, 136, 12, entry.modified.seconds)
  block.write("        ", 148, "latin1")
  block.write(entry.flag, 156, "latin1")
  block.write(entry.linkName.slice(0, 100), 157, "latin1")
  block.write("ustar\x0000", 257, "latin1")
  octal(block, 329, 8, entry.major)
  octal(block, 337, 8, entry.minor)
  let sum = 0
  for (const byte of block) sum += byte
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1")
  return block
}

const auxiliary = (flag: string, name: string, content: Buffer): Buffer =>
  Buffer.concat([
    headerBlock({
      name,
      flag,
      mode: 0,
      uid: 0,
      gid: 0,
      size: content.length,
      modified: { seconds: 0, nanoseconds: 0 },
      linkName: "",
      major: 0,
      minor: 0
    }),
    padded(content)
  ])

const extendedRecord = (key: string, value: Uint8Array): Buffer => {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), value, Buffer.from("\n")])
  let length = rest.length + 1
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

const timeText = (value: TarTime): string => {
  if (value.seconds >= 0) return `${value.seconds}.${String(value.nanoseconds).padStart(9, "0")}`
  const whole = -value.seconds - 1
  return `-${whole}.${String(1e9 - value.nanoseconds).padStart(9, "0")}`
}

/** The header of an entry, with its extended headers before it. */
export const encodeEntry = (entry: TarEntry): Uint8Array => {
  const records: Array<Buffer> = []
  if (entry.modified.nanoseconds !== 0) records.push(extendedRecord("mtime", Buffer.from(timeText(entry.modified))))
  for (const [key, value] of entry.xattrs) records.push(extendedRecord(`SCHILY.xattr.${key}`, value))
  const pieces: Array<Buffer> = []
  if (records.length > 0) pieces.push(auxiliary("x", "extended", Buffer.concat(records)))
  if (entry.name.length > 100) pieces.push(auxiliary("L", "long", Buffer.from(`${entry.name}\0`, "latin1")))
  if (entry.linkName.length > 100) pieces.push(auxiliary("K", "long", Buffer.from(`${entry.linkName}\0`, "latin1")))
  pieces.push(headerBlock({ ...entry, flag: flags[entry.type] }))
  return pieces.length === 1 ? (pieces[0] ?? Buffer.alloc(0)) : Buffer.concat(pieces)
}
