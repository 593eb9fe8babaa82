/**
 * User-mode networks of sandboxes: each has a network namespace of its own with one card, `tap0` (10.0.2.100), behind which
 * slirp4netns, a process per sandbox, opens connections as any program of the host does. So its containers reach what the host
 * reaches (but not what listens on the host's own loopback), and ports of the host that are *published* lead in. Nothing of the
 * host's network is changed for it: no bridge, no address, no rule of a firewall.
 *
 * The namespace is made before anything runs in it, and pinned on a file. slirp4netns is taproot's child: it lives on when the
 * brain dies, and is found again; its one capability is that for ports below 1024, it sees no files, and has a filter of system
 * calls. When it dies, connections are lost; a new one takes its place (`UserNetworkActor.ts`), and the containers run on.
 *
 * Traps: throughput is that of a process that copies every packet. A published port hides who is calling: all come from
 * 10.0.2.2. The pin is a mount in taproot's mount namespace, gone with taproot.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import type { Cgroups } from "../host/Cgroups.ts"
import * as Executables from "../host/Executables.ts"
import * as Remedy from "../host/Remedy.ts"
import * as KeyedLock from "../storage/KeyedLock.ts"
import * as IdMap from "../taproot/IdMap.ts"
import type { Process, Processes } from "../taproot/Processes.ts"
import { connectTo } from "../taproot/SocketPath.ts"
import type { MountPoints } from "./MountPoints.ts"
import type { Place } from "./NameFiles.ts"
import { RuntimeFailed } from "./OciRuntime.ts"
import type { SandboxRecord } from "./Records.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"
import { listenerOf, portsOf } from "./PublishedPorts.ts"
import type { PublishedPort } from "./SandboxSpec.ts"
import type { UserNamespaces } from "./UserNamespaces.ts"

export interface UserNetwork {
  /** What makes it. */
  readonly process: Process
  /** Published ports of the sandbox that somebody else has. */
  readonly missing: ReadonlyArray<PublishedPort>
}

export interface UserNetworks {
  /** Why this host can have none, with what to do; undefined: it can. */
  readonly lacking: string | undefined
  /** The one of a sandbox, with all its ports published that can be; made when there is none. */
  readonly of: (sandbox: SandboxRecord) => Effect.Effect<UserNetwork, RuntimeFailed>
  /** The same, and fails when any of its ports is missing: nothing starts in it then. */
  readonly whole: (sandbox: SandboxRecord) => Effect.Effect<void, RuntimeFailed>
  /** The namespace of a sandbox that has one. */
  readonly namespaceOf: (sandbox: string) => string
  /** Ends it. The namespace stays with the sandbox. Fine when there is none. */
  readonly forget: (sandbox: string) => Effect.Effect<void>
  /** Ends those of all but these sandboxes; the names of the cgroups of those that live, as if they were runs. */
  readonly reconcile: (sandboxes: ReadonlySet<string>) => Effect.Effect<ReadonlyArray<string>>
}

const PREFIX = "network/"
const labelOf = (sandbox: string): string => `${PREFIX}${sandbox}`

const PROGRAM = ["/usr/bin/slirp4netns", "/usr/local/bin/slirp4netns"]
const SOCKET = "control"
/** slirp4netns(1): the addresses of the container, and of the server for names. */
export const PLACE: Place = { address: "10.0.2.100", server: "10.0.2.3" }

/** Where the hypervisor of a microVM takes what is published; its own user may not listen below 1024. */
const BETWEEN = 20_000
export const betweenPort = (index: number): number => BETWEEN + index

/** What it may have: it holds what is on the way, and nothing else. */
const LIMITS = { memoryBytes: 128 * 1024 * 1024, pids: 16 }

/** A guest may have taken it over. Bytes; 64 ports take a tenth. */
const MOST_ANSWER = 65_536
const ANSWERS = "5 seconds"
/** Bytes of its log, which what it is sent can make it write: with more it is ended, and begins anew. */
const MOST_LOG = 1_048_576n

const COMING_UP = "10 seconds"
const LOOK_AGAIN = Schedule.spaced("5 millis")

/** What slirp4netns answers (its API, in slirp4netns(1)). */
const Answer = Schema.fromJsonString(
  Schema.Struct({
    error: Schema.optionalKey(Schema.Struct({ desc: Schema.String })),
    entries: Schema.optionalKey(
      Schema.Array(
        Schema.Struct({
          proto: Schema.String,
          host_addr: Schema.String,
          host_port: Schema.Int,
          guest_port: Schema.Int
        })
      )
    )
  })
)
const decodeAnswer = Schema.decodeUnknownEffect(Answer)

/** Why ports are missing, for people. */
export const missingText = (missing: ReadonlyArray<PublishedPort>): string =>
  `cannot have ${missing.map(listenerOf).join(", ")}: somebody else on the host listens there, or the address is not the host's`

const failed = (how: string, stderr = "") =>
  new RuntimeFailed({ command: "the user-mode network of the sandbox", how, stderr })

/** One request, one answer, one connection. */
const ask = (socket: string, request: object) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connectTo(socket, (cause) => failed("does not listen", String(cause)))
      const text = yield* Effect.callback<string, RuntimeFailed>((resume) => {
        const pieces: Array<Buffer> = []
        let length = 0
        connection.on("data", (bytes: Buffer) => {
          length += bytes.length
          if (length > MOST_ANSWER) resume(failed("answers without end"))
          else pieces.push(bytes)
        })
        connection.once("end", () => resume(Effect.succeed(Buffer.concat(pieces).toString())))
        connection.once("error", (cause) => resume(failed("does not answer", String(cause))))
        connection.end(JSON.stringify(request))
      })
      return yield* Effect.mapError(decodeAnswer(text), ({ message }) => failed("answers oddly", message))
    })
  ).pipe(Effect.timeoutOrElse({ duration: ANSWERS, orElse: () => failed("does not answer") }))

export const make = (
  processes: Processes["Service"],
  cgroups: Cgroups["Service"],
  points: MountPoints,
  users: UserNamespaces,
  paths: RuntimePaths,
  /** Where it may be. */
  programs: ReadonlyArray<string> = PROGRAM
): UserNetworks => {
  const locks = KeyedLock.make()
  const program = Executables.firstOf(programs)
  const directoryOf = (sandbox: string) => `${paths.userNetworks}/${sandbox}`
  /** With a dot, which no run has in its name. In a cgroup of its sandbox it is found also when its taproot is gone. */
  const runOf = (sandbox: string) => `${sandbox}.network`
  const cgroupOf = (sandbox: string) => `${paths.cgroup}/${sandbox}/${runOf(sandbox)}`
  const namespaceOf = (sandbox: string) => `${paths.networks}/${sandbox}`
  const removeFiles = (sandbox: string) =>
    Effect.promise(() => fs.rm(directoryOf(sandbox), { recursive: true, force: true }))
  /** Those whose ports this brain has seen to. */
  const complete = new Set<Process>()

  /** An empty network namespace, kept on a file. */
  const pin = Effect.fnUntraced(function* (sandbox: string, users: IdMap.UserNamespace | undefined) {
    const target = namespaceOf(sandbox)
    if (yield* points.isMounted(target)) return
    yield* Effect.tryPromise({
      try: async () => {
        await fs.mkdir(paths.networks, { recursive: true, mode: 0o700 })
        await fs.writeFile(target, "", { mode: 0o600 })
      },
      catch: (cause) => failed("has no place", String(cause))
    })
    yield* Effect.mapError(IdMap.makeNetwork(processes, { path: target, users }), ({ message }) =>
      failed("could not be made", message)
    )
  })

  const lastWords = (sandbox: string) =>
    Effect.promise(() => fs.readFile(`${directoryOf(sandbox)}/log`, "utf8").catch(() => ""))

  const publish = Effect.fnUntraced(function* (socket: string, sandbox: SandboxRecord) {
    const ports = portsOf(sandbox).map((port, index) =>
      sandbox.spec.isolation === "microvm" ? { ...port, containerPort: betweenPort(index) } : port
    )
    const { entries = [] } = yield* ask(socket, { execute: "list_hostfwd" })
    const isThere = ({ containerPort, hostAddress, hostPort, protocol }: PublishedPort) =>
      entries.some(
        (entry) =>
          entry.proto === protocol &&
          entry.host_addr === hostAddress &&
          entry.host_port === hostPort &&
          entry.guest_port === containerPort
      )
    const missing: Array<PublishedPort> = []
    for (const port of ports.filter((one) => !isThere(one))) {
      const { error } = yield* ask(socket, {
        execute: "add_hostfwd",
        arguments: {
          proto: port.protocol,
          host_addr: port.hostAddress,
          host_port: port.hostPort,
          guest_addr: PLACE.address,
          guest_port: port.containerPort
        }
      })
      if (error !== undefined) missing.push(port)
    }
    return missing
  })

  const end = (process: Process) =>
    Effect.gen(function* () {
      complete.delete(process)
      yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
      yield* Effect.timeoutOption(process.exit, "10 seconds")
      yield* process.acknowledge
      yield* Effect.ignoreCause(cgroups.remove(cgroupOf(process.label.slice(PREFIX.length))), { log: "Warn" })
    })

  /** The one that lives; those that do not are given back. */
  const find = Effect.fnUntraced(function* (sandbox: string) {
    for (const process of yield* processes.takeAll(labelOf(sandbox))) {
      if (process.label !== labelOf(sandbox)) continue
      if (Option.isNone(yield* process.exitNow)) return process
      complete.delete(process)
      yield* process.acknowledge
    }
    return undefined
  })

  /** Waits until it listens; it may end before. */
  const listening = (sandbox: string, process: Process) => {
    const socket = `${directoryOf(sandbox)}/${SOCKET}`
    const listens = Effect.retry(ask(socket, { execute: "list_hostfwd" }), LOOK_AGAIN)
    const ended = Effect.andThen(
      process.exit,
      Effect.flatMap(lastWords(sandbox), (words) => failed("ended as it came up", words))
    )
    return Effect.raceFirst(listens, ended).pipe(
      Effect.timeoutOrElse({
        duration: COMING_UP,
        orElse: () => Effect.flatMap(lastWords(sandbox), (words) => failed("does not come up", words))
      })
    )
  }

  const start = Effect.fnUntraced(function* (sandbox: string, users: IdMap.UserNamespace | undefined) {
    if (program === undefined) return yield* failed("cannot be had", lacking)
    yield* pin(sandbox, users)
    const directory = directoryOf(sandbox)
    yield* Effect.tryPromise({
      try: async () => {
        await fs.rm(`${directory}/${SOCKET}`, { force: true })
        await fs.mkdir(directory, { recursive: true, mode: 0o700 })
      },
      catch: (cause) => failed("has no place", String(cause))
    })
    const log = `${directory}/log`
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC
    const process = yield* processes
      .spawn({
        label: labelOf(sandbox),
        argv: [
          program,
          "--netns-type=path",
          ...(users === undefined ? [] : [`--userns-path=${users.path}`]),
          "--configure",
          "--mtu=65520",
          "--disable-host-loopback",
          "--enable-sandbox",
          "--enable-seccomp",
          `--api-socket=${SOCKET}`,
          namespaceOf(sandbox),
          "tap0"
        ],
        directory,
        cgroups: yield* cgroups.prepare(cgroupOf(sandbox), LIMITS),
        rlimits: { fsize: { soft: MOST_LOG, hard: MOST_LOG } },
        stdout: { _tag: "File", path: log, flags, mode: 0o600 },
        stderr: { _tag: "Stdout" }
      })
      .pipe(Effect.mapError(({ message }) => failed("could not be started", message)))
    yield* Effect.onError(listening(sandbox, process), () => end(process))
    return process
  })

  const lacking =
    program === undefined
      ? `there is no slirp4netns, which makes it (${Remedy.ofNetwork("`apt-get install slirp4netns`")}); --network host needs none`
      : undefined

  const of = (sandbox: SandboxRecord) => {
    const { name } = sandbox.spec
    return locks.withLock(name)(
      Effect.gen(function* () {
        const process = (yield* find(name)) ?? (yield* start(name, yield* users.of(sandbox)))
        if (complete.has(process)) return { process, missing: [] }
        // one that cannot be spoken to is as good as none
        const publishing = publish(`${directoryOf(name)}/${SOCKET}`, sandbox)
        const missing = yield* Effect.onError(publishing, () => end(process))
        if (missing.length === 0) complete.add(process)
        return { process, missing }
      })
    )
  }

  return {
    lacking,
    namespaceOf,
    of,
    whole: (sandbox) =>
      Effect.flatMap(of(sandbox), ({ missing }) => (missing.length === 0 ? Effect.void : failed(missingText(missing)))),
    forget: (sandbox) =>
      locks.withLock(sandbox)(
        Effect.gen(function* () {
          const process = yield* find(sandbox)
          if (process !== undefined) yield* end(process)
          yield* removeFiles(sandbox)
        })
      ),
    reconcile: Effect.fnUntraced(function* (sandboxes) {
      const live: Array<string> = []
      for (const process of yield* processes.takeAll(PREFIX)) {
        const sandbox = process.label.slice(PREFIX.length)
        if (sandboxes.has(sandbox)) live.push(runOf(sandbox))
        else yield* end(process)
      }
      for (const name of yield* Effect.promise(() => fs.readdir(paths.userNetworks).catch((): Array<string> => []))) {
        if (sandboxes.has(name)) continue
        yield* removeFiles(name)
      }
      return live
    })
  }
}
