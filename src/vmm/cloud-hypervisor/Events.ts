/**
 * What Cloud Hypervisor says by itself, in a file that outlives it and the brain: the record of its event monitor, JSON objects one
 * after another. From it comes what its API does not tell: that the guest panicked, rebooted, or has been there and is gone.
 *
 * A guest can make it say things as often as it likes (it resets a device, it panics on and on). So the record is read in pieces of
 * at most {@link PIECE} bytes, and when it is longer than {@link LONGEST} it is begun anew with what is known from it; its writer
 * writes at its end, wherever that is.
 *
 * Traps: what is said between the last look and the new beginning is lost, in a machine that floods its record. A record that is
 * not JSON is passed over to the next.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { watch } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { MonitorEvent } from "./Api.ts"

/** In bytes. */
export const LONGEST = 1_048_576
const PIECE = 262_144

/** What the record comes to. */
export interface Summary {
  /** The guest has been started at least once. */
  readonly booted: boolean
  /** It panicked since it was started, or has rebooted, the last time. */
  readonly panicked: boolean
  /** It was shut down: by itself or somebody. */
  readonly shutDown: boolean
  /** The VMM was told to end. */
  readonly ended: boolean
  /** How often the machine was reset. */
  readonly reboots: number
}

export const nothing: Summary = { booted: false, panicked: false, shutDown: false, ended: false, reboots: 0 }

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(MonitorEvent))

/** The state × event table. */
export const after = (summary: Summary, { event, properties, source }: MonitorEvent): Summary => {
  switch (`${source}.${event}`) {
    case "vm.booted":
    // one that goes on with a memory was booted in another life
    case "vm.restored":
      return { ...summary, booted: true, shutDown: false }
    // what kernels do after a panic is no news: it panicked
    case "vm.rebooted":
      return { ...summary, booted: true, shutDown: false, reboots: summary.reboots + 1 }
    case "vm.shutdown":
      return { ...summary, shutDown: true }
    case "vmm.shutdown":
      return { ...summary, ended: true }
    case "guest.panic":
      // `crash_loaded`: another kernel takes over, to save the memory of the one that panicked; its end comes after
      return (properties?.["event"] ?? "panic") === "panic" ? { ...summary, panicked: true } : summary
    default:
      return summary
  }
}

/** A record from which the same summary comes. */
const recordOf = (summary: Summary): string => {
  const events: ReadonlyArray<readonly [said: boolean, source: string, event: string]> = [
    [summary.booted, "vm", "booted"],
    [summary.panicked, "guest", "panic"],
    [summary.shutDown, "vm", "shutdown"],
    [summary.ended, "vmm", "shutdown"]
  ]
  return events
    .filter(([said]) => said)
    .map(([, source, event]) => `${JSON.stringify({ source, event, properties: null })}\n\n`)
    .join("")
}

/** Puts objects together from the pieces of a record: each ends with the brace that closes its first. */
export class Objects {
  #text = ""
  #from = 0
  #depth = 0
  #quoted = false

  /** The texts of the objects that are whole with this piece. */
  push(piece: string): ReadonlyArray<string> {
    const found: Array<string> = []
    this.#text += piece
    for (let at = this.#from; at < this.#text.length; at++) {
      const letter = this.#text[at]
      if (this.#quoted) {
        if (letter === "\\") at++
        else if (letter === '"') this.#quoted = false
      } else if (letter === '"') this.#quoted = this.#depth > 0
      else if (letter === "{") this.#depth++
      else if (letter === "}" && this.#depth > 0 && --this.#depth === 0) {
        found.push(this.#text.slice(this.#text.indexOf("{"), at + 1))
        this.#text = this.#text.slice(at + 1)
        at = -1
      }
      this.#from = at + 1
    }
    if (this.#text.length > LONGEST) this.#clear()
    return found
  }

  #clear(): void {
    this.#text = ""
    this.#from = 0
    this.#depth = 0
    this.#quoted = false
  }
}

/** The record of one machine, read from its beginning. */
export const make = (path: string) => {
  const objects = new Objects()
  let summary = nothing
  let offset = 0

  const piecesOf = async (file: FileHandle): Promise<void> => {
    const { size } = await file.stat()
    if (size < offset) offset = 0
    const bytes = Buffer.alloc(PIECE)
    while (true) {
      const { bytesRead } = await file.read(bytes, 0, PIECE, offset)
      if (bytesRead === 0) break
      offset += bytesRead
      for (const text of objects.push(bytes.toString("utf8", 0, bytesRead))) {
        summary = Option.match(decode(text), { onNone: () => summary, onSome: (event) => after(summary, event) })
      }
      if (offset > 8 * LONGEST) break
    }
    if (offset <= LONGEST) return
    await file.truncate(0)
    const record = Buffer.from(recordOf(summary))
    await file.write(record, 0, record.length, 0)
    offset = record.length
  }

  return {
    /** That there may be something new in it: at once, and whenever it was written to. Of one that cannot be watched nothing more is told. */
    changes: Stream.callback<void>(
      (queue) =>
        Effect.acquireRelease(
          Effect.try({
            try: () => {
              const watcher = watch(path, () => void Queue.offerUnsafe(queue, undefined))
              watcher.on("error", () => watcher.close())
              Queue.offerUnsafe(queue, undefined)
              return watcher
            },
            catch: String
          }).pipe(Effect.option),
          (watcher) => Effect.sync(() => Option.map(watcher, (watching) => watching.close()))
        ),
      { bufferSize: 1, strategy: "sliding" }
    ),
    /** What it comes to now. A record that cannot be read says what it said before. */
    read: Effect.promise(async () => {
      const file = await open(path, "r+").catch(() => undefined)
      if (file === undefined) return summary
      try {
        await piecesOf(file)
      } finally {
        await file.close()
      }
      return summary
    })
  }
}
