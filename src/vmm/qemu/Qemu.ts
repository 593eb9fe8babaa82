/**
 * The driver for QEMU: finds it, makes machines of it, takes hold of them by QMP.
 *
 * A QEMU never runs as root: `launch` (C, beside taproot) opens its files and sockets, becomes the machine's own user and then
 * QEMU, which has those descriptors, its own cgroup, a filter of system calls, and no capability nor a way to get one. Paths stay:
 * what every user of the host may read, such a QEMU may, too.
 *
 * Traps:
 * - The machine's directory is root's, and QEMU cannot even look into it: what is in there is opened, connected to and taken
 *   away by root.
 * - Only one client of a control socket is served at a time; one that another client holds looks like one that hangs.
 * - Where we are not root all machines run as who we are.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { Cgroups } from "../../host/Cgroups.ts"
import { helperPath } from "../../taproot/Helper.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import { Processes, type RunRequest } from "../../taproot/Processes.ts"
import * as Accelerator from "../Accelerator.ts"
import {
  beyond,
  type Capabilities,
  type Control,
  ControlLost,
  type DriverFacts,
  type GuestEvent,
  type GuestState,
  Hypervisor,
  HypervisorMissing,
  type LaunchRequest,
  type Place,
  PlaceFailed
} from "../Hypervisor.ts"
import * as Arguments from "./Arguments.ts"
import * as HotPlug from "./HotPlug.ts"
import * as Qmp from "./Qmp.ts"

export interface Options {
  /** For what is tried; made when it is not there. */
  readonly directory: string
  /** Default `qemu-system-x86_64`. */
  readonly binary?: string
}

export const capabilities: Capabilities = {
  chipsets: ["q35", "microvm"],
  firmware: ["q35"],
  diskFormats: ["raw", "qcow2"],
  mostDisks: 16,
  userNetwork: true,
  ports: true,
  watchdog: ["q35"],
  balloon: true,
  powerButton: true,
  pause: true,
  hotPlug: ["q35"]
}

const KVM = "/dev/kvm"
/** Just below the users that machines are given. */
const KVM_GROUP = 1_899_999_999

/** Where programs are looked for. */
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/** One that was not found is looked for again after this many milliseconds. */
const LOOK_AGAIN = 5_000
const COMING_UP = Duration.seconds(30)
/** A process of a machine has a few dozen threads and never forks. */
const MOST_PROCESSES = 1_024

const Status = Schema.Struct({ status: Schema.String })

/** QEMU's run states as ours; what is not here says that the guest stands still for a moment. */
const states: Readonly<Record<string, GuestState>> = {
  prelaunch: "created",
  running: "running",
  shutdown: "powered-off",
  "guest-panicked": "panicked",
  watchdog: "hung",
  "io-error": "stalled"
}

const changing: ReadonlySet<string> = new Set([
  "STOP",
  "RESUME",
  "SHUTDOWN",
  "GUEST_PANICKED",
  "WATCHDOG",
  "BLOCK_IO_ERROR"
])

const meaningOf = ({ data, name }: Qmp.QmpEvent): ReadonlyArray<GuestEvent> =>
  name === "RESET" && data["guest"] === true
    ? [{ _tag: "Rebooted" }]
    : name === "DEVICE_DELETED" && typeof data["device"] === "string"
      ? [{ _tag: "Unplugged" }]
      : changing.has(name)
        ? [{ _tag: "Changed" }]
        : []

const controlOf = (options: HotPlug.Options): Control => {
  const { qmp } = options
  const lost = (error: Qmp.QmpFailed) => new ControlLost({ command: error.command, detail: error.detail })
  const execute = (command: string) => Effect.asVoid(Effect.mapError(qmp.execute(command), lost))
  return {
    state: Effect.map(
      Effect.mapError(qmp.ask("query-status", Status), lost),
      ({ status }): GuestState => states[status] ?? "paused"
    ),
    events: Effect.map(
      qmp.events,
      Stream.flatMap((event) => Stream.fromIterable(meaningOf(event)))
    ),
    resume: execute("cont"),
    pause: execute("stop"),
    reset: execute("system_reset"),
    powerButton: execute("system_powerdown"),
    ...HotPlug.make(options),
    lost: Effect.map(qmp.closed, lost)
  }
}

const make = Effect.fnUntraced(function* (options: Options) {
  const processes = yield* Processes
  const cgroups = yield* Cgroups
  const { binary: wanted = "qemu-system-x86_64" } = options
  const launcher = helperPath(processes.hello.taprootPid, "launch")
  const isRoot = process.geteuid?.() === 0
  const search = Semaphore.makeUnsafe(1)

  /**
   * The group that may use KVM. A device that only root may use (where no udev has been at work) is given a group of ours, in
   * which nobody is but machines.
   */
  const kvmGroup = Effect.tryPromise(async (): Promise<ReadonlyArray<number>> => {
    const { gid, mode } = await fs.stat(KVM)
    if ((mode & 0o006) === 0o006) return []
    if ((mode & 0o060) === 0o060 && gid !== 0) return [gid]
    if (!isRoot) return []
    await fs.chown(KVM, 0, KVM_GROUP)
    await fs.chmod(KVM, 0o660)
    return [KVM_GROUP]
  }).pipe(Effect.orElseSucceed((): ReadonlyArray<number> => []))

  /** The words before QEMU's own. */
  const launching = (user: number, files: ReadonlyArray<Arguments.Handed>, network: boolean, usesKvm: boolean) =>
    Effect.map(usesKvm ? kvmGroup : Effect.succeed([]), (groups): readonly [string, ...Array<string>] => [
      launcher,
      ...(network ? [] : ["--no-network"]),
      isRoot ? String(user) : "-",
      isRoot ? [user, ...groups].join(",") : "-",
      ...files.map(({ descriptor, kind, path }) => `${descriptor}=${kind}:${path}`),
      "--"
    ])

  const trialOf = (path: string): Effect.Effect<RunRequest, PlaceFailed> =>
    Effect.gen(function* () {
      const program = join(options.directory, "trial")
      yield* Effect.tryPromise({
        try: async () => {
          await fs.mkdir(options.directory, { recursive: true, mode: 0o700 })
          await fs.writeFile(program, Accelerator.PROGRAM, { mode: 0o644 })
        },
        catch: (error) => new PlaceFailed({ detail: String(error) })
      })
      const words = yield* launching(TRIAL_USER, [{ descriptor: 3, path: program, kind: "ro" }], false, true)
      return {
        label: "accelerator trial",
        argv: [...words, path, ...TRIAL],
        environment: { PATH }
      }
    })

  /** The first program of that name. */
  const locate = Effect.promise(async () => {
    const places = wanted.includes("/") ? [wanted] : PATH.split(":").map((directory) => join(directory, wanted))
    for (const path of places) {
      const usable = await fs.access(path, fs.constants.X_OK).then(
        () => true,
        () => false
      )
      if (usable) return path
    }
    return undefined
  })

  const failing = (path: string, problem: string): DriverFacts => ({
    name: "qemu",
    path,
    version: "",
    problem,
    acceleration: undefined,
    capabilities
  })

  const examine = Effect.gen(function* (): Effect.fn.Return<DriverFacts> {
    const path = yield* locate
    if (path === undefined) return failing("", `there is no ${wanted}`)
    const asked = yield* Effect.timeoutOption(
      Effect.result(processes.run({ label: "qemu version", argv: [path, "-version"], environment: { PATH } })),
      "10 seconds"
    )
    if (Option.isNone(asked)) return failing(path, `${path} -version does not end`)
    if (asked.value._tag === "Failure") return failing(path, asked.value.failure.message)
    const { exit, stdout } = asked.value.success
    if (!ProcessExit.isSuccess(exit)) return failing(path, `${path} -version ${ProcessExit.describe(exit)}`)
    const version = /version (\S+)/.exec(Buffer.from(stdout).toString("utf8"))?.[1] ?? ""
    const trial = yield* Effect.result(trialOf(path))
    const acceleration =
      trial._tag === "Success"
        ? yield* Accelerator.find(processes, trial.success)
        : ({ accelerator: "tcg", problem: trial.failure.message } as const)
    return { name: "qemu", path, version, problem: undefined, acceleration, capabilities }
  })

  let known: { readonly at: number; readonly found: DriverFacts } | undefined
  const facts = search.withPermit(
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      if (known === undefined || (known.found.problem !== undefined && now - known.at > LOOK_AGAIN)) {
        known = { at: now, found: yield* examine }
      }
      return known.found
    })
  )

  const prepare = (place: Place) =>
    Effect.gen(function* () {
      yield* Effect.tryPromise({
        try: async () => {
          await fs.mkdir(place.directory, { recursive: true, mode: 0o700 })
          // an earlier Ironwood gave it to the machine's user
          if (isRoot) await fs.chown(place.directory, 0, 0)
        },
        catch: (error) => new PlaceFailed({ detail: String(error) })
      })
      return yield* cgroups.prepare(place.cgroup, { memoryBytes: place.memoryBytes, pids: MOST_PROCESSES })
    })

  const launch = Effect.fn("Hypervisor.launch")(function* ({ label, machine, place }: LaunchRequest) {
    const { acceleration, path, problem } = yield* facts
    if (acceleration === undefined) return yield* new HypervisorMissing({ detail: problem ?? "" })
    const joined = yield* prepare(place)
    const { files, words } = Arguments.make(path, machine, acceleration.accelerator)
    const before = yield* launching(place.user, files, machine.nics.length > 0, acceleration.accelerator === "kvm")
    return yield* processes.spawn({
      label,
      argv: [...before, ...words],
      environment: { PATH, HOME: place.directory, TMPDIR: place.directory },
      directory: place.directory,
      cgroups: joined,
      session: true,
      stdin: { _tag: "Stream" },
      stdout: { _tag: "Stream" },
      stderr: { _tag: "Stream" }
    })
  })

  return Hypervisor.of({
    facts: Effect.map(facts, (found) => [found]),
    refusals: (machine) => beyond("QEMU", capabilities, machine),
    launch,
    control: Effect.fn("Hypervisor.control")(function* (directory, running) {
      const socket = join(directory, Arguments.CONTROL_SOCKET)
      const connected = Qmp.connect(socket).pipe(
        Effect.retry({
          while: ({ reason }) => reason === "unreachable" || reason === "closed",
          schedule: Schedule.spaced("20 millis")
        }),
        Effect.timeoutOrElse({
          duration: COMING_UP,
          orElse: () =>
            new Qmp.QmpFailed({
              command: "connect",
              reason: "silent",
              detail: `nothing within ${Duration.format(COMING_UP)}`
            })
        })
      )
      const ended = Effect.flatMap(
        running.exit,
        (exit) => new Qmp.QmpFailed({ command: "connect", reason: "closed", detail: ProcessExit.describe(exit) })
      )
      return yield* Effect.mapBoth(Effect.raceFirst(connected, ended), {
        onSuccess: (qmp) => controlOf({ qmp, processes, process: running, directory }),
        onFailure: ({ command, detail }) => new ControlLost({ command, detail })
      })
    })
  })
})

/** A machine as others are made, with a debug port; the program is its first file. */
const TRIAL = (
  "-nodefaults -no-user-config -display none -no-reboot -machine q35 -m 64 -accel kvm -cpu host -kernel /dev/fd/3 " +
  "-device isa-debug-exit,iobase=0x501,iosize=1"
).split(" ")

/** Nobody: what is tried needs no user of its own. */
const TRIAL_USER = 65_534

/** The real one. */
export const layer = (options: Options) => Layer.effect(Hypervisor, make(options))
