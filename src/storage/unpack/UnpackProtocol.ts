/**
 * What the brain and `unpack` (unpack.c, which has the frames) say to each other, as bytes. Pure.
 *
 * Use `makeCommands` to collect what is to be done and `makeAnswers` to read what is told, in pieces of any size.
 *
 * Traps: what `take` hands out is good until the next command. The bytes of a `Tar` are a view of what was pushed, when the frame came in one piece.
 */
import type { TarEntry, TarType } from "../Tar.ts"

/** What `unpack` tells. */
export type Answer =
  /** The next bytes of the tar, and how many after them stay there. */
  | { readonly _tag: "Tar"; readonly content: number; readonly bytes: Uint8Array }
  | { readonly _tag: "Rest"; readonly count: number }
  /** The tar's digest in hexadecimal digits, and how much of the last content never came. */
  | { readonly _tag: "End"; readonly missing: number; readonly digest: string }
  | { readonly _tag: "Broken"; readonly problem: string }
  | { readonly _tag: "Failed"; readonly errno: number; readonly problem: string }
  | { readonly _tag: "Synced" }

/** Far more than any frame has. */
const mostAnswerBytes = 1 << 20

const answerOf = (frame: Buffer): Answer | undefined => {
  const number = (at: number, width: 4 | 8): number =>
    frame.length < at + width ? Number.NaN : width === 4 ? frame.readUInt32LE(at) : Number(frame.readBigUInt64LE(at))
  switch (frame[0]) {
    case 1:
      return { _tag: "Tar", content: number(1, 8), bytes: frame.subarray(9) }
    case 2:
      return { _tag: "Rest", count: number(1, 8) }
    case 3:
      return { _tag: "End", missing: number(1, 8), digest: frame.toString("latin1", 9) }
    case 4:
      return { _tag: "Broken", problem: frame.toString("utf8", 1) }
    case 5:
      return { _tag: "Failed", errno: number(1, 4), problem: frame.toString("utf8", 5) }
    case 6:
      return { _tag: "Synced" }
    default:
      return undefined
  }
}

/** Takes output and gives the answers in it. Undefined: it does not keep to the protocol. */
export const makeAnswers = (): ((bytes: Uint8Array) => ReadonlyArray<Answer> | undefined) => {
  let left: Buffer = Buffer.alloc(0)
  return (bytes) => {
    const all =
      left.length === 0 ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) : Buffer.concat([left, bytes])
    const answers: Array<Answer> = []
    let at = 0
    while (all.length - at >= 4) {
      const length = all.readUInt32LE(at)
      if (length === 0 || length > mostAnswerBytes) return undefined
      if (all.length - at < 4 + length) break
      const answer = answerOf(all.subarray(at + 4, at + 4 + length))
      if (answer === undefined) return undefined
      answers.push(answer)
      at += 4 + length
    }
    left = Buffer.from(all.subarray(at))
    return answers
  }
}

/** Collects commands. */
export interface Commands {
  /** So many bytes of the blob are there. */
  readonly upTo: (count: number) => void
  /** Makes an entry as the layer filter says it. A directory's attributes are `give`n when nothing more is put into it. */
  readonly make: (entry: TarEntry) => void
  /** The next content is nobody's. */
  readonly drop: (size: number) => void
  readonly give: (directory: TarEntry) => void
  /** Into the archive: these bytes, then the next content of this size (0: none). */
  readonly pass: (header: Uint8Array, size: number) => void
  readonly sync: () => void
  /** Bytes collected so far. */
  readonly size: () => number
  /** All of them; it has none after. */
  readonly take: () => Uint8Array
}

const kinds = {
  upTo: 1,
  directory: 2,
  file: 3,
  symlink: 4,
  hardlink: 5,
  node: 6,
  drop: 7,
  give: 8,
  sync: 9,
  pass: 10
} as const

/** `S_IFMT` of what mknod(2) makes. */
const nodeTypes: { readonly [Type in TarType]?: number } = { character: 0o020_000, block: 0o060_000, fifo: 0o010_000 }

const withoutSlash = (name: string): string => (name === "./" ? "" : name.endsWith("/") ? name.slice(0, -1) : name)

export const makeCommands = (): Commands => {
  let bytes = Buffer.alloc(64 * 1024)
  let used = 0

  const room = (count: number): void => {
    if (used + count <= bytes.length) return
    bytes = Buffer.concat([bytes.subarray(0, used)], Math.max(bytes.length * 2, used + count))
  }
  const number32 = (value: number): void => {
    used = bytes.writeUInt32LE(value, used)
  }
  const number64 = (value: number): void => {
    used = bytes.writeBigInt64LE(BigInt(value), used)
  }
  /** A binary string. */
  const raw = (text: string): void => {
    used += bytes.write(text, used, "latin1")
  }
  const text = (value: string): void => {
    number32(value.length)
    raw(value)
  }
  const frame = (kind: number, most: number, fields: () => void): void => {
    room(5 + most)
    const start = used
    used += 5
    bytes[start + 4] = kind
    fields()
    bytes.writeUInt32LE(used - start - 4, start)
  }
  const attributesSize = ({ xattrs }: TarEntry): number => {
    let size = 28
    for (const [name, value] of xattrs) size += 8 + name.length + value.length
    return size
  }
  const attributes = ({ gid, mode, modified, uid, xattrs }: TarEntry): void => {
    number32(mode)
    number32(uid)
    number32(gid)
    number64(modified.seconds)
    number32(modified.nanoseconds)
    number32(xattrs.size)
    for (const [name, value] of xattrs) {
      text(name)
      number32(value.length)
      bytes.set(value, used)
      used += value.length
    }
  }

  const make = (entry: TarEntry): void => {
    const path = withoutSlash(entry.name)
    const { linkName } = entry
    switch (entry.type) {
      case "directory":
        return frame(kinds.directory, path.length, () => raw(path))
      case "file":
        return frame(kinds.file, attributesSize(entry) + 8 + path.length, () => {
          attributes(entry)
          number64(entry.size)
          raw(path)
        })
      case "symlink":
        return frame(kinds.symlink, attributesSize(entry) + 4 + linkName.length + path.length, () => {
          attributes(entry)
          text(linkName)
          raw(path)
        })
      case "hardlink":
        return frame(kinds.hardlink, 4 + linkName.length + path.length, () => {
          text(linkName)
          raw(path)
        })
      default:
        return frame(kinds.node, attributesSize(entry) + 12 + path.length, () => {
          attributes(entry)
          number32(nodeTypes[entry.type] ?? 0)
          number32(entry.major)
          number32(entry.minor)
          raw(path)
        })
    }
  }

  return {
    upTo: (count) => frame(kinds.upTo, 8, () => number64(count)),
    make,
    drop: (size) => frame(kinds.drop, 8, () => number64(size)),
    give: (directory) =>
      frame(kinds.give, attributesSize(directory) + directory.name.length, () => {
        attributes(directory)
        raw(withoutSlash(directory.name))
      }),
    pass: (header, size) =>
      frame(kinds.pass, 8 + header.length, () => {
        number64(size)
        bytes.set(header, used)
        used += header.length
      }),
    sync: () => frame(kinds.sync, 0, () => {}),
    size: () => used,
    take: () => {
      const all = bytes.subarray(0, used)
      used = 0
      return all
    }
  }
}
