/** `ironwood.v1.SandboxService`: sandboxes over gRPC. Mapping functions first, then the service. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Proto from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { Containers } from "../runtime/Containers.ts"
import type { Sandbox } from "../runtime/Containers.ts"
import { SandboxSpec } from "../runtime/SandboxSpec.ts"
import type { IsolationMode, NetworkMode, ProcessMode, UserNamespaceMode } from "../runtime/SandboxSpec.ts"
import { StopOptions } from "../runtime/StopOptions.ts"
import { invalidSpec } from "./ContainerMessages.ts"
import { service, unary } from "./EffectGrpc.ts"
import { hasLabels, pageBy } from "./Page.ts"
import { decoder, given, invalid, wordOf } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import { millisOf, timestamp, wireDuration } from "./Time.ts"

const networkModes = {
  none: Proto.NetworkMode.NONE,
  host: Proto.NetworkMode.HOST,
  user: Proto.NetworkMode.USER
} as const satisfies Record<NetworkMode, Proto.NetworkMode>

const processModes = {
  own: Proto.ProcessMode.OWN,
  shared: Proto.ProcessMode.SHARED
} as const satisfies Record<ProcessMode, Proto.ProcessMode>

const isolationModes = {
  namespace: Proto.IsolationMode.NAMESPACE,
  microvm: Proto.IsolationMode.MICROVM
} as const satisfies Record<IsolationMode, Proto.IsolationMode>

const userNamespaceModes = {
  host: Proto.UserNamespaceMode.HOST,
  private: Proto.UserNamespaceMode.PRIVATE
} as const satisfies Record<UserNamespaceMode, Proto.UserNamespaceMode>

/** A sandbox's spec as it goes over the wire. */
export const specToProto = (spec: SandboxSpec): MessageInitShape<typeof Proto.SandboxSpecSchema> => ({
  name: spec.name,
  network: networkModes[spec.network],
  hostname: spec.hostname ?? "",
  labels: { ...spec.labels },
  processes: processModes[spec.processes],
  isolation: isolationModes[spec.isolation],
  userNamespace: userNamespaceModes[spec.userNamespace],
  ports: spec.ports.map((port) => ({ ...port })),
  hosts: spec.hosts.map((entry) => ({ ...entry })),
  ...(Object.values(spec.dns).every((said) => said.length === 0)
    ? {}
    : { dns: { servers: [...spec.dns.servers], search: [...spec.dns.search], options: [...spec.dns.options] } }),
  ...(spec.isolation === "microvm"
    ? {
        microvm: {
          ...(spec.microvm.memoryBytes === undefined ? {} : { memoryBytes: BigInt(spec.microvm.memoryBytes) }),
          ...(spec.microvm.cpus === undefined ? {} : { cpus: spec.microvm.cpus }),
          ...(spec.microvm.diskBytes === undefined ? {} : { diskBytes: BigInt(spec.microvm.diskBytes) }),
          kernel: spec.microvm.kernel ?? ""
        }
      }
    : {}),
  ...(spec.stopGracePeriod === undefined ? {} : { stopGracePeriod: wireDuration(spec.stopGracePeriod) })
})

/** A sandbox as it goes over the wire. */
export const sandboxToProto = (sandbox: Sandbox): MessageInitShape<typeof Proto.SandboxSchema> => ({
  spec: specToProto(sandbox.spec),
  uid: sandbox.uid,
  generation: BigInt(sandbox.generation),
  createTime: timestamp(sandbox.createdAt),
  actorPath: sandbox.path,
  containers: [...sandbox.containers],
  implicit: sandbox.implicit,
  firstUser: sandbox.firstUser ?? 0,
  ports: sandbox.ports.map((port) => ({ ...port }))
})

const decode = decoder("spec", Proto.SandboxSpecSchema, SandboxSpec)

/** The sandbox's spec in the field `spec` of a request. */
export const specFromProto = (spec: Proto.SandboxSpec | undefined) =>
  spec === undefined
    ? Effect.fail(invalid("spec", "must be set"))
    : decode(
        given({
          name: spec.name,
          network: wordOf(networkModes, spec.network),
          hostname: spec.hostname || undefined,
          labels: spec.labels,
          processes: wordOf(processModes, spec.processes),
          isolation: wordOf(isolationModes, spec.isolation),
          userNamespace: wordOf(userNamespaceModes, spec.userNamespace),
          microvm:
            spec.microvm &&
            given({
              memoryBytes: spec.microvm.memoryBytes === undefined ? undefined : Number(spec.microvm.memoryBytes),
              cpus: spec.microvm.cpus,
              diskBytes: spec.microvm.diskBytes === undefined ? undefined : Number(spec.microvm.diskBytes),
              kernel: spec.microvm.kernel || undefined
            }),
          ports: spec.ports.map(({ containerPort, hostAddress, hostPort, protocol }) =>
            given({
              protocol: protocol || undefined,
              hostAddress: hostAddress || undefined,
              hostPort,
              containerPort
            })
          ),
          hosts: spec.hosts.map(({ address, name }) => ({ address, name })),
          dns: spec.dns && { servers: spec.dns.servers, search: spec.dns.search, options: spec.dns.options },
          stopGracePeriod: spec.stopGracePeriod && millisOf(spec.stopGracePeriod)
        })
      )

const decodeStopOptions = decoder("", Proto.StopSandboxRequestSchema, StopOptions)

const sandbox = (found: Sandbox) => ({ sandbox: sandboxToProto(found) })

/** The service. One value remembers request ids for as long as it lives: make it once per brain. */
export const makeSandboxService = () => {
  const { method } = Proto.SandboxService
  return service(Proto.SandboxService, {
    createSandbox: unaryOnce(
      method.createSandbox,
      Effect.fn("SandboxService.createSandbox")(function* (request) {
        const spec = yield* specFromProto(request.spec)
        const containers = yield* Containers
        const found = request.validateOnly
          ? containers.validateSandbox(spec)
          : Effect.asSome(containers.createSandbox(spec))
        const answer = yield* Effect.catchTag(found, "SpecInvalid", ({ problems }) =>
          Effect.fail(invalidSpec(problems, Proto.SandboxSpecSchema))
        )
        return Option.match(answer, {
          onNone: () => ({ sandbox: { spec: specToProto(spec) } }),
          onSome: sandbox
        })
      })
    ),
    getSandbox: unary(
      method.getSandbox,
      Effect.fn("SandboxService.getSandbox")(function* ({ name }) {
        return sandbox(yield* (yield* Containers).getSandbox(name))
      })
    ),
    listSandboxes: unary(
      method.listSandboxes,
      Effect.fn("SandboxService.listSandboxes")(function* (request) {
        const all = yield* (yield* Containers).listSandboxes
        const { labels } = request
        const { nextPageToken, page } = yield* pageBy(
          "sandboxes",
          { labels },
          request,
          all.filter(({ spec }) => hasLabels(spec.labels, labels)),
          { schema: Proto.SandboxSchema, toProto: sandboxToProto, key: ({ name }) => name }
        )
        return { sandboxes: page, nextPageToken }
      })
    ),
    stopSandbox: unaryOnce(
      method.stopSandbox,
      Effect.fn("SandboxService.stopSandbox")(function* ({ gracePeriod, name }) {
        const options = yield* decodeStopOptions(given({ gracePeriod: gracePeriod && millisOf(gracePeriod) }))
        return sandbox(yield* (yield* Containers).stopSandbox(name, options))
      })
    ),
    startSandbox: unaryOnce(
      method.startSandbox,
      Effect.fn("SandboxService.startSandbox")(function* ({ name }) {
        return sandbox(yield* (yield* Containers).startSandbox(name))
      })
    ),
    removeSandbox: unaryOnce(
      method.removeSandbox,
      Effect.fn("SandboxService.removeSandbox")(function* ({ force, name }) {
        yield* (yield* Containers).removeSandbox(name, { force })
        return {}
      })
    )
  })
}
