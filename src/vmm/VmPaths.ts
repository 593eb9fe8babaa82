/**
 * Where virtual machines are kept: in the file system, in the cgroups, and under which names in taproot.
 *
 * A *life* of a machine is one life of its hypervisor: the machine `web` in its third incarnation is `vm/web#3` for taproot, and
 * has the cgroup `<cgroup>/web-3`. One to which its memory has gone from there (a migration) is `vm/web#3.1`, and has a directory of its
 * own for its sockets.
 */
import * as Option from "effect/Option"
import { join } from "node:path"

export interface VmPaths {
  /** One directory per machine: its control socket, its firmware's variables. */
  readonly machines: string
  /** One directory per machine: what its console has printed. */
  readonly consoles: string
  /** One directory per machine, and in it one per snapshot. */
  readonly snapshots: string
  /** For what is tried at the start. */
  readonly trial: string
  /** The cgroup of everything here. */
  readonly cgroup: string
}

/** `directory` is `vm` in the state directory. */
export const make = (directory: string, cgroup: string): VmPaths => ({
  machines: join(directory, "machines"),
  consoles: join(directory, "consoles"),
  snapshots: join(directory, "snapshots"),
  trial: join(directory, "trial"),
  cgroup
})

/** The label of everything that is a machine's process begins so. */
export const anyLabel = "vm/"

/** What the labels of all lives of a machine begin with. */
export const labelPrefix = (name: string): string => `${anyLabel}${name}#`

/** A life of a machine: the incarnation of its actor that began it, and how often its memory has moved to another process since. */
export interface Life {
  readonly incarnation: number
  readonly move: number
}

const lifeText = ({ incarnation, move }: Life): string => (move === 0 ? `${incarnation}` : `${incarnation}.${move}`)

export const label = (name: string, life: Life): string => `${labelPrefix(name)}${lifeText(life)}`

/** Machine and life of a label; none for labels of others. */
export const parseLabel = (text: string): Option.Option<{ readonly name: string; readonly life: Life }> => {
  const match = /^vm\/([a-z0-9-]{1,63})#([1-9]\d{0,14})(?:\.([1-9]\d{0,8}))?$/.exec(text)
  return match?.[1] === undefined
    ? Option.none()
    : Option.some({ name: match[1], life: { incarnation: Number(match[2]), move: Number(match[3] ?? 0) } })
}

/** The label of what is run for a machine, to its end, begins so. */
export const toolLabel = "vm-tool/"

export const directoryOf = (paths: VmPaths, name: string): string => join(paths.machines, name)

/** Where the sockets of a life are. */
export const placeOf = (paths: VmPaths, name: string, life: Life): string =>
  life.move === 0 ? directoryOf(paths, name) : join(directoryOf(paths, name), `life-${lifeText(life)}`)

/** The name of its cgroup. */
export const cgroupName = (name: string, life: Life): string => `${name}-${lifeText(life)}`

export const cgroupOf = (paths: VmPaths, name: string, life: Life): string =>
  `${paths.cgroup}/${cgroupName(name, life)}`

/** Where those of its disks are that were made of images. */
export const disksOf = (paths: VmPaths, name: string): string => join(directoryOf(paths, name), "disks")

/** Where a machine's firmware keeps its variables. */
export const variablesOf = (paths: VmPaths, name: string): string => join(directoryOf(paths, name), "variables.fd")
