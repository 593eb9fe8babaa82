/**
 * `Processes`: every process and mount that Ironwood makes goes through this service, which speaks to taproot
 * (PROTOCOL.md). taproot owns the processes, their unread output and their exits; the brain borrows them. What a
 * brain had not acknowledged when it died is met again by the next one: `take` and `adoptable`.
 *
 * Use `run` for a short helper command. Use `spawn` for what lives longer than the code that starts it, with a label
 * under which the next incarnation can `take` it. Use `claim` for what another program left behind under taproot (a
 * container's init). Layers: `ProcessesLive.ts` (the real one), `ProcessesRecording.ts` (tests).
 *
 * Traps:
 * - A process is not tied to a scope or fiber: the fiber that spawned it may die and the process lives on. Entries are
 *   freed by `acknowledge` and by nothing else; forgetting it fills taproot's table.
 * - Output is pulled and confirmed chunk by chunk; see `Process.output`. Output that nobody reads blocks the writer.
 * - When the channel to taproot is lost nothing can go on: `lost` completes, and right after it every pending and later
 *   operation dies with the `ChannelLost` as a defect (no caller but the brain's main can act on it, and main ends the
 *   brain; taproot starts another).
 */
import * as Brand from "effect/Brand"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import { describeErrno } from "./Errno.ts"
import type { ProcessExit } from "./ProcessExit.ts"
import type { SignalName } from "./Signals.ts"
import type { ProtocolFeature } from "./Wire.ts"

/** taproot's name for a process entry: never 0 and never used twice by one taproot. Not the pid. */
export type ProcessId = bigint & Brand.Brand<"ProcessId">
export const ProcessId = Brand.nominal<ProcessId>()

/** Which output of a process. A pty has only `stdout`. */
export type OutputStream = "stdout" | "stderr"

/** Where one of the three standard streams of a new process goes. */
export type Stdio =
  /** `/dev/null`. */
  | { readonly _tag: "Null" }
  /** A file, opened in the child as taproot's own user, before its identity is set; a relative path starts at taproot's directory. `flags`: open(2) `O_*`; default read-only for stdin, else write, create, append. `mode`: default 0o600. */
  | { readonly _tag: "File"; readonly path: string; readonly flags?: number; readonly mode?: number }
  /** A pipe to taproot: `write` for stdin, `output` for the others. */
  | { readonly _tag: "Stream" }
  /** A new pseudo-terminal of this size (that of stdin counts); all three streams must say so. */
  | { readonly _tag: "Pty"; readonly rows: number; readonly columns: number }
  /**
   * Of stdin and stdout together: the terminal that the program will hand over at the socket `path` (an OCI runtime with
   * `--console-socket`), which must not be there yet and is the caller's to remove; it has at most 107 bytes. That of stdin counts.
   */
  | { readonly _tag: "Console"; readonly path: string }
  /** For stderr only: the same as stdout. */
  | { readonly _tag: "Stdout" }
  /** taproot's own. */
  | { readonly _tag: "Inherit" }

/** The user, group and exactly these supplementary groups (at most 64) of a new process. */
export interface Identity {
  readonly uid: number
  readonly gid: number
  readonly groups: ReadonlyArray<number>
}

/** The resources of `setrlimit`, by name. */
export type RlimitResource =
  | "cpu"
  | "fsize"
  | "data"
  | "stack"
  | "core"
  | "rss"
  | "nproc"
  | "nofile"
  | "memlock"
  | "as"
  | "locks"
  | "sigpending"
  | "msgqueue"
  | "nice"
  | "rtprio"
  | "rttime"

export interface Rlimit {
  readonly soft: bigint | "infinity"
  readonly hard: bigint | "infinity"
}

/** A process to start. Strings must hold no NUL; the whole request must fit a frame (256 KiB). */
export interface SpawnRequest {
  /** What the brain calls it, at most 128 bytes; the key for `take` after a restart. Need not be unique. */
  readonly label: string
  /** 1 to 4,096 words; the first is looked up in the PATH of `environment` unless it has a slash. */
  readonly argv: readonly [string, ...Array<string>]
  /** The whole environment, nothing is inherited; default: only `PATH`. */
  readonly environment?: Readonly<Record<string, string>>
  /** Default `/`. */
  readonly directory?: string
  /** Default: taproot's own. */
  readonly identity?: Identity
  readonly rlimits?: { readonly [Resource in RlimitResource]?: Rlimit }
  /** cgroup directories that it joins before exec: one on cgroup v2, one per controller on v1; at most 16. */
  readonly cgroups?: ReadonlyArray<string>
  /** A session of its own (`setsid`). It leads its own process group in any case. */
  readonly session?: boolean
  /** Default `Null`, all three. */
  readonly stdin?: Exclude<Stdio, { readonly _tag: "Stdout" }>
  readonly stdout?: Exclude<Stdio, { readonly _tag: "Stdout" }>
  readonly stderr?: Stdio
}

/** A piece of output. */
export interface OutputChunk {
  readonly stream: OutputStream
  /** Bytes of this stream before this chunk, since the process started. */
  readonly offset: bigint
  /**
   * When taproot first saw its first byte: nanoseconds since the Unix epoch. Grows strictly from chunk to chunk of one
   * stream and stays the same when the chunk is served again to a new brain.
   */
  readonly time: bigint
  /** 1 to 65,536 bytes, the reader's to keep. When served again, the chunk may be longer than it was. */
  readonly bytes: Uint8Array
}

/** Why taproot did not do what it was asked. */
export const RefusalReason = Schema.Literals(["table-full", "no-such-process", "not-a-child", "system-call", "invalid"])
export type RefusalReason = typeof RefusalReason.Type

/** What every refusal carries: `errno` is 0 unless `reason` is `system-call`; `detail` is taproot's own sentence. */
const refusal = { reason: RefusalReason, errno: Schema.Int, detail: Schema.String }

const because = (self: { readonly reason: RefusalReason; readonly errno: number; readonly detail: string }): string =>
  [self.reason, self.errno === 0 ? "" : describeErrno(self.errno), self.detail].filter((part) => part !== "").join(": ")

/** taproot did not start the process: table full, fork failed, or the request breaks a limit (`invalid`). Nothing was made. */
export class SpawnRefused extends Schema.TaggedError<SpawnRefused>()("SpawnRefused", {
  label: Schema.String,
  ...refusal
}) {
  override get message(): string {
    return `taproot did not start ${this.label}: ${because(this)}`
  }
}

/** The pid is not taproot's child (`not-a-child`), or was, with another start time, or the table is full. */
export class ClaimRefused extends Schema.TaggedError<ClaimRefused>()("ClaimRefused", {
  pid: Schema.Int,
  label: Schema.String,
  ...refusal
}) {
  override get message(): string {
    return `taproot did not take over pid ${this.pid} as ${this.label}: ${because(this)}`
  }
}

/** The process (or, for a group signal, its whole group) has ended already. */
export class ProcessGone extends Schema.TaggedError<ProcessGone>()("ProcessGone", {
  label: Schema.String,
  pid: Schema.Int
}) {
  override get message(): string {
    return `${this.label} (pid ${this.pid}) has already ended`
  }
}

/** The kernel refused the signal. */
export class SignalRefused extends Schema.TaggedError<SignalRefused>()("SignalRefused", {
  label: Schema.String,
  pid: Schema.Int,
  signal: Schema.String,
  ...refusal
}) {
  override get message(): string {
    return `${this.signal} was not sent to ${this.label} (pid ${this.pid}): ${because(this)}`
  }
}

/** Nobody reads the process's standard input any more, or it has none, or it was closed with `closeStdin`. */
export class StdinClosed extends Schema.TaggedError<StdinClosed>()("StdinClosed", {
  label: Schema.String,
  pid: Schema.Int
}) {
  override get message(): string {
    return `the standard input of ${this.label} (pid ${this.pid}) is closed`
  }
}

export class MountFailed extends Schema.TaggedError<MountFailed>()("MountFailed", {
  source: Schema.String,
  target: Schema.String,
  type: Schema.String,
  ...refusal
}) {
  override get message(): string {
    return `mounting ${this.type === "" ? this.source : `${this.type} ${this.source}`} on ${this.target} failed: ${because(this)}`
  }
}

export class ModuleRefused extends Schema.TaggedError<ModuleRefused>()("ModuleRefused", {
  file: Schema.String,
  ...refusal
}) {
  override get message(): string {
    return `loading ${this.file} failed: ${because(this)}`
  }
}

export class WatchdogRefused extends Schema.TaggedError<WatchdogRefused>()("WatchdogRefused", refusal) {
  override get message(): string {
    return `the watchdog was not set: ${because(this)}`
  }
}

export class SuccessorRefused extends Schema.TaggedError<SuccessorRefused>()("SuccessorRefused", refusal) {
  override get message(): string {
    return `taproot does not start another brain: ${because(this)}`
  }
}

export class UnmountFailed extends Schema.TaggedError<UnmountFailed>()("UnmountFailed", {
  target: Schema.String,
  ...refusal
}) {
  override get message(): string {
    return `unmounting ${this.target} failed: ${because(this)}`
  }
}

/** The channel to taproot ended. `closed`: taproot is gone or closed it; `refused`: taproot said so (FAULT); `broken`: it sent what the protocol does not allow; `silent`: that of a guest owed an answer for too long. */
export class ChannelLost extends Schema.TaggedError<ChannelLost>()("ChannelLost", {
  reason: Schema.Literals(["closed", "refused", "broken", "silent"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `the channel to taproot was lost (${this.reason}): ${this.detail}`
  }
}

/** A process entry of taproot, running or ended. Handles are values: any number of fibers may use the same one. */
export interface Process {
  readonly id: ProcessId
  readonly pid: number
  /** Field 22 of `/proc/PID/stat`: with the pid it names a process for good. */
  readonly startTime: bigint
  readonly label: string
  /** True when a previous brain started or claimed it. */
  readonly adopted: boolean
  /** Which streams taproot serves; with a pty, `stdin` and `stdout` are its two directions. */
  readonly streams: {
    readonly stdin: boolean
    readonly stdout: boolean
    readonly stderr: boolean
    readonly pty: boolean
  }
  /** Waits for the end. Many may wait, before and after; it does not acknowledge. */
  readonly exit: Effect.Effect<ProcessExit>
  /** How it ended, when it has. */
  readonly exitNow: Effect.Effect<Option.Option<ProcessExit>>
  /**
   * "I have dealt with the exit": taproot forgets the entry, and its unread output with it. While the process still
   * runs, this is kept in mind and done at its end (this brain's memory: a next brain meets the entry again).
   * Store what the exit means before acknowledging.
   */
  readonly acknowledge: Effect.Effect<void>
  /** Sends a signal by pidfd; with `group` to its whole process group, also after the leader has ended. */
  readonly signal: (
    signal: SignalName,
    options?: { readonly group?: boolean }
  ) => Effect.Effect<void, ProcessGone | SignalRefused>
  /**
   * The output, from the first byte that nobody has confirmed, to the end of the stream (all writers gone), which can
   * come before or after the exit. A chunk is confirmed, and only then forgotten by taproot, when the NEXT one is
   * pulled: store a chunk, then pull, and no death of the brain loses or doubles a byte that cannot be told by its
   * `offset` and `time`.
   *
   * Traps: put nothing that reads ahead between this stream and the store (`buffer`, `merge`, `mapEffect` with
   * concurrency); run two fibers for two streams. One reader at a time and stream: a second one waits for the first to
   * end. A stream that the process does not have is empty.
   */
  readonly output: (stream: OutputStream) => Stream.Stream<OutputChunk>
  /**
   * Has `take` deal with the output, a chunk at a time, until its end. The same as `output`, for whoever reads for as long as the
   * process lives: of one that says nothing it weighs 1.5 KiB, where a stream weighs 5.
   */
  readonly consume: (stream: OutputStream, take: (chunk: OutputChunk) => Effect.Effect<void>) => Effect.Effect<void>
  /** Writes to standard input and returns when all of it was handed to taproot's 64 KiB window; writers take turns, whole. */
  readonly write: (bytes: Uint8Array) => Effect.Effect<void, StdinClosed>
  /** End of file for the process, after what was written before. Closing twice is fine. */
  readonly closeStdin: Effect.Effect<void>
  /** Window size of a pty; nothing happens when there is none. Each 1 to 65,535. */
  readonly resize: (rows: number, columns: number) => Effect.Effect<void>
}

/** Take over a process that taproot inherited as an orphan (double fork, `crun create`). */
export interface ClaimRequest {
  readonly pid: number
  readonly label: string
  /** When given, a process with another start time is refused: guards against a reused pid. */
  readonly startTime?: bigint
  /**
   * Move the pipes of this entry (the program that made the orphan) to it, confirmed offsets included. A reader of that
   * entry meets the end when it pulls the next time, which still confirms its last chunk; a reader of the claimed
   * process waits for that.
   */
  readonly streamsFrom?: ProcessId
}

/** A short helper command; see `Processes.run`. */
export interface RunRequest extends Omit<SpawnRequest, "stdin" | "stdout" | "stderr"> {
  /** Default: `/dev/null`. */
  readonly stdin?: Uint8Array
  /** Per stream; default 1 MiB. What comes after is read and dropped, and `truncated` says so. */
  readonly maxOutputBytes?: number
}

export interface RunResult {
  readonly exit: ProcessExit
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
  /** True when either stream was longer than `maxOutputBytes`. */
  readonly truncated: boolean
}

export interface MountRequest {
  readonly source: string
  readonly target: string
  readonly type: string
  /** `MS_*`; default 0. */
  readonly flags?: bigint
  /** Options of the file system; default none. */
  readonly data?: string
  /** taproot changes into it first, so that `source`, `target` and paths in `data` can be relative and short. */
  readonly directory?: string
}

/** What taproot said when this brain arrived. */
export interface Hello {
  /** Names this taproot process: 32 hexadecimal digits, new with every start of taproot. */
  readonly instance: string
  readonly taprootPid: number
  readonly role: "parent" | "init" | "guest"
  /** How many brains this taproot has started, this one included; 0 when it did not start us. */
  readonly brainStarts: number
  readonly lastBrainEnd: BrainEnd
  /** What taproot can beyond its protocol's version. */
  readonly features: ReadonlyArray<ProtocolFeature>
  readonly succession: Succession
}

/**
 * What became of the last brain that another one asked for in its own place: `trial` and `proven` are this one's, `given-up`
 * says why taproot went back to the brain of its command line, and how that other one ended last.
 */
export interface Succession {
  readonly state: "none" | "trial" | "proven" | "given-up"
  readonly fault: "none" | "ended" | "late" | "protocol" | "unstable"
  readonly end: BrainEnd
}

/** A brain to be started in place of this one. */
export interface SuccessorRequest {
  /** At most 32 words, together at most 4,096 bytes; none: the brain of taproot's command line, which is on no trial. */
  readonly argv: ReadonlyArray<string>
  /** It must `confirm` within so many milliseconds from its first start: 1,000 or more. */
  readonly patienceMillis: number
  /** So many of them may end before that, less one: 1 to 255. */
  readonly tries: number
}

/** How the brain before this one ended. `value`: exit code or signal number. `time`: nanoseconds since the Unix epoch. */
export interface BrainEnd {
  readonly how: "none" | "exited" | "signaled" | "missed-heartbeat" | "protocol-fault" | "never-said-hello" | "late"
  readonly value: number
  readonly time: bigint
}

/** What happens to the machine, or outside PID 1 to taproot itself (every action means: end), after the tree has stopped. */
export type ShutdownAction = "end" | "power-off" | "restart" | "halt" | "kexec"

/** taproot was told to stop and asks for the tree to be stopped in order within `deadlineMillis`, then `finish(action)`. */
export interface StopRequest {
  readonly why: "signal" | "lifeline" | "power-button" | "request"
  readonly action: ShutdownAction
  readonly deadlineMillis: number
}

/** taproot's own figures. */
export interface TaprootStatus {
  /** Entries, of them ended and not acknowledged, and how many fit. */
  readonly processes: number
  readonly exited: number
  readonly capacity: number
  /** Open file descriptors of taproot. */
  readonly descriptors: number
  readonly orphansReaped: number
  /** Requests refused so far. */
  readonly refused: number
}

export class Processes extends Context.Service<
  Processes,
  {
    readonly hello: Hello
    /**
     * Starts a process and returns when it exists (its `exec` may still fail: `NotExecuted`). Not interruptible for the
     * one round trip that it takes, so that no process is made whose handle gets lost on the way.
     */
    readonly spawn: (request: SpawnRequest) => Effect.Effect<Process, SpawnRefused>
    readonly claim: (request: ClaimRequest) => Effect.Effect<Process, ClaimRefused>
    /** Runs a command to its end and hands over exit and output; a failure of the command is data, not an error. Interruption kills its whole process group. Trap: it waits for the end of the output, too, like a shell's `$(…)`; a program that leaves a child behind that holds its output is for `spawn`. */
    readonly run: (request: RunRequest) => Effect.Effect<RunResult, SpawnRefused>
    /** Entries of a previous brain that nobody in this one has taken or acknowledged yet, oldest first. */
    readonly adoptable: Effect.Effect<ReadonlyArray<Process>>
    /** The newest unacknowledged entry with exactly this label, whoever made it: also one of this brain whose actor has crashed. */
    readonly take: (label: string) => Effect.Effect<Option.Option<Process>>
    /** All unacknowledged entries whose label starts so, oldest first; they count as taken. */
    readonly takeAll: (labelPrefix: string) => Effect.Effect<ReadonlyArray<Process>>
    readonly mount: (request: MountRequest) => Effect.Effect<void, MountFailed>
    /** `flags`: `MNT_*`, default 0. */
    readonly unmount: (target: string, flags?: number) => Effect.Effect<void, UnmountFailed>
    /** Loads the file of a kernel module; what it depends on must be loaded. */
    readonly loadModule: (file: string, parameters: string) => Effect.Effect<void, ModuleRefused>
    /** In what time the machine's watchdog resets it, and how long it is fed without a word of any brain. */
    readonly setWatchdog: (timeoutSeconds: number, patienceMillis: number) => Effect.Effect<void, WatchdogRefused>
    /** Asks for another brain. When it is granted this one must end soon, and is ended by taproot if it does not. */
    readonly succeed: (request: SuccessorRequest) => Effect.Effect<void, SuccessorRefused>
    /** As a successor on trial: it does its work, and is kept. */
    readonly confirm: Effect.Effect<void>
    readonly status: Effect.Effect<TaprootStatus>
    /**
     * Passes on that somebody wants the end. taproot asks back (`stopRequested`), and asks any brain after this one, should it
     * end before all has stopped.
     */
    readonly requestStop: (action: ShutdownAction) => Effect.Effect<void>
    /** Waits until taproot asks for the end (it got SIGTERM, its lifeline broke, the power button, a brain passed a request on). */
    readonly stopRequested: Effect.Effect<StopRequest>
    /** "The tree has stopped": taproot ends what is left and itself. The channel is lost soon after. */
    readonly finish: (action: ShutdownAction) => Effect.Effect<void>
    /** Waits until the channel is lost. For the brain's main alone, which must then end the brain at once. */
    readonly lost: Effect.Effect<ChannelLost>
  }
>()("ironwood/taproot/Processes") {}
