/**
 * The layers of an image as one tree, in memory: what a mount of all of them would show, without a mount. Pure.
 *
 * It is fed with what `LayerFilter` made of each layer, lowest first, so what is refused, followed and resolved is the same as
 * for layers that are unpacked. Then it says what an archive of the whole has in it: first all that has no content, then each
 * file whose content comes by again (the entry of a layer by its number), at last the further names of files.
 *
 * Each layer is a tree of its own before it is laid over those below: what it takes away (whiteouts, opaque directories)
 * it takes from them and never from itself, in whatever order its entries came.
 *
 * Traps: memory is about 400 bytes for each entry, of the layer at hand and of the whole; `most` bounds each. Of extended
 * attributes only those pass that squashfs has (`user.*` and `security.*`): POSIX ACLs are left out.
 */
import type { TarEntry, TarTime } from "./Tar.ts"
import { defaultAttributes } from "./LayerFilter.ts"
import type { Attributes } from "./LayerTree.ts"
import { encodeEntry, endOfArchive } from "./TarWriter.ts"

/** What ends a path, under all its names. */
interface Leaf {
  readonly kind: "leaf"
  readonly entry: TarEntry
  readonly layer: number
  readonly number: number
  readonly names: Array<string>
}

interface Folder {
  readonly kind: "folder"
  /** Undefined: nobody has said; those of the lower layers count. */
  attributes: Attributes | undefined
  opaque: boolean
  readonly children: Map<string, Node>
}

type Node = Leaf | Folder | { readonly kind: "whiteout" }

const whiteout: Node = { kind: "whiteout" }

const folder = (attributes?: Attributes): Folder => ({ kind: "folder", attributes, opaque: false, children: new Map() })

const namesOf = (path: string): ReadonlyArray<string> => path.split("/").filter((name) => name !== "" && name !== ".")

const attributesOf = ({ gid, mode, modified, uid, xattrs }: TarEntry): Attributes => ({
  mode,
  uid,
  gid,
  modified,
  xattrs
})

const opaqueAttribute = "trusted.overlay.opaque"

/** What squashfs can hold: seconds of 32 bits, without a sign. */
const squashedTime = ({ seconds }: TarTime): TarTime => ({
  seconds: Math.min(Math.max(seconds, 0), 0xffff_ffff),
  nanoseconds: 0
})

const squashed = (entry: TarEntry): TarEntry => ({
  ...entry,
  modified: squashedTime(entry.modified),
  xattrs:
    entry.xattrs.size === 0
      ? entry.xattrs
      : new Map([...entry.xattrs].filter(([name]) => name.startsWith("user.") || name.startsWith("security.")))
})

/** One layer, while it is read. */
export interface LayerOfTree {
  /** The entries of the filter's main archive, numbered from 0 in their order, then those of its tail. What is wrong, if anything. */
  readonly take: (entry: TarEntry, number: number) => string | undefined
  /** The filter's directories without an entry of their own, and the entries of its closing archive. Lays it over those below. */
  readonly close: (implicit: ReadonlyArray<string>, closing: Iterable<TarEntry>) => string | undefined
}

/** The archive of the whole, in the order in which it is to be written. */
export interface MergedArchive {
  /** Directories, symlinks, devices. */
  readonly head: () => Iterable<Uint8Array>
  /** Of an entry of a layer: its header in the archive, when its content belongs there; its content and padding follow. */
  readonly fileOf: (layer: number, number: number) => Uint8Array | undefined
  /** Whether any content of a layer belongs there. */
  readonly has: (layer: number) => boolean
  /** Further names of files, and the archive's end. */
  readonly tail: () => Iterable<Uint8Array>
  readonly entries: number
}

/** At most so many entries of one image. */
export const mostEntries = 400_000

const isWhiteout = ({ major, minor, type }: TarEntry): boolean => type === "character" && major === 0 && minor === 0

/** What is new takes the place of what is there; directories it says nothing of have the attributes of those they replace. */
const settled = (upper: Folder, below: Node | undefined): Folder => {
  const under = below?.kind === "folder" ? below : undefined
  upper.attributes ??= under?.attributes
  for (const [name, child] of upper.children) {
    if (child.kind === "whiteout") upper.children.delete(name)
    else if (child.kind === "folder") settled(child, under?.children.get(name))
  }
  upper.opaque = false
  return upper
}

const lay = (upper: Folder, below: Folder): void => {
  below.attributes = upper.attributes ?? below.attributes
  for (const [name, child] of upper.children) {
    const there = below.children.get(name)
    if (child.kind === "whiteout") below.children.delete(name)
    else if (child.kind === "leaf") below.children.set(name, child)
    else if (there?.kind === "folder" && !child.opaque) lay(child, there)
    else below.children.set(name, settled(child, there))
  }
}

const layerOf = (layer: number, most: number, finish: (root: Folder) => void): LayerOfTree => {
  const root = folder()
  let count = 0

  /** The directory that holds the last of these names. */
  const parentOf = (names: ReadonlyArray<string>): Folder | undefined => {
    let at = root
    for (const name of names.slice(0, -1)) {
      const child = at.children.get(name)
      if (child?.kind !== "folder") return undefined
      at = child
    }
    return at
  }

  const nodeAt = (path: string): Node | undefined => {
    const names = namesOf(path)
    const last = names.at(-1)
    return last === undefined ? root : parentOf(names)?.children.get(last)
  }

  return {
    take: (entry, number) => {
      count++
      if (count > most) return `is one of more than ${most} entries, which a root file system for microVMs may have`
      const names = namesOf(entry.name)
      const last = names.at(-1)
      const parent = parentOf(names)
      if (last === undefined) return undefined
      if (parent === undefined) return "lies in no directory"
      if (entry.type === "directory") {
        const there = parent.children.get(last)
        if (there?.kind === "folder") there.attributes = attributesOf(entry)
        else parent.children.set(last, folder(attributesOf(entry)))
      } else if (entry.type === "hardlink") {
        const target = nodeAt(entry.linkName)
        if (target?.kind !== "leaf") return "is a hard link to nothing"
        parent.children.set(last, target)
      } else if (isWhiteout(entry)) {
        parent.children.set(last, whiteout)
      } else {
        parent.children.set(last, { kind: "leaf", entry, layer, number, names: [] })
      }
      return undefined
    },
    close: (implicit, closing) => {
      for (const entry of closing) {
        const found = nodeAt(entry.name)
        if (found?.kind !== "folder") return `"${entry.name}" is no directory`
        found.opaque = entry.xattrs.has(opaqueAttribute)
        found.attributes = attributesOf({
          ...entry,
          xattrs: new Map([...entry.xattrs].filter(([name]) => name !== opaqueAttribute))
        })
      }
      for (const path of implicit) {
        const found = nodeAt(path)
        if (found?.kind === "folder") found.attributes = undefined
      }
      finish(root)
      return undefined
    }
  }
}

export const makeMergedTree = (most = mostEntries) => {
  let root = folder()
  let layers = 0

  const layer = (): LayerOfTree =>
    layerOf(layers++, most, (upper) => {
      if (upper.opaque) root = settled(upper, root)
      else lay(upper, root)
    })

  /** All of it, once every layer has been closed; a text when it is too much. */
  const archive = (): MergedArchive | string => {
    const folders: Array<readonly [string, Folder]> = []
    const leaves = new Set<Leaf>()
    const files = new Map<number, Map<number, Leaf>>()
    const pending: Array<readonly [string, Folder]> = [["", root]]
    let entries = 0
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      folders.push(next)
      const [path, at] = next
      for (const [name, child] of at.children) {
        const inside = path === "" ? name : `${path}/${name}`
        if (++entries > most) return `it has more than ${most} entries`
        if (child.kind === "folder") pending.push([inside, child])
        else if (child.kind === "leaf") {
          child.names.push(inside)
          leaves.add(child)
        }
      }
    }
    for (const leaf of leaves) {
      if (leaf.entry.type !== "file") continue
      const own = files.get(leaf.layer) ?? new Map<number, Leaf>()
      files.set(leaf.layer, own.set(leaf.number, leaf))
    }
    const header = (leaf: Leaf): Uint8Array => encodeEntry(squashed({ ...leaf.entry, name: leaf.names[0] ?? "" }))
    return {
      entries,
      head: function* () {
        for (const [path, { attributes = defaultAttributes }] of folders) {
          yield encodeEntry(
            squashed({
              ...attributes,
              name: path === "" ? "./" : `${path}/`,
              type: "directory",
              size: 0,
              linkName: "",
              major: 0,
              minor: 0
            })
          )
        }
        for (const leaf of leaves) if (leaf.entry.type !== "file") yield header(leaf)
      },
      fileOf: (layer, number) => {
        const leaf = files.get(layer)?.get(number)
        return leaf === undefined ? undefined : header(leaf)
      },
      has: (layer) => files.has(layer),
      tail: function* () {
        for (const { entry, names } of leaves) {
          for (const name of names.slice(1)) {
            yield encodeEntry(
              squashed({ ...entry, name, type: "hardlink", size: 0, linkName: names[0] ?? "", xattrs: new Map() })
            )
          }
        }
        yield endOfArchive
      }
    }
  }

  return { layer, archive }
}
