/**
 * The lines of the QEMU Machine Protocol (docs/interop/qmp-spec.rst), decoded: one JSON object each.
 *
 * The VMM is the first thing that a hostile guest takes over, so its words are a stranger's: a line has at most
 * {@link LONGEST_LINE} bytes, and what is no message of the protocol ends the connection.
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

export const LONGEST_LINE = 1_048_576

const Greeting = Schema.Struct({
  QMP: Schema.Struct({
    version: Schema.Struct({
      qemu: Schema.Struct({ major: Schema.Int, minor: Schema.Int, micro: Schema.Int })
    })
  })
})

const Returned = Schema.Struct({ return: Schema.Unknown, id: Schema.optionalKey(Schema.Unknown) })

const Refused = Schema.Struct({
  error: Schema.Struct({ class: Schema.String, desc: Schema.String }),
  id: Schema.optionalKey(Schema.Unknown)
})

const Event = Schema.Struct({
  event: Schema.String,
  data: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)),
  timestamp: Schema.Struct({ seconds: Schema.Finite, microseconds: Schema.Finite })
})

export type QmpMessage =
  | { readonly _tag: "Greeting"; readonly version: string }
  | { readonly _tag: "Returned"; readonly id: unknown; readonly value: unknown }
  | { readonly _tag: "Refused"; readonly id: unknown; readonly kind: string; readonly detail: string }
  | QmpEvent

export interface QmpEvent {
  readonly _tag: "Event"
  readonly name: string
  readonly data: Readonly<Record<string, unknown>>
  /** Milliseconds since 1970, of the host's clock. */
  readonly time: number
}

const decodeJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))
const decodeGreeting = Schema.decodeUnknownResult(Greeting)
const decodeReturned = Schema.decodeUnknownResult(Returned)
const decodeRefused = Schema.decodeUnknownResult(Refused)
const decodeEvent = Schema.decodeUnknownResult(Event)

/** What is wrong with what came, in words. */
export type Broken = string

/** By the word that only messages of that kind have: most are no greetings, and a union would try each kind in turn. */
const decodeMessage = (value: unknown): Result.Result<QmpMessage, unknown> => {
  if (Predicate.hasProperty(value, "event")) {
    return Result.map(decodeEvent(value), ({ data = {}, event, timestamp }) => ({
      _tag: "Event",
      name: event,
      data,
      time: timestamp.seconds * 1000 + timestamp.microseconds / 1000
    }))
  }
  if (Predicate.hasProperty(value, "return")) {
    return Result.map(decodeReturned(value), (found) => ({ _tag: "Returned", id: found.id, value: found.return }))
  }
  if (Predicate.hasProperty(value, "error")) {
    return Result.map(decodeRefused(value), ({ error, id }) => ({
      _tag: "Refused",
      id,
      kind: error.class,
      detail: error.desc
    }))
  }
  return Result.map(decodeGreeting(value), ({ QMP: { version } }) => {
    const { major, micro, minor } = version.qemu
    return { _tag: "Greeting", version: `${major}.${minor}.${micro}` }
  })
}

const messageOf = (line: string): Result.Result<QmpMessage, Broken> =>
  Result.mapError(
    Result.flatMap(decodeJson(line), decodeMessage),
    () => `no message of the protocol: ${line.slice(0, 200)}`
  )

const NEWLINE = 0x0a

/** Puts the pieces of a connection together again. After a failure it is of no use any more. */
export class QmpLines {
  #pieces: Array<Buffer> = []
  #length = 0

  /** The messages that are whole with these bytes, in order. */
  push(bytes: Uint8Array): Result.Result<ReadonlyArray<QmpMessage>, Broken> {
    const messages: Array<QmpMessage> = []
    let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      if (this.#length + end > LONGEST_LINE) return Result.fail(`a line of more than ${LONGEST_LINE} bytes`)
      const line = Buffer.concat([...this.#pieces, rest.subarray(0, end)])
        .toString("utf8")
        .trim()
      this.#pieces = []
      this.#length = 0
      rest = rest.subarray(end + 1)
      if (line === "") continue
      const message = messageOf(line)
      if (Result.isFailure(message)) return Result.fail(message.failure)
      messages.push(message.success)
    }
    if (rest.length > 0) {
      this.#length += rest.length
      // a copy: the rest of the chunk need not be kept for it
      this.#pieces.push(Buffer.from(rest))
    }
    return this.#length > LONGEST_LINE
      ? Result.fail(`a line of more than ${LONGEST_LINE} bytes`)
      : Result.succeed(messages)
  }
}
