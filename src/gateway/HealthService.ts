/**
 * `grpc.health.v1.Health`: whether each service can be used, read off the supervision tree. A service can be used while
 * every actor it stands on is running; the server as a whole (the empty name) while all of them can.
 *
 * Trap: a container that crashes is no reason to be unhealthy, so only Ironwood's own parts count.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../proto/generated/grpc/health/v1/health_pb.ts"
import { Tree } from "../actor/Tree.ts"
import { serverStreaming, service, unary } from "./EffectGrpc.ts"

/** There is no such service here. */
export class ServiceUnknown extends Schema.TaggedError<ServiceUnknown>()("ServiceUnknown", { service: Schema.String }) {
  override get message() {
    return `there is no service ${this.service} here`
  }
}

/** Full name of a service → the paths of the actors it stands on. */
export type Foundations = Readonly<Record<string, ReadonlyArray<string>>>

const all = (foundations: Foundations): ReadonlyArray<string> => Array.from(new Set(Object.values(foundations).flat()))

/** The actors under a service; nothing when there is no such service. */
const actorsUnder = (foundations: Foundations, name: string): ReadonlyArray<string> | undefined =>
  name === "" ? all(foundations) : Object.hasOwn(foundations, name) ? foundations[name] : undefined

const isRunning = (path: string): Effect.Effect<boolean, never, Tree> =>
  Effect.gen(function* () {
    const tree = yield* Tree
    return yield* Effect.match(tree.get(path), {
      onFailure: () => false,
      onSuccess: ({ state }) => state === "running"
    })
  })

const statusOf = (paths: ReadonlyArray<string>): Effect.Effect<Serving, never, Tree> =>
  Effect.map(Effect.forEach(paths, isRunning), (running) =>
    running.every((one) => one) ? Serving.SERVING : Serving.NOT_SERVING
  )

/** The statuses of a service from now on, each once. */
const watch = (paths: ReadonlyArray<string>): Stream.Stream<Serving, never, Tree> =>
  Stream.unwrap(
    Effect.map(Tree, (tree) => {
      const watched = new Set<string>(paths)
      return tree.watch().pipe(
        Stream.filter(
          (event) => event._tag === "Snapshot" || watched.has(event._tag === "Changed" ? event.node.path : event.path)
        ),
        Stream.mapEffect(() => statusOf(paths)),
        Stream.changes
      )
    })
  )

/** The service, for the services named in `foundations`. */
export const makeHealthService = (foundations: Foundations) =>
  service(Health, {
    check: unary(Health.method.check, ({ service: name }) =>
      Effect.gen(function* () {
        const paths = actorsUnder(foundations, name)
        if (paths === undefined) return yield* new ServiceUnknown({ service: name })
        return { status: yield* statusOf(paths) }
      })
    ),
    list: unary(Health.method.list, () =>
      Effect.gen(function* () {
        const statuses: Record<string, { status: Serving }> = {}
        for (const name of ["", ...Object.keys(foundations)]) {
          statuses[name] = { status: yield* statusOf(actorsUnder(foundations, name) ?? []) }
        }
        return { statuses }
      })
    ),
    watch: serverStreaming(Health.method.watch, ({ service: name }) => {
      const paths = actorsUnder(foundations, name)
      // By its specification a watch of an unknown service stays open, as the service could still come.
      return paths === undefined
        ? Stream.concat(Stream.succeed({ status: Serving.SERVICE_UNKNOWN }), Stream.never)
        : Stream.map(watch(paths), (status) => ({ status }))
    })
  })
