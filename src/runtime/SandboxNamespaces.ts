/**
 * What the containers of a sandbox share: network, IPC, memory at `/dev/shm`, and, where the sandbox says so, the numbers of
 * their processes, and their users.
 *
 * The OCI runtime makes network and IPC namespace with the first container of a sandbox; they are pinned on files right
 * after, and every later container, and every later run of the first, joins them there. So they cost no process of their
 * own, and addresses, connections and shared memory outlive a container's crash. A shared pid namespace does need a process:
 * see `PidNamespaces.ts`.
 *
 * A sandbox that was made for one container has nobody to share with: its namespaces come and go with the run.
 *
 * Traps: a pin is a mount in taproot's mount namespace, gone with taproot. A first container that ends before it could be
 * pinned leaves no pin; the next run makes another namespace. A sandbox of an older brain has no pin of IPC: containers that
 * run already keep theirs to themselves.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { hostname } from "node:os"
import * as KeyedLock from "../storage/KeyedLock.ts"
import type { Process } from "../taproot/Processes.ts"
import * as MountPoints from "./MountPoints.ts"
import type { NameFiles } from "./NameFiles.ts"
import type { PidNamespaceFailure, PidNamespaces } from "./PidNamespaces.ts"
import type { SandboxRecord } from "./Records.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"
import type * as RuntimeSpec from "./RuntimeSpec.ts"
import type { UserNamespaces } from "./UserNamespaces.ts"
import type { UserNetworks } from "./UserNetworks.ts"

/** What a container's spec needs to know of its sandbox. */
export type Surroundings = Pick<
  RuntimeSpec.Input,
  "network" | "ipc" | "pid" | "users" | "sharedMemory" | "hostname" | "hostFiles"
>

export interface SandboxNamespaces {
  /** Runs `start` with what the sandbox shares; of several first containers at once, one makes it and the others wait. */
  readonly within: <E, R>(
    sandbox: SandboxRecord,
    container: string,
    start: (surroundings: Surroundings) => Effect.Effect<Process, E, R>
  ) => Effect.Effect<Process, E | PidNamespaceFailure, R>
  /** Whether a container has run in the sandbox since it was last cleared away, taproot started, or the host booted. */
  readonly exist: (sandbox: string) => Effect.Effect<boolean>
  /** Lets what a sandbox shares go. Fine when there is nothing. */
  readonly forget: (sandbox: string) => Effect.Effect<void>
  /** The sandboxes that share anything. */
  readonly list: Effect.Effect<ReadonlyArray<string>>
}

const kinds = ["net", "ipc"] as const
type Kind = (typeof kinds)[number]

export const make = (
  points: MountPoints.MountPoints,
  pids: PidNamespaces,
  userNamespaces: UserNamespaces,
  userNetworks: UserNetworks,
  names: NameFiles,
  paths: RuntimePaths
): SandboxNamespaces => {
  const locks = KeyedLock.make()
  const pinOf = (kind: Kind, sandbox: string) => `${kind === "net" ? paths.networks : paths.ipcs}/${sandbox}`
  const memoryOf = (sandbox: string) => `${paths.sharedMemory}/${sandbox}`

  const pin = (kind: Kind, sandbox: string, pid: number) =>
    Effect.gen(function* () {
      const target = pinOf(kind, sandbox)
      yield* Effect.tryPromise(async () => {
        await fs.mkdir(kind === "net" ? paths.networks : paths.ipcs, { recursive: true, mode: 0o700 })
        await fs.writeFile(target, "", { mode: 0o600 })
      })
      yield* points.mount({ source: `/proc/${pid}/ns/${kind}`, target, type: "", flags: MountPoints.flags.bind })
    }).pipe(
      // see the traps: the next one makes another
      Effect.ignore
    )

  /** The directory that its containers have as `/dev/shm`; undefined when it cannot be had: then each has its own. */
  const memory = Effect.fnUntraced(function* (sandbox: string) {
    const target = memoryOf(sandbox)
    if (yield* points.isMounted(target)) return target
    return yield* Effect.gen(function* () {
      yield* Effect.tryPromise(() => fs.mkdir(target, { recursive: true, mode: 0o700 }))
      const { noDevices, noPrograms, noSetUid } = MountPoints.flags
      const flags = noSetUid | noDevices | noPrograms
      yield* points.mount({ source: "shm", target, type: "tmpfs", flags, data: "mode=1777,size=65536k" })
      return target
    }).pipe(Effect.orElseSucceed(() => undefined))
  })

  /** What each has alone, whatever is shared. */
  const own = Effect.fnUntraced(function* (sandbox: SandboxRecord, container: string) {
    const { spec } = sandbox
    const own = spec.network === "host" ? hostname() : (spec.hostname ?? container)
    return { hostname: own, hostFiles: yield* names.of(sandbox, container, own) }
  })

  return {
    within: Effect.fnUntraced(function* (sandbox, container, start) {
      const { spec } = sandbox
      const { name, network } = spec
      const inside = yield* own(sandbox, container)
      // it is there before anything runs in it
      if (network === "user") yield* userNetworks.whole(sandbox)
      if (sandbox.implicit) {
        const alone = { ipc: "new", pid: "new", users: undefined, sharedMemory: undefined } as const
        return yield* start({ ...inside, ...alone, network: network === "host" ? "host" : "new" })
      }
      // the others belong to it: it comes first
      const users = yield* userNamespaces.of(sandbox)
      const wanted = kinds.filter((kind) => kind !== "net" || network !== "host")
      const missing = Effect.filter(wanted, (kind) => Effect.map(points.isMounted(pinOf(kind, name)), (is) => !is))
      const surroundings = Effect.fnUntraced(function* (lacking: ReadonlyArray<Kind>) {
        const of = (kind: Kind) => (lacking.includes(kind) ? ("new" as const) : { path: pinOf(kind, name) })
        return {
          ...inside,
          network: network === "host" ? ("host" as const) : of("net"),
          ipc: of("ipc"),
          users,
          sharedMemory: yield* memory(name),
          pid: spec.processes === "shared" ? { path: yield* pids.of(name, users) } : ("new" as const)
        }
      })
      const first = Effect.gen(function* () {
        const lacking = yield* missing
        if (lacking.length === 0) return undefined
        const process = yield* start(yield* surroundings(lacking))
        yield* Effect.forEach(lacking, (kind) => pin(kind, name, process.pid), { discard: true })
        return process
      })
      const made = (yield* missing).length === 0 ? undefined : yield* locks.withLock(name)(first)
      return made ?? (yield* start(yield* surroundings([])))
    }),
    exist: (sandbox) => points.isMounted(pinOf("ipc", sandbox)),
    forget: (sandbox) =>
      Effect.gen(function* () {
        yield* pids.forget(sandbox)
        yield* names.forget(sandbox)
        const targets = [...kinds.map((kind) => pinOf(kind, sandbox)), memoryOf(sandbox)]
        yield* Effect.forEach(targets, points.remove, { discard: true })
        yield* userNamespaces.forget(sandbox)
      }),
    list: Effect.map(
      Effect.forEach([paths.networks, paths.ipcs, paths.users, paths.sharedMemory], (directory) =>
        Effect.promise(() => fs.readdir(directory).catch((): Array<string> => []))
      ),
      (names) => [...new Set(names.flat())]
    )
  }
}
