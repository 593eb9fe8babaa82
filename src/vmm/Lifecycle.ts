/**
 * The life of a virtual machine as two state × event tables: data, consulted by the code and tested cell by cell.
 *
 * The states are those of its actor (`actor/Lifecycle.ts`), and what moves it from one to the next by itself is there. Here is
 * what *people* may ask for in each of them ({@link commands}), and what the end of a guest or hypervisor means
 * ({@link endings}).
 *
 * Trap: a command that asks for what is so already does nothing and succeeds.
 */
import type { ActorState } from "../actor/Lifecycle.ts"
import type { VmFailure } from "./VmExit.ts"

/** What a person wants a machine to be; remembered over restarts of brain and host. */
export type Desired = "running" | "stopped"

/**
 * The state of a machine: that of its actor, or that it has none at the moment, or of one that runs that its processors stand
 * still: a person paused it, or a disk of it took no more (stalled).
 */
export type VmState = ActorState | "unregistered" | "paused" | "stalled"

export const vmStates = [
  "unregistered",
  "waiting",
  "starting",
  "running",
  "paused",
  "stalled",
  "backing-off",
  "stopping",
  "stopped",
  "parked",
  "finished",
  "failed"
] as const satisfies ReadonlyArray<VmState>

/** The commands of the API, with their meaning. */
export const commandMeanings = {
  start: "it shall run: now, and after every restart of brain and host",
  stop: "it shall not run: power button, grace, the end of its hypervisor; remembered",
  reset: "its processors begin anew, as if somebody had pressed the reset button",
  pause: "its processors stand still, until it is resumed or stopped",
  resume: "its processors go on",
  attach: "type at its serial console",
  plug: "it shall have another disk or card",
  unplug: "it shall have one less; its guest must let go of it",
  resize: "it shall have more or less of processors and memory, or larger disks",
  snapshot: "write its memory and copy its disks; it goes on",
  restore: "as it was at a snapshot, disks and all; what it is now is ended",
  migrate: "its memory goes to a new process of its hypervisor, in which it goes on",
  remove: "forget it with its console; only when it does not run, and has no snapshots. Its disks stay",
  "force-remove": "forget it with its snapshots, whatever it is doing: its hypervisor is killed without grace"
} as const
export type Command = keyof typeof commandMeanings

/** What a command does, with its meaning. */
export const actionMeanings = {
  start: "commit the new desired state, then ask its supervisor to start it",
  stop: "commit the new desired state, then ask its supervisor to end it",
  restart: "commit the new desired state, then ask its supervisor to end it and start it anew",
  commit: "commit the new desired state only: reality follows, or is so already",
  reset: "ask its hypervisor for a reset",
  pause: "ask its hypervisor to stop its processors",
  resume: "ask its hypervisor to let them go on",
  plug: "commit the new desired state, then have its hypervisor plug it in",
  unplug: "mark it in the desired state, have its guest let go of it, then commit the new one",
  reshape: "commit the new desired state, then have its hypervisor and its guest follow",
  connect: "connect the caller with its serial console",
  snapshot: "see the table of what is under way: Saving",
  restore: "see the table of what is under way: Copying",
  migrate: "see the table of what is under way: Moving",
  keep: "nothing: it is so already",
  remove: "forget it",
  "stop-and-remove": "kill it, then forget it",
  refuse: "an error that says what to do instead"
} as const
export type Action = keyof typeof actionMeanings

/** What all states without a guest that runs have in common. */
const down = {
  reset: "refuse",
  pause: "refuse",
  resume: "refuse",
  attach: "refuse",
  plug: "commit",
  unplug: "commit",
  resize: "commit",
  snapshot: "refuse",
  migrate: "refuse",
  restore: "restore"
} as const

/** The first table: what a command does in each state. */
export const commands: Readonly<Record<VmState, Readonly<Record<Command, Action>>>> = {
  unregistered: {
    start: "commit",
    stop: "commit",
    ...down,
    restore: "refuse",
    remove: "remove",
    "force-remove": "remove"
  },
  waiting: {
    start: "commit",
    stop: "stop",
    ...down,
    restore: "refuse",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  starting: {
    start: "commit",
    stop: "stop",
    ...down,
    restore: "refuse",
    plug: "plug",
    unplug: "unplug",
    resize: "reshape",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  running: {
    start: "commit",
    stop: "stop",
    reset: "reset",
    pause: "pause",
    resume: "keep",
    attach: "connect",
    snapshot: "snapshot",
    restore: "restore",
    migrate: "migrate",
    plug: "plug",
    unplug: "unplug",
    resize: "reshape",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  paused: {
    start: "commit",
    stop: "stop",
    reset: "reset",
    pause: "keep",
    resume: "resume",
    attach: "connect",
    snapshot: "snapshot",
    restore: "restore",
    migrate: "migrate",
    plug: "plug",
    unplug: "refuse",
    resize: "reshape",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  stalled: {
    start: "commit",
    stop: "stop",
    reset: "reset",
    pause: "keep",
    resume: "resume",
    attach: "connect",
    snapshot: "refuse",
    restore: "restore",
    migrate: "refuse",
    plug: "plug",
    unplug: "refuse",
    resize: "reshape",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  "backing-off": { start: "start", stop: "stop", ...down, remove: "refuse", "force-remove": "stop-and-remove" },
  stopping: {
    start: "restart",
    stop: "stop",
    reset: "refuse",
    pause: "refuse",
    resume: "refuse",
    attach: "connect",
    snapshot: "refuse",
    restore: "refuse",
    migrate: "refuse",
    plug: "refuse",
    unplug: "refuse",
    resize: "refuse",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  stopped: { start: "start", stop: "commit", ...down, remove: "remove", "force-remove": "remove" },
  parked: { start: "start", stop: "stop", ...down, remove: "remove", "force-remove": "remove" },
  finished: { start: "start", stop: "stop", ...down, remove: "remove", "force-remove": "remove" },
  failed: { start: "start", stop: "stop", ...down, remove: "remove", "force-remove": "remove" }
}

/** How a life can end, with its meaning. */
export const endingMeanings = {
  "guest powered off": "its kernel switched the machine off",
  "guest rebooted": "its kernel reset the machine",
  "guest panicked": "its kernel said so through pvpanic, or is believed to by its hypervisor",
  "guest hung": "it stopped feeding its watchdog",
  "hypervisor crashed": "it ended with a code, or by a signal that programs bring upon themselves",
  "hypervisor killed": "somebody ended it by a signal",
  "memory out": "the kernel killed it for memory",
  "not started": "it ended before it had made the machine"
} as const
export type Ending = keyof typeof endingMeanings

/** The second table: what the actor of a machine ends with, by what a reboot is to its spec; `nothing`: it does not end. */
export const endings: Readonly<
  Record<Ending, Readonly<Record<"reset" | "end", VmFailure["_tag"] | "success" | "nothing">>>
> = {
  "guest powered off": { reset: "success", end: "success" },
  "guest rebooted": { reset: "nothing", end: "GuestRebooted" },
  "guest panicked": { reset: "GuestPanicked", end: "GuestPanicked" },
  "guest hung": { reset: "GuestHung", end: "GuestHung" },
  "hypervisor crashed": { reset: "VmmCrashed", end: "VmmCrashed" },
  "hypervisor killed": { reset: "VmmKilled", end: "VmmKilled" },
  "memory out": { reset: "VmmOutOfMemory", end: "VmmOutOfMemory" },
  "not started": { reset: "VmmRefused", end: "VmmRefused" }
}

/** What to do instead, when a command is refused: the hint of `VmWrongState`. */
export const hint = (command: Command): string => {
  switch (command) {
    case "reset":
    case "pause":
    case "attach":
    case "snapshot":
    case "migrate":
      return "start it first"
    case "restore":
      return "wait until it is up or down"
    case "resume":
      return "only one that is paused can be resumed"
    case "plug":
    case "resize":
      return "wait until it is down"
    case "unplug":
      return "its guest must run to let go of it, or be down"
    default:
      return "stop it first, or force the removal"
  }
}
