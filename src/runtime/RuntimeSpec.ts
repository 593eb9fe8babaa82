/**
 * From what an image says and what a person asks for to what an OCI runtime reads: `config.json` of the OCI runtime
 * specification 1.0. Pure; everything that must be looked up comes in.
 *
 * Defaults are Docker's: its capabilities, masked and read-only paths, mounts, and no access to devices but the harmless
 * ones (both runtimes add those to the rule "none"). Stricter than Docker: `noNewPrivileges`, so set-uid programs and file
 * capabilities give nothing. What of that a spec changes is `Isolation.ts`'s.
 *
 * Traps:
 * - The memory limit is also the limit of memory and swap together, or a container would swap instead of meeting its
 *   limit; `limitSwap` says whether this host can do that.
 * - A number of CPUs is a quota per period of 100 ms, not a share: it holds on an idle host too.
 * - Neither runtime takes NUL in a string. A spec cannot have one; what an image has is dropped.
 */
import * as Effect from "effect/Effect"
import { NothingToRun } from "./ContainerExit.ts"
import type { ContainerSpec, Resources } from "./ContainerSpec.ts"
import type { ContainerUser } from "./ContainerUser.ts"
import type { Isolation } from "./Isolation.ts"
import type { Seccomp } from "./Seccomp.ts"
import { COUNT, type UserNamespace } from "../taproot/IdMap.ts"
import type { ImageConfig } from "../storage/OciImage.ts"

/** What is at `source` is seen at `target` too. */
export interface Bind {
  readonly source: string
  readonly target: string
  readonly readOnly: boolean
  /** Nothing in it can be executed. */
  readonly noPrograms?: boolean
}

/** A device file, as the runtime makes it. */
export interface Device {
  readonly path: string
  readonly type: "c" | "b"
  readonly major: number
  readonly minor: number
  readonly fileMode: number
  readonly uid: number
  readonly gid: number
  /** Some of `r`, `w` and `m`. */
  readonly access: string
}

/** `new`: the runtime makes one; a path: that one. */
export type Namespace = "new" | { readonly path: string }

/** What {@link make} needs to know. */
export interface Input {
  readonly spec: ContainerSpec
  readonly image: ImageConfig
  /** Absolute path of the mounted root file system. */
  readonly rootfs: string
  readonly user: ContainerUser
  /** Absolute, relative to the cgroup mounts; gone with the container. */
  readonly cgroupsPath: string
  readonly hostname: string
  /** `host`: no network namespace of its own; `new`: the runtime makes one; `{ path }`: that of the sandbox. */
  readonly network: "host" | Namespace
  /** As `network`: what its sandbox has for all. */
  readonly ipc: Namespace
  readonly pid: Namespace
  /** The user namespace of its sandbox; undefined: its users are the host's. */
  readonly users: UserNamespace | undefined
  /** The directory that is its `/dev/shm`, shared with others; undefined: one of its own. */
  readonly sharedMemory: string | undefined
  /** Files and directories of the host, by where it has them. */
  readonly binds: ReadonlyArray<Bind>
  readonly devices: ReadonlyArray<Device>
  /** Files of the host to be seen inside, read-only (`/etc/resolv.conf` with the host's network), by where they are seen. */
  readonly hostFiles: ReadonlyArray<{ readonly source: string; readonly target: string }>
  readonly limitSwap: boolean
  readonly isolation: Isolation
  /** What crun made of `isolation.seccomp` before, in base64; see `SeccompFilters.ts`. */
  readonly seccompFilter: string | undefined
  /** Processes and threads that it may have when its spec says nothing: see `ProcessLimits.ts`. */
  readonly processLimit: number
  /** Where the host has the `init` for containers that want one. */
  readonly init: string
}

interface IdMapping {
  readonly containerID: number
  readonly hostID: number
  readonly size: number
}

interface Mount {
  readonly destination: string
  readonly type: string
  readonly source: string
  readonly options: ReadonlyArray<string>
}

/** The part of the OCI runtime specification that is used here. */
export interface OciSpec {
  readonly ociVersion: "1.0.2"
  readonly hostname: string
  readonly annotations?: Readonly<Record<string, string>>
  readonly root: { readonly path: string; readonly readonly: boolean }
  readonly process: {
    readonly terminal: boolean
    readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids?: ReadonlyArray<number> }
    readonly args: ReadonlyArray<string>
    readonly env: ReadonlyArray<string>
    readonly cwd: string
    readonly capabilities: {
      readonly bounding: ReadonlyArray<string>
      readonly effective: ReadonlyArray<string>
      readonly permitted: ReadonlyArray<string>
    }
    readonly noNewPrivileges: boolean
    readonly rlimits?: ReadonlyArray<{ readonly type: string; readonly soft: number; readonly hard: number }>
  }
  readonly mounts: ReadonlyArray<Mount>
  readonly linux: {
    readonly cgroupsPath: string
    readonly namespaces: ReadonlyArray<{ readonly type: string; readonly path?: string }>
    readonly uidMappings?: ReadonlyArray<IdMapping>
    readonly gidMappings?: ReadonlyArray<IdMapping>
    readonly devices?: ReadonlyArray<Device>
    readonly maskedPaths: ReadonlyArray<string>
    readonly readonlyPaths: ReadonlyArray<string>
    readonly seccomp?: Seccomp
    readonly resources: {
      readonly devices: ReadonlyArray<
        { readonly allow: boolean; readonly access: string } & Partial<Pick<Device, "type" | "major" | "minor">>
      >
      readonly memory?: { readonly limit: number; readonly swap?: number }
      readonly cpu?: { readonly quota: number; readonly period: number }
      readonly pids: { readonly limit: number }
    }
  }
}

const maskedPaths = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware"
]

const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

const mount = (type: string, source: string, destination: string, ...options: ReadonlyArray<string>): Mount => ({
  destination,
  type,
  source,
  options
})

const mounts: ReadonlyArray<Mount> = [
  mount("proc", "proc", "/proc", "nosuid", "noexec", "nodev"),
  mount("tmpfs", "tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
  mount("devpts", "devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
  mount("mqueue", "mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"),
  mount("sysfs", "sysfs", "/sys", "nosuid", "noexec", "nodev", "ro"),
  // Programs size their heaps and thread pools by what they find here.
  mount("cgroup", "cgroup", "/sys/fs/cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
]

const sharedMemoryOf = (directory: string | undefined): Mount =>
  directory === undefined
    ? mount("tmpfs", "shm", "/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k")
    : mount("bind", directory, "/dev/shm", "bind", "rw", "nosuid", "noexec", "nodev")

const namespace = (type: string, of: Namespace) => (of === "new" ? { type } : { type, path: of.path })

/** Joined, and said again in numbers: runc will not join one of which it does not know the users. */
const mappingsOf = (users: UserNamespace | undefined) => {
  if (users === undefined) return {}
  const mapping = [{ containerID: 0, hostID: users.first, size: COUNT }]
  return { uidMappings: mapping, gidMappings: mapping }
}

const namespaceOf = (users: UserNamespace | undefined) =>
  users === undefined ? [] : [{ type: "user", path: users.path }]

/** The same where nothing is kept from a container. */
const writable = ({ options, ...rest }: Mount): Mount => ({
  ...rest,
  options: options.filter((option) => option !== "ro")
})
const INIT = "/dev/init"

const bindOf = ({ noPrograms = false, readOnly, source, target }: Bind): Mount =>
  mount(
    "bind",
    source,
    target,
    "bind",
    readOnly ? "ro" : "rw",
    "nosuid",
    "nodev",
    "rprivate",
    ...(noPrograms ? ["noexec"] : [])
  )

/** What a container has of its own wishes: the outer ones first. */
const wishesOf = ({ tmpfs }: ContainerSpec, binds: ReadonlyArray<Bind>): ReadonlyArray<Mount> =>
  [
    ...Object.entries(tmpfs).map(([path, { sizeBytes }]) =>
      mount("tmpfs", "tmpfs", path, "nosuid", "nodev", "mode=1777", `size=${sizeBytes}`)
    ),
    ...binds.map(bindOf)
  ].sort((one, other) => (one.destination < other.destination ? -1 : 1))

const withoutNul = (text: string): string => text.replaceAll("\0", "")

/** What runs: the spec's words over the image's, by the rules of the image specification. */
export const argumentsOf = (spec: ContainerSpec, image: ImageConfig): ReadonlyArray<string> => {
  const entrypoint = spec.entrypoint ?? image.entrypoint
  const command = spec.command ?? (spec.entrypoint === undefined ? image.cmd : [])
  return [...entrypoint, ...command].map(withoutNul)
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/** The environment: defaults, then the image's, then the spec's; a later value replaces an earlier one in its place. */
export const environmentOf = (spec: ContainerSpec, image: ImageConfig, hostname: string): ReadonlyArray<string> => {
  const variables = new Map([
    ["PATH", defaultPath],
    ["HOSTNAME", hostname]
  ])
  for (const variable of image.env) {
    const equals = variable.indexOf("=")
    if (equals > 0 && !variable.includes("\0")) variables.set(variable.slice(0, equals), variable.slice(equals + 1))
  }
  for (const [name, value] of Object.entries(spec.environment)) variables.set(name, value)
  return [...variables].map(([name, value]) => `${name}=${value}`)
}

const CPU_PERIOD = 100_000

/** The limits that are given, in the runtime's words. */
export const limitsOf = (resources: Resources, limitSwap: boolean) => ({
  ...(resources.memoryBytes === undefined
    ? {}
    : { memory: { limit: resources.memoryBytes, ...(limitSwap ? { swap: resources.memoryBytes } : {}) } }),
  ...(resources.cpus === undefined
    ? {}
    : { cpu: { quota: Math.round(resources.cpus * CPU_PERIOD), period: CPU_PERIOD } }),
  ...(resources.pids === undefined ? {} : { pids: { limit: resources.pids } })
})

const resourcesOf = (
  resources: Resources,
  { devices, isolation, limitSwap, processLimit }: Pick<Input, "devices" | "isolation" | "limitSwap" | "processLimit">
): OciSpec["linux"]["resources"] => ({
  devices: [
    { allow: isolation.privileged, access: "rwm" },
    ...devices.map(({ access, major, minor, type }) => ({ allow: true, access, type, major, minor }))
  ],
  pids: { limit: processLimit },
  ...limitsOf(resources, limitSwap)
})

const workingDirectory = (spec: ContainerSpec, image: ImageConfig): string => {
  const wanted = spec.workingDirectory ?? withoutNul(image.workingDir)
  return wanted.startsWith("/") ? wanted : `/${wanted}`
}

/** The content of `config.json`. Fails when neither the image nor the spec says what to run. */
export const make = Effect.fnUntraced(function* (input: Input): Effect.fn.Return<OciSpec, NothingToRun> {
  const { image, isolation, seccompFilter, spec, user } = input
  const { capabilities, privileged, seccomp } = isolation
  const args = argumentsOf(spec, image)
  const program = args[0]
  if (program === undefined || program === "") return yield* new NothingToRun({ name: spec.name, image: spec.image })
  const held = user.uid === 0 ? capabilities : []
  const network = input.network === "host" ? [] : [namespace("network", input.network)]
  return {
    ociVersion: "1.0.2",
    hostname: input.hostname,
    ...(seccomp === undefined || seccompFilter === undefined
      ? {}
      : { annotations: { "run.oci.seccomp_bpf_data": seccompFilter } }),
    root: { path: input.rootfs, readonly: spec.readonlyRootfs },
    process: {
      terminal: spec.terminal,
      user: {
        uid: user.uid,
        gid: user.gid,
        ...(user.groups.length === 0 ? {} : { additionalGids: user.groups })
      },
      args: spec.init ? [INIT, ...args] : args,
      env: environmentOf(spec, image, input.hostname),
      cwd: workingDirectory(spec, image),
      capabilities: { bounding: capabilities, effective: held, permitted: held },
      noNewPrivileges: !privileged,
      ...(spec.processLimits.length === 0
        ? {}
        : {
            rlimits: [...new Map(spec.processLimits.map((limit) => [limit.resource, limit])).values()].map(
              ({ hard, resource, soft }) => ({ type: `RLIMIT_${resource.toUpperCase()}`, soft, hard })
            )
          })
    },
    mounts: [
      ...(privileged ? mounts.map(writable) : mounts),
      ...(spec.tmpfs["/dev/shm"] === undefined ? [sharedMemoryOf(input.sharedMemory)] : []),
      ...wishesOf(spec, input.binds),
      // on our own /dev, so that the image's files stay as they are
      ...(spec.init ? [mount("bind", input.init, INIT, "bind", "ro", "nosuid", "nodev")] : []),
      ...input.hostFiles.map(({ source, target }) => mount("bind", source, target, "bind", "ro", "nosuid", "nodev"))
    ],
    linux: {
      cgroupsPath: input.cgroupsPath,
      namespaces: [
        ...namespaceOf(input.users),
        namespace("pid", input.pid),
        { type: "mount" },
        namespace("ipc", input.ipc),
        { type: "uts" },
        { type: "cgroup" },
        ...network
      ],
      ...mappingsOf(input.users),
      ...(input.devices.length === 0 ? {} : { devices: input.devices }),
      maskedPaths: privileged ? [] : maskedPaths,
      readonlyPaths: privileged ? [] : readonlyPaths,
      ...(seccomp === undefined ? {} : { seccomp }),
      resources: resourcesOf(spec.resources, input)
    }
  }
})

interface Bare {
  readonly hostname: string
  readonly root: string
  readonly args: ReadonlyArray<string>
  readonly user: number
  readonly mounts: ReadonlyArray<Mount>
  readonly users: UserNamespace | undefined
  readonly cgroupsPath: string
}

/** Of a program that needs nothing; `root` has the directories proc, dev and sys. */
const bare = ({ args, cgroupsPath, hostname, mounts, root, user, users }: Bare): OciSpec => ({
  ociVersion: "1.0.2",
  hostname,
  root: { path: root, readonly: true },
  process: {
    terminal: false,
    user: { uid: user, gid: user },
    args,
    env: [],
    cwd: "/",
    capabilities: { bounding: [], effective: [], permitted: [] },
    noNewPrivileges: true
  },
  mounts: [
    mount("proc", "proc", "/proc", "nosuid", "noexec", "nodev"),
    mount("tmpfs", "tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=64k"),
    ...mounts
  ],
  linux: {
    cgroupsPath,
    namespaces: [
      ...namespaceOf(users),
      ...["pid", "mount", "ipc", "uts", "cgroup", "network"].map((type) => ({ type }))
    ],
    ...mappingsOf(users),
    maskedPaths,
    readonlyPaths,
    resources: { devices: [{ allow: false, access: "rwm" }], pids: { limit: 16 } }
  }
})

/** Of a process that does nothing but keep a pid namespace; see `PidNamespaces.ts`. */
export const keeper = ({
  init,
  ...rest
}: Pick<Bare, "hostname" | "root" | "user" | "users" | "cgroupsPath"> & { readonly init: string }): OciSpec =>
  bare({
    ...rest,
    args: [INIT],
    mounts: [mount("bind", init, INIT, "bind", "ro", "nosuid", "nodev")]
  })

/** Of a trial of a user namespace: the program `/probe`, as its root; see `UserNamespaces.ts`. */
export const trial = (input: Pick<Bare, "root" | "users" | "cgroupsPath">): OciSpec =>
  bare({ ...input, hostname: "probe", args: ["/probe"], user: 0, mounts: [mount("sysfs", "sysfs", "/sys", "ro")] })
