/**
 * The gateway: everything that Ironwood serves over gRPC, as an actor.
 *
 * `init/gateway` supervises `init/gateway/grpc`, which binds the unix socket of the state directory and serves all services
 * until it ends: in order (streams end with UNAVAILABLE, unary calls may finish within {@link GatewayOptions.grace}), then by
 * force. When it cannot bind, it fails with `BindFailed` and its restart policy decides, as for any other actor.
 *
 * What a service needs it takes from the context, so what runs below the root must be given `Cgroups`, `Containers`, `Content`,
 * `Host`, `MachineConfigs`, `MachineState`, `OciRuntime`, `Processes`, `Upgrades`, `Vms`, `VmSnapshots`, `VmRestores`, `VmMoves`, `Volumes`, `Hypervisor` and `Instance`; the `Tree` every actor has.
 *
 * Trap: services remember request ids, so they are made once per brain, outside the actor's effect: a restart of the
 * gateway does not forget them.
 */
import type { DescMethod, Message } from "@bufbuild/protobuf"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Health } from "../../proto/generated/grpc/health/v1/health_pb.ts"
import { ConfigService } from "../../proto/generated/ironwood/v1/config_pb.ts"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { DebugService } from "../../proto/generated/ironwood/v1/debug_pb.ts"
import { HostService } from "../../proto/generated/ironwood/v1/host_pb.ts"
import { ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { PolicyService } from "../../proto/generated/ironwood/v1/policy_service_pb.ts"
import { SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { SecretService } from "../../proto/generated/ironwood/v1/secret_pb.ts"
import { UpgradeService } from "../../proto/generated/ironwood/v1/upgrade_pb.ts"
import { TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { VolumeService } from "../../proto/generated/ironwood/v1/volume_pb.ts"
import { VmService } from "../../proto/generated/ironwood/v1/vm_pb.ts"
import * as Actor from "../actor/Actor.ts"
import type { ChildSpec, Provided } from "../actor/ChildSpec.ts"
import * as Supervisor from "../actor/Supervisor.ts"
import { constant, type Setting } from "../host/Setting.ts"
import type { Processes } from "../taproot/Processes.ts"
import { makeConfigService } from "./ConfigService.ts"
import { makeContainerService } from "./ContainerService.ts"
import { serve, type Service, type ServicesOf } from "./EffectGrpc.ts"
import { type GatewayError, statusOf } from "./Errors.ts"
import { makeDebugService } from "./DebugService.ts"
import { makeHealthService } from "./HealthService.ts"
import type { Foundations } from "./HealthService.ts"
import { makeHostService } from "./HostService.ts"
import { makeImageService } from "./ImageService.ts"
import { listeners } from "./Listeners.ts"
import { makePolicyService } from "./PolicyService.ts"
import { reflection } from "./Reflection.ts"
import { missingFields } from "./Request.ts"
import { makeSandboxService } from "./SandboxService.ts"
import { makeSecretService } from "./SecretService.ts"
import * as SerialPort from "./SerialPort.ts"
import { makeTreeService } from "./TreeService.ts"
import { makeUpgradeService } from "./UpgradeService.ts"
import { bindPrivately } from "./UnixSocket.ts"
import { makeVmService } from "./VmService.ts"
import { makeVolumeService } from "./VolumeService.ts"

/** Which actors each service stands on: it is healthy while they all run. */
export const foundations: Foundations = {
  [TreeService.typeName]: [],
  [HostService.typeName]: [],
  [PolicyService.typeName]: [],
  [UpgradeService.typeName]: [],
  [ConfigService.typeName]: ["init/storage/state"],
  [ImageService.typeName]: ["init/storage/state", "init/storage/content"],
  [SecretService.typeName]: ["init/runtime"],
  [SandboxService.typeName]: ["init/storage/state", "init/runtime"],
  [ContainerService.typeName]: ["init/storage/state", "init/storage/content", "init/runtime"],
  [VolumeService.typeName]: ["init/storage/state"],
  [VmService.typeName]: ["init/storage/state", "init/vmm"]
}

/** All services, with health and reflection; with `debug` the one that makes the brain fail, too. */
export const makeServices = (debug: boolean, upgradeKeys: () => ReadonlyArray<string>) => {
  const [reflectionV1, reflectionV1Alpha] = reflection([
    TreeService,
    ContainerService,
    SandboxService,
    SecretService,
    VolumeService,
    VmService,
    ImageService,
    HostService,
    PolicyService,
    ConfigService,
    UpgradeService,
    Health,
    ...(debug ? [DebugService] : [])
  ])
  return {
    config: makeConfigService(),
    debug: debug ? [makeDebugService()] : [],
    tree: makeTreeService(),
    container: makeContainerService(),
    sandbox: makeSandboxService(),
    vm: makeVmService(),
    secret: makeSecretService(),
    volume: makeVolumeService(),
    image: makeImageService(),
    host: makeHostService(),
    policy: makePolicyService(),
    upgrade: makeUpgradeService(upgradeKeys),
    health: makeHealthService(foundations),
    reflectionV1,
    reflectionV1Alpha
  }
}

export type Services = ReturnType<typeof makeServices>

const all = (services: Services) => {
  const {
    config,
    container,
    debug,
    health,
    host,
    image,
    policy,
    reflectionV1,
    reflectionV1Alpha,
    sandbox,
    secret,
    tree,
    upgrade,
    vm,
    volume
  } = services
  return [
    tree,
    container,
    sandbox,
    secret,
    volume,
    vm,
    image,
    host,
    policy,
    config,
    upgrade,
    health,
    reflectionV1,
    reflectionV1Alpha,
    ...debug
  ]
}

/** What a brain serves that does nothing but tell why it is there. `config`: the machine config, where it can be read. */
const rescueServices = (debug: boolean, upgradeKeys: () => ReadonlyArray<string>, config: boolean) => {
  const [reflectionV1, reflectionV1Alpha] = reflection([
    TreeService,
    HostService,
    UpgradeService,
    Health,
    ...(config ? [ConfigService] : []),
    ...(debug ? [DebugService] : [])
  ])
  return [
    makeTreeService(),
    makeHostService(),
    makeUpgradeService(upgradeKeys),
    ...(config ? [makeConfigService()] : []),
    makeHealthService({ [TreeService.typeName]: [], [HostService.typeName]: [], [UpgradeService.typeName]: [] }),
    reflectionV1,
    reflectionV1Alpha,
    ...(debug ? [makeDebugService()] : [])
  ]
}

const options = (grace: Duration.Input | undefined) => ({
  status: statusOf,
  refuse: (method: DescMethod, request: Message) => {
    const error = missingFields(method, request)
    return error && statusOf(error)
  },
  ...(grace === undefined ? {} : { grace })
})

export interface GatewayOptions {
  /** Absolute path of the unix socket. */
  readonly socketPath: string
  /** `host:port`s on which everybody is served who can reach them, without authentication. Default: none. */
  readonly insecure?: Setting<ReadonlyArray<string>>
  /** Serve at the hypervisor's serial port, too, where there is one. Default: no. */
  readonly serial?: boolean
  /** Serve the calls that make the brain fail. Default: no. */
  readonly debug?: boolean
  /** Those that may vouch for another brain, as they are at the moment. Default: nobody need. */
  readonly upgradeKeys?: () => ReadonlyArray<string>
  /** How long unary calls may go on once it is to end. Default: 2 seconds. */
  readonly grace?: Duration.Input
}

function supervisor<const S extends ReadonlyArray<Service<GatewayError, unknown>>>(
  services: S,
  options: GatewayOptions
): Effect.Effect<ChildSpec<Supervisor.SupervisorFailure, Exclude<ServicesOf<S[number]>, Provided> | Processes>>
function supervisor<R>(
  services: ReadonlyArray<Service<GatewayError, R | Provided>>,
  { grace, insecure = constant([]), serial = false, socketPath }: GatewayOptions
): Effect.Effect<ChildSpec<Supervisor.SupervisorFailure, R | Processes>> {
  return Effect.gen(function* () {
    const tcp = yield* listeners<GatewayError, R>(insecure, services, options(grace))
    const port = serial ? yield* SerialPort.find : undefined
    return Supervisor.make("gateway", {
      description: "the ways in",
      children: [
        Actor.make(
          "grpc",
          { kind: "gateway", description: "the API on a unix socket", shutdown: "10 seconds" },
          Effect.gen(function* () {
            yield* bindPrivately(socketPath, (path) => serve(`unix:${path}`, services, options(grace)))
            yield* Actor.ready({ socket: socketPath })
            return yield* Effect.never
          })
        ),
        tcp,
        ...(port === undefined ? [] : [SerialPort.serialPort(port, socketPath)])
      ]
    })
  })
}

const noKeys = (): ReadonlyArray<string> => []

/** The supervisor `gateway` with its child `grpc`, and `tcp` with one for each address. */
export const gateway = (given: GatewayOptions) =>
  supervisor(all(makeServices(given.debug ?? false, given.upgradeKeys ?? noKeys)), given)

/** The same for a brain that does nothing but tell why it is there. */
export const rescueGateway = (given: GatewayOptions & { readonly config: boolean }) =>
  supervisor(rescueServices(given.debug ?? false, given.upgradeKeys ?? noKeys, given.config), given)
