/**
 * What is under way with a machine's memory and disks, and longer than a moment: a snapshot, a restore, a clone, a migration. It is
 * committed with the machine's record before anything is touched, so that a brain that comes later knows what it finds, and
 * ends it or undoes it ({@link onward}): afterwards there is one machine, whole.
 *
 * Trap: stored data. What is said here of a *life* is taproot's label of its process.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { rename } from "node:fs/promises"
import { dirname } from "node:path"
import * as Files from "../storage/Files.ts"
import { DriverName, Model } from "./Hypervisor.ts"

/** A file that has been prepared beside the one whose place it takes. */
const Moved = Schema.Struct({ aside: Schema.String, target: Schema.String })

export const Work = Schema.Union([
  /** Its memory is being written to a file; at the end its guest stands still until its disks are copied. */
  Schema.TaggedStruct("Saving", { life: Schema.String }),
  /** Disks of a snapshot are being copied beside its own; nothing of it has changed. */
  Schema.TaggedStruct("Copying", { files: Schema.Array(Moved) }),
  /** It is decided: its life is ended, the copies take the place of its disks, and it starts with the memory. */
  Schema.TaggedStruct("Restoring", {
    files: Schema.Array(Moved),
    memory: Schema.String,
    hypervisor: DriverName,
    model: Model,
    /** A person had paused it. */
    paused: Schema.Boolean
  }),
  /** It is being made of a snapshot; until it is whole its record is one of a machine that is being removed. */
  Schema.TaggedStruct("Making", { files: Schema.Array(Schema.String) }),
  /** Its memory goes from one life to another; the first one counts. */
  Schema.TaggedStruct("Moving", { from: Schema.String, to: Schema.String }),
  /** All of it has arrived in this life, which has not been let go yet. */
  Schema.TaggedStruct("Arrived", { life: Schema.String })
])
export type Work = typeof Work.Type
export type Phase = Work["_tag"]

export const phaseMeanings = {
  Saving: "a snapshot: its memory is being written, then its disks are copied while its guest stands still",
  Copying: "a restore: the snapshot's disks are being copied beside its own",
  Restoring: "a restore, decided: the end of its life, the copies in the place of its disks, a start with the memory",
  Making: "a clone: its disks are being copied",
  Moving: "a migration: its memory goes to another life; the first one counts",
  Arrived: "its memory is whole in the life that counts from now on, which is to be let go"
} as const satisfies Readonly<Record<Phase, string>>

export const eventMeanings = {
  done: "what it waits for is done",
  failed: "something went wrong: no room, a hypervisor that refuses, the end of a life",
  "another brain": "the brain died, and another one finds it so"
} as const
export type WorkEvent = keyof typeof eventMeanings

export const stepMeanings = {
  "resume and keep": "the guest goes on, unless a person has paused it; the snapshot gets its name",
  "resume and drop":
    "the hypervisor gives up, the guest goes on unless a person has paused it; what there is of the snapshot goes",
  drop: "the copies go; the machine is as it was",
  decide: "commit that it is to be restored",
  load: "end what lives, move the copies that are not in place yet, start with the memory",
  "let go": "its guest goes on, unless a person had paused it",
  "start cold": "it has failed to start; its next start, by its policy, is from its disks",
  start: "commit the machine as a whole; it is started with the memory, or from its disks",
  forget: "remove it with its copies",
  "hand over": "commit that the other life counts, end the first one, let the other go",
  stay: "end the other life; the first one goes on"
} as const
export type WorkStep = keyof typeof stepMeanings

/** The state × event table. */
export const onward: Readonly<Record<Phase, Readonly<Record<WorkEvent, WorkStep>>>> = {
  Saving: { done: "resume and keep", failed: "resume and drop", "another brain": "resume and drop" },
  Copying: { done: "decide", failed: "drop", "another brain": "drop" },
  Restoring: { done: "let go", failed: "start cold", "another brain": "load" },
  Making: { done: "start", failed: "forget", "another brain": "forget" },
  Moving: { done: "hand over", failed: "stay", "another brain": "stay" },
  Arrived: { done: "let go", failed: "let go", "another brain": "let go" }
}

/** What another brain does about what it finds under way. */
const found = (work: Work): WorkStep => onward[work._tag]["another brain"]

/** The life that another brain is to settle: what is under way with its memory is given up, and its guest goes on. */
export const lifeToSettle = (work: Work | undefined): string | undefined => {
  if (work === undefined || !["resume and drop", "stay", "let go"].includes(found(work))) return undefined
  return "life" in work ? work.life : "from" in work ? work.from : undefined
}

/** Files beside those of the machine, or of one that is not whole: they go with it when it is removed. */
export const filesOf = (work: Work | undefined): ReadonlyArray<string> =>
  work === undefined || !("files" in work)
    ? []
    : work.files.map((file) => (typeof file === "string" ? file : file.aside))

/** Files that go when the work is undone. */
export const asidesOf = (work: Work | undefined): ReadonlyArray<string> =>
  work !== undefined && ["drop", "forget"].includes(found(work)) ? filesOf(work) : []

/** Moves the copies to their places; those that are there already were moved before. */
export const putInPlace = (files: ReadonlyArray<typeof Moved.Type>) =>
  Effect.forEach(
    files,
    ({ aside, target }) =>
      Effect.andThen(
        Files.ifThere(Files.attempt("rename", target, () => rename(aside, target))),
        Files.syncDirectory(dirname(target))
      ),
    { discard: true }
  )
