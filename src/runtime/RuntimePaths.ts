/**
 * Where containers are kept: in the file system, in the cgroups, and under which names in taproot.
 *
 * A *run* of a container is one life of its process: the container `web` in its third incarnation is the run `web-3` for
 * the OCI runtime, `container/web#3` for taproot, and has the cgroup `/ironwood-<hash>/<sandbox>/web-3`.
 *
 * Trap: the cgroup's name comes from the state directory, so that two Ironwoods on one host never meet: two names for the
 * same directory give the same cgroup.
 */
import * as Option from "effect/Option"
import { createHash } from "node:crypto"
import { realpathSync } from "node:fs"
import { basename, dirname, join, resolve } from "node:path"

export interface RuntimePaths {
  /** State of the OCI runtime (`--root`). */
  readonly oci: string
  /** Its program, where it is mounted for it. */
  readonly program: string
  /** One directory per run, with its `config.json`. */
  readonly bundles: string
  /** Sockets on which terminals are handed over; short, as their paths may have 107 bytes. */
  readonly consoles: string
  /** One file per sandbox on which its network namespace is pinned. */
  readonly networks: string
  /** One directory per sandbox with a user-mode network: the socket and the log of what makes it. */
  readonly userNetworks: string
  /** One directory per sandbox, one below per container: its `/etc/hosts` and `/etc/resolv.conf`. */
  readonly names: string
  /** As `networks`, for its IPC namespace. */
  readonly ipcs: string
  /** The same for its user namespace, where it has one. */
  readonly users: string
  /** One directory per sandbox: its memory at `/dev/shm`. */
  readonly sharedMemory: string
  /** One directory per microVM, its console's log beside it. */
  readonly microvms: string
  /** Where what is mounted into a container is put while that is made: one directory per run. */
  readonly stages: string
  /** Secrets: a file system in memory. */
  readonly secrets: string
  /** One directory per sandbox, one below per container. */
  readonly logs: string
  /** Roots of what runs in user namespaces: below no directory that is for root of the host alone. In memory. */
  readonly open: string
  /** The cgroup of everything here: `/ironwood-1a2b3c4d`. */
  readonly cgroup: string
}

const realPath = (path: string): string => {
  try {
    return realpathSync(path)
  } catch {
    // It is about to be made: its parent tells.
    const absolute = resolve(path)
    return absolute === "/" ? absolute : join(realPath(dirname(absolute)), basename(absolute))
  }
}

/** The name of the cgroup that belongs to a state directory. */
export const cgroupOf = (stateDirectory: string): string =>
  `/ironwood-${createHash("sha256").update(realPath(stateDirectory)).digest("hex").slice(0, 8)}`

/** All of it; `directory` is `runtime` in the state directory. */
export const make = (directory: string, logs: string): RuntimePaths => {
  const absolute = realPath(directory)
  return {
    oci: join(absolute, "oci"),
    program: join(absolute, "program"),
    bundles: join(absolute, "bundles"),
    consoles: join(absolute, "tty"),
    networks: join(absolute, "networks"),
    userNetworks: join(absolute, "user-networks"),
    names: join(absolute, "names"),
    ipcs: join(absolute, "ipc"),
    users: join(absolute, "users"),
    sharedMemory: join(absolute, "shm"),
    microvms: join(absolute, "microvms"),
    stages: join(absolute, "stages"),
    secrets: join(absolute, "secrets"),
    logs: realPath(logs),
    open: `/run${cgroupOf(dirname(absolute))}`,
    cgroup: cgroupOf(dirname(absolute))
  }
}

/** The name of a run for the OCI runtime. No two containers can have the same: a container's name ends before the last hyphen. */
export const runId = (container: string, incarnation: number): string => `${container}-${incarnation}`

/** What the labels of all runs of a container begin with. */
export const labelPrefix = (container: string): string => `container/${container}#`

export const label = (container: string, incarnation: number): string => `${labelPrefix(container)}${incarnation}`

/** The label of everything that is a container's process begins so. */
export const anyLabel = "container/"

/** Container and incarnation of a label; none for labels of others. */
export const parseLabel = (
  text: string
): Option.Option<{ readonly container: string; readonly incarnation: number }> => {
  const match = /^container\/([a-z0-9-]{1,63})#([1-9]\d{0,14})$/.exec(text)
  return match?.[1] === undefined ? Option.none() : Option.some({ container: match[1], incarnation: Number(match[2]) })
}
