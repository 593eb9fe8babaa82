/**
 * Where virtual machines are kept: in the file system, in the cgroups, and under which names in taproot.
 *
 * A *life* of a machine is one life of its hypervisor: the machine `web` in its third incarnation is `vm/web#3` for taproot, and
 * has the cgroup `<cgroup>/web-3`.
 */
import * as Option from "effect/Option"
import { join } from "node:path"

export interface VmPaths {
  /** One directory per machine: its control socket, its firmware's variables. */
  readonly machines: string
  /** One directory per machine: what its console has printed. */
  readonly consoles: string
  /** For what is tried at the start. */
  readonly trial: string
  /** The cgroup of everything here. */
  readonly cgroup: string
}

/** `directory` is `vm` in the state directory. */
export const make = (directory: string, cgroup: string): VmPaths => ({
  machines: join(directory, "machines"),
  consoles: join(directory, "consoles"),
  trial: join(directory, "trial"),
  cgroup
})

/** The label of everything that is a machine's process begins so. */
export const anyLabel = "vm/"

/** What the labels of all lives of a machine begin with. */
export const labelPrefix = (name: string): string => `${anyLabel}${name}#`

export const label = (name: string, incarnation: number): string => `${labelPrefix(name)}${incarnation}`

/** Machine and incarnation of a label; none for labels of others. */
export const parseLabel = (text: string): Option.Option<{ readonly name: string; readonly incarnation: number }> => {
  const match = /^vm\/([a-z0-9-]{1,63})#([1-9]\d{0,14})$/.exec(text)
  return match?.[1] === undefined ? Option.none() : Option.some({ name: match[1], incarnation: Number(match[2]) })
}

export const directoryOf = (paths: VmPaths, name: string): string => join(paths.machines, name)

export const cgroupOf = (paths: VmPaths, name: string, incarnation: number): string =>
  `${paths.cgroup}/${name}-${incarnation}`

/** Where a machine's firmware keeps its variables. */
export const variablesOf = (paths: VmPaths, name: string): string => join(directoryOf(paths, name), "variables.fd")
