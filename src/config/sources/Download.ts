/**
 * The machine config from a URL. Bounded in time and size; redirects are followed a few times.
 *
 * Trap: over plain http whoever is on the way can write another config. `ironwood.config_digest` is what helps.
 */
import * as Effect from "effect/Effect"
import { mostBytes } from "../Document.ts"
import { SourceFailed } from "./SourceFailed.ts"

/** For one try. */
const patience = "20 seconds"

const causeOf = (error: unknown): string =>
  error instanceof Error ? (error.cause instanceof Error ? error.cause.message : error.message) : String(error)

const get = async (url: string, signal: AbortSignal): Promise<Uint8Array> => {
  const response = await fetch(url, { signal, headers: { accept: "application/yaml, application/json, */*" } })
  if (!response.ok) {
    await response.body?.cancel()
    throw new Error(`the server answers ${response.status} ${response.statusText}`)
  }
  const pieces: Array<Uint8Array> = []
  let length = 0
  for await (const piece of response.body ?? []) {
    pieces.push(piece)
    length += piece.length
    if (length > mostBytes) throw new Error(`it has more than ${mostBytes} bytes`)
  }
  return Buffer.concat(pieces)
}

export const download = (url: string): Effect.Effect<Uint8Array, SourceFailed> =>
  Effect.tryPromise({
    try: (signal) => get(url, signal),
    catch: (error) => new SourceFailed({ problem: causeOf(error) })
  }).pipe(
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => new SourceFailed({ problem: `it did not come within ${patience}` })
    })
  )
