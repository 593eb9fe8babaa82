/**
 * Following the tree for as long as somebody looks: a watch that comes back by itself when the connection is lost.
 *
 * The brain may die and be back within a second; {@link follow} then asks for the changes since the last revision it has
 * passed on, so nothing is missed and nothing comes twice. The first connection must succeed (else: exit code 5 at
 * once); later ones are tried for as long as it takes, with a back-off from 50 ms to 2 s. Errors that trying again does not
 * mend end the stream.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import {
  type ProcessSelection,
  TreeService,
  type WatchTreeResponse
} from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { type Connection, status } from "./Client.ts"
import { Failure, failure } from "./Failure.ts"

/** What the stream says. */
export type Followed =
  | { readonly _tag: "Event"; readonly event: WatchTreeResponse }
  /** The connection is lost; it is being tried again. Once per loss. */
  | { readonly _tag: "Lost"; readonly reason: string }
  /** It is there again. */
  | { readonly _tag: "Back" }

const revisionOf = ({ event }: WatchTreeResponse): bigint | undefined => {
  switch (event.case) {
    case "snapshot":
      return event.value.last ? event.value.revision : undefined
    case "changed":
    case "removed":
    case "bookmark":
      return event.value.revision
    default:
      return undefined
  }
}

/** Events of the actors at and below `path` (empty: all), from a snapshot or from the changes after `from`. */
export const follow = (
  connection: Connection,
  options: { readonly path: string; readonly from?: bigint; readonly processes?: ProcessSelection }
): Stream.Stream<Followed, Failure> =>
  Stream.callback<Followed, Failure>(
    (queue) =>
      Effect.gen(function* () {
        let revision = options.from
        let connected = false
        let lost = false
        for (let attempt = 0; ; attempt++) {
          const ended = yield* connection
            .stream(TreeService.method.watchTree, {
              path: options.path,
              ...(options.processes === undefined ? {} : { processes: options.processes }),
              ...(revision === undefined ? {} : { fromRevision: revision })
            })
            .pipe(
              Stream.runForEach((event) =>
                Effect.gen(function* () {
                  attempt = 0
                  connected = true
                  if (lost) yield* Queue.offer(queue, { _tag: "Back" })
                  lost = false
                  const next = revisionOf(event)
                  if (
                    next !== undefined &&
                    (revision === undefined || next > revision || event.event.case === "snapshot")
                  ) {
                    revision = next
                  }
                  yield* Queue.offer(queue, { _tag: "Event", event })
                })
              ),
              Effect.as(failure("Ironwood ended the stream")),
              Effect.catch((error) => Effect.succeed(error))
            )
          const mends =
            ended.status === undefined || ended.status === status.unavailable || ended.status === status.cancelled
          if (!connected || !mends) return yield* Queue.fail(queue, ended)
          if (!lost) yield* Queue.offer(queue, { _tag: "Lost", reason: ended.summary })
          lost = true
          yield* Effect.sleep(Math.min(2000, 50 * 2 ** Math.min(attempt, 10)))
        }
      }),
    { bufferSize: 256 }
  )
