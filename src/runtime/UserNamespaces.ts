/**
 * The user namespaces of sandboxes that have users of their own: made before anything of the sandbox runs, kept on a file, joined by
 * every container (and by whatever else the sandbox shares: its network, IPC and pid namespaces belong to it), gone with the
 * sandbox. Which users of the host they are is in the sandbox's record, so a later taproot makes the same one again.
 *
 * Whether kernel, file systems and OCI runtime can do it all is found out by doing it once: {@link UserNamespaces.lacking}.
 *
 * Trap: the pin is a mount in taproot's mount namespace, gone with taproot.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as fs from "node:fs/promises"
import { arch } from "node:process"
import * as KeyedLock from "../storage/KeyedLock.ts"
import * as IdMap from "../taproot/IdMap.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { Processes } from "../taproot/Processes.ts"
import type { MountPoints } from "./MountPoints.ts"
import { creatorLabel, type OciRuntime, RuntimeFailed, type RunRequest } from "./OciRuntime.ts"
import type { SandboxRecord } from "./Records.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"
import * as RuntimeSpec from "./RuntimeSpec.ts"
import { trialProgram } from "./TrialProgram.ts"
import * as UserRanges from "./UserRanges.ts"

export interface UserNamespaces {
  /** That of a sandbox, made when it is not there; undefined: its users are the host's. */
  readonly of: (sandbox: SandboxRecord) => Effect.Effect<IdMap.UserNamespace | undefined, RuntimeFailed>
  /** Lets it go. Fine when there is none. */
  readonly forget: (sandbox: string) => Effect.Effect<void>
  /** Why this host cannot have any, in words; undefined: it can. Found out once, and again after a while where it cannot. */
  readonly lacking: Effect.Effect<string | undefined>
}

/** No name of a sandbox has a dot. */
const TRIAL = "trial.users"
const LOOK_AGAIN = 60_000
const DEADLINE = "30 seconds"
const MNT_DETACH = 2

const problemOf = (error: { readonly message: string }) => error.message

export const make = (
  processes: Processes["Service"],
  points: MountPoints,
  runtime: OciRuntime["Service"],
  paths: RuntimePaths
): UserNamespaces => {
  const locks = KeyedLock.make()
  const searching = Semaphore.makeUnsafe(1)
  const pinOf = (name: string) => `${paths.users}/${name}`

  const failed = ({ message }: { readonly message: string }) =>
    new RuntimeFailed({ command: "making a user namespace", how: "failed", stderr: message })

  const pinned = (name: string, first: number) =>
    locks.withLock(name)(
      Effect.gen(function* () {
        const namespace: IdMap.UserNamespace = { path: pinOf(name), first }
        if (yield* points.isMounted(namespace.path)) return namespace
        yield* Effect.tryPromise(async () => {
          await fs.mkdir(paths.users, { recursive: true, mode: 0o700 })
          await fs.writeFile(namespace.path, "", { mode: 0o600 })
        })
        yield* IdMap.makeNamespace(processes, namespace)
        return namespace
      })
    )

  const forget = (name: string) => locks.withLock(name)(points.remove(pinOf(name)))

  const requestOf = (): RunRequest => ({
    id: TRIAL,
    bundle: `${paths.bundles}/${TRIAL}`,
    cgroup: `${paths.cgroup}/${TRIAL}`,
    label: TRIAL,
    terminal: false,
    stdin: false
  })

  /** A container as such a sandbox has: a layer seen through the namespace, an overlay on it, and the smallest program. */
  const tryOnce = Effect.gen(function* () {
    const program = trialProgram(arch)
    if (program === undefined) return
    const request = requestOf()
    const { bundle } = request
    const at = (name: string) => `${bundle}/${name}`
    const root = `${paths.open}/${TRIAL}`
    const clear = Effect.gen(function* () {
      for (const label of [TRIAL, creatorLabel(TRIAL)]) {
        for (const process of yield* processes.takeAll(label)) {
          yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
          yield* Effect.timeoutOption(process.exit, "5 seconds")
          yield* process.acknowledge
        }
      }
      yield* Effect.ignore(runtime.remove(request))
      for (const target of [root, at("seen")]) yield* Effect.ignore(processes.unmount(target, MNT_DETACH))
      yield* Effect.promise(() =>
        fs
          .rmdir(root)
          .then(() => fs.rmdir(paths.open))
          .catch(() => undefined)
      )
      yield* forget(TRIAL)
      yield* Effect.promise(() => fs.rm(bundle, { recursive: true, force: true }).catch(() => undefined))
    })
    const first = UserRanges.startOf(paths.cgroup)
    yield* Effect.gen(function* () {
      yield* clear
      const users = yield* pinned(TRIAL, first)
      yield* Effect.tryPromise(async () => {
        for (const name of ["layer", "seen", "upper", "work"]) {
          await fs.mkdir(at(name), { recursive: true, mode: 0o755 })
        }
        await fs.writeFile(at("layer/probe"), program, { mode: 0o755 })
        for (const name of ["upper", "work"]) await fs.chown(at(name), first, first)
        await fs.mkdir(root, { recursive: true, mode: 0o711 })
        const config = RuntimeSpec.trial({ root, users, cgroupsPath: request.cgroup })
        await fs.writeFile(at("config.json"), JSON.stringify(config), { mode: 0o600 })
      })
      yield* IdMap.mount(processes, { namespace: users, source: at("layer"), target: at("seen"), options: ["ro"] })
      yield* processes.mount({
        source: "overlay",
        target: root,
        type: "overlay",
        data: "lowerdir=seen,upperdir=upper,workdir=work,index=off",
        directory: bundle
      })
      const process = yield* runtime.run(request)
      const exit = yield* Effect.timeout(process.exit, DEADLINE)
      if (!ProcessExit.isSuccess(exit)) {
        return yield* new RuntimeFailed({
          command: "a trial container",
          how: ProcessExit.describe(exit),
          stderr: ""
        })
      }
    }).pipe(Effect.ensuring(clear))
  }).pipe(
    Effect.as(undefined),
    Effect.catch((error) => Effect.succeed(problemOf(error)))
  )

  let known: { readonly at: number; readonly lacking: string | undefined } | undefined
  return {
    of: ({ firstUser, spec }) =>
      firstUser === undefined ? Effect.undefined : Effect.mapError(pinned(spec.name, firstUser), failed),
    forget,
    lacking: searching.withPermit(
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        if (known === undefined || (known.lacking !== undefined && now - known.at > LOOK_AGAIN)) {
          known = { at: now, lacking: yield* tryOnce }
        }
        return known.lacking
      })
    )
  }
}
