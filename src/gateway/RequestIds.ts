/**
 * Request ids: a call that a client repeats with the same id (because it does not know whether the first one arrived) is
 * carried out once, and both get the same answer. {@link unaryOnce} makes such an RPC.
 *
 * Remembered are calls under way and those that succeeded, for ten minutes and at most 10,000 for each RPC, the oldest
 * going first. A call that failed or was interrupted is forgotten: repeating it is the way to try again. An id that comes
 * again with another request is refused, since one of the two would be lost without a word.
 *
 * Trap: remembered in memory, so not over a restart of the brain. What must hold then holds by name: creating what is
 * there, stopping what is down and the like are no errors.
 */
import { toJson } from "@bufbuild/protobuf"
import type { DescMessage, DescMethod, JsonValue, MessageInitShape, MessageShape } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { createHash } from "node:crypto"
import { unary } from "./EffectGrpc.ts"
import type { Method } from "./EffectGrpc.ts"
import { invalid } from "./Request.ts"
import type { InvalidRequest } from "./Request.ts"

/** How long an answer is remembered, in milliseconds. */
const remembered = 10 * 60_000
/** How many answers are remembered. */
const capacity = 10_000
/** How long an id may be, in UTF-16 code units. */
const longest = 128

/** Carries out calls, each id once. `fingerprint` says what is asked: the same id must always come with the same one. */
export type Once<A> = <E, R>(
  id: string,
  fingerprint: string,
  call: Effect.Effect<A, E, R>
) => Effect.Effect<A, E | InvalidRequest, R>

/** A memory of its own. */
export const makeOnce = <A>(): Once<A> => {
  interface Entry {
    readonly fingerprint: string
    readonly at: number
    /** Fails when the call did: then it counts for nothing. */
    readonly answer: Deferred.Deferred<A, "forgotten">
  }
  /** In the order of `at`. */
  const entries = new Map<string, Entry>()

  const forgetOld = (now: number): void => {
    for (const [id, { at }] of entries) {
      if (entries.size <= capacity && now - at < remembered) return
      entries.delete(id)
    }
  }
  const once = <E, R>(
    id: string,
    fingerprint: string,
    call: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | InvalidRequest, R> =>
    Effect.gen(function* () {
      if (id === "") return yield* call
      if (id.length > longest) return yield* invalid("request_id", `must be at most ${longest} characters long`)
      const now = yield* Clock.currentTimeMillis
      forgetOld(now)
      const earlier = entries.get(id)
      if (earlier !== undefined) {
        if (earlier.fingerprint !== fingerprint) {
          return yield* invalid("request_id", "came before with another request: use a new one for each request")
        }
        return yield* Effect.catch(Deferred.await(earlier.answer), () => once(id, fingerprint, call))
      }
      const entry: Entry = { fingerprint, at: now, answer: yield* Deferred.make<A, "forgotten">() }
      entries.set(id, entry)
      return yield* Effect.onExit(call, (exit) => {
        if (Exit.isSuccess(exit)) return Deferred.succeed(entry.answer, exit.value)
        if (entries.get(id) === entry) entries.delete(id)
        return Deferred.fail(entry.answer, "forgotten")
      })
    })
  return once
}

/** JSON with sorted keys: maps come off the wire in any order. */
const canonical = (value: JsonValue): JsonValue =>
  Array.isArray(value)
    ? value.map(canonical)
    : typeof value === "object" && value !== null
      ? Object.fromEntries(
          Object.keys(value)
            .sort()
            .map((key) => [key, canonical(value[key] ?? null)])
        )
      : value

const fingerprintOf = <I extends DescMessage>(input: I, request: MessageShape<I>): string =>
  createHash("sha256")
    .update(JSON.stringify(canonical(toJson(input, request))))
    .digest("base64")

const requestIdOf = (request: object): string =>
  "requestId" in request && typeof request.requestId === "string" ? request.requestId : ""

/** As `EffectGrpc.unary`, for requests with a field `request_id`. */
export const unaryOnce = <I extends DescMessage, O extends DescMessage, E, R>(
  method: DescMethod & { readonly methodKind: "unary"; readonly input: I; readonly output: O },
  handler: (request: MessageShape<I>) => Effect.Effect<MessageInitShape<O>, E, R>
): Method<E | InvalidRequest, R> => {
  const once = makeOnce<MessageInitShape<O>>()
  return unary<I, O, E | InvalidRequest, R>(method, (request) => {
    const id = requestIdOf(request)
    // without one there is nothing to remember, and nothing to be told apart
    return id === "" ? handler(request) : once(id, fingerprintOf(method.input, request), handler(request))
  })
}
