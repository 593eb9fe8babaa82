/**
 * The life of an actor as a state × event table: data, walked by the engine, every cell tested.
 *
 * A cell holds the next state, or `illegal`: the engine would have a bug if that ever happened, and dies of it rather
 * than show a state that is not so.
 */

export const states = [
  "waiting",
  "starting",
  "running",
  "backing-off",
  "stopping",
  "stopped",
  "parked",
  "finished",
  "failed"
] as const
export type ActorState = (typeof states)[number]

/** What each state means. */
export const stateMeanings = {
  waiting: "registered; its supervisor will start it, when its turn comes or the siblings that it needs are there",
  starting: "it runs, and has not acknowledged its start yet",
  running: "up and doing its work",
  "backing-off": "it ended, and is started again at the time of its next try",
  stopping: "it is being ended",
  stopped: "ended by a person, or never started; it stays so until somebody starts it",
  parked: "its policy gave up; it waits for a person",
  finished: "it ended normally, and is not started again",
  failed: "it ended abnormally, and is not started again; or its supervisor gave up with it"
} as const satisfies Record<ActorState, string>

/** What can happen to an actor, with its meaning. */
export const events = {
  start: "its supervisor runs the next incarnation",
  acknowledge: "the incarnation said ready, or all static children are up",
  retry: "it ended and the decision was to restart it",
  park: "it ended and the decision was to wait for a person",
  finish: "it ended and the decision was that this was the end",
  fail: "it ended abnormally and nobody restarts it, or its supervisor gives up because of it",
  stop: "its supervisor has begun to end it",
  halt: "it has ended, or need not be ended, and stays so until somebody starts it",
  hold: "it has ended, or need not be ended, and its supervisor will start it again"
} as const
export type LifecycleEvent = keyof typeof events

/** The table. */
export const table: Readonly<Record<ActorState, Readonly<Record<LifecycleEvent, ActorState | "illegal">>>> = {
  waiting: {
    start: "starting",
    acknowledge: "illegal",
    retry: "illegal",
    park: "illegal",
    finish: "illegal",
    fail: "illegal",
    stop: "illegal",
    halt: "stopped",
    hold: "waiting"
  },
  starting: {
    start: "illegal",
    acknowledge: "running",
    retry: "backing-off",
    park: "parked",
    finish: "finished",
    fail: "failed",
    stop: "stopping",
    halt: "illegal",
    hold: "illegal"
  },
  running: {
    start: "illegal",
    acknowledge: "running",
    retry: "backing-off",
    park: "parked",
    finish: "finished",
    fail: "failed",
    stop: "stopping",
    halt: "illegal",
    hold: "illegal"
  },
  "backing-off": {
    start: "starting",
    acknowledge: "illegal",
    retry: "illegal",
    park: "illegal",
    finish: "illegal",
    fail: "illegal",
    stop: "illegal",
    halt: "stopped",
    hold: "waiting"
  },
  stopping: {
    start: "illegal",
    acknowledge: "stopping",
    retry: "illegal",
    park: "illegal",
    finish: "illegal",
    fail: "illegal",
    stop: "stopping",
    halt: "stopped",
    hold: "waiting"
  },
  stopped: {
    start: "starting",
    acknowledge: "illegal",
    retry: "illegal",
    park: "illegal",
    finish: "illegal",
    fail: "illegal",
    stop: "illegal",
    halt: "stopped",
    hold: "waiting"
  },
  parked: {
    start: "starting",
    acknowledge: "illegal",
    retry: "illegal",
    park: "illegal",
    finish: "illegal",
    fail: "illegal",
    stop: "illegal",
    halt: "stopped",
    hold: "waiting"
  },
  finished: {
    start: "starting",
    acknowledge: "illegal",
    retry: "illegal",
    park: "illegal",
    finish: "illegal",
    fail: "illegal",
    stop: "illegal",
    halt: "stopped",
    hold: "waiting"
  },
  failed: {
    start: "starting",
    acknowledge: "illegal",
    retry: "illegal",
    park: "illegal",
    finish: "illegal",
    fail: "illegal",
    stop: "illegal",
    halt: "stopped",
    hold: "waiting"
  }
}

/** The next state. Dies on an illegal cell. */
export const next = (state: ActorState, event: LifecycleEvent): ActorState => {
  const cell = table[state][event]
  if (cell === "illegal") throw new Error(`an actor that is ${state} cannot ${event}: a bug in the supervision engine`)
  return cell
}

/** True when an incarnation of it lives: something must be ended before it can be started or forgotten. */
export const isAlive = (state: ActorState): boolean =>
  state === "starting" || state === "running" || state === "stopping"
