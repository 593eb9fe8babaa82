/**
 * `OciRuntime`: the one place that knows how containers are made by an OCI runtime's command line (crun, runc).
 *
 * Which runtime is found out, not assumed: `OciRuntimeLive.ts` runs a trial container with each candidate and keeps the
 * first that really works here. No runtime is no reason not to start: calls then fail with `RuntimeMissing`, which the
 * containers' restart policies deal with, and later calls look again.
 *
 * Traps: a container is made by one `run --detach` and not by `create` and `start`. The runtime's process ends, the
 * container's first process stays behind as taproot's child and is claimed with the runtime's output pipes: no shim, one
 * process less per start, and no state in between in which a dead brain could leave it. Signals go to the process
 * (`Processes`), not through the runtime.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Process } from "../taproot/Processes.ts"
import type { CgroupStuck } from "../host/Cgroups.ts"
import type { RuntimeMissing } from "./ContainerExit.ts"

/** A call of the runtime's command line failed. */
export class RuntimeFailed extends Schema.TaggedError<RuntimeFailed>()("RuntimeFailed", {
  /** The program and its command, for people: `crun run`. */
  command: Schema.String,
  /** How it ended: `exited with code 1`, `killed by SIGKILL`, `did not end within 30 s`. */
  how: Schema.String,
  /** What it wrote to its standard error, the last 4 KiB. */
  stderr: Schema.String
}) {
  override get message(): string {
    return this.stderr === "" ? `${this.command} ${this.how}` : `${this.command} ${this.how}: ${this.stderr}`
  }
}

/** The runtime in use and what it can do. */
export interface RuntimeFacts {
  /** `crun`, `runc` or what else the program calls itself. */
  readonly name: string
  readonly version: string
  /** Where the program is. */
  readonly path: string
  /** What had to be arranged for it, in plain words; empty when nothing. */
  readonly adjustments: ReadonlyArray<string>
}

/** One of the runtimes that this host could have. */
export interface RuntimeCandidate {
  /** What it calls itself; what it was looked for as when it is not there. */
  readonly name: string
  /** Empty when it is not there, or would not say. */
  readonly version: string
  readonly path: string
  /** Why it cannot make a container here; undefined when it did. */
  readonly problem: string | undefined
  readonly inUse: boolean
  /** As in {@link RuntimeFacts}. */
  readonly adjustments: ReadonlyArray<string>
}

/** One run of a container, as far as the runtime is concerned; see `RuntimePaths` for the names. */
export interface RunRequest {
  /** Its name for the runtime; unique on this host for ever. */
  readonly id: string
  /** The directory with `config.json`; `pid` is written there. */
  readonly bundle: string
  /** The cgroup that `config.json` names. */
  readonly cgroup: string
  /** The label of its process in taproot, by which a later brain finds it. At most 120 bytes. */
  readonly label: string
  /** `config.json` asks for a terminal. */
  readonly terminal: boolean
  /** Without a terminal: give it standard input; else it is `/dev/null`. */
  readonly stdin: boolean
}

/** A further program in a container that runs. */
export interface ExecRequest {
  /** The container's name for the runtime. */
  readonly id: string
  /** What to run: a file with the `process` of a `config.json`. */
  readonly file: string
  /** Its pid is written there. */
  readonly pidFile: string
  /** As in {@link RunRequest}. */
  readonly label: string
  /** `file` asks for a terminal. */
  readonly terminal: boolean
  /** Without a terminal: give it standard input, and read its output; else they are `/dev/null`. */
  readonly stdin: boolean
  readonly output: boolean
}

/** What the label of a runtime's own process is while it makes a run. */
export const creatorLabel = (label: string): string => `run:${label}`

export class OciRuntime extends Context.Service<
  OciRuntime,
  {
    /** The runtime in use; looks for one when there is none yet. */
    readonly facts: Effect.Effect<RuntimeFacts, RuntimeMissing>
    /** All the runtimes that are looked for, the best first. Each is tried with a container, those not in use once, or once a minute while they fail. */
    readonly candidates: Effect.Effect<ReadonlyArray<RuntimeCandidate>>
    /**
     * Makes and starts a container; answers with its first process, claimed as taproot's child with its output streams.
     * Interrupted or failed, it leaves nothing behind. Only so many run at a time, the others wait.
     */
    readonly run: (request: RunRequest) => Effect.Effect<Process, RuntimeMissing | RuntimeFailed>
    /** To be said as soon as a `run` or `exec` is to come: what of it takes the kernel long begins meanwhile. */
    readonly announce: Effect.Effect<void>
    /**
     * What an earlier brain left behind in the middle of `run`: gives the process if the container came up, else cleans
     * up. None when there was nothing.
     */
    readonly recover: (request: RunRequest) => Effect.Effect<Option.Option<Process>>
    /** Starts a program in a container; answers with it, as `run` does with the container's first process. */
    readonly exec: (request: ExecRequest) => Effect.Effect<Process, RuntimeMissing | RuntimeFailed>
    /** A command about a container that runs; `update` takes the new resources as JSON. */
    readonly control: (
      command: "pause" | "resume" | "update",
      id: string,
      input?: string
    ) => Effect.Effect<void, RuntimeMissing | RuntimeFailed>
    /** Forgets a run: kills what is left of it, removes the runtime's state of it and its cgroup. Fine when there is none. */
    readonly remove: (request: Pick<RunRequest, "id" | "cgroup">) => Effect.Effect<void, CgroupStuck>
    /** The ids that the runtime's state directory holds, of this boot or an earlier one. */
    readonly list: Effect.Effect<ReadonlyArray<string>>
  }
>()("ironwood/runtime/OciRuntime") {}
