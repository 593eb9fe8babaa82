/** The codec of the protocol: every frame both ways, however the stream is cut, and what is not a frame. */
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type BrainFrame, decodeBrainFrame, encodeBrainFrame, type SpawnFrame } from "../../src/taproot/BrainFrame.ts"
import { decodeTaprootFrame, encodeTaprootFrame } from "../../src/taproot/TaprootFrame.ts"
import { FrameError, FrameSplitter, FrameWriter, maxFrameBytes } from "../../src/taproot/Wire.ts"
import { anyBrainFrame, anyBytes, anyTaprootFrame, brainFrames, chunkLengths, taprootFrames } from "./frames.ts"

type Decode<Frame> = (bytes: Uint8Array) => Result.Result<Frame, FrameError>
type Encode<Frame> = (writer: FrameWriter, frame: Frame) => Result.Result<void, FrameError>

/** The bytes of these frames, one after the other. */
const encodeAll = <Frame>(encode: Encode<Frame>, frames: ReadonlyArray<Frame>): Uint8Array => {
  const writer = new FrameWriter(16)
  for (const frame of frames) assert.deepStrictEqual(encode(writer, frame), Result.void)
  return writer.take()
}

/** What comes out of a stream of bytes that is cut into chunks of these lengths. */
const decodeAll = <Frame>(decode: Decode<Frame>, bytes: Uint8Array, lengths: ReadonlyArray<number>) => {
  const frames: Array<Frame> = []
  const splitter = new FrameSplitter((frame) => Result.map(decode(frame), (decoded) => void frames.push(decoded)))
  let result: Result.Result<void, FrameError> = Result.void
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const end = at + (lengths[turn % lengths.length] ?? 1)
    // A copy whose memory is overwritten afterwards: nothing may be kept of it.
    const chunk = Uint8Array.from(bytes.subarray(at, end))
    result = splitter.push(chunk)
    chunk.fill(0xee)
    at = end
  }
  return { frames, result, complete: splitter.complete }
}

const roundTrips = <Frame>(
  encode: Encode<Frame>,
  decode: Decode<Frame>,
  frames: ReadonlyArray<Frame>,
  lengths: ReadonlyArray<number>
) => {
  const decoded = decodeAll(decode, encodeAll(encode, frames), lengths)
  assert.deepStrictEqual(decoded.frames, [...frames])
  assert.deepStrictEqual(decoded.result, Result.void)
  assert.isTrue(decoded.complete)
}

/** Feeds bytes that mean nothing: whatever happens must be frames or one FrameError, for good. */
const survives = <Frame>(decode: Decode<Frame>, bytes: Uint8Array, lengths: ReadonlyArray<number>) => {
  const { result } = decodeAll(decode, bytes, lengths)
  if (Result.isFailure(result)) assert.instanceOf(result.failure, FrameError)
}

const place = Arbitrary.schema(Schema.Natural)
const byte = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))

const mutated = (bytes: Uint8Array, at: number, value: number): Uint8Array => {
  const changed = Uint8Array.from(bytes)
  if (changed.length > 0) changed[at % changed.length] = value
  return changed
}

const codec = <Frame>(
  name: string,
  each: Readonly<Record<string, Arbitrary.Arbitrary<Frame>>>,
  any: Arbitrary.Arbitrary<Frame>,
  encode: Encode<Frame>,
  decode: Decode<Frame>
): void => {
  describe(name, () => {
    for (const [tag, frame] of Object.entries(each)) {
      it.prop(`${tag} comes out as it went in`, [frame, chunkLengths], ([value, lengths]) =>
        roundTrips(encode, decode, [value], lengths)
      )
    }

    it.prop(
      "many in one stream come out in order, cut anywhere",
      [Arbitrary.array(any, { maxLength: 8 }), chunkLengths],
      ([frames, lengths]) => roundTrips(encode, decode, frames, lengths)
    )

    it.prop(
      "a frame with a changed byte is a frame or a FrameError",
      [any, place, byte, chunkLengths],
      ([frame, at, value, lengths]) => survives(decode, mutated(encodeAll(encode, [frame]), at, value), lengths),
      { arbitrary: { runs: 500 } }
    )

    it.prop(
      "a frame with a bit of another in it is a frame or a FrameError",
      [any, any, place, place, chunkLengths],
      ([one, other, at, length, lengths]) => {
        const target = encodeAll(encode, [one])
        const source = encodeAll(encode, [other])
        target.set(source.subarray(0, length % (target.length - (at % target.length) + 1)), at % target.length)
        survives(decode, target, lengths)
      },
      { arbitrary: { runs: 500 } }
    )

    it.prop(
      "noise behind a good length is a frame or a FrameError",
      [byte, anyBytes, chunkLengths],
      ([type, noise, lengths]) => {
        const bytes = Buffer.alloc(5 + noise.length)
        bytes.writeUInt32LE(1 + noise.length)
        bytes.writeUInt8(type, 4)
        bytes.set(noise, 5)
        survives(decode, bytes, lengths)
      },
      { arbitrary: { runs: 500 } }
    )

    it.prop("a frame that is cut short or goes on is a FrameError", [any, place, byte], ([frame, cut, more]) => {
      const body = encodeAll(encode, [frame]).subarray(4)
      assert.isTrue(Result.isFailure(decode(body.subarray(0, cut % body.length))))
      assert.isTrue(Result.isFailure(decode(Uint8Array.of(...body, more))))
    })
  })
}

codec("what the brain says", brainFrames, anyBrainFrame, encodeBrainFrame, decodeBrainFrame)
codec("what taproot says", taprootFrames, anyTaprootFrame, encodeTaprootFrame, decodeTaprootFrame)

describe("bounds", () => {
  const splitter = (received: Array<number>) =>
    new FrameSplitter((frame) => {
      received.push(frame.length)
      return Result.void
    })

  const length = (value: number): Buffer => {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    return bytes
  }

  it("a length of nothing or too much ends the stream, for good", () => {
    for (const wrong of [0, maxFrameBytes + 1, 0xffff_ffff]) {
      const received: Array<number> = []
      const split = splitter(received)
      const first = split.push(length(wrong))
      assert.isTrue(Result.isFailure(first))
      assert.strictEqual(split.push(Uint8Array.of(1, 0, 0, 0, 2)), first)
      assert.deepStrictEqual(received, [])
    }
  })

  it("the longest frame passes, in one piece and in many", () => {
    const received: Array<number> = []
    const split = splitter(received)
    const frame = Buffer.concat([length(maxFrameBytes), Buffer.alloc(maxFrameBytes, 7)])
    assert.deepStrictEqual(split.push(frame), Result.void)
    for (let at = 0; at < frame.length; at += 1_000) split.push(frame.subarray(at, at + 1_000))
    assert.deepStrictEqual(received, [maxFrameBytes, maxFrameBytes])
    assert.isTrue(split.complete)
  })

  it("a list that announces four thousand million items costs nothing", () => {
    const writer = new FrameWriter()
    const spawn = writer.frame("SPAWN", 0x03, (out) => {
      out.u32(1)
      out.string("label")
      out.u32(0xffff_ffff)
    })
    assert.deepStrictEqual(spawn, Result.void)
    assert.isTrue(Result.isFailure(decodeBrainFrame(writer.take().subarray(4))))
  })

  const spawn: SpawnFrame = {
    _tag: "Spawn",
    request: 1,
    label: "label",
    argv: ["true"],
    environment: [],
    directory: "",
    identity: undefined,
    rlimits: [],
    cgroups: [],
    session: false,
    stdin: { _tag: "Null" },
    stdout: { _tag: "Null" },
    stderr: { _tag: "Null" }
  }

  it("what breaks a bound is not sent, and what was written before it stays whole", () => {
    const broken: ReadonlyArray<BrainFrame> = [
      { ...spawn, label: "é".repeat(65) },
      { ...spawn, label: "a\0b" },
      { ...spawn, argv: [] },
      { ...spawn, argv: ["echo", "a\0b"] },
      { ...spawn, argv: Array.from({ length: 4_097 }, () => "x") },
      { ...spawn, argv: Array.from({ length: 4_096 }, () => "x".repeat(100)) },
      { ...spawn, argv: ["x".repeat(1_000_000)] },
      { ...spawn, environment: ["€".repeat(100_000)] },
      { ...spawn, identity: { uid: -1, gid: 0, groups: [] } },
      { ...spawn, identity: { uid: 0, gid: 0.5, groups: [] } },
      { ...spawn, cgroups: Array.from({ length: 17 }, () => "/sys/fs/cgroup") },
      { _tag: "Read", id: 1n, stream: "stdout", consumed: -1n, limit: 1 },
      { _tag: "Read", id: 1n, stream: "stdout", consumed: 0n, limit: 65_537 },
      { _tag: "Input", id: 1n, bytes: new Uint8Array(65_537) },
      { _tag: "WindowSize", id: 1n, rows: 65_536, columns: 1 }
    ]
    const writer = new FrameWriter(16)
    assert.deepStrictEqual(encodeBrainFrame(writer, spawn), Result.void)
    for (const frame of broken)
      assert.isTrue(Result.isFailure(encodeBrainFrame(writer, frame)), JSON.stringify(frame._tag))
    const after: BrainFrame = { _tag: "Heartbeat", sequence: 7n }
    assert.deepStrictEqual(encodeBrainFrame(writer, after), Result.void)
    assert.deepStrictEqual(decodeAll(decodeBrainFrame, writer.take(), [1_000]).frames, [spawn, after])
  })
})
