/**
 * Everything that can go wrong with supervision itself, as typed failures with a message a person can act on.
 *
 * What goes wrong *inside* an actor is the actor's own error type and reaches these only as an {@link ExitView}.
 * {@link RestartIntensityReached} and {@link StartFailed} are also how a supervisor ends: they are failures for its own
 * supervisor, never a normal end (OTP ends with `shutdown` here, which a transient parent takes for success).
 */
import * as Schema from "effect/Schema"
import { ActorPath } from "./ActorPath.ts"
import * as Path from "./ActorPath.ts"
import { DownReason } from "./Down.ts"
import { type CausedBy, ExitView } from "./ExitView.ts"

const isPath = Schema.is(ActorPath)

const seconds = (milliseconds: number): string => `${Math.round(milliseconds) / 1_000} s`

/** A supervisor gave up: a child ended once more after the budget for restarts was spent, or its policy says so at once. */
export class RestartIntensityReached extends Schema.TaggedError<RestartIntensityReached>()("RestartIntensityReached", {
  path: ActorPath,
  child: Schema.String,
  /** What was used up: the child's own budget, the supervisor's intensity, ends in a row; `rule`: nothing, a rule says so. */
  budget: Schema.Literals(["child", "supervisor", "consecutive", "rule"]),
  restarts: Schema.Int,
  /** The budget's window in milliseconds; 0 where there is none. */
  within: Schema.Finite,
  lastExit: ExitView
}) {
  /** Whose end this comes of; see `ExitView`. */
  get causedBy(): CausedBy {
    return { path: Path.child(this.path, this.child), exit: this.lastExit }
  }
  override get message(): string {
    const last = `${this.lastExit.tag}: ${this.lastExit.message}`
    switch (this.budget) {
      case "rule":
        return `${this.path} gave up: "${this.child}" ended as no restart helps (a rule of its policy); ${last}`
      case "consecutive":
        return `${this.path} gave up: "${this.child}" ended again after ${this.restarts} restarts in a row; last: ${last}`
      case "child":
      case "supervisor": {
        const whose = this.budget === "child" ? "its own budget" : "the supervisor's intensity"
        return `${this.path} gave up: "${this.child}" ended again after ${this.restarts} restarts within ${seconds(this.within)} (${whose}); last: ${last}`
      }
    }
  }
}

/** A child did not come up: it failed, was refused or ran out of time before it acknowledged its start. */
export class StartFailed extends Schema.TaggedError<StartFailed>()("StartFailed", {
  path: ActorPath,
  exit: ExitView
}) {
  /** Whose end this comes of; see `ExitView`. */
  get causedBy(): CausedBy {
    return { path: this.path, exit: this.exit }
  }
  override get message(): string {
    return `${this.path} did not start: ${this.exit.tag}: ${this.exit.message}`
  }
}

/** There is a child with this id and it is starting, running or stopping. */
export class AlreadyStarted extends Schema.TaggedError<AlreadyStarted>()("AlreadyStarted", { path: ActorPath }) {
  override get message(): string {
    return `${this.path} is running already`
  }
}

/** There is a child with this id; it is not running (see `state`). Start or delete it. */
export class AlreadyPresent extends Schema.TaggedError<AlreadyPresent>()("AlreadyPresent", {
  path: ActorPath,
  state: Schema.String
}) {
  override get message(): string {
    return `${this.path} is there already and ${this.state}: start it, or delete it first`
  }
}

/** The supervisor holds as many children as it may. */
export class MaxChildren extends Schema.TaggedError<MaxChildren>()("MaxChildren", {
  path: ActorPath,
  maximum: Schema.Int
}) {
  override get message(): string {
    return `${this.path} has its maximum of ${this.maximum} children: delete one first`
  }
}

/** The supervisor that should do this is not running (not started yet, stopping, or given up). */
export class SupervisorDown extends Schema.TaggedError<SupervisorDown>()("SupervisorDown", { id: Schema.String }) {
  override get message(): string {
    return `supervisor ${this.id} is not running: start it, or wait until its own supervisor has`
  }
}

/** Nobody has this path. */
export class NoSuchActor extends Schema.TaggedError<NoSuchActor>()("NoSuchActor", { path: Schema.String }) {
  override get message(): string {
    return `there is no actor ${this.path}`
  }
}

/** The root is above all supervisors: it ends with the program, not by a call. */
export class NotSupervised extends Schema.TaggedError<NotSupervised>()("NotSupervised", { path: ActorPath }) {
  override get message(): string {
    return `${this.path} is the root of the tree and has no supervisor: stop the program instead`
  }
}

/** A child must be stopped before it can be deleted. */
export class StillRunning extends Schema.TaggedError<StillRunning>()("StillRunning", {
  path: ActorPath,
  state: Schema.String
}) {
  override get message(): string {
    return `${this.path} is ${this.state}: stop it before deleting it`
  }
}

/** The root actor ended otherwise than by a stop or release: nothing is left to supervise it. */
export class RootFailed extends Schema.TaggedError<RootFailed>()("RootFailed", { path: ActorPath, exit: ExitView }) {
  override get message(): string {
    return `${this.path} ended: ${this.exit.tag}: ${this.exit.message}`
  }
}

/** What is wrong with one field of a spec: `children[2].shutdown`, and why. */
export const SpecProblem = Schema.Struct({ field: Schema.String, problem: Schema.String })
export interface SpecProblem {
  readonly field: string
  readonly problem: string
}

/** A child spec, or a list of them, cannot be: all that is wrong. Nothing was started or changed. */
export class SpecInvalid extends Schema.TaggedError<SpecInvalid>()("SpecInvalid", {
  /** The actor whose spec it is, or the supervisor that was given the list. */
  id: Schema.String,
  problems: Schema.Array(SpecProblem)
}) {
  override get message(): string {
    return `the spec of "${this.id}" cannot be: ${this.problems.map(({ field, problem }) => `${field} ${problem}`).join("; ")}`
  }
}

/** An actor was linked to this one, which ended abnormally, and so was ended too. */
export class LinkedActorEnded extends Schema.TaggedError<LinkedActorEnded>()("LinkedActorEnded", {
  /** The one that failed first, where links form a chain. */
  path: ActorPath,
  exit: ExitView
}) {
  /** Whose end this comes of; see `ExitView`. */
  get causedBy(): CausedBy {
    return { path: this.path, exit: this.exit }
  }
  override get message(): string {
    return `it was linked to ${this.path}, which ended: ${this.exit.tag}: ${this.exit.message}`
  }
}

const downReasons = {
  ended: "ended",
  stopped: "was stopped",
  released: "was released by its supervisor",
  "not-alive": "is not running",
  "no-such-actor": "does not exist"
} as const satisfies Record<DownReason, string>

/** The actor that is needed for this does not live, or died of it: ask again when it is up, if that is safe to repeat. */
export class ActorDown extends Schema.TaggedError<ActorDown>()("ActorDown", {
  path: Schema.String,
  /** The life that is over; 0 when there never was one. */
  incarnation: Schema.Int,
  reason: DownReason,
  /** How that life ended, when it did so by itself. */
  exit: Schema.UndefinedOr(ExitView)
}) {
  /** Whose end this comes of, where it had ended by itself; see `ExitView`. */
  get causedBy(): CausedBy | undefined {
    const { exit, path } = this
    return exit !== undefined && isPath(path) ? { path, exit } : undefined
  }
  override get message(): string {
    const how = this.exit === undefined ? "" : `: ${this.exit.tag}: ${this.exit.message}`
    return `${this.path} ${downReasons[this.reason]}${how}`
  }
}

/** Another actor holds this name. */
export class NameTaken extends Schema.TaggedError<NameTaken>()("NameTaken", {
  name: Schema.String,
  holder: ActorPath
}) {
  override get message(): string {
    return `the name "${this.name}" is held by ${this.holder}: stop that one, or take another name`
  }
}

/** The mailbox holds as many messages as it may, and refuses more. */
export class MailboxFull extends Schema.TaggedError<MailboxFull>()("MailboxFull", {
  path: Schema.String,
  capacity: Schema.Int
}) {
  override get message(): string {
    return `the mailbox of ${this.path} is full (${this.capacity} messages): send less, or later`
  }
}

/** A call was not answered in time. It may still be handled, if that has begun. */
export class CallTimeout extends Schema.TaggedError<CallTimeout>()("CallTimeout", {
  path: Schema.String,
  /** Milliseconds. */
  after: Schema.Finite
}) {
  override get message(): string {
    return `${this.path} did not answer within ${seconds(this.after)}`
  }
}

/** Why a supervisor did not start a child. */
export type StartChildError = AlreadyStarted | AlreadyPresent | StartFailed | MaxChildren | SupervisorDown | SpecInvalid
