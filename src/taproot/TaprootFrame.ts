/**
 * The frames that taproot sends to the brain, as data, and their exact encoding (PROTOCOL.md, "From taproot"). The brain
 * decodes them; test doubles of taproot encode them. Pure; nothing throws.
 *
 * Decoding is strict: every byte is used, every number lies within its bounds, or the channel is over. Bytes in strings
 * that are not UTF-8 become U+FFFD.
 */
import { absurd } from "effect/Function"
import * as Result from "effect/Result"
import { notExecutedMessage, type ProcessExit } from "./ProcessExit.ts"
import type { BrainEnd, Hello, OutputStream, RefusalReason, StopRequest, Succession } from "./Processes.ts"
import {
  decodeFrame,
  FrameError,
  FrameReader,
  FrameWriter,
  limits,
  protocolFeatures,
  shutdownActions as actions,
  outputStreams as streams
} from "./Wire.ts"

/** An entry that was there before this brain. */
export interface ProcessFrame {
  readonly _tag: "Process"
  readonly id: bigint
  readonly pid: number
  readonly startTime: bigint
  readonly open: { readonly stdin: boolean; readonly stdout: boolean; readonly stderr: boolean; readonly pty: boolean }
  readonly label: string
  readonly exit: ProcessExit | undefined
}

/** From taproot. */
export type TaprootFrame =
  | ({ readonly _tag: "Welcome"; readonly version: number; readonly processes: number } & Hello)
  | ProcessFrame
  | {
      readonly _tag: "Spawned"
      readonly request: number
      readonly id: bigint
      readonly pid: number
      readonly startTime: bigint
    }
  | { readonly _tag: "Done"; readonly request: number }
  | {
      readonly _tag: "Refused"
      readonly request: number
      readonly reason: RefusalReason
      readonly errno: number
      readonly text: string
    }
  | { readonly _tag: "Exited"; readonly id: bigint; readonly exit: ProcessExit }
  | {
      readonly _tag: "Output"
      readonly id: bigint
      readonly stream: OutputStream
      readonly offset: bigint
      readonly time: bigint
      readonly end: boolean
      readonly bytes: Uint8Array
    }
  | { readonly _tag: "InputTaken"; readonly id: bigint; readonly bytes: number; readonly closed: boolean }
  | ({ readonly _tag: "Stopping" } & StopRequest)
  | {
      readonly _tag: "Status"
      readonly request: number
      readonly processes: number
      readonly exited: number
      readonly capacity: number
      readonly descriptors: number
      readonly orphansReaped: number
      readonly refused: number
    }
  | { readonly _tag: "Fault"; readonly text: string }

// What the numbers of the protocol stand for, from 0 unless a base is given where they are used.
const roles = ["parent", "init", "guest"] as const
const brainEnds = [
  "none",
  "exited",
  "signaled",
  "missed-heartbeat",
  "protocol-fault",
  "never-said-hello",
  "late"
] as const
const successions = ["none", "trial", "proven", "given-up"] as const
const successionFaults = ["none", "ended", "late", "protocol", "unstable"] as const
const reasons = ["table-full", "no-such-process", "not-a-child", "system-call", "invalid"] as const
const whys = ["signal", "lifeline", "power-button", "request"] as const
const exits = ["exited", "signaled", "dumped-core", "not-executed"] as const
const stages = ["cgroup", "rlimit", "identity", "directory", "stdio", "session", "exec"] as const

/** Puts a frame of taproot into the writer: for test doubles of taproot. */
export const encodeTaprootFrame = (writer: FrameWriter, frame: TaprootFrame): Result.Result<void, FrameError> => {
  switch (frame._tag) {
    case "Welcome":
      return writer.frame("WELCOME", 0x81, (out) => {
        out.u16(frame.version)
        out.u32(featureBits(frame.features))
        out.blob(Buffer.from(frame.instance, "hex"), 16, 16)
        out.u32(frame.taprootPid)
        out.name(roles, frame.role)
        out.u32(frame.brainStarts)
        writeBrainEnd(out, frame.lastBrainEnd)
        writeSuccession(out, frame.succession)
        out.u32(frame.processes)
      })
    case "Process":
      return writer.frame("PROCESS", 0x82, (out) => {
        out.u64(frame.id)
        out.u32(frame.pid)
        out.u64(frame.startTime)
        const { pty, stderr, stdin, stdout } = frame.open
        out.u8((stdin ? 1 : 0) | (stdout ? 2 : 0) | (stderr ? 4 : 0) | (pty ? 8 : 0))
        out.string(frame.label, limits.labelBytes)
        out.flag(frame.exit !== undefined)
        if (frame.exit !== undefined) writeExit(out, frame.exit)
      })
    case "Spawned":
      return writer.frame("SPAWNED", 0x83, (out) => {
        out.u32(frame.request)
        out.u64(frame.id)
        out.u32(frame.pid)
        out.u64(frame.startTime)
      })
    case "Done":
      return writer.frame("DONE", 0x84, (out) => out.u32(frame.request))
    case "Refused":
      return writer.frame("REFUSED", 0x85, (out) => {
        out.u32(frame.request)
        out.name(reasons, frame.reason, 1)
        out.u32(frame.errno)
        out.string(frame.text)
      })
    case "Exited":
      return writer.frame("EXITED", 0x86, (out) => {
        out.u64(frame.id)
        writeExit(out, frame.exit)
      })
    case "Output":
      return writer.frame("OUTPUT", 0x87, (out) => {
        out.u64(frame.id)
        out.name(streams, frame.stream, 1)
        out.u64(frame.offset)
        out.u64(frame.time)
        out.flag(frame.end)
        out.blob(frame.bytes, 0, limits.windowBytes)
      })
    case "InputTaken":
      return writer.frame("INPUT_TAKEN", 0x88, (out) => {
        out.u64(frame.id)
        out.u32(frame.bytes)
        out.flag(frame.closed)
      })
    case "Stopping":
      return writer.frame("STOPPING", 0x89, (out) => {
        out.name(whys, frame.why)
        out.name(actions, frame.action)
        out.u32(frame.deadlineMillis)
      })
    case "Status":
      return writer.frame("STATUS", 0x8a, (out) => {
        out.u32(frame.request)
        out.u32(frame.processes)
        out.u32(frame.exited)
        out.u32(frame.capacity)
        out.u32(frame.descriptors)
        out.u32(frame.orphansReaped)
        out.u32(frame.refused)
      })
    case "Fault":
      return writer.frame("FAULT", 0x8b, (out) => out.string(frame.text))
    default:
      return absurd(frame)
  }
}

/** Decodes a frame of taproot (type byte and payload, as a `FrameSplitter` gives it). */
export const decodeTaprootFrame = (frame: Uint8Array): Result.Result<TaprootFrame, FrameError> =>
  decodeFrame(frame, taprootFrame)

const taprootFrame = (input: FrameReader, type: number): TaprootFrame | undefined => {
  switch (type) {
    case 0x81:
      return {
        _tag: "Welcome",
        version: input.u16(),
        features: featuresOf(input.u32()),
        instance: Buffer.from(input.blob(16, 16)).toString("hex"),
        taprootPid: input.u32(),
        role: input.name(roles),
        brainStarts: input.u32(),
        lastBrainEnd: readBrainEnd(input),
        succession: readSuccession(input),
        processes: input.u32()
      }
    case 0x82:
      return {
        _tag: "Process",
        id: input.u64(),
        pid: input.u32(),
        startTime: input.u64(),
        open: readOpen(input.within(input.u8(), 0, 15)),
        label: input.string(limits.labelBytes),
        exit: input.flag() ? readExit(input) : undefined
      }
    case 0x83:
      return { _tag: "Spawned", request: input.u32(), id: input.u64(), pid: input.u32(), startTime: input.u64() }
    case 0x84:
      return { _tag: "Done", request: input.u32() }
    case 0x85:
      return {
        _tag: "Refused",
        request: input.u32(),
        reason: input.name(reasons, 1),
        errno: input.u32(),
        text: input.string()
      }
    case 0x86:
      return { _tag: "Exited", id: input.u64(), exit: readExit(input) }
    case 0x87:
      return {
        _tag: "Output",
        id: input.u64(),
        stream: input.name(streams, 1),
        offset: input.u64(),
        time: input.u64(),
        end: input.flag(),
        bytes: input.blob(0, limits.windowBytes)
      }
    case 0x88:
      return { _tag: "InputTaken", id: input.u64(), bytes: input.u32(), closed: input.flag() }
    case 0x89:
      return { _tag: "Stopping", why: input.name(whys), action: input.name(actions), deadlineMillis: input.u32() }
    case 0x8a:
      return {
        _tag: "Status",
        request: input.u32(),
        processes: input.u32(),
        exited: input.u32(),
        capacity: input.u32(),
        descriptors: input.u32(),
        orphansReaped: input.u32(),
        refused: input.u32()
      }
    case 0x8b:
      return { _tag: "Fault", text: input.string() }
    default:
      return undefined
  }
}

const readOpen = (bits: number): ProcessFrame["open"] => ({
  stdin: (bits & 1) !== 0,
  stdout: (bits & 2) !== 0,
  stderr: (bits & 4) !== 0,
  pty: (bits & 8) !== 0
})

const writeBrainEnd = (out: FrameWriter, end: BrainEnd): void => {
  out.name(brainEnds, end.how)
  out.i32(end.value)
  out.u64(end.time)
}

const readBrainEnd = (input: FrameReader): BrainEnd => ({
  how: input.name(brainEnds),
  value: input.i32(),
  time: input.u64()
})

const writeSuccession = (out: FrameWriter, { end, fault, state }: Succession): void => {
  out.name(successions, state)
  out.name(successionFaults, fault)
  writeBrainEnd(out, end)
}

const readSuccession = (input: FrameReader): Succession => ({
  state: input.name(successions),
  fault: input.name(successionFaults),
  end: readBrainEnd(input)
})

const featureBits = (features: Hello["features"]): number =>
  protocolFeatures.reduce((bits, feature, index) => (features.includes(feature) ? bits | (1 << index) : bits), 0)

/** A newer taproot has bits that are unknown here. */
const featuresOf = (bits: number): Hello["features"] =>
  protocolFeatures.filter((_, index) => (bits & (1 << index)) !== 0)

const writeExit = (out: FrameWriter, exit: ProcessExit): void => {
  switch (exit._tag) {
    case "Exited":
      out.name(exits, "exited")
      out.i32(exit.code)
      out.u8(0)
      break
    case "Signaled":
      out.name(exits, exit.coreDumped ? "dumped-core" : "signaled")
      out.i32(exit.number)
      out.u8(0)
      break
    case "NotExecuted":
      out.name(exits, "not-executed")
      out.i32(exit.errno)
      out.name(stages, exit.stage, 1)
      break
  }
  out.u64(exit.time)
  out.count64(exit.userMicroseconds)
  out.count64(exit.systemMicroseconds)
  out.count64(exit.maxRssKib)
}

const readExit = (input: FrameReader): ProcessExit => {
  const how = input.name(exits)
  const value = input.i32()
  const stage = input.u8()
  const usage = {
    time: input.u64(),
    userMicroseconds: input.count64(),
    systemMicroseconds: input.count64(),
    maxRssKib: input.count64()
  }
  if (how === "not-executed") {
    const failed = input.named(stages, stage, 1)
    return { _tag: "NotExecuted", stage: failed, errno: value, message: notExecutedMessage(failed, value), ...usage }
  }
  // No stage: the program was reached.
  input.within(stage, 0, 0)
  if (how === "exited") return { _tag: "Exited", code: value, ...usage }
  return { _tag: "Signaled", signal: input.signal(value), number: value, coreDumped: how === "dumped-core", ...usage }
}
