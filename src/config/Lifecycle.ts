/**
 * The life of the machine config as a state × event table: data, consulted by the code and tested cell by cell.
 *
 * A config can be tried: it holds at once, and is taken back by itself unless somebody confirms it in time. What is remembered
 * of a trial is in the state directory, so it ends in time when the brain dies meanwhile, too, and a machine that has to be
 * reset because of what is tried comes back without it.
 */

export const stateMeanings = {
  settled: "the config in force is there to stay",
  trying: "the config in force is taken back at its deadline, unless it is confirmed"
} as const
export type ConfigState = keyof typeof stateMeanings

export const events = {
  apply: "a person says what shall hold",
  try: "a person says what shall hold for a time, unless it is confirmed",
  confirm: "a person says that what is tried shall stay",
  revert: "a person takes back what is tried",
  deadline: "the time of a trial is over",
  "brain-start": "a brain comes up, of a machine that has run meanwhile",
  "machine-start": "a brain comes up, and the machine was started anew",
  source: "a source of the machine (see machine-config.md) says something that it has not said before"
} as const
export type ConfigEvent = keyof typeof events

export const actionMeanings = {
  commit: "keep it as a new revision, then do what it says",
  try: "keep it as a new revision with its deadline and the revision to go back to, then do what it says",
  retry: "the same, and go back to where the trial before would have gone",
  keep: "forget the deadline",
  revert: "go back to the revision before, and do what that says",
  resume: "wait for the rest of its time",
  wait: "look at it again when the trial is over",
  refuse: "an error that says what to do instead",
  nothing: "there is nothing to do"
} as const
export type ConfigAction = keyof typeof actionMeanings

export const table: Readonly<Record<ConfigState, Readonly<Record<ConfigEvent, ConfigAction>>>> = {
  settled: {
    apply: "commit",
    try: "try",
    confirm: "refuse",
    revert: "refuse",
    deadline: "nothing",
    "brain-start": "nothing",
    "machine-start": "nothing",
    source: "commit"
  },
  trying: {
    apply: "refuse",
    try: "retry",
    confirm: "keep",
    revert: "revert",
    deadline: "revert",
    "brain-start": "resume",
    "machine-start": "revert",
    source: "wait"
  }
}
