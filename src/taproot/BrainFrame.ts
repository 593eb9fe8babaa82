/**
 * The frames that the brain sends to taproot, as data, and their exact encoding (PROTOCOL.md, "From the brain"). The
 * brain encodes them; test doubles of taproot decode them. Pure; nothing throws.
 *
 * Encoding checks every bound of the protocol: taproot ends the channel over a frame that breaks one, so a request
 * that a stranger had a hand in must be refused here. Strings are UTF-8.
 */
import { absurd } from "effect/Function"
import * as Result from "effect/Result"
import type { Identity, OutputStream, ShutdownAction } from "./Processes.ts"
import { signalNumber, type SignalName } from "./Signals.ts"
import {
  decodeFrame,
  FrameError,
  FrameReader,
  FrameWriter,
  limits,
  shutdownActions as actions,
  outputStreams as streams
} from "./Wire.ts"

/** A file to open as a standard stream: open(2) flags and mode. */
export interface FileStdio {
  readonly _tag: "File"
  readonly flags: number
  readonly mode: number
  readonly path: string
}

export type InputStdio =
  | { readonly _tag: "Null" | "Stream" | "Inherit" }
  | FileStdio
  | { readonly _tag: "Pty"; readonly rows: number; readonly columns: number }
  | { readonly _tag: "Console"; readonly path: string }

export type OutputStdio = { readonly _tag: "Null" | "Stream" | "Inherit" | "Pty" | "Console" } | FileStdio

export type ErrorStdio = OutputStdio | { readonly _tag: "Stdout" }

/** `resource`: an RLIMIT_* number. The limits: 2^64 - 1 for none. */
export interface RlimitEntry {
  readonly resource: number
  readonly soft: bigint
  readonly hard: bigint
}

export interface SpawnFrame {
  readonly _tag: "Spawn"
  readonly request: number
  readonly label: string
  readonly argv: ReadonlyArray<string>
  /** `NAME=value` each. */
  readonly environment: ReadonlyArray<string>
  readonly directory: string
  readonly identity: Identity | undefined
  readonly rlimits: ReadonlyArray<RlimitEntry>
  readonly cgroups: ReadonlyArray<string>
  readonly session: boolean
  readonly stdin: InputStdio
  readonly stdout: OutputStdio
  readonly stderr: ErrorStdio
}

/** From the brain. `request` is echoed in the answer. */
export type BrainFrame =
  | { readonly _tag: "Hello"; readonly version: number; readonly oldest: number }
  | { readonly _tag: "Heartbeat"; readonly sequence: bigint }
  | SpawnFrame
  | {
      readonly _tag: "Claim"
      readonly request: number
      readonly pid: number
      readonly startTime: bigint
      readonly label: string
      readonly streamsFrom: bigint
    }
  | {
      readonly _tag: "Signal"
      readonly request: number
      readonly id: bigint
      readonly signal: SignalName
      readonly group: boolean
    }
  | { readonly _tag: "Input"; readonly id: bigint; readonly bytes: Uint8Array }
  | { readonly _tag: "InputEnd"; readonly id: bigint }
  | {
      readonly _tag: "Read"
      readonly id: bigint
      readonly stream: OutputStream
      readonly consumed: bigint
      readonly limit: number
    }
  | { readonly _tag: "WindowSize"; readonly id: bigint; readonly rows: number; readonly columns: number }
  | { readonly _tag: "Acknowledge"; readonly id: bigint }
  | {
      readonly _tag: "Mount"
      readonly request: number
      readonly source: string
      readonly target: string
      readonly type: string
      readonly flags: bigint
      readonly data: string
      readonly directory: string
    }
  | { readonly _tag: "Unmount"; readonly request: number; readonly target: string; readonly flags: number }
  | { readonly _tag: "Shutdown"; readonly action: ShutdownAction }
  | { readonly _tag: "Stop"; readonly action: ShutdownAction }
  | { readonly _tag: "StatusRequest"; readonly request: number }
  | { readonly _tag: "Module"; readonly request: number; readonly file: string; readonly parameters: string }
  | {
      readonly _tag: "Watchdog"
      readonly request: number
      readonly timeoutSeconds: number
      readonly patienceMillis: number
    }
  | {
      readonly _tag: "Succeed"
      readonly request: number
      readonly patienceMillis: number
      readonly tries: number
      readonly argv: ReadonlyArray<string>
    }
  | { readonly _tag: "Confirm"; readonly request: number }

// What the numbers of the protocol stand for, from 0 unless a base is given where they are used.
const stdios = ["Null", "File", "Stream", "Pty", "Stdout", "Inherit", "Console"] as const

/** Puts a frame into the writer, or nothing and says what is wrong with it. */
export const encodeBrainFrame = (writer: FrameWriter, frame: BrainFrame): Result.Result<void, FrameError> => {
  switch (frame._tag) {
    case "Hello":
      return writer.frame("HELLO", 0x01, (out) => {
        out.u16(frame.version)
        out.u16(frame.oldest)
      })
    case "Heartbeat":
      return writer.frame("HEARTBEAT", 0x02, (out) => out.u64(frame.sequence))
    case "Spawn":
      return writer.frame("SPAWN", 0x03, (out) => writeSpawn(out, frame))
    case "Claim":
      return writer.frame("CLAIM", 0x04, (out) => {
        out.u32(frame.request)
        out.u32(frame.pid)
        out.u64(frame.startTime)
        out.string(frame.label, limits.labelBytes)
        out.u64(frame.streamsFrom)
      })
    case "Signal":
      return writer.frame("SIGNAL", 0x05, (out) => {
        out.u32(frame.request)
        out.u64(frame.id)
        out.u8(signalNumber(frame.signal), 1, 64)
        out.flag(frame.group)
      })
    case "Input":
      return writer.frame("INPUT", 0x06, (out) => {
        out.u64(frame.id)
        out.blob(frame.bytes, 0, limits.windowBytes)
      })
    case "InputEnd":
      return writer.frame("INPUT_END", 0x07, (out) => out.u64(frame.id))
    case "Read":
      return writer.frame("READ", 0x08, (out) => {
        out.u64(frame.id)
        out.name(streams, frame.stream, 1)
        out.u64(frame.consumed)
        out.u32(frame.limit, 1, limits.windowBytes)
      })
    case "WindowSize":
      return writer.frame("WINDOW_SIZE", 0x09, (out) => {
        out.u64(frame.id)
        out.u16(frame.rows)
        out.u16(frame.columns)
      })
    case "Acknowledge":
      return writer.frame("ACKNOWLEDGE", 0x0a, (out) => out.u64(frame.id))
    case "Mount":
      return writer.frame("MOUNT", 0x0b, (out) => {
        out.u32(frame.request)
        out.string(frame.source)
        out.string(frame.target)
        out.string(frame.type)
        out.u64(frame.flags)
        out.string(frame.data)
        out.string(frame.directory)
      })
    case "Unmount":
      return writer.frame("UNMOUNT", 0x0c, (out) => {
        out.u32(frame.request)
        out.string(frame.target)
        out.u32(frame.flags)
      })
    case "Shutdown":
      return writer.frame("SHUTDOWN", 0x0d, (out) => out.name(actions, frame.action))
    case "StatusRequest":
      return writer.frame("STATUS", 0x0e, (out) => out.u32(frame.request))
    case "Module":
      return writer.frame("MODULE", 0x0f, (out) => {
        out.u32(frame.request)
        out.string(frame.file)
        out.string(frame.parameters)
      })
    case "Watchdog":
      return writer.frame("WATCHDOG", 0x10, (out) => {
        out.u32(frame.request)
        out.u32(frame.timeoutSeconds)
        out.u32(frame.patienceMillis)
      })
    case "Succeed":
      return writer.frame("SUCCEED", 0x11, (out) => {
        out.u32(frame.request)
        out.u32(frame.patienceMillis)
        out.u8(frame.tries)
        out.list(frame.argv, 0, limits.successorArguments, (word) => out.string(word))
      })
    case "Confirm":
      return writer.frame("CONFIRM", 0x12, (out) => out.u32(frame.request))
    case "Stop":
      return writer.frame("STOP", 0x13, (out) => out.name(actions, frame.action))
    default:
      return absurd(frame)
  }
}

const writeSpawn = (out: FrameWriter, frame: SpawnFrame): void => {
  out.u32(frame.request)
  out.string(frame.label, limits.labelBytes)
  out.list(frame.argv, 1, limits.arguments, (word) => out.string(word))
  out.list(frame.environment, 0, limits.environment, (entry) => out.string(entry))
  out.string(frame.directory)
  out.flag(frame.identity !== undefined)
  if (frame.identity !== undefined) {
    out.u32(frame.identity.uid)
    out.u32(frame.identity.gid)
    out.list(frame.identity.groups, 0, limits.groups, (group) => out.u32(group))
  }
  out.list(frame.rlimits, 0, limits.rlimits, ({ hard, resource, soft }) => {
    out.u8(resource)
    out.u64(soft)
    out.u64(hard)
  })
  out.list(frame.cgroups, 0, limits.cgroups, (directory) => out.string(directory))
  out.flag(frame.session)
  writeStdio(out, frame.stdin)
  if (frame.stdin._tag === "Pty") {
    out.u16(frame.stdin.rows)
    out.u16(frame.stdin.columns)
  }
  if (frame.stdin._tag === "Console") out.string(frame.stdin.path)
  writeStdio(out, frame.stdout)
  writeStdio(out, frame.stderr)
}

const writeStdio = (out: FrameWriter, stdio: InputStdio | ErrorStdio): void => {
  out.name(stdios, stdio._tag)
  if (stdio._tag !== "File") return
  out.u32(stdio.flags)
  out.u32(stdio.mode)
  out.string(stdio.path)
}

/** Decodes a frame of the brain (type byte and payload, as a `FrameSplitter` gives it). */
export const decodeBrainFrame = (frame: Uint8Array): Result.Result<BrainFrame, FrameError> =>
  decodeFrame(frame, brainFrame)

const brainFrame = (input: FrameReader, type: number): BrainFrame | undefined => {
  switch (type) {
    case 0x01:
      return { _tag: "Hello", version: input.u16(), oldest: input.u16() }
    case 0x02:
      return { _tag: "Heartbeat", sequence: input.u64() }
    case 0x03:
      return readSpawn(input)
    case 0x04:
      return {
        _tag: "Claim",
        request: input.u32(),
        pid: input.u32(),
        startTime: input.u64(),
        label: input.string(limits.labelBytes),
        streamsFrom: input.u64()
      }
    case 0x05:
      return {
        _tag: "Signal",
        request: input.u32(),
        id: input.u64(),
        signal: input.signal(input.u8()),
        group: input.flag()
      }
    case 0x06:
      return { _tag: "Input", id: input.u64(), bytes: input.blob(0, limits.windowBytes) }
    case 0x07:
      return { _tag: "InputEnd", id: input.u64() }
    case 0x08:
      return {
        _tag: "Read",
        id: input.u64(),
        stream: input.name(streams, 1),
        consumed: input.u64(),
        limit: input.within(input.u32(), 1, limits.windowBytes)
      }
    case 0x09:
      return { _tag: "WindowSize", id: input.u64(), rows: input.u16(), columns: input.u16() }
    case 0x0a:
      return { _tag: "Acknowledge", id: input.u64() }
    case 0x0b:
      return {
        _tag: "Mount",
        request: input.u32(),
        source: input.string(),
        target: input.string(),
        type: input.string(),
        flags: input.u64(),
        data: input.string(),
        directory: input.string()
      }
    case 0x0c:
      return { _tag: "Unmount", request: input.u32(), target: input.string(), flags: input.u32() }
    case 0x0d:
      return { _tag: "Shutdown", action: input.name(actions) }
    case 0x0e:
      return { _tag: "StatusRequest", request: input.u32() }
    case 0x0f:
      return { _tag: "Module", request: input.u32(), file: input.string(), parameters: input.string() }
    case 0x10:
      return {
        _tag: "Watchdog",
        request: input.u32(),
        timeoutSeconds: input.u32(),
        patienceMillis: input.u32()
      }
    case 0x11:
      return {
        _tag: "Succeed",
        request: input.u32(),
        patienceMillis: input.u32(),
        tries: input.u8(),
        argv: input.list(0, limits.successorArguments, () => input.string())
      }
    case 0x12:
      return { _tag: "Confirm", request: input.u32() }
    case 0x13:
      return { _tag: "Stop", action: input.name(actions) }
    default:
      return undefined
  }
}

// Object literals evaluate their fields in order: the order below is the order on the wire.
const readSpawn = (input: FrameReader): SpawnFrame => ({
  _tag: "Spawn",
  request: input.u32(),
  label: input.string(limits.labelBytes),
  argv: input.list(1, limits.arguments, () => input.string()),
  environment: input.list(0, limits.environment, () => input.string()),
  directory: input.string(),
  identity: input.flag()
    ? { uid: input.u32(), gid: input.u32(), groups: input.list(0, limits.groups, () => input.u32()) }
    : undefined,
  rlimits: input.list(0, limits.rlimits, () => ({ resource: input.u8(), soft: input.u64(), hard: input.u64() })),
  cgroups: input.list(0, limits.cgroups, () => input.string()),
  session: input.flag(),
  stdin: readStdin(input),
  stdout: readStdout(input),
  stderr: readStderr(input)
})

const readFile = (input: FrameReader): FileStdio => ({
  _tag: "File",
  flags: input.u32(),
  mode: input.u32(),
  path: input.string()
})

const readStdin = (input: FrameReader): InputStdio => {
  const kind = input.name(stdios)
  switch (kind) {
    case "File":
      return readFile(input)
    case "Pty":
      return { _tag: "Pty", rows: input.u16(), columns: input.u16() }
    case "Console":
      return { _tag: "Console", path: input.string() }
    case "Stdout":
      input.fail("stdin cannot be the same as stdout")
      return { _tag: "Null" }
    default:
      return { _tag: kind }
  }
}

const readStdout = (input: FrameReader): OutputStdio => {
  const stdio = readStderr(input)
  if (stdio._tag !== "Stdout") return stdio
  input.fail("stdout cannot be the same as stdout")
  return { _tag: "Null" }
}

const readStderr = (input: FrameReader): ErrorStdio => {
  const kind = input.name(stdios)
  return kind === "File" ? readFile(input) : { _tag: kind }
}
