/**
 * `ironwood.v1.ContainerService`: containers over gRPC. What a container looks like on the wire is in
 * `ContainerMessages.ts`, its output in `LogMessages.ts`.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/container_pb.ts"
import { Containers } from "../runtime/Containers.ts"
import type { Container } from "../runtime/Containers.ts"
import { StopOptions } from "../runtime/StopOptions.ts"
import { parseSignal } from "../taproot/Signals.ts"
import type { SignalName } from "../taproot/Signals.ts"
import {
  assumedFromProto,
  containerToProto,
  invalidSpec,
  referencesFromProto,
  setPolicy,
  specFromProto,
  specToProto,
  stateToProto,
  withUnresolved
} from "./ContainerMessages.ts"
import { bidiStreaming, serverStreaming, service, unary } from "./EffectGrpc.ts"
import { exec } from "./ExecMessages.ts"
import { logMessages } from "./LogMessages.ts"
import { hasLabels, pageBy } from "./Page.ts"
import * as Policy from "./Policy.ts"
import { decoder, given, invalid, type InvalidRequest } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import { millisOf } from "./Time.ts"

const container = (found: Container) => ({ container: containerToProto(found) })

/** The signal in the field `signal` of a request. */
const signalFrom = (text: string, byDefault: SignalName): Effect.Effect<SignalName, InvalidRequest> =>
  text === ""
    ? Effect.succeed(byDefault)
    : Effect.mapError(Effect.fromOption(parseSignal(text)), () =>
        invalid("signal", `"${text}" is no signal: give one like SIGTERM, TERM or 15`)
      )

const decodeStopOptions = decoder("", Proto.StopContainerRequestSchema, StopOptions)

const listContainers = Effect.fn("ContainerService.listContainers")(function* (request: Proto.ListContainersRequest) {
  const { labels, sandbox, states } = request
  const all = yield* (yield* Containers).list
  const matching = all.filter(
    (one) =>
      (sandbox === "" || one.sandbox === sandbox) &&
      hasLabels(one.spec.labels, labels) &&
      (states.length === 0 || states.includes(stateToProto(one.state)))
  )
  const { nextPageToken, page } = yield* pageBy("containers", { labels, sandbox, states }, request, matching, {
    schema: Proto.ContainerSchema,
    toProto: containerToProto,
    key: ({ name }) => name
  })
  return { containers: page, nextPageToken }
})

/** The service. One value remembers request ids for as long as it lives: make it once per brain. */
export const makeContainerService = () => {
  const { method } = Proto.ContainerService
  return service(Proto.ContainerService, {
    createContainer: unaryOnce(
      method.createContainer,
      Effect.fn("ContainerService.createContainer")(function* (request) {
        const containers = yield* Containers
        const assumed = assumedFromProto(request.assumed)
        const spec = yield* Effect.catch(specFromProto(request.spec), (error) =>
          Effect.flatMap(containers.unresolved(referencesFromProto(request.spec), assumed), (unresolved) =>
            Effect.fail(withUnresolved(error, unresolved))
          )
        )
        const start = !request.notStarted
        const found = request.validateOnly
          ? containers.validate(spec, assumed)
          : Effect.asSome(containers.create(spec, { start, wait: start, assumed }))
        return Option.match(
          yield* Effect.catchTag(found, "SpecInvalid", ({ problems }) => Effect.fail(invalidSpec(problems))),
          { onNone: () => ({ container: { spec: specToProto(spec) } }), onSome: container }
        )
      })
    ),
    getContainer: unary(
      method.getContainer,
      Effect.fn("ContainerService.getContainer")(function* ({ name }) {
        return container(yield* (yield* Containers).get(name))
      })
    ),
    listContainers: unary(method.listContainers, listContainers),
    startContainer: unaryOnce(
      method.startContainer,
      Effect.fn("ContainerService.startContainer")(function* ({ name }) {
        return container(yield* (yield* Containers).start(name))
      })
    ),
    stopContainer: unaryOnce(
      method.stopContainer,
      Effect.fn("ContainerService.stopContainer")(function* (request) {
        const { gracePeriod, name, signal } = request
        const options = yield* decodeStopOptions(
          given({ gracePeriod: gracePeriod && millisOf(gracePeriod), signal: signal || undefined })
        )
        return container(yield* (yield* Containers).stop(name, options))
      })
    ),
    restartContainer: unaryOnce(
      method.restartContainer,
      Effect.fn("ContainerService.restartContainer")(function* ({ name }) {
        return container(yield* (yield* Containers).restart(name))
      })
    ),
    killContainer: unaryOnce(
      method.killContainer,
      Effect.fn("ContainerService.killContainer")(function* (request) {
        const signal = yield* signalFrom(request.signal, "SIGKILL")
        yield* (yield* Containers).kill(request.name, signal)
        return {}
      })
    ),
    removeContainer: unaryOnce(
      method.removeContainer,
      Effect.fn("ContainerService.removeContainer")(function* ({ force, name }) {
        yield* (yield* Containers).remove(name, { force })
        return {}
      })
    ),
    setContainerPolicy: unaryOnce(
      method.setContainerPolicy,
      Effect.fn("ContainerService.setContainerPolicy")(function* ({ name, policy }) {
        return container(yield* setPolicy(name, yield* Policy.fromProto(policy)))
      })
    ),
    execContainer: bidiStreaming(method.execContainer, exec),
    streamContainerLogs: serverStreaming(method.streamContainerLogs, (request) =>
      Stream.unwrap(Effect.map(Containers, (containers) => logMessages(containers.logs, request)))
    )
  })
}
