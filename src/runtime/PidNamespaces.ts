/**
 * Pid namespaces that the containers of a sandbox share. Each is kept by a process of its own, `init` without a program, as
 * its number 1: it does nothing but reap, and outlives every container. It is a run of the OCI runtime like a container's,
 * in a root without files, named after its sandbox, and nobody's child in the tree. In a microVM it is one of its guest, and goes
 * with it.
 *
 * Traps: without its number 1 the kernel ends all processes of a pid namespace and takes no new ones. When it has died, what
 * starts next makes another. Its label is no container's, so it is to be looked after here alone ({@link PidNamespaces.reconcile}).
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as fs from "node:fs/promises"
import { FileFailed, ofHost as filesOfHost, type SystemFiles } from "../host/SystemFiles.ts"
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

/** Where they are made: on this host, or in a guest. */
export interface Ground {
  readonly processes: Processes["Service"]
  readonly runtime: OciRuntime["Service"]
  readonly files: Pick<SystemFiles, "list" | "makeDirectory" | "remove" | "removeDirectory" | "write">
  readonly paths: Pick<RuntimePaths, "bundles" | "cgroup" | "open">
  /** Where it has `init`. */
  readonly init: string
  /** Whom the keeper runs as, who must be able to find its way through a directory made by {@link Ground.makeRoot}. */
  readonly user: number
  readonly makeRoot: (path: string) => Effect.Effect<void, FileFailed>
}

/** What of that is this host's. */
export const onHost = {
  files: filesOfHost,
  user: 65_534,
  makeRoot: (path: string) =>
    Effect.asVoid(
      Effect.tryPromise({
        try: () => fs.mkdir(path, { recursive: true, mode: 0o755 }),
        catch: (error) => new FileFailed({ path, code: "EIO", problem: String(error) })
      })
    )
}

export const make = ({ files, init, makeRoot, paths, processes, runtime, user }: Ground): PidNamespaces => {
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

  const configure = Effect.fnUntraced(function* (
    request: RunRequest,
    sandbox: string,
    users: UserNamespace | undefined
  ) {
    const root = users === undefined ? `${request.bundle}/root` : openRootOf(sandbox)
    yield* files.makeDirectory(request.bundle)
    for (const directory of ["proc", "dev", "sys"]) yield* makeRoot(`${root}/${directory}`)
    const config = RuntimeSpec.keeper({ hostname: sandbox, root, init, user, users, cgroupsPath: request.cgroup })
    yield* files.write(`${request.bundle}/config.json`, JSON.stringify(config))
  })

  const clear = (sandbox: string) =>
    Effect.gen(function* () {
      const request = requestOf(sandbox)
      yield* Effect.ignoreCause(runtime.remove(request), { log: "Warn" })
      for (const directory of [request.bundle, openRootOf(sandbox)]) {
        yield* Effect.ignore(files.remove(directory))
      }
      yield* Effect.ignore(files.removeDirectory(paths.open))
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
    yield* Effect.mapError(
      configure(request, sandbox, users),
      ({ message }) => new RuntimeFailed({ command: "config.json", how: "could not be written", stderr: message })
    )
    return yield* Effect.onError(runtime.run(request), () => clear(sandbox))
  })

  const forget = (sandbox: string) =>
    locks.withLock(sandbox)(
      Effect.gen(function* () {
        const process = yield* find(sandbox)
        const request = requestOf(sandbox)
        const isThere = Option.isSome(yield* Effect.option(files.list(request.bundle)))
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
