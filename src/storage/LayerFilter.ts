/**
 * From the tar of an image layer to entries that can be made as they stand, for overlayfs: every entry is parsed, judged and
 * *said anew*, so whoever makes it never reads a header that a stranger wrote. Pure and streaming. `LayerArchive` writes them as
 * a tar again; for those who have the contents elsewhere, these need not come by (`skip`).
 *
 * - `.wh.NAME` becomes a character device 0:0, `.wh..wh..opq` the attribute `trusted.overlay.opaque` on its directory. Both
 *   speak about lower layers only: what the same layer has of that name stays, whatever the order of the entries.
 * - Refused, with the entry named: absolute paths, "..", ways through absolute or climbing symlinks or through files, hard
 *   links to what this layer does not have, unknown types, sparse files, and whatever is over a limit.
 * - A path that comes twice: the last one wins; a directory that comes twice keeps its content.
 * - Of extended attributes only those that speak to the container pass: `user.*` (without `user.overlay.*`),
 *   `security.capability` and POSIX ACLs. `trusted.*` and other `security.*` speak to this host's kernel and are left out.
 *
 * There are two outputs: the entries, while input comes (`LayerSink`) and at its end (`tail`), and after them `closing`: directories
 * whose attributes were known only then. What an entry finds in its place it replaces, a directory with all in it; what closes only
 * gives attributes to what is there.
 */
import { fromBinary, type TarEntry } from "./Tar.ts"
import { makeTarReader, type TarFault } from "./TarReader.ts"
import {
  type Attributes,
  components,
  directories,
  type Directory,
  makeDirectory,
  other,
  type PathLimits,
  place
} from "./LayerTree.ts"

/** Bounds on one layer; beyond them it is refused. */
export interface LayerLimits extends PathLimits {
  /** Entries, whiteouts included. Memory while unpacking is about 150 bytes for each. */
  readonly entries: number
  /** Bytes of all files together, uncompressed. */
  readonly totalBytes: number
  /** How many times larger than its blob a layer may be, when it has more than {@link ratioFloor} bytes. */
  readonly ratio: number
  /** Bytes of one extended header. */
  readonly headerBytes: number
  /** Directories that are opaque or have extended attributes: these are remembered for the layers above. */
  readonly specialDirectories: number
}

export const defaultLimits: LayerLimits = {
  entries: 1_000_000,
  totalBytes: 64 * 1024 ** 3,
  ratio: 10_000,
  headerBytes: 1024 * 1024,
  depth: 256,
  pathBytes: 3072,
  specialDirectories: 65_536
}

/** What is no larger is no bomb, however well it was packed. */
export const ratioFloor = 1024 ** 3

/** What an archive may have besides its files and their headers. */
const spareBytes = 64 * 1024 ** 2

/** The limits for a layer whose blob has so many bytes. */
export const limitsFor = (limits: LayerLimits, blobBytes: number): LayerLimits => ({
  ...limits,
  totalBytes: Math.min(limits.totalBytes, Math.max(limits.ratio * blobBytes, ratioFloor))
})

/** A directory that later layers must know more about than `lstat` tells. `path` is a binary string, "" for the root. */
export interface SpecialDirectory {
  readonly path: string
  readonly opaque: boolean
  readonly xattrs: ReadonlyMap<string, Uint8Array>
}

/** Who hears what a layer becomes. */
export interface LayerSink {
  /** May refuse it, in words. */
  readonly entry: (entry: TarEntry) => string | undefined
  /** Content of the last entry: a view of the pushed bytes. What is to be kept must be copied before the next push. */
  readonly data: (bytes: Uint8Array) => void
  /** An entry with content that becomes nothing, such as a whiteout: no `data` comes of it. */
  readonly dropped: (size: number) => void
}

export interface LayerFilter {
  /** Takes bytes of the layer's tar and tells the sink what they became. */
  readonly push: (bytes: Uint8Array) => TarFault | undefined
  /** How many bytes from here on are content and its padding; 0 when a header is next. */
  readonly skippable: () => number
  /** So many of these exist, but are not pushed. */
  readonly skip: (count: number) => void
  /** So many bytes follow on the end of the archive, and are not pushed. */
  readonly rest: (count: number) => TarFault | undefined
  /** No more input: checks that it was whole. */
  readonly end: () => TarFault | undefined
  /** After `end`: the last entries, whiteouts. There may be very many. */
  readonly tail: () => Iterable<TarEntry>
  /** After `end`: directories without an entry of their own, parents first. Their attributes are the lower layer's. */
  readonly implicit: () => ReadonlyArray<string>
  /** After `end`, given the attributes of implicit directories: those that have others than when they were made. */
  readonly closing: (inherited: ReadonlyMap<string, Attributes>) => Iterable<TarEntry>
  /** The same of every directory. */
  readonly closingAll: (inherited: ReadonlyMap<string, Attributes>) => Iterable<TarEntry>
  /** After all of `closing` or `closingAll`, whose inherited attributes count. */
  readonly special: () => ReadonlyArray<SpecialDirectory>
  readonly entries: () => number
  readonly bytes: () => number
}

const whiteoutPrefix = ".wh."
const metadataPrefix = ".wh..wh."
const opaqueMarker = ".wh..wh..opq"

/** What an implicit directory gets when no lower layer has it. */
export const defaultAttributes: Attributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  modified: { seconds: 0, nanoseconds: 0 },
  xattrs: new Map()
}

const passes = (attribute: string): boolean =>
  (attribute.startsWith("user.") && !attribute.startsWith("user.overlay.")) ||
  attribute === "security.capability" ||
  attribute === "system.posix_acl_access" ||
  attribute === "system.posix_acl_default"

/** The kernel has none of them on what is neither file nor directory. */
const passing = ({ type, xattrs }: TarEntry): ReadonlyMap<string, Uint8Array> =>
  xattrs.size === 0
    ? xattrs
    : new Map([...xattrs].filter(([attribute]) => (type === "file" || type === "directory") && passes(attribute)))

const directoryEntry = (path: string, attributes: Attributes): TarEntry => ({
  ...attributes,
  name: path === "" ? "./" : `${path}/`,
  type: "directory",
  size: 0,
  linkName: "",
  major: 0,
  minor: 0
})

const whiteoutEntry = (path: string): TarEntry => ({
  ...defaultAttributes,
  name: path,
  type: "character",
  mode: 0,
  size: 0,
  linkName: "",
  major: 0,
  minor: 0
})

export const makeLayerFilter = (limits: LayerLimits, sink: LayerSink): LayerFilter => {
  const root = makeDirectory("", undefined)
  let entries = 0
  let totalBytes = 0
  let specialDirectories = 0
  /** The content of the current entry is nobody's. */
  let dropped = false

  const emit = (entry: TarEntry): string | undefined => {
    dropped = false
    return sink.entry(entry)
  }

  const makeImplicit = (parent: Directory, name: string): Directory => {
    const made = makeDirectory(parent.path === "" ? name : `${parent.path}/${name}`, undefined)
    parent.children.set(name, made)
    emit(directoryEntry(made.path, defaultAttributes))
    return made
  }

  const countSpecial = (
    directory: Directory,
    becomes: { readonly opaque: boolean; readonly attributes: Attributes | undefined }
  ) => {
    const was = directory.opaque || (directory.attributes?.xattrs.size ?? 0) > 0
    const is = becomes.opaque || (becomes.attributes?.xattrs.size ?? 0) > 0
    if (is && !was) specialDirectories++
    directory.opaque = becomes.opaque
    directory.attributes = becomes.attributes
    return specialDirectories > limits.specialDirectories
      ? `is one of more than ${limits.specialDirectories} directories that are opaque or have extended attributes`
      : undefined
  }

  const takeDirectory = (list: ReadonlyArray<string>, entry: TarEntry): string | undefined => {
    const attributes: Attributes = {
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      modified: entry.modified,
      xattrs: entry.xattrs
    }
    if (list.length === 0) {
      root.stale = true
      return countSpecial(root, { opaque: root.opaque, attributes })
    }
    const found = place(root, list, limits, makeImplicit)
    if (typeof found === "string") return found
    const existing = found.parent.children.get(found.base)
    if (existing?.kind === "directory") {
      existing.stale = true
      return countSpecial(existing, { opaque: existing.opaque, attributes })
    }
    const made = makeDirectory(found.path, undefined)
    found.parent.children.set(found.base, made)
    return emit(directoryEntry(found.path, attributes)) ?? countSpecial(made, { opaque: false, attributes })
  }

  const takeWhiteout = (list: ReadonlyArray<string>, base: string): string | undefined => {
    dropped = true
    const isOpaque = base === opaqueMarker
    if (base.startsWith(metadataPrefix) && !isOpaque) return undefined
    const hidden = base.slice(whiteoutPrefix.length)
    if (hidden === "" || hidden === "." || hidden === "..") return "is a whiteout of no proper name"
    const found = place(root, list, limits, makeImplicit)
    dropped = true
    if (typeof found === "string") return found
    if (isOpaque) return countSpecial(found.parent, { opaque: true, attributes: found.parent.attributes })
    found.parent.whiteouts ??= new Set()
    found.parent.whiteouts.add(hidden)
    return undefined
  }

  const takeHardlink = (list: ReadonlyArray<string>, entry: TarEntry): string | undefined => {
    const wanted = `"${fromBinary(entry.linkName)}"`
    // An absolute target means the image's root. Being an entry of this layer is what makes it safe.
    const targetList = components(entry.linkName.replace(/^\/+/, ""), limits)
    if (typeof targetList === "string") return `is a hard link whose target ${wanted} ${targetList}`
    const target = place(root, targetList, limits)
    if (typeof target === "string") return `is a hard link whose target ${wanted} ${target}`
    const node = target.parent.children.get(target.base)
    if (node === undefined) return `is a hard link to ${wanted}, which is not in this layer`
    if (node.kind === "directory") return `is a hard link to ${wanted}, which is a directory`
    const found = place(root, list, limits, makeImplicit)
    if (typeof found === "string") return found
    if (found.path === target.path || target.path.startsWith(`${found.path}/`)) return "is a hard link to itself"
    found.parent.children.set(found.base, node)
    return emit({ ...entry, name: found.path, linkName: target.path })
  }

  const takeOther = (list: ReadonlyArray<string>, entry: TarEntry): string | undefined => {
    if (entry.type === "symlink" && entry.linkName.length > limits.pathBytes) {
      return `is a symlink to ${entry.linkName.length} bytes, more than the ${limits.pathBytes} allowed`
    }
    totalBytes += entry.size
    if (totalBytes > limits.totalBytes) {
      return `brings the layer to ${totalBytes} bytes, more than the ${limits.totalBytes} allowed`
    }
    const found = place(root, list, limits, makeImplicit)
    if (typeof found === "string") return found
    found.parent.children.set(
      found.base,
      entry.type === "symlink" ? { kind: "symlink", target: entry.linkName } : other
    )
    return emit({ ...entry, name: found.path })
  }

  const take = (raw: TarEntry): string | undefined => {
    entries++
    dropped = false
    if (entries > limits.entries) return `is one of more than ${limits.entries} entries, which is the limit`
    const list = components(raw.name, limits)
    if (typeof list === "string") return list
    const entry = { ...raw, xattrs: passing(raw) }
    const base = list[list.length - 1]
    if (list.slice(0, -1).some((component) => component.startsWith(whiteoutPrefix))) {
      return "lies in a directory that is named like a whiteout"
    }
    if (base !== undefined && base.startsWith(whiteoutPrefix)) return takeWhiteout(list, base)
    if (entry.type === "directory") return takeDirectory(list, entry)
    if (base === undefined) return "would replace the root directory"
    return entry.type === "hardlink" ? takeHardlink(list, entry) : takeOther(list, entry)
  }

  const reader = makeTarReader(
    {
      entry: (raw) => {
        const refused = take(raw)
        if (refused === undefined && dropped && raw.size > 0) sink.dropped(raw.size)
        return refused
      },
      data: (bytes) => {
        if (!dropped) sink.data(bytes)
      }
    },
    limits
  )

  function* whiteouts(): Generator<TarEntry> {
    for (const directory of directories(root)) {
      for (const hidden of directory.whiteouts ?? []) {
        const child = directory.children.get(hidden)
        if (child === undefined) {
          yield whiteoutEntry(directory.path === "" ? hidden : `${directory.path}/${hidden}`)
        } else if (child.kind === "directory") child.opaque = true
      }
    }
  }

  const implicit = (): ReadonlyArray<string> => {
    const list: Array<string> = []
    for (const { attributes, path } of directories(root)) if (attributes === undefined) list.push(path)
    return list
  }

  function* closing(inherited: ReadonlyMap<string, Attributes>, all: boolean): Generator<TarEntry> {
    for (const directory of directories(root)) {
      if (directory.attributes === undefined) {
        directory.attributes = inherited.get(directory.path)
        directory.stale = directory.attributes !== undefined
      }
      // The root exists before the archive does, so the main archive never describes it.
      if (!all && !directory.stale && !directory.opaque && directory !== root) continue
      const attributes = directory.attributes ?? defaultAttributes
      const xattrs = directory.opaque
        ? new Map([...attributes.xattrs, ["trusted.overlay.opaque", Buffer.from("y")] as const])
        : attributes.xattrs
      yield directoryEntry(directory.path, { ...attributes, xattrs })
    }
  }

  const special = (): ReadonlyArray<SpecialDirectory> => {
    const list: Array<SpecialDirectory> = []
    for (const { attributes, opaque, path } of directories(root)) {
      const xattrs = attributes?.xattrs ?? new Map()
      if (opaque || xattrs.size > 0) list.push({ path, opaque, xattrs })
    }
    return list
  }

  // what no entry counts, such as extended headers without end and zeros behind the archive's
  const mostTarBytes = limits.totalBytes + limits.entries * 1024 + spareBytes
  let pushed = 0
  const counted = (count: number): TarFault | undefined => {
    pushed += count
    return pushed <= mostTarBytes
      ? undefined
      : {
          entry: `(byte ${pushed})`,
          problem: `is one of more than the ${mostTarBytes} bytes that its archive may have`
        }
  }

  return {
    push: (bytes) => {
      const fault = reader.push(bytes)
      const tooMany = counted(bytes.length)
      return fault ?? tooMany
    },
    skippable: reader.skippable,
    skip: (count) => {
      pushed += count
      reader.skip(count)
    },
    rest: counted,
    end: reader.end,
    tail: whiteouts,
    implicit,
    closing: (inherited) => closing(inherited, false),
    closingAll: (inherited) => closing(inherited, true),
    special,
    entries: () => entries,
    bytes: () => totalBytes
  }
}
