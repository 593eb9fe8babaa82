/**
 * The network namespaces of sandboxes. The OCI runtime makes one with the first container of a sandbox; it is pinned on a
 * file right after, and every later container, and every later run of the first, joins it there. So it costs no process of
 * its own, and addresses and connections of the sandbox outlive a container's crash.
 *
 * A sandbox that was made for one container has nobody to share with: its namespace comes and goes with the run.
 *
 * Traps: the pin is a mount in taproot's mount namespace, gone with taproot. A first container that ends before it could be
 * pinned leaves no pin; the next run makes another namespace.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { hostname } from "node:os"
import * as KeyedLock from "../storage/KeyedLock.ts"
import type { Process, Processes } from "../taproot/Processes.ts"
import { parseMountInfo } from "../host/CgroupLayout.ts"
import type { SandboxRecord } from "./Records.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"
import type * as RuntimeSpec from "./RuntimeSpec.ts"

/** What a container's spec needs to know of its sandbox. */
export type Surroundings = Pick<RuntimeSpec.Input, "network" | "hostname" | "hostFiles">

export interface SandboxNetworks {
  /** Runs `start` with the sandbox's network; of several first containers at once, one makes it and the others wait. */
  readonly within: <E, R>(
    sandbox: SandboxRecord,
    container: string,
    start: (surroundings: Surroundings) => Effect.Effect<Process, E, R>
  ) => Effect.Effect<Process, E, R>
  /** Lets the namespace of a sandbox go. Fine when there is none. */
  readonly forget: (sandbox: string) => Effect.Effect<void>
  /** The sandboxes that have a pin or its file. */
  readonly list: Effect.Effect<ReadonlyArray<string>>
}

const MS_BIND = 4096n
const MNT_DETACH = 2

const exists = (path: string) =>
  Effect.promise(() =>
    fs.access(path).then(
      () => true,
      () => false
    )
  )

export const make = (processes: Processes["Service"], paths: RuntimePaths): SandboxNetworks => {
  const locks = KeyedLock.make()
  const pinned = new Set<string>()
  const pinOf = (sandbox: string) => `${paths.networks}/${sandbox}`

  const isPinned = Effect.fnUntraced(function* (sandbox: string) {
    if (pinned.has(sandbox)) return true
    // An earlier brain may have done it.
    const text = yield* Effect.promise(() => fs.readFile(`/proc/${processes.hello.taprootPid}/mountinfo`, "utf8"))
    if (!parseMountInfo(text).some(({ mountPoint }) => mountPoint === pinOf(sandbox))) return false
    pinned.add(sandbox)
    return true
  })

  const pin = (sandbox: string, pid: number) =>
    Effect.gen(function* () {
      const target = pinOf(sandbox)
      yield* Effect.tryPromise(async () => {
        await fs.mkdir(paths.networks, { recursive: true, mode: 0o700 })
        await fs.writeFile(target, "", { mode: 0o600 })
      })
      yield* processes.mount({ source: `/proc/${pid}/ns/net`, target, type: "", flags: MS_BIND })
      pinned.add(sandbox)
    }).pipe(Effect.ignore)

  const hostFiles = Effect.filter(["/etc/resolv.conf", "/etc/hosts"], exists)

  return {
    within: Effect.fnUntraced(function* (sandbox, container, start) {
      const { spec } = sandbox
      if (spec.network === "host") {
        return yield* start({ network: "host", hostname: hostname(), hostFiles: yield* hostFiles })
      }
      const inside = { hostname: spec.hostname ?? container, hostFiles: [] }
      if (sandbox.implicit) return yield* start({ network: "new", ...inside })
      const shared: Surroundings = { network: { path: pinOf(spec.name) }, ...inside }
      if (yield* isPinned(spec.name)) return yield* start(shared)
      const first = Effect.gen(function* () {
        if (yield* isPinned(spec.name)) return undefined
        const process = yield* start({ network: "new", ...inside })
        yield* pin(spec.name, process.pid)
        return process
      })
      return (yield* locks.withLock(spec.name)(first)) ?? (yield* start(shared))
    }),
    forget: (sandbox) =>
      Effect.gen(function* () {
        pinned.delete(sandbox)
        if (!(yield* exists(pinOf(sandbox)))) return
        yield* Effect.ignore(processes.unmount(pinOf(sandbox), MNT_DETACH))
        yield* Effect.promise(() => fs.rm(pinOf(sandbox), { force: true }))
      }),
    list: Effect.promise(() => fs.readdir(paths.networks).catch(() => []))
  }
}
