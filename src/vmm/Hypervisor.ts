/**
 * `Hypervisor`: what makes machines here, and the handles on those that were made. One driver per program that can; each
 * declares what it can ({@link Capabilities}), and what it cannot is refused before anything is touched ({@link refusals}).
 *
 * A machine's process is taproot's, like every other: it outlives the brain. `control` takes hold of one that runs, whoever
 * started it. Layer: `Drivers.ts`; which driver is asked is in `Driver.ts`.
 *
 * Traps:
 * - A machine is made stopped (`created`): `resume` sets it going.
 * - A machine whose guest has come to an end (`powered-off`, `panicked`, `hung`) is still there, for whoever asks, until its
 *   process is ended.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Remedy from "../host/Remedy.ts"
import type { ProcessExit } from "../taproot/ProcessExit.ts"
import type { Process, SpawnRefused } from "../taproot/Processes.ts"
import type { Accelerated } from "./Accelerator.ts"
import type { Chipset, Disk, Machine, Nic } from "./Machine.ts"

/** What a driver can do; whatever a machine wants must be among it. */
export interface Capabilities {
  readonly chipsets: ReadonlyArray<Chipset>
  readonly firmware: ReadonlyArray<Chipset>
  /** Of which machines the firmware can keep its variables to itself (Secure Boot). */
  readonly secureBoot: ReadonlyArray<Chipset>
  readonly diskFormats: ReadonlyArray<"raw" | "qcow2">
  readonly mostDisks: number
  /** Machines can have empty disks; default no. */
  readonly emptyDisks?: boolean
  readonly userNetwork: boolean
  readonly ports: boolean
  /** Directories of the host's, served by somebody else. */
  readonly shares: boolean
  readonly watchdog: ReadonlyArray<Chipset>
  readonly balloon: boolean
  readonly powerButton: boolean
  readonly pause: boolean
  /** Of which machines disks and cards can be plugged in and out while they run. */
  readonly hotPlug: ReadonlyArray<Chipset>
  /** Of which machines processors and memory can grow while they run. */
  readonly growth: ReadonlyArray<Chipset>
  /** Disks that grow, and are held to their limits. */
  readonly diskSizes: boolean
  readonly diskLimits: boolean
  /** A balloon that leaves so much to the guest, and not more. */
  readonly balloonTarget: boolean
  readonly topology: boolean
  readonly hugepages: boolean
  /** Ignition's config, in the firmware configuration. */
  readonly ignition: boolean
  /** PCI devices of the host's (VFIO). */
  readonly passthrough: ReadonlyArray<Chipset>
  /** Its memory can be written to a file, and a new life started with it, in the same or another process. */
  readonly memory: boolean
  /** Another process can go on with a machine while that runs. */
  readonly moves: boolean
}

/** The programs that there are drivers for. */
export const driverNames = ["qemu", "cloud-hypervisor", "firecracker"] as const
export const DriverName = Schema.Literals(driverNames)
export type DriverName = typeof DriverName.Type

/** Which of them shall make a machine; `auto`: the first that works on this host and can. */
export const Wanted = Schema.Literals(["auto", ...driverNames])
export type Wanted = typeof Wanted.Type

/** What a machine wants and a driver cannot: a field of {@link Machine}, or `hypervisor`, and why. */
export interface Refusal {
  readonly field: string
  readonly problem: string
}

/** A driver on this host. `problem` says why it cannot be used. */
export interface DriverFacts {
  readonly name: DriverName
  readonly path: string
  readonly version: string
  readonly problem: string | undefined
  readonly acceleration: Accelerated | undefined
  readonly capabilities: Capabilities
}

/** What to do where no program makes machines. */
export const remedy = (): string => Remedy.ofHypervisor("install qemu-system-x86")

/** There is no program on this host that makes machines, or none that makes this one. */
export class HypervisorMissing extends Schema.TaggedError<HypervisorMissing>()("HypervisorMissing", {
  detail: Schema.String,
  /** There are some, but this is a matter of what the machine wants. */
  particular: Schema.optionalKey(Schema.Literal(true))
}) {
  override get message(): string {
    if (this.particular === true) return `no hypervisor of this host can make it: ${this.detail}`
    return `no hypervisor works on this host (${this.detail}); ${this.hint}`
  }
  get hint(): string {
    return remedy()
  }
}

/** A machine that runs could not be spoken to, or did not do what it was told. */
export class ControlLost extends Schema.TaggedError<ControlLost>()("ControlLost", {
  command: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `its hypervisor did not do "${this.command}": ${this.detail}`
  }
}

/** A guest did not let go of a device. */
export class DeviceKept extends Schema.TaggedError<DeviceKept>()("DeviceKept", {
  id: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `its guest did not let go of ${this.id}: ${this.detail}`
  }
}

/** What a machine needs could not be prepared: its directory, its cgroup. */
export class PlaceFailed extends Schema.TaggedError<PlaceFailed>()("PlaceFailed", { detail: Schema.String }) {
  override get message(): string {
    return `its place could not be made: ${this.detail}`
  }
}

/** How a machine is with its guest. `stalled`: stopped by itself, because a disk of it took no more. */
export type GuestState = "created" | "running" | "paused" | "stalled" | "powered-off" | "panicked" | "hung"

/** Something that a machine says by itself. */
export type GuestEvent =
  /** Its state may be another one. */
  | { readonly _tag: "Changed" }
  /** The guest has rebooted. */
  | { readonly _tag: "Rebooted" }
  /** Something was taken out of it. */
  | { readonly _tag: "Unplugged" }

/** The exact machine that a life is, in its driver's words: one that takes its memory must be the same. */
export const Model = Schema.Struct({
  /** Like `pc-q35-7.2`. */
  type: Schema.String,
  /** What is in each slot for disks and cards: their names, or nothing. */
  slots: Schema.Array(Schema.String),
  /** Of a machine with places for processors: how many it was started with. Default: all that it has. */
  cpus: Schema.optionalKey(Schema.Int),
  /** Those that came later: what plugs such a one in, and into which place. */
  plugged: Schema.optionalKey(
    Schema.Array(
      Schema.Struct({
        driver: Schema.String.pipe(Schema.check(Schema.isPattern(/^[a-z0-9._-]{1,64}$/i))),
        place: Schema.Record(Schema.String.pipe(Schema.check(Schema.isPattern(/^[a-z-]{1,16}$/))), Schema.Int)
      })
    )
  ),
  /** Of a machine with room for memory: how many bytes it was started with. What came later is in the memory itself. */
  memoryBytes: Schema.optionalKey(Schema.Int)
})
export type Model = typeof Model.Type

/** What a guest has in its memory, on its way to a file or to another life. Words are of the driver's own. */
export interface Memory {
  readonly model: Effect.Effect<Model, ControlLost>
  /**
   * Writes it to a file that is made, while the guest goes on if its driver can; when all of it is there the guest stands still, and nothing is
   * written to its disks. Returns how long ago that was, in milliseconds. Failed or interrupted: see `settle`.
   */
  readonly save: (file: string) => Effect.Effect<number, ControlLost>
  /** What belongs to such a file: files beside it, whose names have this after its own. */
  readonly beside: ReadonlyArray<string>
  /** In a life that was launched for it (`LaunchRequest.incoming`): reads it; its guest stands still. */
  readonly load: (file: string) => Effect.Effect<void, ControlLost>
  /**
   * Sends it to a life that was launched for it, in another directory, while the guest goes on; at the end it stands still, here
   * and there, and only there is it whole: `arrived` is that one's. Returns how long ago it stood still. Failed or interrupted: see `settle`.
   */
  readonly send: (directory: string, arrived: Memory["arrived"]) => Effect.Effect<number, ControlLost>
  /** In the life that it is sent to: waits until all of it is there. */
  readonly arrived: Effect.Effect<void, ControlLost>
  /** Gives up what is under way; the guest goes on if it is to. */
  readonly settle: (goOn: boolean) => Effect.Effect<void, ControlLost>
  /** Whether all of it has been written or sent, and its guest has not gone on since: its disks have all that is theirs. */
  readonly isSent: Effect.Effect<boolean, ControlLost>
  /** Where all of it has arrived: takes the host's ports that lead to these cards. Those that it has are fine. */
  readonly claim: (nics: ReadonlyArray<Nic>) => Effect.Effect<void, ControlLost>
}

/** The hold on a machine that runs. */
export interface Control {
  readonly state: Effect.Effect<GuestState, ControlLost>
  /** What happens from now on, kept for whoever runs the stream; it ends with the hold. */
  readonly events: Effect.Effect<Stream.Stream<GuestEvent>, never, Scope.Scope>
  readonly resume: Effect.Effect<void, ControlLost>
  readonly pause: Effect.Effect<void, ControlLost>
  readonly reset: Effect.Effect<void, ControlLost>
  /** Presses the power button: the guest powers off, if it wants to. */
  readonly powerButton: Effect.Effect<void, ControlLost>
  /** The names of the disks and cards that it has; nothing: none can be plugged into this one. */
  readonly devices: Effect.Effect<ReadonlySet<string> | undefined, ControlLost>
  /** Plugs a disk in. What an attempt that was cut short has left of it is cleared away first. */
  readonly attachDisk: (disk: Disk) => Effect.Effect<void, ControlLost>
  readonly attachNic: (nic: Nic) => Effect.Effect<void, ControlLost>
  /**
   * Puts a read-only disk into one of the machine's empty ones, for as long as the machine runs; the serial number by which its
   * guest knows it. One that is in there stays. Callers take turns.
   */
  readonly insertDisk: (disk: Disk) => Effect.Effect<string, ControlLost>
  /** Takes a disk or card out, once its guest has let go of it; what was given to the hypervisor for it is taken back. Fine when it is not there. */
  readonly detach: (id: string) => Effect.Effect<void, ControlLost | DeviceKept>
  /**
   * Has the machine follow its shape, as far as it differs: processors and memory, what the balloon leaves, the sizes and limits of
   * the disks that it has. Processors and memory that the guest has not taken or given back in time: `DeviceKept`.
   */
  readonly shape: (machine: Machine) => Effect.Effect<void, ControlLost | DeviceKept>
  /** Nothing: its driver cannot, or it was started by an Ironwood that could not. */
  readonly memory: Memory | undefined
  /** Waits until the hold is lost, and why. */
  readonly lost: Effect.Effect<ControlLost>
}

/** A machine's place on the host. */
export interface Place {
  /** Its own, absolute; made for it. Its sockets are there, and whoever it runs as cannot write to it. */
  readonly directory: string
  /** Its own, as `Cgroups` names it; made for it. */
  readonly cgroup: string
  /** Whom its process runs as, on a host where we may choose. */
  readonly user: number
  /** Bytes: what its process may use of the host, the guest's memory included. */
  readonly memoryBytes: number
}

export interface LaunchRequest {
  /** taproot's label of its process. */
  readonly label: string
  readonly machine: Machine
  readonly place: Place
  /**
   * It begins with the memory of another life (`Memory.load`, `Memory.send`), as exactly that machine. `beside`: that life is still
   * there, and has the host's ports.
   */
  readonly incoming?: { readonly model: Model; readonly beside: boolean }
  /** Default `auto`. */
  readonly hypervisor?: Wanted
}

export class Hypervisor extends Context.Service<
  Hypervisor,
  {
    /** Every driver, the one that is asked first at first; what did not work is looked for again. */
    readonly facts: Effect.Effect<ReadonlyArray<DriverFacts>>
    /** Why no driver, or not the one that is wanted (default `auto`), can make the machine here. Empty when all is well. */
    readonly refusals: (machine: Machine, wanted?: Wanted) => Effect.Effect<ReadonlyArray<Refusal>>
    /**
     * Makes the machine, stopped; its console is the process's standard input and output, what its hypervisor says standard
     * error. Returns when the process is there: that it has come up, `control` tells.
     */
    readonly launch: (request: LaunchRequest) => Effect.Effect<Process, HypervisorMissing | PlaceFailed | SpawnRefused>
    /** Takes hold of the machine in a directory; waits while its process is coming up. One hold at a time. */
    readonly control: (directory: string, process: Process) => Effect.Effect<Control, ControlLost, Scope.Scope>
    /** Which driver made the present or last life in a directory. */
    readonly driverOf: (directory: string) => Effect.Effect<DriverName>
    /** How the guest came to its end whose hypervisor's process ended with it, where that can be told; none: the process ended by itself. */
    readonly endOf: (directory: string, exit: ProcessExit) => Effect.Effect<Option.Option<GuestState>>
    /** Takes back what the process of a life, named by its cgroup, was given on the host; once it has ended. */
    readonly release: (directory: string, cgroup: string) => Effect.Effect<void>
  }
>()("ironwood/vmm/Hypervisor") {}

/** What `machine` wants beyond `capabilities`. */
export const beyond = (name: string, capabilities: Capabilities, machine: Machine): ReadonlyArray<Refusal> => {
  const { boot, chipset, disks, nics, ports } = machine
  const wants: ReadonlyArray<readonly [beyond: boolean, field: string, problem: string]> = [
    [!capabilities.chipsets.includes(chipset), "chipset", `${name} has no ${chipset}`],
    [
      boot._tag === "Firmware" && !capabilities.firmware.includes(chipset),
      "boot",
      `a ${chipset} of ${name} has no firmware: give a kernel`
    ],
    [
      boot._tag === "Firmware" && boot.secure === true && !capabilities.secureBoot.includes(chipset),
      "secureBoot",
      `a ${chipset} of ${name} has none`
    ],
    [(machine.emptyDisks ?? 0) > 0 && capabilities.emptyDisks !== true, "emptyDisks", `${name} has no empty disks`],
    [
      disks.length + (machine.emptyDisks ?? 0) > capabilities.mostDisks,
      "disks",
      `${name} takes at most ${capabilities.mostDisks} disks`
    ],
    ...disks.map(
      ({ format }, index) =>
        [!capabilities.diskFormats.includes(format), `disks[${index}].format`, `${name} cannot read ${format}`] as const
    ),
    [nics.length > 0 && !capabilities.userNetwork, "nics", `${name} has no user-mode network`],
    [ports.length > 0 && !capabilities.ports, "ports", `${name} has no virtio-serial`],
    [(machine.shares ?? []).length > 0 && !capabilities.shares, "shares", `${name} has no virtiofs here`],
    [machine.watchdog && !capabilities.watchdog.includes(chipset), "watchdog", `a ${chipset} of ${name} has none`],
    [machine.balloon && !capabilities.balloon, "balloon", `${name} has none`],
    [
      machine.maxCpus !== undefined && machine.maxCpus > machine.cpus && !capabilities.growth.includes(chipset),
      "maxCpus",
      `a ${chipset} of ${name} gets no processors while it runs`
    ],
    [
      machine.maxMemoryBytes !== undefined && !capabilities.growth.includes(chipset),
      "maxMemoryBytes",
      `a ${chipset} of ${name} gets no memory while it runs`
    ],
    [
      machine.balloonBytes !== undefined && !capabilities.balloonTarget,
      "balloonBytes",
      `the balloon of ${name} is not set`
    ],
    [machine.ignition !== undefined && !capabilities.ignition, "ignition", `${name} has no place for it`],
    [machine.topology !== undefined && !capabilities.topology, "topology", `${name} has no say in it`],
    [machine.hugepageBytes !== undefined && !capabilities.hugepages, "hugepages", `${name} cannot use them`],
    [
      (machine.pciDevices ?? []).length > 0 && !capabilities.passthrough.includes(chipset),
      "pciDevices",
      `a ${chipset} of ${name} cannot have the host's devices`
    ],
    ...disks.flatMap(({ limits, sizeBytes }, index) => [
      [limits !== undefined && !capabilities.diskLimits, `disks[${index}].limits`, `${name} knows none`] as const,
      [
        sizeBytes !== undefined && !capabilities.diskSizes,
        `disks[${index}].sizeBytes`,
        `${name} does not grow disks`
      ] as const
    ])
  ]
  return wants.filter(([isBeyond]) => isBeyond).map(([, field, problem]) => ({ field, problem }))
}
