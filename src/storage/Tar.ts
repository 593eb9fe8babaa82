/**
 * Tar entries as data: what `TarReader` finds and `TarWriter` writes. The meaning of entries in an image layer
 * (whiteouts, what is refused) is `LayerFilter`'s.
 *
 * Trap: names, link targets and attribute names are *binary strings*: one character per byte (latin1), because Linux
 * file names are bytes and need not be UTF-8. Use `fromBinary` to show one to people, never to pass one on.
 */
/** What an entry makes. */
export type TarType = "file" | "hardlink" | "symlink" | "character" | "block" | "directory" | "fifo"

/** A time as tar has it: `nanoseconds` is 0 to 999,999,999 and counts forward, also before 1970. */
export interface TarTime {
  readonly seconds: number
  readonly nanoseconds: number
}

/** One entry. Names are binary strings, as they stand in the archive. */
export interface TarEntry {
  readonly name: string
  readonly type: TarType
  /** The twelve permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Bytes of content that follow; 0 for all but files. */
  readonly size: number
  readonly modified: TarTime
  /** Target of a symlink or hard link, else "". */
  readonly linkName: string
  /** Device numbers, else 0. */
  readonly major: number
  readonly minor: number
  /** Extended attributes (`SCHILY.xattr.` in PAX), raw. */
  readonly xattrs: ReadonlyMap<string, Uint8Array>
}

/** Everything in a tar is a multiple of this. */
export const blockSize = 512

/** A binary string as people should see it: UTF-8 where it is, what could disturb a terminal escaped, bounded. */
export const fromBinary = (binary: string): string => {
  const text = Buffer.from(binary.slice(0, 1024), "latin1").toString("utf8")
  const shown = text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}"\\]/gu,
    (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`
  )
  return binary.length > 1024 ? `${shown}…` : shown
}

/** A text as a binary string of its UTF-8 bytes. */
export const toBinary = (text: string): string => Buffer.from(text, "utf8").toString("latin1")

/** Bytes of padding after content of this size. */
export const paddingAfter = (size: number): number => (blockSize - (size % blockSize)) % blockSize
