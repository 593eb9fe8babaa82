/**
 * How this host arranges its cgroups, read from a process's `/proc/PID/mountinfo`: which hierarchies are mounted where.
 *
 * `v1`: one hierarchy per controller (or few together); `v2`: one for all; `hybrid`: v1 with a cgroup2 beside that has
 * few controllers or none. Code that works on "the cgroup of a container" has one directory on v2 and one per hierarchy
 * on the others: see {@link directories}.
 *
 * Trap: a hierarchy may be mounted several times; the first mount that shows it from its root counts.
 */

/** One mounted hierarchy. */
export interface Hierarchy {
  readonly version: 1 | 2
  /** Where it is mounted. */
  readonly mountPoint: string
  /** Of v1: `memory`, `cpu`, `name=systemd`…; empty on v2, whose controllers are a file. */
  readonly controllers: ReadonlyArray<string>
}

export interface CgroupLayout {
  readonly kind: "none" | "v1" | "hybrid" | "v2"
  readonly hierarchies: ReadonlyArray<Hierarchy>
}

/** One line of `/proc/PID/mountinfo`, as far as needed here. */
export interface MountInfo {
  /** Names this mount on the whole host: a copy in another mount namespace has another. */
  readonly id: string
  /** The directory of the mounted file system that is shown. */
  readonly root: string
  readonly mountPoint: string
  readonly type: string
  readonly superOptions: ReadonlyArray<string>
  /** False: mounts and unmounts made here are seen in other namespaces too. */
  readonly private: boolean
}

const unescape = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/** Parses mountinfo (proc_pid_mountinfo(5)); later mounts come later. */
export const parseMountInfo = (text: string): ReadonlyArray<MountInfo> =>
  text.split("\n").flatMap((line) => {
    const fields = line.split(" ")
    const separator = fields.indexOf("-", 6)
    const [id, root, mountPoint] = [fields[0], fields[3], fields[4]]
    const [type, superOptions] = [fields[separator + 1], fields[separator + 3]]
    if (separator < 0 || id === undefined || root === undefined || mountPoint === undefined || type === undefined)
      return []
    return [
      {
        id,
        root: unescape(root),
        mountPoint: unescape(mountPoint),
        type,
        superOptions: (superOptions ?? "").split(","),
        private: !fields.slice(6, separator).some((field) => field.startsWith("shared:"))
      }
    ]
  })

const generalOptions = new Set([
  "rw",
  "ro",
  "xattr",
  "noprefix",
  "clone_children",
  "nsdelegate",
  "memory_recursiveprot",
  "favordynmods"
])

/** The layout that a mount table shows. */
export const fromMounts = (mounts: ReadonlyArray<MountInfo>): CgroupLayout => {
  const hierarchies = new Map<string, Hierarchy>()
  for (const { mountPoint, superOptions, type } of mounts) {
    if (type === "cgroup2" && !hierarchies.has("2")) {
      hierarchies.set("2", { version: 2, mountPoint, controllers: [] })
    } else if (type === "cgroup") {
      const controllers = superOptions.filter((option) => !generalOptions.has(option) && !option.startsWith("release_"))
      const key = controllers.join(",")
      if (!hierarchies.has(key)) hierarchies.set(key, { version: 1, mountPoint, controllers })
    }
  }
  const list = [...hierarchies.values()]
  const versions = new Set(list.map(({ version }) => version))
  const kind = versions.has(1) ? (versions.has(2) ? "hybrid" : "v1") : versions.has(2) ? "v2" : "none"
  return { kind, hierarchies: list }
}

/** The directories of the cgroup `path` (absolute, as in an OCI spec), one per hierarchy. */
export const directories = (layout: CgroupLayout, path: string): ReadonlyArray<string> =>
  layout.hierarchies.map(({ mountPoint }) => `${mountPoint}${path}`)

/** The hierarchy that a controller is in: that of v1 if there is one, else the v2. */
export const hierarchyOf = (layout: CgroupLayout, controller: string): Hierarchy | undefined =>
  layout.hierarchies.find(({ controllers }) => controllers.includes(controller)) ??
  layout.hierarchies.find(({ version }) => version === 2)
