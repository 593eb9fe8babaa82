/**
 * How a container ends or fails to start, as its actor's failure channel: what its restart policy judges and what the
 * tree shows as its last exit. An end with exit code 0 is no failure: the actor returns.
 *
 * Process ends tell their code, signal and memory as `exitFacts`, which restart policies match on (see `ExitView`).
 *
 * Traps: `ContainerOomKilled` comes from the cgroup's counter and wins over exit code and signal, since a shell whose
 * child was killed for memory ends with 137 or anything else. `ImageMissing` and `RuntimeMissing` do not heal by
 * themselves, but a person can import the image or install the runtime while the policy backs off.
 */
import * as Schema from "effect/Schema"
import type { ExitFacts } from "../actor/ExitView.ts"
import { SignalName } from "../taproot/Signals.ts"

/** Its main process returned a code other than 0. */
export class ContainerExited extends Schema.TaggedError<ContainerExited>()("ContainerExited", {
  name: Schema.String,
  code: Schema.Int
}) {
  override get message(): string {
    return `exited with code ${this.code}`
  }
  get exitFacts(): ExitFacts {
    return { exitCode: this.code }
  }
}

/** A signal ended its main process, and it was not for memory. */
export class ContainerSignaled extends Schema.TaggedError<ContainerSignaled>()("ContainerSignaled", {
  name: Schema.String,
  signal: SignalName,
  coreDumped: Schema.Boolean
}) {
  override get message(): string {
    return `killed by ${this.signal}${this.coreDumped ? " (core dumped)" : ""}`
  }
  get exitFacts(): ExitFacts {
    return { signal: this.signal }
  }
}

/** The kernel killed `kills` of its processes because memory was out, and the container ended in failure. */
export class ContainerOomKilled extends Schema.TaggedError<ContainerOomKilled>()("ContainerOomKilled", {
  name: Schema.String,
  kills: Schema.Int,
  /** Its limit in bytes; absent when it had none (then the host's memory was out). */
  limit: Schema.optionalKey(Schema.Int)
}) {
  override get message(): string {
    return this.limit === undefined
      ? "killed because the host's memory was out"
      : `killed because it used more than its ${Math.round(this.limit / 1_048_576)} MiB of memory`
  }
  get exitFacts(): ExitFacts {
    return { outOfMemory: true }
  }
}

/** It was ended because a probe failed too often in a row. */
export class ProbeFailed extends Schema.TaggedError<ProbeFailed>()("ProbeFailed", {
  name: Schema.String,
  probe: Schema.Literals(["startup", "liveness"]),
  failures: Schema.Int,
  /** What the last try said. */
  detail: Schema.String
}) {
  override get message(): string {
    const times = this.failures === 1 ? "" : ` ${this.failures} times in a row`
    return `its ${this.probe} probe failed${times}: ${this.detail}`
  }
  get exitFacts(): ExitFacts {
    return { probe: this.probe }
  }
}

/** The OCI runtime could not create or start it; `detail` is what the runtime said. */
export class CreateFailed extends Schema.TaggedError<CreateFailed>()("CreateFailed", {
  name: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `could not be created: ${this.detail}`
  }
}

/** What it shall run is not in its root file system. */
export class ProgramNotFound extends Schema.TaggedError<ProgramNotFound>()("ProgramNotFound", {
  name: Schema.String,
  program: Schema.String
}) {
  override get message(): string {
    return `its program "${this.program}" is not in its image`
  }
  /** As a shell has it. */
  get exitFacts(): ExitFacts {
    return { exitCode: 127 }
  }
}

/** What it shall run is there and no program, or one that its user may not execute. */
export class ProgramNotExecutable extends Schema.TaggedError<ProgramNotExecutable>()("ProgramNotExecutable", {
  name: Schema.String,
  program: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `its program "${this.program}" cannot be executed: ${this.detail}`
  }
  /** As a shell has it. */
  get exitFacts(): ExitFacts {
    return { exitCode: 126 }
  }
}

/** Its image is not on this host any more. */
export class ImageMissing extends Schema.TaggedError<ImageMissing>()("ImageMissing", {
  name: Schema.String,
  image: Schema.String
}) {
  override get message(): string {
    return `its image ${this.image} is not on this host; pull or import it again`
  }
}

/** Its image is not on this host and could not be pulled; `reason` is the tag of what went wrong. */
export class ImagePullFailed extends Schema.TaggedError<ImagePullFailed>()("ImagePullFailed", {
  name: Schema.String,
  image: Schema.String,
  reason: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `its image ${this.image} could not be pulled: ${this.detail}`
  }
}

/** Its root file system could not be put together. */
export class RootfsFailed extends Schema.TaggedError<RootfsFailed>()("RootfsFailed", {
  name: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `its root file system could not be mounted: ${this.detail}`
  }
}

/** The microVM of its sandbox is not there. */
export class MicroVmFailed extends Schema.TaggedError<MicroVmFailed>()("MicroVmFailed", {
  /** Of the sandbox. */
  name: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `the microVM of sandbox ${this.name} could not be started: ${this.detail}`
  }
}

/** The microVM that it ran in has ended under it. */
export class MicroVmEnded extends Schema.TaggedError<MicroVmEnded>()("MicroVmEnded", {
  name: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `ended with its microVM: ${this.detail}`
  }
}

/** The user or group it shall run as is not in its image. */
export class UserUnknown extends Schema.TaggedError<UserUnknown>()("UserUnknown", {
  name: Schema.String,
  user: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `cannot run as user "${this.user}": ${this.detail}`
  }
}

/** A file, directory or device of the host that it shall have is not there, or not to be had. */
export class HostPathRefused extends Schema.TaggedError<HostPathRefused>()("HostPathRefused", {
  name: Schema.String,
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `it cannot have ${this.path} of the host: ${this.problem}`
  }
}

/** A secret that it shall have is not there. */
export class SecretMissing extends Schema.TaggedError<SecretMissing>()("SecretMissing", {
  name: Schema.String,
  secret: Schema.String
}) {
  override get message(): string {
    return `the secret "${this.secret}" that it needs is not here; secrets are gone with a restart of the host`
  }
}

/** Neither image nor spec says what to run. */
export class NothingToRun extends Schema.TaggedError<NothingToRun>()("NothingToRun", {
  name: Schema.String,
  image: Schema.String
}) {
  override get message(): string {
    return `image ${this.image} has neither entrypoint nor command; say what to run (command)`
  }
}

/** There is no OCI runtime on this host that works; `detail` says what was tried. */
export class RuntimeMissing extends Schema.TaggedError<RuntimeMissing>()("RuntimeMissing", {
  detail: Schema.String
}) {
  override get message(): string {
    return `no OCI runtime works on this host (${this.detail}); install crun or runc`
  }
}

/** Everything that ends a container other than code 0. */
export const ContainerFailure = Schema.Union([
  ContainerExited,
  ContainerSignaled,
  ContainerOomKilled,
  ProbeFailed,
  CreateFailed,
  ProgramNotFound,
  ProgramNotExecutable,
  ImageMissing,
  ImagePullFailed,
  RootfsFailed,
  MicroVmFailed,
  MicroVmEnded,
  UserUnknown,
  HostPathRefused,
  SecretMissing,
  NothingToRun,
  RuntimeMissing
])
export type ContainerFailure = typeof ContainerFailure.Type
