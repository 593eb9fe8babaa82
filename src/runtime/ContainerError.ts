/**
 * What the containers API refuses, as data: one tagged error per kind, each with a message that a person can act on. The
 * gateway maps them to gRPC statuses.
 *
 * How a *running* container ends is not here but in `ContainerExit.ts`: that is for its supervisor, not for a caller.
 */
import * as Schema from "effect/Schema"
import { FieldProblem } from "../storage/StateErrors.ts"
import { type Command, type ContainerState, hint } from "./Lifecycle.ts"

/** A spec has wrong fields; all of them are listed. */
export class SpecInvalid extends Schema.TaggedError<SpecInvalid>()("SpecInvalid", {
  what: Schema.Literals(["container", "sandbox"]),
  problems: Schema.Array(FieldProblem)
}) {
  override get message(): string {
    const problems = this.problems.map(({ field, problem }) => (field === "" ? problem : `${field}: ${problem}`))
    return `the ${this.what} spec is not valid: ${problems.join("; ")}`
  }
}

/** No container has this name. */
export class ContainerNotFound extends Schema.TaggedError<ContainerNotFound>()("ContainerNotFound", {
  name: Schema.String
}) {
  override get message(): string {
    return `there is no container ${this.name}`
  }
}

/** No secret has this name. */
export class SecretNotFound extends Schema.TaggedError<SecretNotFound>()("SecretNotFound", { name: Schema.String }) {
  override get message(): string {
    return `there is no secret ${this.name}`
  }
}

/** Containers need it. */
export class SecretInUse extends Schema.TaggedError<SecretInUse>()("SecretInUse", {
  name: Schema.String,
  containers: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `secret ${this.name} is needed by ${this.containers.map((name) => `container ${name}`).join(", ")}. Remove those first.`
  }
}

/** No sandbox has this name. */
export class SandboxNotFound extends Schema.TaggedError<SandboxNotFound>()("SandboxNotFound", { name: Schema.String }) {
  override get message(): string {
    return `there is no sandbox ${this.name}; ${this.hint}`
  }
  get hint(): string {
    return "ListSandboxes has those there are"
  }
}

/** The name is taken by a container with another spec. Creating the same one again is fine and changes nothing. */
export class ContainerAlreadyExists extends Schema.TaggedError<ContainerAlreadyExists>()("ContainerAlreadyExists", {
  name: Schema.String,
  /** The fields in which the two specs differ. */
  fields: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `container ${this.name} exists with another spec (${this.fields.join(", ")}); ${this.hint}`
  }
  get hint(): string {
    return this.fields.every((field) => field === "restart")
      ? "its restart policy can be set while it runs"
      : "remove it first, or take another name"
  }
}

/** The name is taken by a sandbox with another spec. */
export class SandboxAlreadyExists extends Schema.TaggedError<SandboxAlreadyExists>()("SandboxAlreadyExists", {
  name: Schema.String,
  fields: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `sandbox ${this.name} exists with another spec (${this.fields.join(", ")}); ${this.hint}`
  }
  get hint(): string {
    return "remove it first, or take another name"
  }
}

/** The sandbox still has containers. */
export class SandboxInUse extends Schema.TaggedError<SandboxInUse>()("SandboxInUse", {
  name: Schema.String,
  containers: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `sandbox ${this.name} still has ${this.containers.map((name) => `container ${name}`).join(", ")}; ${this.hint}`
  }
  get hint(): string {
    return "remove them first, or force it"
  }
}

/** The call makes no sense in the state that the container is in; `hint` says what would. */
export class WrongState extends Schema.TaggedError<WrongState>()("WrongState", {
  name: Schema.String,
  command: Schema.String,
  state: Schema.String,
  hint: Schema.String
}) {
  override get message(): string {
    return `cannot ${this.command} container ${this.name} while it is ${this.state}: ${this.hint}`
  }
}

/** What a command fails with that the table (`Lifecycle.ts`) has refused. */
export const refused = (name: string, command: Command, state: ContainerState): WrongState =>
  new WrongState({
    name,
    command: command === "force-remove" ? "remove" : command,
    state,
    hint: hint(command, state)
  })

/** A program that was to run in a container is not in its root file system. */
export class ExecProgramMissing extends Schema.TaggedError<ExecProgramMissing>()("ExecProgramMissing", {
  name: Schema.String,
  program: Schema.String
}) {
  override get message(): string {
    return `container ${this.name} has no program "${this.program}"; ${this.hint}`
  }
  get hint(): string {
    return "name one that its image has, with its path, or a shell that finds it"
  }
}

/** A program that was to run in a container is there, and cannot be executed. */
export class ExecProgramRefused extends Schema.TaggedError<ExecProgramRefused>()("ExecProgramRefused", {
  name: Schema.String,
  program: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `"${this.program}" cannot be executed in container ${this.name}: ${this.detail}`
  }
}

/** A program could not be started in a container; `detail` has the OCI runtime's words. */
export class ExecFailed extends Schema.TaggedError<ExecFailed>()("ExecFailed", {
  name: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `nothing could be started in container ${this.name}: ${this.detail}`
  }
}

/** The OCI runtime would not do what was asked of a container that runs; nothing has changed. */
export class ControlFailed extends Schema.TaggedError<ControlFailed>()("ControlFailed", {
  name: Schema.String,
  command: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `container ${this.name}: ${this.command} failed: ${this.detail}`
  }
}

/** The log files of a container could not be read. */
export class LogUnreadable extends Schema.TaggedError<LogUnreadable>()("LogUnreadable", {
  name: Schema.String,
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `the log of container ${this.name} cannot be read: ${this.path}: ${this.problem}`
  }
}

/** Something that a removal should have taken away is still there. The desired state is gone; the next start tries again. */
export class CleanupFailed extends Schema.TaggedError<CleanupFailed>()("CleanupFailed", {
  name: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.name} was removed, but not without a rest: ${this.problem}; the next start of Ironwood tries again`
  }
}
