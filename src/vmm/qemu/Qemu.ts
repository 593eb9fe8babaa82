/**
 * The driver for QEMU: finds it, makes machines of it, takes hold of them by QMP.
 *
 * A QEMU never runs as root: `launch` (C, beside taproot) opens its files and sockets, becomes the machine's own user and then
 * QEMU, which has those descriptors, its own cgroup, a filter of system calls, and no capability nor a way to get one. Of the
 * host's files it sees its program, libraries and firmware, and nothing else.
 *
 * Traps:
 * - The machine's directory is root's, and QEMU cannot even look into it: what is in there is opened, connected to and taken
 *   away by root.
 * - Only one client of a control socket is served at a time; one that another client holds looks like one that hangs.
 * - Where we are not root all machines run as who we are, and see what we see. So does a QEMU that does not start without more of
 *   the host than distributions have it need; the log tells.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import { existsSync } from "node:fs"
import { join } from "node:path"
import type { Cgroups } from "../../host/Cgroups.ts"
import { Processes } from "../../taproot/Processes.ts"
import * as Accelerator from "../Accelerator.ts"
import { answered } from "../ComingUp.ts"
import { choosing, type Driver } from "../Driver.ts"
import {
  beyond,
  type Capabilities,
  type Control,
  type DriverFacts,
  type GuestEvent,
  type GuestState,
  Hypervisor,
  HypervisorMissing,
  PlaceFailed
} from "../Hypervisor.ts"
import * as Passthrough from "../Passthrough.ts"
import * as Launching from "../Launching.ts"
import type { Machine } from "../Machine.ts"
import * as Arguments from "./Arguments.ts"
import * as HotPlug from "./HotPlug.ts"
import * as Qmp from "./Qmp.ts"
import * as Resize from "./Resize.ts"
import * as QemuMemory from "./QemuMemory.ts"

export interface Options {
  /** For what is tried; made when it is not there. */
  readonly directory: string
  /** Default `qemu-system-x86_64`. */
  readonly binary?: string
}

export const capabilities: Capabilities = {
  chipsets: ["q35", "microvm"],
  firmware: ["q35"],
  secureBoot: ["q35"],
  diskFormats: ["raw", "qcow2"],
  mostDisks: 16,
  emptyDisks: true,
  userNetwork: true,
  ports: true,
  shares: true,
  watchdog: ["q35"],
  balloon: true,
  powerButton: true,
  pause: true,
  hotPlug: ["q35"],
  growth: ["q35"],
  diskSizes: true,
  diskLimits: true,
  balloonTarget: true,
  topology: true,
  hugepages: true,
  ignition: true,
  passthrough: ["q35"],
  memory: true,
  moves: true
}

/** What of the host a QEMU sees: libraries, and its firmware for a machine that boots from a kernel. */
const SEEN = [
  "/lib",
  "/lib64",
  "/usr/lib",
  "/usr/lib64",
  "/usr/local/lib",
  "/etc/ld.so.cache",
  "/usr/share/qemu",
  "/usr/share/seabios",
  "/usr/local/share/qemu"
]

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
      : // one that is told to end says "shutdown", too, on its way out: its guest has not powered off
        changing.has(name) && !(name === "SHUTDOWN" && data["guest"] === false)
        ? [{ _tag: "Changed" }]
        : []

const controlOf = (options: HotPlug.Options): Control => {
  const { directory, processes, qmp } = options
  const isHandedFiles = existsSync(join(directory, Arguments.HAND_SOCKET))
  const execute = (command: string) => Effect.asVoid(Effect.mapError(qmp.execute(command), Qmp.lost))
  return {
    state: Effect.map(
      Effect.mapError(qmp.ask("query-status", Status), Qmp.lost),
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
    memory: isHandedFiles ? QemuMemory.make(processes, directory, qmp) : undefined,
    ...HotPlug.make(options),
    shape: Resize.make(qmp),
    lost: Effect.map(qmp.closed, Qmp.lost)
  }
}

/** Gives the groups of the host's devices to whom the machine runs as: its QEMU opens them itself. */
const giveDevices = ({ pciDevices = [] }: Machine, user: number) =>
  Effect.forEach(
    pciDevices,
    (address) =>
      Effect.flatMap(Passthrough.inspect(address), (group) =>
        Effect.tryPromise({ try: () => fs.chown(`/dev/vfio/${group}`, user, user), catch: String })
      ).pipe(Effect.mapError((problem) => new PlaceFailed({ detail: `PCI device ${address}: ${problem}` }))),
    { discard: true }
  )

/** Ports of the host that lead in belong to one process at a time. */
const withoutPorts = (machine: Machine): Machine => ({
  ...machine,
  nics: machine.nics.map((nic) => ({ ...nic, forwards: [] }))
})

const make = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Driver, never, Processes | Cgroups> {
  const processes = yield* Processes
  const launching = yield* Launching.make
  const { binary: wanted = "qemu-system-x86_64" } = options

  let sees: ReadonlyArray<string> | undefined

  const failing = (path: string, problem: string): DriverFacts => ({
    name: "qemu",
    path,
    version: "",
    problem,
    acceleration: undefined,
    capabilities
  })

  const examine = Effect.gen(function* (): Effect.fn.Return<DriverFacts> {
    const path = yield* Launching.locate(wanted)
    if (path === undefined) return failing("", `there is no ${wanted}`)
    const words = yield* Effect.result(launching.versionOf(path, "-version"))
    if (words._tag === "Failure") return failing(path, words.failure)
    const version = /version (\S+)/.exec(words.success)?.[1] ?? ""
    sees = yield* launching.enough(path, "-version", SEEN)
    const trial = yield* Effect.result(
      launching.trial(options.directory, [Accelerator.PROGRAM], [path, ...TRIAL], sees)
    )
    const acceleration =
      trial._tag === "Success"
        ? yield* Accelerator.find(processes, trial.success, Accelerator.saidByExit)
        : ({ accelerator: "tcg", problem: trial.failure.message } as const)
    return { name: "qemu", path, version, problem: undefined, acceleration, capabilities }
  })

  const facts = Launching.remembered(examine)

  return {
    name: "qemu",
    facts,
    refusals: (machine) => [...beyond("QEMU", capabilities, machine), ...Arguments.crowded(machine)],
    launch: Effect.fn("Qemu.launch")(function* (request) {
      const { acceleration, path, problem } = yield* facts
      if (acceleration === undefined) return yield* new HypervisorMissing({ detail: problem ?? "" })
      const { incoming } = request
      const machine = incoming?.beside === true ? withoutPorts(request.machine) : request.machine
      const { files, words } = Arguments.make(path, machine, acceleration.accelerator, incoming?.model)
      const kvm = acceleration.accelerator === "kvm"
      const pinned = (machine.pciDevices ?? []).length > 0
      yield* giveDevices(machine, request.place.user)
      return yield* launching.spawn(request, {
        files,
        network: machine.nics.length > 0 ? (machine.network ?? "host") : "none",
        kvm,
        pinned,
        // it looks for the host's devices in many places
        sees: pinned ? undefined : sees,
        byName: false,
        words
      })
    }),
    control: Effect.fn("Qemu.control")(function* (directory, running) {
      const socket = join(directory, Arguments.CONTROL_SOCKET)
      const qmp = yield* answered(running, Qmp.connect(socket), Qmp.lost)
      return controlOf({ qmp, processes, process: running, directory })
    })
  }
})

/** A machine as others are made, with a debug port; the program is its first file. */
const TRIAL = (
  "-nodefaults -no-user-config -display none -no-reboot -machine q35 -m 64 -accel kvm -cpu host -kernel /dev/fd/3 " +
  "-device isa-debug-exit,iobase=0x501,iosize=1"
).split(" ")

/** The driver. */
export const driver = make

/** It alone. */
export const layer = (options: Options) =>
  Layer.effect(
    Hypervisor,
    Effect.map(make(options), (qemu) => choosing([qemu]))
  )
