/**
 * The paths that one layer has made so far, as a tree in memory: where an entry's name really leads, what stands there,
 * and whether the way goes out of the layer. `LayerFilter` asks it before anything is written, so the decision whether an
 * entry is safe depends on no file system and on no race.
 *
 * A name is walked component by component. A directory that is not there is made (`implicit`: no entry of this layer
 * gave it attributes). A symlink *of this layer* is followed when it is relative and stays inside, as container tools do
 * (`lib -> usr/lib`, then `lib/x`); one that is absolute or climbs out is refused. Symlinks of lower layers are not known
 * here and need not be: overlayfs puts a real directory in their place.
 */
import { fromBinary, type TarTime } from "./Tar.ts"

/** What a directory carries. */
export interface Attributes {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly modified: TarTime
  readonly xattrs: ReadonlyMap<string, Uint8Array>
}

export interface Directory {
  readonly kind: "directory"
  /** From the layer's root, components joined by "/"; "" for the root. A binary string. */
  readonly path: string
  readonly children: Map<string, Node>
  /** Undefined: implicit, no entry has described it. */
  attributes: Attributes | undefined
  /** Nothing of the lower layers shows through. */
  opaque: boolean
  /** Attributes came after the directory was written: they must be written again at the end. */
  stale: boolean
  /** Names that this layer takes away from the lower ones. */
  whiteouts: Set<string> | undefined
}

export interface Symlink {
  readonly kind: "symlink"
  readonly target: string
}

/** `other`: files, devices, fifos, hard links: what ends a path. */
export type Node = Directory | Symlink | { readonly kind: "other" }

export const other: Node = { kind: "other" }

/** Where a name leads: the directory that holds it, and its last component there. */
export interface Place {
  readonly parent: Directory
  readonly base: string
  /** The whole path, resolved. */
  readonly path: string
}

export interface PathLimits {
  /** Components of a path. */
  readonly depth: number
  /** Bytes of a path. */
  readonly pathBytes: number
}

/** Linux' own limit on symlinks followed for one path. */
const maximumFollowed = 40
/** Components walked for one path, those of symlinks' targets included: a few lines of tar must not cost seconds. */
const maximumSteps = 2048
const maximumComponentBytes = 255

const join = (directory: Directory, name: string): string =>
  directory.path === "" ? name : `${directory.path}/${name}`

export const makeDirectory = (path: string, attributes: Attributes | undefined): Directory => ({
  kind: "directory",
  path,
  children: new Map(),
  attributes,
  opaque: false,
  stale: false,
  whiteouts: undefined
})

/** The components of a name without empty ones and "."; a text when the name is refused outright. */
export const components = (name: string, limits: PathLimits): ReadonlyArray<string> | string => {
  if (name.startsWith("/")) return "has an absolute path"
  if (name.length > limits.pathBytes)
    return `has a path of ${name.length} bytes, more than the ${limits.pathBytes} allowed`
  const list = name.split("/").filter((component) => component !== "" && component !== ".")
  if (list.includes("..")) return 'has ".." in its path'
  if (list.length > limits.depth) return `lies ${list.length} directories deep, more than the ${limits.depth} allowed`
  const long = list.find((component) => component.length > maximumComponentBytes)
  return long === undefined
    ? list
    : `has a name of ${long.length} bytes, more than the ${maximumComponentBytes} that Linux has`
}

/**
 * Walks to the directory that `list` names, all of its components. `make` is called for each directory that is missing;
 * without it, a missing one is refused. The answer is a text when the way is barred.
 */
const walk = (
  root: Directory,
  list: ReadonlyArray<string>,
  limits: PathLimits,
  make: ((parent: Directory, name: string) => Directory) | undefined
): Directory | string => {
  const stack: Array<Directory> = [root]
  const pending = list.toReversed()
  let followed = 0
  let steps = 0
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    const at = stack[stack.length - 1] ?? root
    steps++
    if (steps > maximumSteps) return "goes a way through symlinks that is too long"
    if (name === "" || name === ".") continue
    if (name === "..") {
      // Only targets of symlinks can hold "..": `components` has refused it in names.
      if (stack.length === 1) return "escapes through a symlink that climbs out of the layer"
      stack.pop()
      continue
    }
    const child = at.children.get(name)
    if (child === undefined) {
      if (make === undefined) return `goes through "${fromBinary(join(at, name))}", which is not in this layer`
      if (stack.length >= limits.depth) return `lies more than ${limits.depth} directories deep`
      stack.push(make(at, name))
    } else if (child.kind === "directory") stack.push(child)
    else if (child.kind === "symlink") {
      const link = `"${fromBinary(join(at, name))}"`
      if (child.target.startsWith("/")) {
        return `escapes through the symlink ${link} to "${fromBinary(child.target)}"`
      }
      followed++
      if (followed > maximumFollowed) return `goes through too many symlinks (${link})`
      pending.push(...child.target.split("/").toReversed())
    } else return `goes through "${fromBinary(join(at, name))}", which is not a directory`
  }
  return stack[stack.length - 1] ?? root
}

/** Where the entry with these components (at least one) goes; directories on the way are made by `make`. */
export const place = (
  root: Directory,
  list: ReadonlyArray<string>,
  limits: PathLimits,
  make?: (parent: Directory, name: string) => Directory
): Place | string => {
  const base = list[list.length - 1]
  if (base === undefined) return "names the root"
  const parent = walk(root, list.slice(0, -1), limits, make)
  if (typeof parent === "string") return parent
  const path = join(parent, base)
  return path.length > limits.pathBytes
    ? `has a path longer than the ${limits.pathBytes} bytes allowed`
    : { parent, base, path }
}

/** Every directory, parents before what they hold. */
export function* directories(root: Directory): Generator<Directory> {
  const pending: Array<Directory> = [root]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    yield next
    for (const child of next.children.values()) if (child.kind === "directory") pending.push(child)
  }
}
