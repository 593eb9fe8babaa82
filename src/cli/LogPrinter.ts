/**
 * Prints log entries: the bytes as they are, each to the stream it came from, or one JSON object per entry with `-o json`.
 *
 * A partial entry has no line break of its own; the next entry of its stream goes on with it, and gets no second time.
 */
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt"
import * as Effect from "effect/Effect"
import { type LogEntry, LogEntrySchema, LogStream } from "../../proto/generated/ironwood/v1/container_pb.ts"
import type { ReaderGone } from "./Failure.ts"
import { type Output as Format, OutputSetting, style as currentStyle } from "./Globals.ts"
import * as Output from "./Output.ts"
import { Screen } from "./Screen.ts"
import type { Style } from "./Style.ts"

/** RFC 3339 with all nine digits, as CRI log files have it. */
export const rfc3339Nano = (time: Timestamp): string =>
  `${timestampDate({ ...time, nanos: 0 })
    .toISOString()
    .slice(0, 19)}.${String(time.nanos).padStart(9, "0")}Z`

const newline = new Uint8Array([10])

/** Prints entries of one log in order. */
export class LogPrinter {
  readonly #screen: Screen["Service"]
  readonly #style: Style
  readonly #format: Format
  readonly #timestamps: boolean
  /** The streams whose last entry was partial: the next one goes on with its line. */
  readonly #open = new Set<LogStream>()

  private constructor(screen: Screen["Service"], style: Style, format: Format, timestamps: boolean) {
    this.#screen = screen
    this.#style = style
    this.#format = format
    this.#timestamps = timestamps
  }

  /** A printer for the current screen and `-o`. */
  static readonly make = Effect.fnUntraced(function* (options: { readonly timestamps: boolean }) {
    return new LogPrinter(yield* Screen, yield* currentStyle, yield* OutputSetting, options.timestamps)
  })

  /** Prints some entries; neighbours of the same stream in one write. */
  readonly print = (entries: ReadonlyArray<LogEntry>): Effect.Effect<void, ReaderGone> => {
    const screen = this.#screen
    const text = (entry: LogEntry) => this.#bytes(entry)
    const format = this.#format
    return Effect.gen(function* () {
      let pieces: Array<Uint8Array> = []
      let stream: LogStream = LogStream.UNSPECIFIED
      const flush = Effect.suspend(() => {
        const bytes = Buffer.concat(pieces)
        pieces = []
        if (bytes.length === 0) return Effect.void
        return stream === LogStream.STDERR && format === "table" ? screen.writeError(bytes) : screen.write(bytes)
      })
      for (const entry of entries) {
        if (entry.stream !== stream) {
          yield* flush
          stream = entry.stream
        }
        pieces.push(...text(entry))
      }
      yield* flush
    })
  }

  #bytes(entry: LogEntry): ReadonlyArray<Uint8Array> {
    if (this.#format !== "table") {
      return [Buffer.from(Output.itemText(Output.json(LogEntrySchema, entry), this.#format))]
    }
    const goesOn = this.#open.has(entry.stream)
    if (entry.partial) this.#open.add(entry.stream)
    else this.#open.delete(entry.stream)
    const time =
      this.#timestamps && !goesOn && entry.time !== undefined
        ? [Buffer.from(`${this.#style.dim(rfc3339Nano(entry.time))} `)]
        : []
    return [...time, entry.line, ...(entry.partial ? [] : [newline])]
  }
}
