/**
 * How a virtual machine ends or fails to start, as its actor's failure channel: what its restart policy judges and what the tree
 * shows as its last exit. A guest that powers off is no failure: the actor returns.
 *
 * What the *guest* did (`Guest…`) is told apart from what became of its *hypervisor* (`Vmm…`), and both from what was never
 * there to start with.
 *
 * Trap: `VmmOutOfMemory` comes from the cgroup's counter and wins over the signal that the kernel used.
 */
import * as Schema from "effect/Schema"
import type { ExitFacts } from "../actor/ExitView.ts"
import { SignalName } from "../taproot/Signals.ts"
import { HypervisorMissing, PlaceFailed } from "./Hypervisor.ts"

/** Its guest rebooted, and its spec says that this ends its life. */
export class GuestRebooted extends Schema.TaggedError<GuestRebooted>()("GuestRebooted", { name: Schema.String }) {
  override get message(): string {
    return "its guest rebooted"
  }
}

/** Its guest's kernel panicked, and said so (pvpanic). */
export class GuestPanicked extends Schema.TaggedError<GuestPanicked>()("GuestPanicked", { name: Schema.String }) {
  override get message(): string {
    return `its guest's kernel panicked; \`ironwood vm console ${this.name}\` has its last words`
  }
}

/** Its guest stopped feeding its watchdog. */
export class GuestHung extends Schema.TaggedError<GuestHung>()("GuestHung", { name: Schema.String }) {
  override get message(): string {
    return "its guest is hung: it stopped feeding its watchdog"
  }
}

/** Its hypervisor ended by a fault of its own; `detail` is what it said last. */
export class VmmCrashed extends Schema.TaggedError<VmmCrashed>()("VmmCrashed", {
  name: Schema.String,
  how: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `its hypervisor crashed: ${this.how}${this.detail === "" ? "" : ` (${this.detail})`}`
  }
}

/** Somebody ended its hypervisor. */
export class VmmKilled extends Schema.TaggedError<VmmKilled>()("VmmKilled", {
  name: Schema.String,
  /** Absent: it was told to quit. */
  signal: Schema.optionalKey(SignalName),
  /** It was to be stopped, and its guest had not powered off. */
  byUs: Schema.optionalKey(Schema.Boolean)
}) {
  override get message(): string {
    const how = this.signal === undefined ? "" : ` (${this.signal})`
    if (this.byUs === true) return `Ironwood ended its hypervisor${how}: its guest had not powered off`
    return how === "" ? "somebody ended its hypervisor" : `somebody killed its hypervisor${how}`
  }
  get exitFacts(): { readonly signal?: SignalName } {
    return this.signal === undefined ? {} : { signal: this.signal }
  }
  /** The same end, brought about by a stop. */
  get ours(): VmmKilled {
    return new VmmKilled({ name: this.name, byUs: true, ...this.exitFacts })
  }
}

/** The kernel killed its hypervisor because memory was out. */
export class VmmOutOfMemory extends Schema.TaggedError<VmmOutOfMemory>()("VmmOutOfMemory", {
  name: Schema.String,
  /** What it might use of the host. */
  limit: Schema.Int
}) {
  override get message(): string {
    return `its hypervisor was killed because it used more than its ${Math.round(this.limit / 1_048_576)} MiB of the host's memory, or the host's was out`
  }
  get exitFacts(): ExitFacts {
    return { outOfMemory: true }
  }
}

/** Its hypervisor would not make it; `detail` is what it said. */
export class VmmRefused extends Schema.TaggedError<VmmRefused>()("VmmRefused", {
  name: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `its hypervisor did not start it: ${this.detail}`
  }
}

/** A file that it needs is not there, or not what its spec says. */
export class FileUnusable extends Schema.TaggedError<FileUnusable>()("FileUnusable", {
  name: Schema.String,
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.path} cannot be used: ${this.problem}`
  }
}

/** A disk of it that comes from an image or is a volume could not be had. */
export class DiskUnavailable extends Schema.TaggedError<DiskUnavailable>()("DiskUnavailable", {
  name: Schema.String,
  /** The image or the volume. */
  source: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `its disk ${this.source} cannot be had: ${this.problem}`
  }
}

/** Everything that ends a virtual machine other than its guest powering off. */
export const VmFailure = Schema.Union([
  GuestRebooted,
  GuestPanicked,
  GuestHung,
  VmmCrashed,
  VmmKilled,
  VmmOutOfMemory,
  VmmRefused,
  FileUnusable,
  DiskUnavailable,
  HypervisorMissing,
  PlaceFailed
])
export type VmFailure = typeof VmFailure.Type
