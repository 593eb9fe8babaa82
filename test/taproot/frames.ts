/** Generators of every frame of the protocol, within its bounds, in both directions. */
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import type { BrainFrame, ErrorStdio, FileStdio, InputStdio, OutputStdio } from "../../src/taproot/BrainFrame.ts"
import { ExecStage, notExecutedMessage, type ProcessExit } from "../../src/taproot/ProcessExit.ts"
import { type Hello, RefusalReason } from "../../src/taproot/Processes.ts"
import { SignalName, signalNumber } from "../../src/taproot/Signals.ts"
import type { TaprootFrame } from "../../src/taproot/TaprootFrame.ts"

const integer = (minimum: number, maximum: number) =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))
const u8 = integer(0, 0xff)
const u16 = integer(0, 0xffff)
const u32 = integer(0, 0xffff_ffff)
const i32 = integer(-0x8000_0000, 0x7fff_ffff)
const count = integer(0, Number.MAX_SAFE_INTEGER)
const u64 = Arbitrary.schema(
  Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: 0n, maximum: 0xffff_ffff_ffff_ffffn }))
)
const flag = Arbitrary.schema(Schema.Boolean)
const text = Arbitrary.map(Arbitrary.schema(Schema.String), (value) => value.replaceAll("\0", "").toWellFormed())
// At most 32 characters of at most four bytes.
const label = Arbitrary.map(text, (value) => value.slice(0, 32).toWellFormed())
const bytes = Arbitrary.map(Arbitrary.array(u8, { maxLength: 300 }), (values) => Uint8Array.from(values))
const texts = Arbitrary.array(text, { maxLength: 5 })
const oneOf = <const Values extends ReadonlyArray<string>>(values: Values) => Arbitrary.schema(Schema.Literals(values))

/** Any of these. */
const either = <A>(choices: ReadonlyArray<Arbitrary.Arbitrary<A>>): Arbitrary.Arbitrary<A> =>
  Arbitrary.flatMap(integer(0, choices.length - 1), (index) => {
    const chosen = choices[index]
    if (chosen === undefined) throw new RangeError(`no choice ${index}`)
    return chosen
  })

const constant = <const A>(value: A) => Arbitrary.Constant(value)
const stream = oneOf(["stdout", "stderr"])
const action = oneOf(["end", "power-off", "restart", "halt", "kexec"])
const signal = Arbitrary.schema(SignalName)

const file: Arbitrary.Arbitrary<FileStdio> = Arbitrary.all({
  _tag: constant("File"),
  flags: u32,
  mode: u32,
  path: text
})
const stdin = either<InputStdio>([
  Arbitrary.all({ _tag: oneOf(["Null", "Stream", "Inherit"]) }),
  file,
  Arbitrary.all({ _tag: constant("Pty"), rows: u16, columns: u16 }),
  Arbitrary.all({ _tag: constant("Console"), path: text })
])
const stdout = either<OutputStdio>([
  Arbitrary.all({ _tag: oneOf(["Null", "Stream", "Inherit", "Pty", "Console"]) }),
  file
])
const stderr = either<ErrorStdio>([stdout, constant({ _tag: "Stdout" })])

const usage = { time: u64, userMicroseconds: count, systemMicroseconds: count, maxRssKib: count }
const exit = either<ProcessExit>([
  Arbitrary.all({ _tag: constant("Exited"), code: i32, ...usage }),
  Arbitrary.map(Arbitrary.all({ signal, coreDumped: flag, ...usage }), (ended) => ({
    _tag: "Signaled",
    number: signalNumber(ended.signal),
    ...ended
  })),
  Arbitrary.map(Arbitrary.all({ stage: Arbitrary.schema(ExecStage), errno: i32, ...usage }), (ended) => ({
    _tag: "NotExecuted",
    message: notExecutedMessage(ended.stage, ended.errno),
    ...ended
  }))
])

export const brainFrames: {
  readonly [Tag in BrainFrame["_tag"]]: Arbitrary.Arbitrary<Extract<BrainFrame, { readonly _tag: Tag }>>
} = {
  Hello: Arbitrary.all({ _tag: constant("Hello"), version: u16, oldest: u16 }),
  Heartbeat: Arbitrary.all({ _tag: constant("Heartbeat"), sequence: u64 }),
  Spawn: Arbitrary.all({
    _tag: constant("Spawn"),
    request: u32,
    label,
    argv: Arbitrary.array(text, { minLength: 1, maxLength: 5 }),
    environment: texts,
    directory: text,
    identity: either([
      constant(undefined),
      Arbitrary.all({ uid: u32, gid: u32, groups: Arbitrary.array(u32, { maxLength: 64 }) })
    ]),
    rlimits: Arbitrary.array(Arbitrary.all({ resource: u8, soft: u64, hard: u64 }), { maxLength: 16 }),
    cgroups: texts,
    session: flag,
    stdin,
    stdout,
    stderr
  }),
  Claim: Arbitrary.all({ _tag: constant("Claim"), request: u32, pid: u32, startTime: u64, label, streamsFrom: u64 }),
  Signal: Arbitrary.all({ _tag: constant("Signal"), request: u32, id: u64, signal, group: flag }),
  Input: Arbitrary.all({ _tag: constant("Input"), id: u64, bytes }),
  InputEnd: Arbitrary.all({ _tag: constant("InputEnd"), id: u64 }),
  Read: Arbitrary.all({ _tag: constant("Read"), id: u64, stream, consumed: u64, limit: integer(1, 65_536) }),
  WindowSize: Arbitrary.all({ _tag: constant("WindowSize"), id: u64, rows: u16, columns: u16 }),
  Acknowledge: Arbitrary.all({ _tag: constant("Acknowledge"), id: u64 }),
  Mount: Arbitrary.all({
    _tag: constant("Mount"),
    request: u32,
    source: text,
    target: text,
    type: text,
    flags: u64,
    data: text,
    directory: text
  }),
  Unmount: Arbitrary.all({ _tag: constant("Unmount"), request: u32, target: text, flags: u32 }),
  Shutdown: Arbitrary.all({ _tag: constant("Shutdown"), action }),
  Stop: Arbitrary.all({ _tag: constant("Stop"), action }),
  StatusRequest: Arbitrary.all({ _tag: constant("StatusRequest"), request: u32 }),
  Module: Arbitrary.all({ _tag: constant("Module"), request: u32, file: text, parameters: text }),
  Watchdog: Arbitrary.all({ _tag: constant("Watchdog"), request: u32, timeoutSeconds: u32, patienceMillis: u32 }),
  Succeed: Arbitrary.all({
    _tag: constant("Succeed"),
    request: u32,
    patienceMillis: u32,
    tries: u8,
    argv: Arbitrary.array(text, { minLength: 1, maxLength: 32 })
  }),
  Confirm: Arbitrary.all({ _tag: constant("Confirm"), request: u32 })
}

const brainEnd = Arbitrary.all({
  how: oneOf(["none", "exited", "signaled", "missed-heartbeat", "protocol-fault", "never-said-hello", "late"]),
  value: i32,
  time: u64
})

export const taprootFrames: {
  readonly [Tag in TaprootFrame["_tag"]]: Arbitrary.Arbitrary<Extract<TaprootFrame, { readonly _tag: Tag }>>
} = {
  Welcome: Arbitrary.all({
    _tag: constant("Welcome"),
    version: u16,
    instance: Arbitrary.map(Arbitrary.array(u8, { minLength: 16, maxLength: 16 }), (values) =>
      Buffer.from(values).toString("hex")
    ),
    taprootPid: u32,
    role: oneOf(["parent", "init", "guest"]),
    brainStarts: u32,
    lastBrainEnd: brainEnd,
    features: either([
      constant<Hello["features"]>([]),
      constant<Hello["features"]>(["module"]),
      constant<Hello["features"]>(["watchdog", "successor"])
    ]),
    succession: Arbitrary.all({
      state: oneOf(["none", "trial", "proven", "given-up"]),
      fault: oneOf(["none", "ended", "late", "protocol", "unstable"]),
      end: brainEnd
    }),
    processes: u32
  }),
  Process: Arbitrary.all({
    _tag: constant("Process"),
    id: u64,
    pid: u32,
    startTime: u64,
    open: Arbitrary.all({ stdin: flag, stdout: flag, stderr: flag, pty: flag }),
    label,
    exit: either([constant(undefined), exit])
  }),
  Spawned: Arbitrary.all({ _tag: constant("Spawned"), request: u32, id: u64, pid: u32, startTime: u64 }),
  Done: Arbitrary.all({ _tag: constant("Done"), request: u32 }),
  Refused: Arbitrary.all({
    _tag: constant("Refused"),
    request: u32,
    reason: Arbitrary.schema(RefusalReason),
    errno: u32,
    text
  }),
  Exited: Arbitrary.all({ _tag: constant("Exited"), id: u64, exit }),
  Output: Arbitrary.all({ _tag: constant("Output"), id: u64, stream, offset: u64, time: u64, end: flag, bytes }),
  InputTaken: Arbitrary.all({ _tag: constant("InputTaken"), id: u64, bytes: u32, closed: flag }),
  Stopping: Arbitrary.all({
    _tag: constant("Stopping"),
    why: oneOf(["signal", "lifeline", "power-button"]),
    action,
    deadlineMillis: u32
  }),
  Status: Arbitrary.all({
    _tag: constant("Status"),
    request: u32,
    processes: u32,
    exited: u32,
    capacity: u32,
    descriptors: u32,
    orphansReaped: u32,
    refused: u32
  }),
  Fault: Arbitrary.all({ _tag: constant("Fault"), text })
}

export const anyBrainFrame: Arbitrary.Arbitrary<BrainFrame> = either<BrainFrame>(Object.values(brainFrames))
export const anyTaprootFrame: Arbitrary.Arbitrary<TaprootFrame> = either<TaprootFrame>(Object.values(taprootFrames))
/** Where to cut a byte stream into chunks: the lengths of the chunks, over and over. */
export const chunkLengths = Arbitrary.array(integer(1, 40), { minLength: 1, maxLength: 8 })
export const anyBytes = bytes
