/**
 * What the virtual machines API refuses, as data: one tagged error per kind, each with a message that a person can act on. The
 * gateway maps them to gRPC statuses. How a *running* machine ends is in `VmExit.ts`.
 */
import * as Schema from "effect/Schema"
import { FieldProblem } from "../storage/StateErrors.ts"

/** A spec has wrong fields, or asks for what its hypervisor cannot do; all of it is listed. Nothing was touched. */
export class VmSpecInvalid extends Schema.TaggedError<VmSpecInvalid>()("VmSpecInvalid", {
  problems: Schema.Array(FieldProblem)
}) {
  override get message(): string {
    return this.problems.map(({ field, problem }) => (field === "" ? problem : `${field}: ${problem}`)).join("; ")
  }
}

/** No virtual machine has this name. */
export class VmNotFound extends Schema.TaggedError<VmNotFound>()("VmNotFound", { name: Schema.String }) {
  override get message(): string {
    return `there is no virtual machine ${this.name}; ${this.hint}`
  }
  get hint(): string {
    return "ListVms has those there are"
  }
}

/** The name is taken by a machine with another spec. Creating the same one again is fine and changes nothing. */
export class VmAlreadyExists extends Schema.TaggedError<VmAlreadyExists>()("VmAlreadyExists", {
  name: Schema.String,
  fields: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `virtual machine ${this.name} exists with another spec (${this.fields.join(", ")}); ${this.hint}`
  }
  get hint(): string {
    return this.fields.every((field) => field === "restart")
      ? "its restart policy can be set while it runs"
      : "remove it first, or take another name"
  }
}

/** The call makes no sense in the state that the machine is in; `hint` says what would. */
export class VmWrongState extends Schema.TaggedError<VmWrongState>()("VmWrongState", {
  name: Schema.String,
  command: Schema.String,
  state: Schema.String,
  hint: Schema.String
}) {
  override get message(): string {
    return `cannot ${this.command} virtual machine ${this.name} while it is ${this.state}: ${this.hint}`
  }
}

/** Its hypervisor would not do what was asked of it, or does not answer. */
export class VmControlFailed extends Schema.TaggedError<VmControlFailed>()("VmControlFailed", {
  name: Schema.String,
  command: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `virtual machine ${this.name}: ${this.command} failed: ${this.detail}; ${this.hint}`
  }
  get hint(): string {
    return `\`ironwood why ${this.name}\` has what is known; \`ironwood vm stop -t 0 ${this.name}\` ends it`
  }
}

/** It has no such disk or card. */
export class VmDeviceMissing extends Schema.TaggedError<VmDeviceMissing>()("VmDeviceMissing", {
  name: Schema.String,
  /** The path of a disk, the address of a card. */
  device: Schema.String
}) {
  override get message(): string {
    return `virtual machine ${this.name} has no ${this.device}; ${this.hint}`
  }
  get hint(): string {
    return `\`ironwood vm inspect ${this.name}\` has its disks and cards`
  }
}

/** Its guest did not let go of a disk or card, which stays. */
export class VmDeviceKept extends Schema.TaggedError<VmDeviceKept>()("VmDeviceKept", {
  name: Schema.String,
  device: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `virtual machine ${this.name} keeps ${this.device}: its guest was asked to let go of it, and ${this.detail}; ${this.hint}`
  }
  get hint(): string {
    return "a kernel that is booting, or has no PCI hot-plug, does not: try again, or stop the machine first"
  }
}

/** What it has printed could not be read. */
export class ConsoleUnreadable extends Schema.TaggedError<ConsoleUnreadable>()("ConsoleUnreadable", {
  name: Schema.String,
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `the console of virtual machine ${this.name} cannot be read: ${this.path}: ${this.problem}`
  }
}
