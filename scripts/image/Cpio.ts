/**
 * Writes cpio archives (newc), the format of an initramfs. The bytes depend on the entries alone: no times, no inode
 * numbers of the builder, owner root. Device nodes are entries like others, so nobody needs to be root to make one.
 *
 * Trap: the kernel makes no missing parents: every directory has to be an entry before what is in it ({@link withParents}).
 */

export interface CpioEntry {
  /** Without a leading slash. */
  readonly path: string
  /** Permissions. */
  readonly mode: number
  readonly kind:
    | { readonly _tag: "Directory" }
    | { readonly _tag: "File"; readonly content: Uint8Array }
    | { readonly _tag: "Link"; readonly target: string }
    | { readonly _tag: "Device"; readonly major: number; readonly minor: number }
}

export const directory = (path: string, mode = 0o755): CpioEntry => ({ path, mode, kind: { _tag: "Directory" } })
export const file = (path: string, content: Uint8Array | string, mode = 0o644): CpioEntry => ({
  path,
  mode,
  kind: { _tag: "File", content: typeof content === "string" ? Buffer.from(content) : content }
})
export const link = (path: string, target: string): CpioEntry => ({ path, mode: 0o777, kind: { _tag: "Link", target } })
export const device = (path: string, major: number, minor: number, mode = 0o600): CpioEntry => ({
  path,
  mode,
  kind: { _tag: "Device", major, minor }
})

/** The entries in order of their paths, with the directories that they are in and nobody has said. */
export const withParents = (entries: ReadonlyArray<CpioEntry>): ReadonlyArray<CpioEntry> => {
  const all = new Map(entries.map((entry) => [entry.path, entry]))
  for (const { path } of entries) {
    for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1)) {
      const parent = path.slice(0, end)
      if (!all.has(parent)) all.set(parent, directory(parent))
    }
  }
  return [...all.values()].sort((one, other) => (one.path < other.path ? -1 : one.path > other.path ? 1 : 0))
}

const types = { Directory: 0o040000, File: 0o100000, Link: 0o120000, Device: 0o020000 } as const

const padding = (length: number): Buffer => Buffer.alloc((4 - (length % 4)) % 4)

const record = (fields: {
  readonly name: string
  readonly inode: number
  readonly mode: number
  readonly links: number
  readonly content: Uint8Array
  readonly major: number
  readonly minor: number
}): ReadonlyArray<Uint8Array> => {
  const name = Buffer.from(`${fields.name}\0`)
  const numbers = [
    fields.inode,
    fields.mode,
    0, // uid
    0, // gid
    fields.links,
    0, // modification time
    fields.content.length,
    0, // device of the file
    0,
    fields.major,
    fields.minor,
    name.length,
    0 // checksum, which newc does not have
  ]
  const header = Buffer.from(`070701${numbers.map((number) => number.toString(16).padStart(8, "0")).join("")}`)
  return [header, name, padding(header.length + name.length), fields.content, padding(fields.content.length)]
}

const nothing = new Uint8Array()

/** The archive. Entries as {@link withParents} gives them. */
export const archive = (entries: ReadonlyArray<CpioEntry>): Buffer => {
  const parts = entries.flatMap(({ kind, mode, path }, index) =>
    record({
      name: path,
      inode: index + 1,
      mode: types[kind._tag] | mode,
      links: kind._tag === "Directory" ? 2 : 1,
      content: kind._tag === "File" ? kind.content : kind._tag === "Link" ? Buffer.from(kind.target) : nothing,
      major: kind._tag === "Device" ? kind.major : 0,
      minor: kind._tag === "Device" ? kind.minor : 0
    })
  )
  const end = record({ name: "TRAILER!!!", inode: 0, mode: 0, links: 1, content: nothing, major: 0, minor: 0 })
  const whole = Buffer.concat([...parts, ...end])
  // to a whole sector, so that another archive can follow
  return Buffer.concat([whole, Buffer.alloc((512 - (whole.length % 512)) % 512)])
}
