/**
 * Idempotency by request id: a client that lost the connection sends the same request again and gets the same answer.
 *
 * Answers of requests that succeeded are kept for a day, the newest 4,096 of them, up to 8 Ki characters of JSON each (they
 * are in memory too); failures are not kept, so a retry tries. The same id at the same time waits for the first.
 *
 * Trap: the work and the note of its answer are two transactions. After a crash between them, or when the note could not
 * be written (full disk, a long answer), a retry does the work again; so the work must be idempotent by itself (by name, say).
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import { createHash } from "node:crypto"
import type { StateConnection } from "./StateConnection.ts"
import { StateRequestReused } from "./StateErrors.ts"
import { jsonCodec } from "./StateValue.ts"

const KEEP_FOR = Duration.toMillis(Duration.days(1))
const KEEP = 4_096
const MAX_OUTCOME_LENGTH = 8 * 1024

/** A request as its client named it. */
export interface RequestIdentity {
  /** From the client; empty when it does not care. */
  readonly id: string
  /** What was asked, in a canonical form: the method and the encoded message. Only its digest is kept. */
  readonly content: string | Uint8Array
}

/** `work` if the request is new (or has no id); the answer it got before if it is known. */
export type Once = <A, I, E, R>(
  request: RequestIdentity,
  answer: Schema.Codec<A, I>,
  work: Effect.Effect<A, E, R>
) => Effect.Effect<A, E | StateRequestReused, R>

export const make = (connection: StateConnection["Service"]): Once => {
  const running = new Map<string, { readonly lock: Semaphore.Semaphore; users: number }>()

  const exclusively = <A, E, R>(id: string, work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const entry = running.get(id) ?? { lock: Semaphore.makeUnsafe(1), users: 0 }
        entry.users++
        running.set(id, entry)
        return entry
      }),
      (entry) => entry.lock.withPermit(work),
      (entry) => Effect.sync(() => void (--entry.users === 0 && running.delete(id)))
    )

  return (request, answer, work) => {
    if (request.id === "") return work
    const codec = jsonCodec(answer)
    const fingerprint = createHash("sha256").update(request.content).digest("hex")

    const remember = Effect.fnUntraced(function* (outcome: string) {
      const at = yield* Clock.currentTimeMillis
      yield* connection.transact([
        {
          _tag: "Remember",
          request: { id: request.id, fingerprint, outcome, at },
          forgetBefore: at - KEEP_FOR,
          keep: KEEP
        }
      ])
    })

    const body = Effect.gen(function* () {
      const known = connection.mirror.request(request.id)
      if (known !== undefined && known.at > (yield* Clock.currentTimeMillis) - KEEP_FOR) {
        if (known.fingerprint !== fingerprint) return yield* new StateRequestReused({ requestId: request.id })
        // An answer of an older version that no longer decodes is as good as none.
        const decoded = codec.decode(known.outcome)
        if (Result.isSuccess(decoded)) return decoded.success
      }
      const done = yield* work
      const encoded = codec.encode(done)
      if (Result.isSuccess(encoded) && encoded.success.length <= MAX_OUTCOME_LENGTH) {
        yield* remember(encoded.success).pipe(
          Effect.catch((error) =>
            Effect.logWarning(`request ${request.id} is done but not remembered: ${error.message}`)
          )
        )
      }
      return done
    })
    return exclusively(request.id, body)
  }
}
