/**
 * One entry of taproot's table as this brain knows it, and the `Process` handle on it. Frames change it synchronously;
 * handles only look and ask.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { InputPort } from "./InputPort.ts"
import { OutputPort } from "./OutputPort.ts"
import type { ProcessExit } from "./ProcessExit.ts"
import {
  type ChannelLost,
  type OutputStream,
  type Process,
  ProcessGone,
  type ProcessId,
  SignalRefused,
  StdinClosed
} from "./Processes.ts"
import type { Requests } from "./Requests.ts"
import type { SignalName } from "./Signals.ts"

/** ESRCH. */
const noSuchProcess = 3

/** What makes an entry; `open` says which streams taproot serves. */
export interface EntryFacts {
  readonly id: ProcessId
  readonly pid: number
  readonly startTime: bigint
  readonly label: string
  readonly adopted: boolean
  readonly open: { readonly stdin: boolean; readonly stdout: boolean; readonly stderr: boolean; readonly pty: boolean }
}

/** The ports of an entry. A CLAIM moves them all to another entry. */
interface Ports {
  readonly stdin: InputPort | undefined
  readonly stdout: OutputPort | undefined
  readonly stderr: OutputPort | undefined
  readonly pty: boolean
}

const noPorts: Ports = { stdin: undefined, stdout: undefined, stderr: undefined, pty: false }

export class Entry {
  readonly #facts: EntryFacts
  readonly #requests: Requests
  readonly #forget: (entry: Entry) => void
  readonly #exited = Deferred.makeUnsafe<ProcessExit>()
  #exit: ProcessExit | undefined = undefined
  #acknowledged = false
  #ports: Ports

  /** `forget`: takes the entry out of the table; called once, when taproot is told to forget it. */
  constructor(facts: EntryFacts, requests: Requests, forget: (entry: Entry) => void) {
    this.#facts = facts
    this.#requests = requests
    this.#forget = forget
    const { adopted, id, open } = facts
    this.#ports = {
      stdin: open.stdin ? new InputPort(requests, id) : undefined,
      stdout: open.stdout ? new OutputPort(requests, id, "stdout", adopted) : undefined,
      stderr: open.stderr ? new OutputPort(requests, id, "stderr", adopted) : undefined,
      pty: open.pty
    }
    this.process = this.#handle()
  }

  readonly process: Process

  get id(): ProcessId {
    return this.#facts.id
  }

  get label(): string {
    return this.#facts.label
  }

  get stdin(): InputPort | undefined {
    return this.#ports.stdin
  }

  get stdout(): OutputPort | undefined {
    return this.#ports.stdout
  }

  get stderr(): OutputPort | undefined {
    return this.#ports.stderr
  }

  /** The process has ended. Returns what is wrong with that, if anything. */
  ended(exit: ProcessExit): string | undefined {
    if (this.#exit !== undefined) return `EXITED for process ${this.id}, which had ended`
    this.#exit = exit
    if (this.#acknowledged) this.#giveUp()
    // Its standard input stays open: a child may have it, and may be claimed. Fibers that wait for the exit go on within
    // this call, so everything of ours is done before.
    Deferred.doneUnsafe(this.#exited, Exit.succeed(exit))
    return undefined
  }

  /** A CLAIM that may move the ports is on the way. */
  hold(): void {
    this.#ports.stdin?.hold()
    this.#ports.stdout?.hold()
    this.#ports.stderr?.hold()
  }

  /** It was refused. */
  release(): void {
    this.#ports.stdin?.release()
    this.#ports.stdout?.release()
    this.#ports.stderr?.release()
  }

  /** Takes the ports of another entry. */
  takePortsOf(source: Entry): void {
    this.#ports = source.#ports
    source.#ports = noPorts
    this.#ports.stdin?.moveTo(this.id)
    this.#ports.stdout?.moveTo(this.id)
    this.#ports.stderr?.moveTo(this.id)
  }

  lose(lost: ChannelLost): void {
    Deferred.doneUnsafe(this.#exited, Exit.die(lost))
    this.#ports.stdin?.lose(lost)
    this.#ports.stdout?.lose(lost)
    this.#ports.stderr?.lose(lost)
  }

  /** The taproot that had it is gone, and the process with it. */
  vanish(exit: ProcessExit): void {
    const { stderr, stdin, stdout } = this.#ports
    this.#ports = noPorts
    stdin?.end()
    stdout?.moveTo(undefined)
    stderr?.moveTo(undefined)
    if (this.#exit === undefined) this.ended(exit)
  }

  /** Tells taproot to forget the entry, now that the process has ended. */
  #giveUp(): void {
    const { stderr, stdin, stdout } = this.#ports
    this.#ports = noPorts
    this.#forget(this)
    this.#requests.post({ _tag: "Acknowledge", id: this.id })
    stdin?.end()
    stdout?.moveTo(undefined)
    stderr?.moveTo(undefined)
  }

  #handle(): Process {
    const { adopted, id, label, open, pid, startTime } = this.#facts
    const closed = (): StdinClosed => new StdinClosed({ label, pid })
    return {
      id,
      pid,
      startTime,
      label,
      adopted,
      streams: open,
      // Many end at a time; whoever waited does not go on inside the reading of taproot's frames.
      exit: Effect.tap(Deferred.await(this.#exited), Effect.yieldNow),
      exitNow: Effect.sync(() => Option.fromUndefinedOr(this.#exit)),
      acknowledge: Effect.sync(() => {
        if (this.#acknowledged) return
        this.#acknowledged = true
        if (this.#exit !== undefined) this.#giveUp()
      }),
      signal: (signal, options) => this.#signal(signal, options?.group ?? false),
      output: (stream) => Stream.suspend(() => this.#port(stream)?.read ?? Stream.empty),
      consume: (stream, take) => Effect.suspend(() => this.#port(stream)?.consume(take) ?? Effect.void),
      write: (bytes) =>
        Effect.suspend(() => {
          const port = this.#ports.stdin
          return port === undefined ? Effect.fail(closed()) : Effect.mapError(port.write(bytes), closed)
        }),
      closeStdin: Effect.suspend(() => this.#ports.stdin?.close ?? Effect.void),
      resize: (rows, columns) =>
        this.#ports.pty
          ? this.#requests.send({ _tag: "WindowSize", id, rows: size(rows), columns: size(columns) })
          : Effect.void
    }
  }

  #port(stream: OutputStream): OutputPort | undefined {
    return stream === "stdout" ? this.#ports.stdout : this.#ports.stderr
  }

  #signal(signal: SignalName, group: boolean): Effect.Effect<void, ProcessGone | SignalRefused> {
    const { id, label, pid } = this.#facts
    return Effect.suspend(() => {
      // Only the group of an entry that taproot still has can be alive after the process itself.
      if (this.#exit !== undefined && (!group || this.#acknowledged)) {
        return Effect.fail(new ProcessGone({ label, pid }))
      }
      return this.#requests.ask<void, ProcessGone | SignalRefused>(
        (request) => ({ _tag: "Signal", request, id, signal, group }),
        (answer) => (answer._tag === "Done" ? Option.some(undefined) : Option.none()),
        (refusal) =>
          refusal.reason === "no-such-process" || refusal.errno === noSuchProcess
            ? new ProcessGone({ label, pid })
            : new SignalRefused({ label, pid, signal, ...refusal })
      )
    })
  }
}

/** What fits the kernel's `struct winsize`. */
const size = (value: number): number => Math.min(Math.max(Math.trunc(value), 1), 65_535)
