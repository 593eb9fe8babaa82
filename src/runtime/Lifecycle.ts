/**
 * The life of a container as two state × event tables: data, consulted by the code and tested cell by cell.
 *
 * The states are those of its actor (`actor/Lifecycle.ts`), and what moves it from one to the next by itself is there.
 * Here is what *people* may ask for in each of them ({@link commands}), and what a brain does about what it *finds* of a
 * container when it comes up or its actor crashed ({@link findings}).
 *
 * Traps: a command that asks for what is so already does nothing and succeeds. `unregistered` means that the desired
 * state is there but its sandbox's supervisor is down at the moment: commit and leave the rest to its start.
 */
import type { ActorState } from "../actor/Lifecycle.ts"

/** What a person wants a container to be; remembered over restarts of brain and host. */
export type Desired = "running" | "stopped"

/** The state of a container: that of its actor, or that it has none at the moment. */
export type ContainerState = ActorState | "unregistered"

export const containerStates = [
  "unregistered",
  "waiting",
  "starting",
  "running",
  "backing-off",
  "stopping",
  "stopped",
  "parked",
  "finished",
  "failed"
] as const satisfies ReadonlyArray<ContainerState>

/** The commands of the API, with their meaning. */
export const commandMeanings = {
  start: "it shall run: now, and after every restart of brain and host",
  stop: "it shall not run: stop signal, grace, kill; remembered",
  restart: "it shall run anew: stop it if it runs, then start",
  kill: "send a signal to its main process; what follows is up to its restart policy",
  exec: "run a further program in it",
  remove: "forget it with its files and log; only when it does not run",
  "force-remove": "forget it, whatever it is doing: killed without grace"
} as const
export type Command = keyof typeof commandMeanings

/** What a command does, with its meaning. */
export const actionMeanings = {
  start: "commit the new desired state, then ask its supervisor to start it",
  stop: "commit the new desired state, then ask its supervisor to end it",
  restart: "commit the new desired state, then ask its supervisor to end it and start it anew",
  commit: "commit the new desired state only: reality follows, or is so already",
  signal: "send the signal",
  execute: "start the program",
  remove: "forget it",
  "stop-and-remove": "kill it, then forget it",
  refuse: "an error that says what to do instead"
} as const
export type Action = keyof typeof actionMeanings

/** The first table: what a command does in each state. */
export const commands: Readonly<Record<ContainerState, Readonly<Record<Command, Action>>>> = {
  unregistered: {
    start: "commit",
    stop: "commit",
    restart: "commit",
    kill: "refuse",
    exec: "refuse",
    remove: "remove",
    "force-remove": "remove"
  },
  waiting: {
    start: "commit",
    stop: "stop",
    restart: "commit",
    kill: "refuse",
    exec: "refuse",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  starting: {
    start: "commit",
    stop: "stop",
    restart: "restart",
    kill: "refuse",
    exec: "refuse",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  running: {
    start: "commit",
    stop: "stop",
    restart: "restart",
    kill: "signal",
    exec: "execute",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  "backing-off": {
    start: "start",
    stop: "stop",
    restart: "restart",
    kill: "refuse",
    exec: "refuse",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  stopping: {
    start: "restart",
    stop: "stop",
    restart: "restart",
    kill: "signal",
    exec: "execute",
    remove: "refuse",
    "force-remove": "stop-and-remove"
  },
  stopped: {
    start: "start",
    stop: "commit",
    restart: "restart",
    kill: "refuse",
    exec: "refuse",
    remove: "remove",
    "force-remove": "remove"
  },
  parked: {
    start: "start",
    stop: "stop",
    restart: "restart",
    kill: "refuse",
    exec: "refuse",
    remove: "remove",
    "force-remove": "remove"
  },
  finished: {
    start: "start",
    stop: "stop",
    restart: "restart",
    kill: "refuse",
    exec: "refuse",
    remove: "remove",
    "force-remove": "remove"
  },
  failed: {
    start: "start",
    stop: "stop",
    restart: "restart",
    kill: "refuse",
    exec: "refuse",
    remove: "remove",
    "force-remove": "remove"
  }
}

/** What can be left of a container from an earlier brain, or from an actor that crashed. */
export const findingMeanings = {
  running: "its process lives under taproot",
  ended: "its process has ended, and nobody has judged the exit yet",
  "half-made": "a dead brain had begun to make it",
  leftover: "a state of the runtime, a bundle or a cgroup of a run without a process under taproot"
} as const
export type Finding = keyof typeof findingMeanings

/** What desired state says of the container. */
export const wantedMeanings = {
  wanted: "it shall run",
  unwanted: "it shall not run",
  unknown: "there is no such container"
} as const
export type Wanted = keyof typeof wantedMeanings

/** What is done about a finding, with its meaning. */
export const remedyMeanings = {
  adopt: "its actor takes the process over, and goes on from there",
  judge: "its actor takes the exit over, and its restart policy decides",
  stop: "ended in its own way: stop signal, grace, kill",
  kill: "killed at once",
  forget: "the exit means nothing to anybody any more",
  clear: "taken away, with whatever still lives in its cgroup"
} as const
export type Remedy = keyof typeof remedyMeanings

/** The second table: what a brain does about what it finds. */
export const findings: Readonly<Record<Finding, Readonly<Record<Wanted, Remedy>>>> = {
  running: { wanted: "adopt", unwanted: "stop", unknown: "kill" },
  ended: { wanted: "judge", unwanted: "forget", unknown: "forget" },
  "half-made": { wanted: "adopt", unwanted: "stop", unknown: "kill" },
  leftover: { wanted: "clear", unwanted: "clear", unknown: "clear" }
}

/** What to do instead, when a command is refused: the hint of `WrongState`. */
export const hint = (command: Command): string => {
  switch (command) {
    case "kill":
      return "it has no process now"
    case "exec":
      return "start it first"
    default:
      return "stop it first, or force the removal"
  }
}
