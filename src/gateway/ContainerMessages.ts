/**
 * Containers between the domain and the wire: pure functions, out (`…ToProto`) and in (`specFromProto`).
 *
 * Traps: on the wire "not given" is an empty string or list. So a command without arguments cannot be told from no
 * command: to run without any, name the entrypoint, which drops the image's command.
 */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf"
import type { Duration as WireDuration } from "@bufbuild/protobuf/wkt"
import * as Effect from "effect/Effect"
import * as Proto from "../../proto/generated/ironwood/v1/container_pb.ts"
import { PullPolicy } from "../../proto/generated/ironwood/v1/image_pb.ts"
import type { ExitView } from "../actor/ExitView.ts"
import type { RestartPolicy } from "../actor/RestartPolicy.ts"
import type { SpecInvalid } from "../runtime/ContainerError.ts"
import { ContainerSpec, Resources } from "../runtime/ContainerSpec.ts"
import { type Container, Containers } from "../runtime/Containers.ts"
import type { ContainerState, Desired } from "../runtime/Lifecycle.ts"
import type { Probe, ProbesSpec } from "../runtime/ProbeSpec.ts"
import type { Assumed, References } from "../runtime/References.ts"
import { pullPolicy } from "./ImageService.ts"
import * as Policy from "./Policy.ts"
import { decoder, fieldPath, given, invalid, InvalidRequest, wordOf } from "./Request.ts"
import { millisOf, timestamp, uint32, wireDuration } from "./Time.ts"

const states = {
  unregistered: Proto.ContainerState.CREATED,
  waiting: Proto.ContainerState.CREATED,
  starting: Proto.ContainerState.STARTING,
  running: Proto.ContainerState.RUNNING,
  paused: Proto.ContainerState.PAUSED,
  "backing-off": Proto.ContainerState.BACKING_OFF,
  stopping: Proto.ContainerState.STOPPING,
  stopped: Proto.ContainerState.STOPPED,
  parked: Proto.ContainerState.PARKED,
  finished: Proto.ContainerState.FINISHED,
  failed: Proto.ContainerState.FAILED
} as const satisfies Record<ContainerState, Proto.ContainerState>

/** The state of a container as it goes over the wire. */
export const stateToProto = (state: ContainerState): Proto.ContainerState => states[state]

const desires = {
  running: Proto.DesiredState.RUNNING,
  stopped: Proto.DesiredState.STOPPED
} as const satisfies Record<Desired, Proto.DesiredState>

/** How a container ended, as it goes over the wire. */
export const exitToProto = (exit: ExitView): MessageInitShape<typeof Proto.ContainerExitSchema> => {
  const { exitCode, outOfMemory, signal } = exit.facts ?? {}
  return {
    time: timestamp(exit.at),
    tag: exit.tag,
    message: exit.message,
    code: exit.class === "normal" ? 0 : exitCode,
    // how the kernel ends what memory was out for
    signal: signal ?? (outOfMemory === true ? "SIGKILL" : "")
  }
}

const pullPolicies = {
  always: PullPolicy.ALWAYS,
  "if-not-present": PullPolicy.IF_NOT_PRESENT,
  never: PullPolicy.NEVER
} as const

const schemes = { http: Proto.HttpScheme.HTTP, https: Proto.HttpScheme.HTTPS } as const

const probeToProto = (probe: Probe | undefined): MessageInitShape<typeof Proto.ProbeSchema> | undefined =>
  probe && {
    ...(probe.exec === undefined ? {} : { exec: { command: [...probe.exec.command] } }),
    ...(probe.http === undefined ? {} : { http: { ...probe.http, scheme: schemes[probe.http.scheme] } }),
    ...(probe.tcp === undefined ? {} : { tcp: probe.tcp }),
    ...(probe.grpc === undefined ? {} : { grpc: probe.grpc }),
    initialDelay: wireDuration(probe.initialDelay),
    period: wireDuration(probe.period),
    timeout: wireDuration(probe.timeout),
    successThreshold: probe.successThreshold,
    failureThreshold: probe.failureThreshold
  }

const probesToProto = ({ liveness, readiness, startup }: ProbesSpec): MessageInitShape<typeof Proto.ProbesSchema> => ({
  startup: probeToProto(startup),
  readiness: probeToProto(readiness),
  liveness: probeToProto(liveness)
})

/** A container's spec as it goes over the wire. */
export const specToProto = (spec: ContainerSpec) =>
  ({
    name: spec.name,
    sandbox: spec.sandbox ?? "",
    image: spec.image,
    imagePull: spec.imagePull === undefined ? PullPolicy.UNSPECIFIED : pullPolicies[spec.imagePull],
    entrypoint: [...(spec.entrypoint ?? [])],
    command: [...(spec.command ?? [])],
    environment: { ...spec.environment },
    workingDirectory: spec.workingDirectory ?? "",
    user: spec.user ?? "",
    stopSignal: spec.stopSignal ?? "",
    stopGracePeriod: wireDuration(spec.stopGracePeriod),
    resources: {
      memoryBytes: spec.resources.memoryBytes === undefined ? undefined : BigInt(spec.resources.memoryBytes),
      cpus: spec.resources.cpus,
      pids: spec.resources.pids
    },
    restart: Policy.toProto(spec.restart),
    labels: { ...spec.labels },
    readonlyRootfs: spec.readonlyRootfs,
    terminal: spec.terminal,
    stdin: spec.stdin,
    init: spec.init,
    probes: probesToProto(spec.probes),
    tmpfs: Object.fromEntries(
      Object.entries(spec.tmpfs).map(([path, { sizeBytes }]) => [path, { sizeBytes: BigInt(sizeBytes) }])
    ),
    processLimits: spec.processLimits.map(({ hard, resource, soft }) => ({
      resource,
      soft: BigInt(soft),
      hard: BigInt(hard)
    })),
    mounts: spec.mounts.map((mount) => ({ ...mount })),
    devices: spec.devices.map(({ access, path, target = "" }) => ({ access, path, target })),
    secrets: spec.secrets.map(({ name, target = "" }) => ({ name, target })),
    volumes: spec.volumes.map((volume) => ({ ...volume })),
    log: { maxBytes: BigInt(spec.log.maxBytes), maxFiles: spec.log.maxFiles },
    after: [...spec.after],
    afterSuccess: [...spec.afterSuccess],
    requires: [...spec.requires],
    bindsTo: [...spec.bindsTo],
    security: {
      addCapabilities: [...spec.security.addCapabilities],
      dropCapabilities: [...spec.security.dropCapabilities],
      seccompUnconfined: spec.security.seccompUnconfined,
      privileged: spec.security.privileged
    }
  }) satisfies MessageInitShape<typeof Proto.ContainerSpecSchema>

/** A container as it goes over the wire. */
export const containerToProto = (container: Container): MessageInitShape<typeof Proto.ContainerSchema> => ({
  spec: specToProto(container.spec),
  uid: container.uid,
  generation: BigInt(container.generation),
  createTime: timestamp(container.createdAt),
  actorPath: container.path,
  ports: container.ports.map((port) => ({ ...port })),
  status: {
    state: stateToProto(container.state),
    desired: desires[container.desired],
    since: timestamp(container.node?.since),
    pid: container.pid,
    startTime: container.pid === undefined ? undefined : timestamp(container.startedAt),
    incarnation: uint32(container.incarnation),
    restarts: uint32(container.restarts),
    consecutiveFailures: uint32(container.consecutiveFailures),
    lastExit: container.lastExit && exitToProto(container.lastExit),
    nextAttemptTime: timestamp(container.nextAttemptAt),
    imageDigest: container.image ?? "",
    ready: container.ready === undefined ? undefined : container.ready === "yes",
    unreadyReason: container.ready?.startsWith("no: ") === true ? container.ready.slice(4) : "",
    waitingFor: [...(container.node?.waitingFor ?? [])]
  }
})

const decode = decoder("spec", Proto.ContainerSpecSchema, ContainerSpec)

const millis = (duration: WireDuration | undefined) => duration && millisOf(duration)
const orNone = (list: ReadonlyArray<string>) => (list.length === 0 ? undefined : list)
const size = (bytes: bigint | undefined) => (bytes === undefined ? undefined : Number(bytes))

const encodedResources = (resources: Proto.Resources | undefined) =>
  given({ memoryBytes: size(resources?.memoryBytes), cpus: resources?.cpus, pids: resources?.pids })

const decodeResources = decoder("resources", Proto.ResourcesSchema, Resources)

/** The limits in the field `resources` of a request. */
export const resourcesFromProto = (resources: Proto.Resources | undefined) =>
  decodeResources(encodedResources(resources))

const probeFromProto = (probe: Proto.Probe | undefined) =>
  probe &&
  given({
    exec: probe.exec && { command: probe.exec.command },
    http:
      probe.http &&
      given({
        port: probe.http.port,
        path: probe.http.path || undefined,
        host: probe.http.host || undefined,
        scheme: wordOf(schemes, probe.http.scheme)
      }),
    tcp: probe.tcp && { port: probe.tcp.port },
    grpc: probe.grpc && { port: probe.grpc.port, service: probe.grpc.service },
    initialDelay: millis(probe.initialDelay),
    period: millis(probe.period),
    timeout: millis(probe.timeout),
    successThreshold: probe.successThreshold,
    failureThreshold: probe.failureThreshold
  })

const encodedOf = (spec: Proto.ContainerSpec) =>
  given({
    name: spec.name,
    sandbox: spec.sandbox || undefined,
    image: spec.image,
    imagePull: pullPolicy(spec.imagePull),
    entrypoint: orNone(spec.entrypoint),
    command: orNone(spec.command),
    environment: spec.environment,
    workingDirectory: spec.workingDirectory || undefined,
    user: spec.user || undefined,
    stopSignal: spec.stopSignal || undefined,
    stopGracePeriod: millis(spec.stopGracePeriod),
    resources: encodedResources(spec.resources),
    restart: Policy.encodedOf(spec.restart),
    labels: spec.labels,
    readonlyRootfs: spec.readonlyRootfs,
    terminal: spec.terminal,
    stdin: spec.stdin,
    init: spec.init,
    tmpfs: Object.fromEntries(
      Object.entries(spec.tmpfs).map(([path, { sizeBytes }]) => [path, given({ sizeBytes: size(sizeBytes) })])
    ),
    processLimits: spec.processLimits.map(({ hard, resource, soft }) => ({
      resource,
      soft: Number(soft),
      hard: Number(hard)
    })),
    probes: given({
      startup: probeFromProto(spec.probes?.startup),
      readiness: probeFromProto(spec.probes?.readiness),
      liveness: probeFromProto(spec.probes?.liveness)
    }),
    mounts: spec.mounts.map(({ mapIds, readOnly, source, target }) => ({ readOnly, source, target, mapIds })),
    devices: spec.devices.map(({ access, path, target }) =>
      given({ path, target: target || undefined, access: access || undefined })
    ),
    secrets: spec.secrets.map(({ name, target }) => given({ name, target: target || undefined })),
    volumes: spec.volumes.map(({ name, readOnly, target }) => ({ name, readOnly, target })),
    log: given({ maxBytes: size(spec.log?.maxBytes), maxFiles: spec.log?.maxFiles }),
    after: spec.after,
    afterSuccess: spec.afterSuccess,
    requires: spec.requires,
    bindsTo: spec.bindsTo,
    security: given({
      addCapabilities: spec.security?.addCapabilities,
      dropCapabilities: spec.security?.dropCapabilities,
      seccompUnconfined: spec.security?.seccompUnconfined,
      privileged: spec.security?.privileged
    })
  })

/** The container's spec in the field `spec` of a request. */
export const specFromProto = (spec: Proto.ContainerSpec | undefined) =>
  spec === undefined
    ? Effect.fail(invalid("spec", "must be set"))
    : Effect.andThen(Policy.checkPreset("spec.restart", spec.restart), decode(encodedOf(spec)))

/** What the domain finds wrong with a spec that could be read, as fields of the request. */
export const invalidSpec = (
  problems: SpecInvalid["problems"],
  schema: DescMessage = Proto.ContainerSpecSchema
): InvalidRequest =>
  new InvalidRequest({
    violations: problems.map(({ field, problem }) => {
      const path = field.split(/[.[\]]+/).filter((part) => part !== "")
      return { field: fieldPath("spec", schema, path), description: problem }
    })
  })

/** What the spec of a request refers to; it may be wrong otherwise. */
export const referencesFromProto = (spec: Proto.ContainerSpec | undefined): References => ({
  name: spec?.name ?? "",
  sandbox: spec?.sandbox || undefined,
  image: spec?.image ?? "",
  pulls: spec?.imagePull === PullPolicy.ALWAYS || spec?.imagePull === PullPolicy.IF_NOT_PRESENT,
  fallback: spec?.restart?.fallback || undefined,
  after: spec?.after ?? [],
  afterSuccess: spec?.afterSuccess ?? [],
  requires: spec?.requires ?? [],
  bindsTo: spec?.bindsTo ?? []
})

/** What a request says will be there. */
export const assumedFromProto = (assumed: Proto.Assumed | undefined): Assumed => ({
  images: assumed?.images ?? [],
  sandboxes: assumed?.sandboxes ?? [],
  containers: (assumed?.containers ?? []).map(
    ({ after, afterSuccess, bindsTo, name, permanent, requires, sandbox }) => ({
      name,
      sandbox: sandbox || undefined,
      after,
      afterSuccess,
      requires,
      bindsTo,
      permanent
    })
  )
})

/** What is wrong with a spec that could not be read, together with what it refers to and is not there. One word a field. */
export const withUnresolved = (error: InvalidRequest, unresolved: SpecInvalid["problems"]): InvalidRequest => {
  const told = new Set(error.violations.map(({ field }) => field))
  const more = invalidSpec(unresolved).violations.filter(({ field }) => !told.has(field))
  return new InvalidRequest({ violations: [...error.violations, ...more] })
}

/** Changes the policy of a container. What the domain finds wrong with it is told as fields of the request's `policy`. */
export const setPolicy = Effect.fnUntraced(function* (name: string, policy: RestartPolicy) {
  const containers = yield* Containers
  return yield* Effect.catchTag(containers.setPolicy(name, policy), "SpecInvalid", ({ problems }) =>
    Effect.fail(
      new InvalidRequest({
        violations: problems.map(({ field, problem }) => ({
          field: field.replace(/^restart/, "policy"),
          description: problem
        }))
      })
    )
  )
})
