/**
 * An incremental tar reader: ustar, PAX, GNU and v7, with bounds on everything. Pure: bytes in, calls out, no I/O.
 *
 * Use `makeTarReader` for bytes that arrive in pieces; with a seekable file, `skippable` and `skip` leave contents out.
 *
 * Traps: where readers differ (GNU long names against PAX paths, sizes of links) this one does as Go's `archive/tar`,
 * which is what container tools use. Sparse files are refused: their meaning differs most, and no image builder writes
 * them. After a fault the reader is done.
 */
import { blockSize, fromBinary, paddingAfter, type TarEntry, type TarTime, type TarType } from "./Tar.ts"

/** Why an archive is refused. `entry` is the name as far as it is known, or where in the archive the trouble is. */
export interface TarFault {
  readonly entry: string
  readonly problem: string
}

/** Receives what a reader finds. Each may refuse: the returned text becomes the fault's `problem` and the reader stops. */
export interface TarHandler {
  readonly entry: (entry: TarEntry) => string | undefined
  /** Content of the last entry. The bytes are a view: copy what must be kept. */
  readonly data: (bytes: Uint8Array) => void
}

export interface TarLimits {
  /** Bytes of one extended header (PAX or GNU long name). */
  readonly headerBytes: number
}

export interface TarReader {
  /** Takes the next bytes. After a fault the reader is done: push no more. */
  readonly push: (bytes: Uint8Array) => TarFault | undefined
  /** Says that there are no more bytes: a fault when they ended in the middle. */
  readonly end: () => TarFault | undefined
  /** How many bytes from here on (content and padding) `skip` may leave out; 0 when a header is next. */
  readonly skippable: () => number
  /** Acts as if so many of these bytes (all when not said) had been pushed, without calling `data`. For archives in a seekable file. */
  readonly skip: (count?: number) => void
  /** Bytes of the archive dealt with; while `entry` runs, where its content begins. */
  readonly offset: () => number
  /** The end of the archive was seen; what follows is ignored. */
  readonly ended: () => boolean
}

const types: ReadonlyMap<string, TarType> = new Map([
  ["0", "file"],
  ["\0", "file"],
  ["7", "file"],
  ["1", "hardlink"],
  ["2", "symlink"],
  ["3", "character"],
  ["4", "block"],
  ["5", "directory"],
  ["6", "fifo"]
])

const text = (block: Buffer, start: number, length: number): string => {
  const end = block.indexOf(0, start)
  return block.toString("latin1", start, end < 0 || end > start + length ? start + length : end)
}

/** An octal or base-256 number; undefined when it is neither, or beyond what a double holds exactly. */
const number = (block: Buffer, start: number, length: number): number | undefined => {
  const first = block.readUInt8(start)
  if ((first & 0x80) !== 0) {
    let value = (first & 0x40) !== 0 ? -1n : 0n
    value = (value << 6n) | BigInt(first & 0x3f)
    for (let index = start + 1; index < start + length; index++) value = (value << 8n) | BigInt(block.readUInt8(index))
    const plain = Number(value)
    return Number.isSafeInteger(plain) ? plain : undefined
  }
  // not trim(), to which bytes beyond ASCII are spaces, too
  const digits = /^[\t-\r ]*([0-7]*)[\t-\r ]*$/.exec(text(block, start, length))?.[1]
  if (digits === undefined || digits === "") return digits === "" ? 0 : undefined
  const value = Number.parseInt(digits, 8)
  return Number.isSafeInteger(value) ? value : undefined
}

/** Both the unsigned sum of POSIX and the signed one of old Sun tars are right. */
const checksumIsRight = (block: Buffer): boolean => {
  const written = number(block, 148, 8)
  let unsigned = 256
  let signed = 256
  for (let index = 0; index < blockSize; index++) {
    if (index === 148) index = 156
    const byte = block[index] ?? 0
    unsigned += byte
    signed += byte < 128 ? byte : byte - 256
  }
  return written === unsigned || written === signed
}

const decimal = (value: string): number | undefined => {
  if (!/^-?[0-9]{1,16}$/.test(value)) return undefined
  const parsed = Number(value)
  return Number.isSafeInteger(parsed) ? parsed : undefined
}

const time = (value: string): TarTime | undefined => {
  const match = /^(-?)([0-9]{1,16})(?:\.([0-9]{0,32}))?$/.exec(value)
  if (match === null) return undefined
  const whole = Number(match[2])
  const nanoseconds = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"))
  if (!Number.isSafeInteger(whole)) return undefined
  if (match[1] !== "-") return { seconds: whole, nanoseconds }
  return nanoseconds === 0
    ? { seconds: 0 - whole, nanoseconds: 0 }
    : { seconds: 0 - whole - 1, nanoseconds: 1e9 - nanoseconds }
}

/** The records of one PAX extended header that matter here; a text is why it is refused. */
interface Extended {
  path?: string
  linkPath?: string
  size?: number
  uid?: number
  gid?: number
  modified?: TarTime
  readonly xattrs: Map<string, Uint8Array>
}

const xattrPrefix = "SCHILY.xattr."

const parseExtended = (bytes: Buffer): Extended | string => {
  const extended: Extended = { xattrs: new Map() }
  const name = (value: string) => (value.includes("\0") ? undefined : value)
  for (let position = 0; position < bytes.length;) {
    const space = bytes.indexOf(0x20, position)
    const length = space < 0 || space - position > 10 ? undefined : decimal(bytes.toString("latin1", position, space))
    if (length === undefined || length <= space - position + 2 || position + length > bytes.length) {
      return "has a PAX record of impossible length"
    }
    const end = position + length - 1
    const equals = bytes.indexOf(0x3d, space + 1)
    if (bytes[end] !== 0x0a || equals < 0 || equals >= end) return "has a PAX record that is not `length key=value`"
    const key = bytes.toString("latin1", space + 1, equals)
    const raw = bytes.subarray(equals + 1, end)
    const value = raw.toString("latin1")
    position += length
    if (key.startsWith(xattrPrefix)) {
      const attribute = key.slice(xattrPrefix.length)
      if (attribute === "" || attribute.includes("\0")) return "has an extended attribute without a proper name"
      extended.xattrs.set(attribute, Uint8Array.from(raw))
      continue
    }
    if (key.startsWith("GNU.sparse.")) return "is a sparse file, which is not supported"
    if (value === "") continue
    const bad = `has an invalid PAX ${key} "${fromBinary(value.slice(0, 64))}"`
    switch (key) {
      case "path": {
        const path = name(value)
        if (path === undefined) return bad
        extended.path = path
        break
      }
      case "linkpath": {
        const path = name(value)
        if (path === undefined) return bad
        extended.linkPath = path
        break
      }
      case "size":
      case "uid":
      case "gid": {
        const parsed = decimal(value)
        if (parsed === undefined) return bad
        extended[key] = parsed
        break
      }
      case "mtime": {
        const parsed = time(value)
        if (parsed === undefined) return bad
        extended.modified = parsed
        break
      }
    }
  }
  return extended
}

const maximumId = 0xffff_fffe
const isId = (value: number | undefined): value is number => value !== undefined && value >= 0 && value <= maximumId

/** What the bytes at hand belong to. */
type Phase =
  | { readonly _tag: "Header" }
  /** An extended header is being collected; `left` counts its padding too. */
  | {
      readonly _tag: "Extended"
      readonly flag: string
      readonly size: number
      filled: number
      readonly bytes: Buffer
      left: number
    }
  | { readonly _tag: "Content"; data: number; padding: number }
  | { readonly _tag: "Ended" }

const emptyAttributes: ReadonlyMap<string, Uint8Array> = new Map()

/** An incremental reader. Memory: one block, one extended header (`limits.headerBytes`), nothing else. */
export const makeTarReader = (handler: TarHandler, limits: TarLimits): TarReader => {
  const block = Buffer.alloc(blockSize)
  let filled = 0
  let offset = 0
  let zeroBlocks = 0
  let phase: Phase = { _tag: "Header" }
  let extended: Extended | undefined
  let longName: string | undefined
  let longLink: string | undefined
  let current = ""

  const pendingExtension = (): boolean => extended !== undefined || longName !== undefined || longLink !== undefined
  const here = (): string => `(header at byte ${offset - blockSize})`

  const header = (): TarFault | undefined => {
    const flag = String.fromCharCode(block.readUInt8(156))
    const posix = block.toString("latin1", 257, 263) === "ustar\0"
    const star = posix && block.toString("latin1", 508, 512) === "tar\0"
    const prefix = posix ? text(block, 345, star ? 131 : 155) : ""
    const shortName = text(block, 0, 100)
    const plainName = prefix === "" ? shortName : `${prefix}/${shortName}`
    const name = longName ?? extended?.path ?? plainName
    current = name === "" ? here() : name
    const fault = (problem: string): TarFault => ({
      entry: current === here() ? current : fromBinary(current),
      problem
    })

    const size = extended?.size ?? number(block, 124, 12)
    if (size === undefined || size < 0) return fault("has an invalid size")
    if (flag === "x" || flag === "g" || flag === "L" || flag === "K") {
      const own = number(block, 124, 12)
      if (own === undefined || own < 0) return fault("has an invalid size")
      if (own > limits.headerBytes)
        return fault(`has an extended header of ${own} bytes, more than the ${limits.headerBytes} allowed`)
      // one without records takes back those of the one before it
      if (own === 0 && flag === "x") extended = { xattrs: new Map() }
      phase =
        own === 0
          ? { _tag: "Header" }
          : { _tag: "Extended", flag, size: own, filled: 0, bytes: Buffer.alloc(own), left: own + paddingAfter(own) }
      return undefined
    }
    if (flag === "S") return fault("is a sparse file, which is not supported")
    const declared = types.get(flag)
    if (declared === undefined) return fault(`has the unknown type "${fromBinary(flag)}"`)
    if (name === "") return fault("has no name")
    const type = declared === "file" && name.endsWith("/") ? "directory" : declared
    if (declared === "file" && type === "directory" && size !== 0) return fault("is a directory with content")
    const uid = extended?.uid ?? number(block, 108, 8)
    const gid = extended?.gid ?? number(block, 116, 8)
    if (!isId(uid) || !isId(gid)) return fault("has an invalid owner")
    const mode = number(block, 100, 8)
    if (mode === undefined || mode < 0) return fault("has an invalid mode")
    const seconds = number(block, 136, 12)
    const modified = extended?.modified ?? (seconds === undefined ? undefined : { seconds, nanoseconds: 0 })
    if (modified === undefined) return fault("has an invalid modification time")
    const device = type === "character" || type === "block"
    const major = device ? number(block, 329, 8) : 0
    const minor = device ? number(block, 337, 8) : 0
    if (major === undefined || minor === undefined || major < 0 || minor < 0 || major > 0xfff || minor > 0xf_ffff) {
      return fault("has invalid device numbers")
    }
    const link = type === "hardlink" || type === "symlink"
    const linkName = link ? (longLink ?? extended?.linkPath ?? text(block, 157, 100)) : ""
    if (link && linkName === "") return fault("links to nothing")
    const entry: TarEntry = {
      name,
      type,
      mode: mode & 0o7777,
      uid,
      gid,
      size: type === "file" ? size : 0,
      modified,
      linkName,
      major,
      minor,
      xattrs: extended?.xattrs ?? emptyAttributes
    }
    extended = undefined
    longName = undefined
    longLink = undefined
    const refused = handler.entry(entry)
    if (refused !== undefined) return fault(refused)
    phase =
      entry.size === 0 ? { _tag: "Header" } : { _tag: "Content", data: entry.size, padding: paddingAfter(entry.size) }
    return undefined
  }

  const takeBlock = (): TarFault | undefined => {
    if (block[0] === 0 && block.every((byte) => byte === 0)) {
      zeroBlocks++
      if (zeroBlocks < 2) return undefined
      if (pendingExtension()) {
        return { entry: here(), problem: "is an extended header with nothing after it" }
      }
      phase = { _tag: "Ended" }
      return undefined
    }
    if (zeroBlocks > 0) return { entry: here(), problem: "follows a block of zeros" }
    if (!checksumIsRight(block)) return { entry: here(), problem: "has a wrong checksum" }
    return header()
  }

  const takeExtended = (flag: string, bytes: Buffer): TarFault | undefined => {
    const fault = (problem: string): TarFault => ({ entry: here(), problem })
    switch (flag) {
      case "x": {
        const parsed = parseExtended(bytes)
        if (typeof parsed === "string") return fault(parsed)
        extended = parsed
        return undefined
      }
      case "L":
      case "K": {
        const end = bytes.indexOf(0)
        const value = bytes.toString("latin1", 0, end < 0 ? bytes.length : end)
        if (value === "") return fault("has an empty long name")
        if (flag === "L") longName = value
        else longLink = value
        return undefined
      }
      default:
        return undefined
    }
  }

  const push = (bytes: Uint8Array): TarFault | undefined => {
    let position = 0
    while (position < bytes.length) {
      const room = bytes.length - position
      switch (phase._tag) {
        case "Ended":
          return undefined
        case "Header": {
          const count = Math.min(room, blockSize - filled)
          block.set(bytes.subarray(position, position + count), filled)
          filled += count
          position += count
          offset += count
          if (filled < blockSize) break
          filled = 0
          const fault = takeBlock()
          if (fault !== undefined) return fault
          break
        }
        case "Extended": {
          const count = Math.min(room, phase.left)
          const useful = Math.min(count, phase.size - phase.filled)
          phase.bytes.set(bytes.subarray(position, position + useful), phase.filled)
          phase.filled += useful
          phase.left -= count
          position += count
          offset += count
          if (phase.left > 0) break
          const { bytes: collected, flag } = phase
          phase = { _tag: "Header" }
          const fault = takeExtended(flag, collected)
          if (fault !== undefined) return fault
          break
        }
        case "Content": {
          const useful = Math.min(room, phase.data)
          if (useful > 0) handler.data(bytes.subarray(position, position + useful))
          phase.data -= useful
          const padding = Math.min(room - useful, phase.padding)
          phase.padding -= padding
          position += useful + padding
          offset += useful + padding
          if (phase.data === 0 && phase.padding === 0) phase = { _tag: "Header" }
          break
        }
      }
    }
    return undefined
  }

  const end = (): TarFault | undefined => {
    const cut = (where: string): TarFault => ({
      entry: `(byte ${offset})`,
      problem: `is where the archive is cut off, ${where}`
    })
    switch (phase._tag) {
      case "Ended":
        break
      case "Header":
        if (filled > 0) return cut("in a header")
        return pendingExtension() ? cut("after an extended header") : undefined
      case "Extended":
        return cut("in an extended header")
      case "Content":
        return phase.data === 0
          ? undefined
          : { entry: fromBinary(current), problem: `is cut off: ${phase.data} bytes are missing` }
    }
    return undefined
  }

  return {
    push,
    end,
    skippable: () => (phase._tag === "Content" ? phase.data + phase.padding : 0),
    skip: (count) => {
      if (phase._tag !== "Content") return
      const skipped = Math.min(count ?? Number.POSITIVE_INFINITY, phase.data + phase.padding)
      offset += skipped
      const data = Math.min(skipped, phase.data)
      phase.data -= data
      phase.padding -= skipped - data
      if (phase.data === 0 && phase.padding === 0) phase = { _tag: "Header" }
    },
    offset: () => offset,
    ended: () => phase._tag === "Ended"
  }
}
