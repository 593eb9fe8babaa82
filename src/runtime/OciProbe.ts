/**
 * Finds the OCI runtime that works on this host, by making a container with it: namespaces, cgroup, limits and all, with
 * the smallest program there is inside. What a runtime says of itself is not asked: crun 1.8 refuses hosts that have a
 * cgroup2 beside cgroup v1, runc needs a kernel feature less or more, and only a trial shows it.
 *
 * Such a hybrid host is put right where that harms nobody: in taproot's mount namespace, when it is a private one, the
 * cgroup2 beside is unmounted. Outside nothing changes.
 *
 * Trap: a trial takes about as long as a container's start. One per candidate, until one works; the others are tried when
 * somebody asks about them.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { Processes } from "../taproot/Processes.ts"
import { fromMounts, parseMountInfo } from "../host/CgroupLayout.ts"
import type { Cgroups } from "../host/Cgroups.ts"
import { RuntimeMissing } from "./ContainerExit.ts"
import { ContainerSpec } from "./ContainerSpec.ts"
import { root } from "./ContainerUser.ts"
import type { RuntimeCandidate, RuntimeFacts } from "./OciRuntime.ts"
import { RestartPolicy } from "../actor/RestartPolicy.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"
import * as Capabilities from "./Capabilities.ts"
import * as Isolation from "./Isolation.ts"
import * as RuntimeSpec from "./RuntimeSpec.ts"
import { trialProgram } from "./TrialProgram.ts"

/** Why one candidate does not serve. */
class Unfit extends Schema.TaggedError<Unfit>()("Unfit", { why: Schema.String }) {
  override get message(): string {
    return this.why
  }
}

const DEADLINE = "20 seconds"
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/** Where a program is: a path as it stands, a name looked up in the environment's PATH and the usual places. */
const locate = (candidate: string): Effect.Effect<string, Unfit> => {
  const directories = `${process.env["PATH"] ?? ""}:${searchPath}`.split(":").filter((directory) => directory !== "")
  const places = candidate.includes("/") ? [candidate] : directories.map((directory) => `${directory}/${candidate}`)
  const isProgram = (path: string) =>
    Effect.map(Effect.option(Effect.tryPromise(() => fs.access(path, constants.X_OK))), Option.isSome)
  return Effect.gen(function* () {
    for (const place of places) if (yield* isProgram(place)) return place
    return yield* new Unfit({ why: "not installed" })
  })
}

/** The runtimes that are looked for, the best first; youki, which Debian has not, only where there is one. */
export const known: Effect.Effect<ReadonlyArray<string>> = Effect.map(Effect.option(locate("youki")), (found) => [
  "crun",
  "runc",
  ...(Option.isSome(found) ? ["youki"] : [])
])

const firstLines = (bytes: Uint8Array, count: number): string =>
  Buffer.from(bytes).toString("utf8").trim().split("\n").slice(0, count).join("; ").slice(0, 500)

/** Runs a short command of the candidate; its standard output when it succeeds. */
const command = (processes: Processes["Service"], argv: readonly [string, ...Array<string>]) =>
  processes.run({ label: "oci-probe", argv, maxOutputBytes: 16_384 }).pipe(
    Effect.mapError((refused) => new Unfit({ why: refused.message })),
    Effect.timeoutOrElse({
      duration: DEADLINE,
      orElse: () => Effect.fail(new Unfit({ why: `${argv.at(-1)}: no end within ${DEADLINE}` }))
    }),
    Effect.flatMap(({ exit, stderr, stdout }) =>
      ProcessExit.isSuccess(exit)
        ? Effect.succeed(stdout)
        : Effect.fail(new Unfit({ why: firstLines(stderr, 3) || ProcessExit.describe(exit) }))
    )
  )

const trialSpec = new ContainerSpec({
  name: "probe",
  image: "none",
  command: ["/probe"],
  environment: {},
  resources: { memoryBytes: 64 * 1024 * 1024, cpus: 1 },
  restart: new RestartPolicy({}),
  labels: {},
  readonlyRootfs: false,
  log: { maxBytes: 65_536, maxFiles: 1 }
})

const noImage = {
  entrypoint: [],
  cmd: [],
  env: [],
  user: "",
  workingDir: "",
  stopSignal: "",
  volumes: [],
  exposedPorts: [],
  labels: {}
}

export interface Services {
  readonly processes: Processes["Service"]
  readonly cgroups: Cgroups["Service"]
  readonly paths: RuntimePaths
}

/** Names of containers hold no dot: these can be no container's run. One for each who may try at the same time. */
type TrialId = "trial.0" | "trial.1"

/** Makes a container and waits for its end. Leaves nothing behind. */
const trial = ({ cgroups, paths, processes }: Services, path: string, id: TrialId = "trial.0") =>
  Effect.gen(function* () {
    const program = trialProgram(process.arch)
    if (program === undefined) return
    const bundle = `${paths.bundles}/${id}`
    const cgroup = `${paths.cgroup}/${id}`
    const write = Effect.gen(function* () {
      const oci = yield* RuntimeSpec.make({
        spec: trialSpec,
        image: noImage,
        rootfs: `${bundle}/rootfs`,
        user: root,
        cgroupsPath: cgroup,
        hostname: "probe",
        ipc: "new",
        pid: "new",
        users: undefined,
        sharedMemory: undefined,
        binds: [],
        devices: [],
        network: "new",
        hostFiles: [],
        init: "",
        limitSwap: yield* cgroups.limitsSwap,
        isolation: Isolation.of(trialSpec.security, yield* Capabilities.held),
        seccompFilter: undefined,
        processLimit: 64
      })
      yield* Effect.tryPromise(async () => {
        await fs.mkdir(`${bundle}/rootfs`, { recursive: true, mode: 0o700 })
        await fs.writeFile(`${bundle}/rootfs/probe`, program, { mode: 0o755 })
        await fs.writeFile(`${bundle}/config.json`, JSON.stringify(oci))
      })
    }).pipe(Effect.mapError((error) => new Unfit({ why: error.message })))
    const forget = Effect.gen(function* () {
      yield* Effect.ignore(command(processes, [path, "--root", paths.oci, "delete", "--force", id]))
      yield* Effect.ignore(cgroups.remove(cgroup))
      yield* Effect.ignore(Effect.tryPromise(() => fs.rm(bundle, { recursive: true, force: true })))
    })
    yield* Effect.andThen(write, command(processes, [path, "--root", paths.oci, "run", "--bundle", bundle, id])).pipe(
      Effect.ensuring(forget)
    )
  })

const MS_NOSUID_NODEV_NOEXEC = 14n

/** Unmounts the cgroup2 beside a cgroup v1, if that is nobody else's business; the result puts it back. */
const withoutUnified = ({ cgroups, processes }: Services) =>
  Effect.gen(function* () {
    const read = (path: string) =>
      Effect.map(
        Effect.option(Effect.tryPromise(() => fs.readFile(path, "utf8"))),
        Option.getOrElse(() => "")
      )
    const mountsOf = (pid: number | string) => Effect.map(read(`/proc/${pid}/mountinfo`), parseMountInfo)
    const { taprootPid } = processes.hello
    const mounts = yield* mountsOf(taprootPid)
    const unified = mounts.find(({ type }) => type === "cgroup2")
    if (fromMounts(mounts).kind !== "hybrid" || unified === undefined || !unified.private) return Option.none()
    // Ours alone: neither the host's first process nor whoever started taproot has this very mount.
    const parent = /^PPid:\s*(\d+)$/m.exec(yield* read(`/proc/${taprootPid}/status`))?.[1]
    if (parent === undefined) return Option.none()
    for (const pid of [1, parent]) {
      const theirs = yield* mountsOf(pid)
      if (theirs.length === 0 || theirs.some(({ id }) => id === unified.id)) return Option.none()
    }
    const target = unified.mountPoint
    const unmounted = yield* Effect.option(processes.unmount(target))
    if (Option.isNone(unmounted)) return Option.none()
    // crun joins a cgroup there all the same, as plain files: they shall lie on something that vanishes with us.
    const place = {
      source: "ironwood",
      target,
      type: "tmpfs",
      flags: MS_NOSUID_NODEV_NOEXEC,
      data: "size=16m,mode=755"
    }
    yield* Effect.ignore(processes.mount(place))
    yield* cgroups.rearranged
    const restore = Effect.ignore(processes.unmount(target)).pipe(
      Effect.andThen(processes.mount({ source: "cgroup2", target, type: "cgroup2", flags: MS_NOSUID_NODEV_NOEXEC })),
      Effect.ensuring(cgroups.rearranged)
    )
    return Option.some({ restore: Effect.ignore(restore), note: `${target} unmounted in our own mount namespace` })
  })

const version = (output: Uint8Array): { readonly name: string; readonly version: string } => {
  const match = /^(\S+) version (\S+)/.exec(firstLines(output, 1))
  return { name: match?.[1] ?? "unknown", version: match?.[2] ?? "unknown" }
}

/** Where a candidate is, and what it says it is. */
const identify = ({ processes }: Services, path: string) =>
  Effect.map(command(processes, [path, "--version"]), (output) => ({ path, ...version(output) }))

const tryCandidate = (services: Services, candidate: string) =>
  Effect.gen(function* () {
    const path = yield* locate(candidate)
    const facts = yield* identify(services, path)
    const first = yield* Effect.result(trial(services, path))
    if (first._tag === "Success") return { ...facts, adjustments: [] } satisfies RuntimeFacts
    const adjusted = yield* withoutUnified(services)
    if (Option.isNone(adjusted)) return yield* first.failure
    yield* trial(services, path).pipe(Effect.onError(() => adjusted.value.restore))
    return { ...facts, adjustments: [adjusted.value.note] } satisfies RuntimeFacts
  })

/** The first candidate (a name or a path) that works here. The failure says of each why it does not. */
export const find = (
  services: Services,
  candidates: ReadonlyArray<string>
): Effect.Effect<RuntimeFacts, RuntimeMissing> =>
  Effect.gen(function* () {
    const reasons: Array<string> = []
    for (const candidate of candidates) {
      const found = yield* Effect.result(tryCandidate(services, candidate))
      if (found._tag === "Success") return found.success
      reasons.push(`${candidate}: ${found.failure.why}`)
    }
    return yield* new RuntimeMissing({ detail: reasons.join("; ") })
  })

/** What one candidate can do on the host as it is. Nothing is arranged for it. One at a time; `find` may go on beside it. */
export const examine = (services: Services, candidate: string): Effect.Effect<RuntimeCandidate> =>
  Effect.gen(function* () {
    const absent = { name: candidate, version: "", path: "", inUse: false, adjustments: [] }
    const path = yield* Effect.result(locate(candidate))
    if (path._tag === "Failure") return { ...absent, problem: path.failure.why }
    const facts = yield* Effect.result(identify(services, path.success))
    if (facts._tag === "Failure") return { ...absent, path: path.success, problem: facts.failure.why }
    const tried = yield* Effect.result(trial(services, path.success, "trial.1"))
    const problem = tried._tag === "Failure" ? tried.failure.why : undefined
    return { ...absent, ...facts.success, problem }
  })
