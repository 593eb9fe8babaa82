/**
 * Pid namespaces that the containers of a sandbox share. Each is kept by a process of its own, `init` without a program, as
 * its number 1: it does nothing but reap, and outlives every container. It is a run of the OCI runtime like a container's,
 * in a root without files, named after its sandbox, and nobody's child in the tree.
 *
 * Traps: without its number 1 the kernel ends all processes of a pid namespace and takes no new ones. When it has died, what
 * starts next makes another. Its label is no container's, so it is to be looked after here alone ({@link PidNamespaces.reconcile}).
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as fs from "node:fs/promises"
import * as Files from "../storage/Files.ts"
import * as KeyedLock from "../storage/KeyedLock.ts"
import type { UserNamespace } from "../taproot/IdMap.ts"
import type { Process, Processes } from "../taproot/Processes.ts"
import type { RuntimeMissing } from "./ContainerExit.ts"
import { creatorLabel, type OciRuntime, type RunRequest, RuntimeFailed } from "./OciRuntime.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"
import * as RuntimeSpec from "./RuntimeSpec.ts"

export type PidNamespaceFailure = RuntimeMissing | RuntimeFailed

export interface PidNamespaces {
  /** The path of a sandbox's pid namespace; made when there is none, in the user namespace of the sandbox. */
  readonly of: (sandbox: string, users: UserNamespace | undefined) => Effect.Effect<string, PidNamespaceFailure>
  /** Ends it, with whoever still lives there. Fine when there is none. */
  readonly forget: (sandbox: string) => Effect.Effect<void>
  /** Ends those of all but these sandboxes, and what is half-made; the names for the runtime of those that live. */
  readonly reconcile: (sandboxes: ReadonlySet<string>) => Effect.Effect<ReadonlyArray<string>>
}

const PREFIX = "sandbox/"
const labelOf = (sandbox: string): string => `${PREFIX}${sandbox}`

export const make = (
  processes: Processes["Service"],
  runtime: OciRuntime["Service"],
  paths: RuntimePaths,
  /** Where the host has `init`. */
  init: string
): PidNamespaces => {
  const locks = KeyedLock.make()

  const requestOf = (sandbox: string): RunRequest => {
    // no run of a container has a dot in its name
    const id = `${sandbox}.pids`
    return {
      id,
      bundle: `${paths.bundles}/${id}`,
      cgroup: `${paths.cgroup}/${sandbox}/${id}`,
      label: labelOf(sandbox),
      terminal: false,
      stdin: false
    }
  }

  /** A user namespace's root must find the way to it. */
  const openRootOf = (sandbox: string) => `${paths.open}/${sandbox}.pids`

  const configure = (request: RunRequest, sandbox: string, users: UserNamespace | undefined) => async () => {
    const root = users === undefined ? `${request.bundle}/root` : openRootOf(sandbox)
    await fs.mkdir(request.bundle, { recursive: true, mode: 0o700 })
    for (const directory of ["proc", "dev", "sys"])
      await fs.mkdir(`${root}/${directory}`, { recursive: true, mode: 0o755 })
    const config = RuntimeSpec.keeper({ hostname: sandbox, root, init, users, cgroupsPath: request.cgroup })
    await fs.writeFile(`${request.bundle}/config.json`, JSON.stringify(config), { mode: 0o600 })
  }

  const clear = (sandbox: string) =>
    Effect.gen(function* () {
      const request = requestOf(sandbox)
      yield* Effect.ignoreCause(runtime.remove(request), { log: "Warn" })
      for (const directory of [request.bundle, openRootOf(sandbox)]) {
        yield* Effect.promise(() => fs.rm(directory, { recursive: true, force: true }).catch(() => undefined))
      }
      yield* Effect.promise(() => fs.rmdir(paths.open).catch(() => undefined))
    })

  const end = (process: Process) =>
    Effect.gen(function* () {
      yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
      yield* Effect.timeoutOption(process.exit, "10 seconds")
      yield* process.acknowledge
    })

  /** The one that lives; those that do not are given back. */
  const find = Effect.fnUntraced(function* (sandbox: string) {
    for (const process of yield* processes.takeAll(labelOf(sandbox))) {
      if (process.label !== labelOf(sandbox)) continue
      if (Option.isNone(yield* process.exitNow)) return process
      yield* process.acknowledge
    }
    return undefined
  })

  const start = Effect.fnUntraced(function* (sandbox: string, users: UserNamespace | undefined) {
    const request = requestOf(sandbox)
    yield* clear(sandbox)
    yield* Effect.tryPromise({
      try: configure(request, sandbox, users),
      catch: (error) =>
        new RuntimeFailed({ command: "config.json", how: "could not be written", stderr: String(error) })
    })
    return yield* Effect.onError(runtime.run(request), () => clear(sandbox))
  })

  const forget = (sandbox: string) =>
    locks.withLock(sandbox)(
      Effect.gen(function* () {
        const process = yield* find(sandbox)
        const request = requestOf(sandbox)
        const isThere = yield* Files.exists(request.bundle)
        if (process === undefined && !isThere) return
        if (process !== undefined) yield* end(process)
        yield* clear(sandbox)
      })
    )

  return {
    of: (sandbox, users) =>
      locks.withLock(sandbox)(
        Effect.map(
          Effect.flatMap(find(sandbox), (found) =>
            found === undefined ? start(sandbox, users) : Effect.succeed(found)
          ),
          ({ pid }) => `/proc/${pid}/ns/pid`
        )
      ),
    forget,
    reconcile: Effect.fnUntraced(function* (sandboxes) {
      yield* Effect.forEach(yield* processes.takeAll(creatorLabel(PREFIX)), end, { discard: true })
      const live: Array<string> = []
      for (const process of yield* processes.takeAll(PREFIX)) {
        const sandbox = process.label.slice(PREFIX.length)
        const keep = sandboxes.has(sandbox) && Option.isNone(yield* process.exitNow)
        if (keep) live.push(requestOf(sandbox).id)
        else yield* end(process)
      }
      return live
    })
  }
}
