/**
 * The primitive encoding that PROTOCOL.md describes under "Encoding": bounded reading, writing and splitting of
 * length-prefixed little-endian frames. What the frames mean is in
 * `BrainFrame.ts` and `TaprootFrame.ts`.
 *
 * Neither side throws. The reader and the writer keep the first problem and go on with zeros and empty values, so that
 * the code of a frame reads as a list of its fields; whoever opened them asks for the problem at the end. That is why
 * every loop over a count must look at `ok`.
 */
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { signalName, type SignalName } from "./Signals.ts"

/** The versions of the protocol that this brain speaks: PROTOCOL.md, "Compatibility". */
export const protocolVersion = 2
export const oldestProtocolVersion = 2

/** What has come to the protocol without a new version, in the order of their bits. */
export const protocolFeatures = ["module", "watchdog", "successor", "stop"] as const
export type ProtocolFeature = (typeof protocolFeatures)[number]

/** Bounds of PROTOCOL.md that callers must know, too. */
export const limits = {
  labelBytes: 128,
  arguments: 4_096,
  environment: 4_096,
  groups: 64,
  rlimits: 16,
  cgroups: 16,
  successorArguments: 32,
  /** Of one OUTPUT, and of all INPUT on the way to one process. */
  windowBytes: 65_536
} as const

// Names for numbers that occur in frames of both directions, from 0 or from the base given where they are used.
export const outputStreams = ["stdout", "stderr"] as const
export const shutdownActions = ["end", "power-off", "restart", "halt", "kexec"] as const

/** The longest frame: type byte and payload, without the length in front. */
export const maxFrameBytes = 262_144

/** A frame that breaks the protocol, coming in (the channel is over) or going out (it was not sent; `frame` is then what the caller asked for). */
export class FrameError extends Schema.TaggedError<FrameError>()("FrameError", {
  frame: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.frame}: ${this.problem}`
  }
}

/** Takes the fields of one frame's payload. */
export class FrameReader {
  readonly #bytes: Buffer
  #position = 0
  #problem: string | undefined = undefined

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** False as soon as something was wrong: leave loops. */
  get ok(): boolean {
    return this.#problem === undefined
  }

  /** What was wrong, also when bytes are left over. Call it after the last field. */
  get problem(): string | undefined {
    if (this.#problem === undefined && this.#position !== this.#bytes.length) {
      return `${this.#bytes.length - this.#position} bytes left over`
    }
    return this.#problem
  }

  fail(problem: string): void {
    this.#problem ??= `${problem} at byte ${this.#position}`
  }

  /** The start of the next `count` bytes, or -1 when there are fewer. */
  #take(count: number): number {
    const start = this.#position
    if (this.#problem !== undefined || count > this.#bytes.length - start) {
      this.fail("cut short")
      return -1
    }
    this.#position = start + count
    return start
  }

  u8(): number {
    const at = this.#take(1)
    return at < 0 ? 0 : this.#bytes.readUInt8(at)
  }

  u16(): number {
    const at = this.#take(2)
    return at < 0 ? 0 : this.#bytes.readUInt16LE(at)
  }

  u32(): number {
    const at = this.#take(4)
    return at < 0 ? 0 : this.#bytes.readUInt32LE(at)
  }

  i32(): number {
    const at = this.#take(4)
    return at < 0 ? 0 : this.#bytes.readInt32LE(at)
  }

  u64(): bigint {
    const at = this.#take(8)
    return at < 0 ? 0n : this.#bytes.readBigUInt64LE(at)
  }

  /** A u64 that counts something countable: at most 2^53 - 1. */
  count64(): number {
    const value = this.u64()
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value)
    this.fail(`${value} is no count`)
    return 0
  }

  /** A u8, u16 or u32 (`value`) that must lie within bounds. */
  within(value: number, minimum: number, maximum: number): number {
    if (value >= minimum && value <= maximum) return value
    this.fail(`${value} is not within ${minimum} and ${maximum}`)
    return minimum
  }

  flag(): boolean {
    return this.within(this.u8(), 0, 1) === 1
  }

  /** A u8 that stands for one of these names; the first is `base`. */
  name<const Names extends readonly [string, ...Array<string>]>(names: Names, base = 0): Names[number] {
    return this.named(names, this.u8(), base)
  }

  /** The same for a number that was read before. */
  named<const Names extends readonly [string, ...Array<string>]>(
    names: Names,
    value: number,
    base: number
  ): Names[number] {
    const found = names[value - base]
    if (found !== undefined) return found
    this.fail(`${value} is none of ${names.join(", ")}`)
    return names[0]
  }

  /** A signal number, 1 to 64, as its name. */
  signal(value: number): SignalName {
    const name = signalName(value)
    if (Option.isSome(name)) return name.value
    this.fail(`${value} is no signal`)
    return "SIGKILL"
  }

  string(maximum = maxFrameBytes): string {
    const length = this.within(this.u32(), 0, maximum)
    const at = this.#take(length)
    if (at < 0) return ""
    const bytes = this.#bytes.subarray(at, at + length)
    if (bytes.includes(0)) this.fail("a NUL in a string")
    return bytes.toString("utf8")
  }

  /** A copy, so that a small blob does not keep the socket's whole read buffer alive. */
  blob(minimum: number, maximum: number): Uint8Array {
    const length = this.within(this.u32(), minimum, maximum)
    const at = this.#take(length)
    return at < 0 ? new Uint8Array(0) : new Uint8Array(this.#bytes.subarray(at, at + length))
  }

  list<A>(minimum: number, maximum: number, item: () => A): Array<A> {
    const count = this.within(this.u32(), minimum, maximum)
    const items: Array<A> = []
    while (items.length < count && this.ok) items.push(item())
    return items
  }
}

/** Decodes one frame as a `FrameSplitter` gives it (type byte and payload); `read` returns undefined for a type it does not know. */
export const decodeFrame = <Frame>(
  frame: Uint8Array,
  read: (input: FrameReader, type: number) => Frame | undefined
): Result.Result<Frame, FrameError> => {
  const input = new FrameReader(frame)
  const type = input.u8()
  const decoded = read(input, type)
  const problem = decoded === undefined ? "unknown type" : input.problem
  return decoded !== undefined && problem === undefined
    ? Result.succeed(decoded)
    : Result.fail(
        new FrameError({ frame: `frame of type 0x${type.toString(16).padStart(2, "0")}`, problem: problem ?? "" })
      )
}

/** Puts frames one after the other into one growing buffer, which is then written in one go. */
export class FrameWriter {
  #bytes: Buffer
  #position = 0
  #frame = 0
  #problem: string | undefined = undefined

  constructor(initialBytes = 4_096) {
    this.#bytes = Buffer.allocUnsafe(initialBytes)
  }

  /** True when no frame is waiting to be taken. */
  get empty(): boolean {
    return this.#position === 0
  }

  /** Hands over the frames written so far and starts a new buffer (the old one belongs to the socket until it is written). */
  take(): Uint8Array {
    const bytes = this.#bytes.subarray(0, this.#position)
    this.#bytes = Buffer.allocUnsafe(4_096)
    this.#position = 0
    return bytes
  }

  /** Writes one whole frame, or nothing and the error. `name` is for the error's text. */
  frame(name: string, type: number, fields: (writer: FrameWriter) => void): Result.Result<void, FrameError> {
    this.#frame = this.#position
    this.#problem = undefined
    this.u32(0)
    this.u8(type)
    fields(this)
    const length = this.#position - this.#frame - 4
    if (length > maxFrameBytes) this.fail(`more than ${maxFrameBytes} bytes in all`)
    if (this.#problem !== undefined) {
      this.#position = this.#frame
      return Result.fail(new FrameError({ frame: name, problem: this.#problem }))
    }
    this.#bytes.writeUInt32LE(length, this.#frame)
    return Result.void
  }

  fail(problem: string): void {
    this.#problem ??= problem
  }

  /** Makes room and returns where it starts, or -1 when the frame has a problem already. */
  #room(count: number): number {
    if (this.#problem !== undefined) return -1
    // A frame that has grown past the limit is given up at once instead of at its end: its size bounds the buffer.
    if (this.#position - this.#frame > maxFrameBytes + 4) {
      this.fail(`more than ${maxFrameBytes} bytes in all`)
      return -1
    }
    const at = this.#position
    if (at + count > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, at + count))
      this.#bytes.copy(larger, 0, 0, at)
      this.#bytes = larger
    }
    this.#position = at + count
    return at
  }

  #integer(value: number, minimum: number, maximum: number, bytes: number): number {
    if (!Number.isInteger(value) || value < minimum || value > maximum) {
      this.fail(`${value} is no whole number within ${minimum} and ${maximum}`)
    }
    return this.#room(bytes)
  }

  u8(value: number, minimum = 0, maximum = 0xff): void {
    const at = this.#integer(value, minimum, maximum, 1)
    if (at >= 0) this.#bytes.writeUInt8(value, at)
  }

  u16(value: number, minimum = 0, maximum = 0xffff): void {
    const at = this.#integer(value, minimum, maximum, 2)
    if (at >= 0) this.#bytes.writeUInt16LE(value, at)
  }

  u32(value: number, minimum = 0, maximum = 0xffff_ffff): void {
    const at = this.#integer(value, minimum, maximum, 4)
    if (at >= 0) this.#bytes.writeUInt32LE(value, at)
  }

  i32(value: number): void {
    const at = this.#integer(value, -0x8000_0000, 0x7fff_ffff, 4)
    if (at >= 0) this.#bytes.writeInt32LE(value, at)
  }

  u64(value: bigint): void {
    if (value < 0n || value > 0xffff_ffff_ffff_ffffn) this.fail(`${value} is no u64`)
    const at = this.#room(8)
    if (at >= 0) this.#bytes.writeBigUInt64LE(value, at)
  }

  count64(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) this.fail(`${value} is no count`)
    else this.u64(BigInt(value))
  }

  flag(value: boolean): void {
    this.u8(value ? 1 : 0)
  }

  name<const Names extends readonly [string, ...Array<string>]>(names: Names, value: Names[number], base = 0): void {
    this.u8(names.indexOf(value) + base)
  }

  string(value: string, maximum = maxFrameBytes): void {
    if (value.includes("\0")) return this.fail(`a NUL in ${JSON.stringify(value.slice(0, 100))}`)
    // No character takes less than a byte: what is too long already is not even converted.
    if (value.length > maximum)
      return this.fail(`${JSON.stringify(value.slice(0, 40))}… is longer than ${maximum} bytes`)
    const at = this.#room(4 + value.length * 3)
    if (at < 0) return
    const length = this.#bytes.write(value, at + 4, "utf8")
    if (length > maximum) this.fail(`${JSON.stringify(value.slice(0, 40))}… is longer than ${maximum} bytes`)
    this.#bytes.writeUInt32LE(length, at)
    this.#position = at + 4 + length
  }

  blob(value: Uint8Array, minimum: number, maximum: number): void {
    this.u32(value.length, minimum, maximum)
    const at = this.#room(value.length)
    if (at >= 0) this.#bytes.set(value, at)
  }

  list<A>(items: ReadonlyArray<A>, minimum: number, maximum: number, item: (value: A) => void): void {
    this.u32(items.length, minimum, maximum)
    if (this.#problem !== undefined) return
    for (const value of items) item(value)
  }
}

/**
 * Cuts a byte stream into frames, whatever the chunks are. `onFrame` gets type and payload without the length, a view
 * that is valid during the call only. Holds at most one incomplete frame, and allocates for it only after its length
 * was found good. After the first error the stream is over: every later push returns the same error.
 */
export class FrameSplitter {
  readonly #onFrame: (frame: Uint8Array) => Result.Result<void, FrameError>
  readonly #length = Buffer.alloc(4)
  #lengthBytes = 0
  #frame: Buffer | undefined = undefined
  #frameBytes = 0
  #failed: Result.Result<void, FrameError> | undefined = undefined

  constructor(onFrame: (frame: Uint8Array) => Result.Result<void, FrameError>) {
    this.#onFrame = onFrame
  }

  push(chunk: Uint8Array): Result.Result<void, FrameError> {
    let at = 0
    while (at < chunk.length && this.#failed === undefined) {
      if (this.#frame !== undefined) {
        at += this.#fill(this.#frame, chunk, at)
        continue
      }
      const copied = Math.min(4 - this.#lengthBytes, chunk.length - at)
      this.#length.set(chunk.subarray(at, at + copied), this.#lengthBytes)
      this.#lengthBytes += copied
      at += copied
      if (this.#lengthBytes < 4) break
      const length = this.#length.readUInt32LE(0)
      this.#lengthBytes = 0
      if (length < 1 || length > maxFrameBytes) {
        this.#settle(
          Result.fail(
            new FrameError({ frame: "frame", problem: `length ${length} is not within 1 and ${maxFrameBytes}` })
          )
        )
      } else if (chunk.length - at >= length) {
        this.#settle(this.#onFrame(chunk.subarray(at, at + length)))
        at += length
      } else {
        this.#frame = Buffer.allocUnsafe(length)
        this.#frameBytes = 0
      }
    }
    return this.#failed ?? Result.void
  }

  /** True between frames: the only place where a stream may end. */
  get complete(): boolean {
    return this.#frame === undefined && this.#lengthBytes === 0
  }

  #fill(frame: Buffer, chunk: Uint8Array, at: number): number {
    const copied = Math.min(frame.length - this.#frameBytes, chunk.length - at)
    frame.set(chunk.subarray(at, at + copied), this.#frameBytes)
    this.#frameBytes += copied
    if (this.#frameBytes === frame.length) {
      this.#frame = undefined
      this.#settle(this.#onFrame(frame))
    }
    return copied
  }

  #settle(result: Result.Result<void, FrameError>): void {
    if (Result.isFailure(result)) this.#failed = result
  }
}
