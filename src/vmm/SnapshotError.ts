/** What is refused about snapshots, clones and migrations, or goes wrong with them, as data. Nothing of the machine has changed then. */
import * as Schema from "effect/Schema"

/** The machine has no such snapshot. */
export class SnapshotNotFound extends Schema.TaggedError<SnapshotNotFound>()("SnapshotNotFound", {
  name: Schema.String,
  snapshot: Schema.String
}) {
  override get message(): string {
    return `virtual machine ${this.name} has no snapshot ${this.snapshot}; ${this.hint}`
  }
  get hint(): string {
    return "ListVmSnapshots has those there are"
  }
}

/** The machine has a snapshot of this name. */
export class SnapshotAlreadyExists extends Schema.TaggedError<SnapshotAlreadyExists>()("SnapshotAlreadyExists", {
  name: Schema.String,
  snapshot: Schema.String
}) {
  override get message(): string {
    return `virtual machine ${this.name} has a snapshot ${this.snapshot} already; ${this.hint}`
  }
  get hint(): string {
    return "remove it first, or take another name"
  }
}

/** The snapshot is damaged, or of a machine that cannot be made here. */
export class SnapshotUnusable extends Schema.TaggedError<SnapshotUnusable>()("SnapshotUnusable", {
  name: Schema.String,
  snapshot: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `snapshot ${this.snapshot} of virtual machine ${this.name} cannot be used: ${this.problem}`
  }
}

/** There is not enough room on a disk for what is to be written. */
export class SnapshotNoRoom extends Schema.TaggedError<SnapshotNoRoom>()("SnapshotNoRoom", {
  name: Schema.String,
  directory: Schema.String,
  needed: Schema.Finite,
  left: Schema.Finite
}) {
  override get message(): string {
    const mib = (bytes: number) => `${Math.ceil(bytes / 1_048_576)} MiB`
    return `virtual machine ${this.name}: up to ${mib(this.needed)} are needed in ${this.directory}, and ${mib(this.left)} are left there`
  }
}

/** The machine, or what makes it, cannot do this. */
export class VmCannot extends Schema.TaggedError<VmCannot>()("VmCannot", {
  name: Schema.String,
  command: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `cannot ${this.command} virtual machine ${this.name}: ${this.problem}`
  }
}

/** The machine has snapshots, which would go with it. */
export class VmHasSnapshots extends Schema.TaggedError<VmHasSnapshots>()("VmHasSnapshots", {
  name: Schema.String,
  snapshots: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `virtual machine ${this.name} has snapshots, which would go with it (${this.snapshots.join(", ")}); ${this.hint}`
  }
  get hint(): string {
    return "remove them first, or force the removal"
  }
}

/** Something was begun and did not come to its end; the machine is as it was. */
export class SnapshotFailed extends Schema.TaggedError<SnapshotFailed>()("SnapshotFailed", {
  name: Schema.String,
  command: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `virtual machine ${this.name}: ${this.command} failed, and nothing of it is left: ${this.detail}`
  }
}
