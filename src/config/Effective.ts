/**
 * What holds in the end: the machine config, and over it what the kernel command line says. Each part is what one actor
 * follows ({@link Parts}).
 *
 * Trap: a part that has not changed stays the same object, so that whoever follows it is not disturbed ({@link settle}).
 */
import { availableParallelism } from "node:os"
import { isDeepStrictEqual } from "node:util"
import type { RestartRate } from "../actor/Root.ts"
import type { KernelModule } from "../host/KernelModules.ts"
import type { KernelParameters } from "../host/KernelParameters.ts"
import { fromParameters } from "../network/FromParameters.ts"
import { configOf, type NetworkConfig } from "../network/NetworkConfig.ts"
import { usualWatchdog, type Watchdog } from "../host/Watchdog.ts"
import type { ImageSettings } from "../storage/ImageSettings.ts"
import type { RegistrySettings } from "../storage/registry/RegistrySettings.ts"
import { imageSettings, registrySettings } from "./ImagesDocument.ts"
import type { MachineConfig } from "./MachineConfig.ts"

/** What the actors of the host follow, each its own part. */
export interface Parts {
  /** Undefined: it keeps the name it has. */
  readonly hostname: string | undefined
  readonly network: NetworkConfig
  readonly time: { readonly servers: ReadonlyArray<string> }
  readonly sysctls: Readonly<Record<string, string>>
  /** Undefined: it keeps the level it has. */
  readonly consoleLevel: number | undefined
  readonly modules: ReadonlyArray<KernelModule>
  /** Undefined: as the image says. */
  readonly watchdog: Watchdog | undefined
  /** Where the API is served on TCP. */
  readonly listen: ReadonlyArray<string>
  /** What containers may have. */
  readonly containers: {
    readonly allowPrivileged: boolean
    readonly allowMounts: ReadonlyArray<{ readonly path: string; readonly readOnly: boolean }>
    readonly allowDevices: ReadonlyArray<string>
  }
  readonly restarts: RestartRate
  readonly upgrade: { readonly keys: ReadonlyArray<string>; readonly whenBrainFails: "wait" | "reboot" }
  /** How registries are reached. */
  readonly registries: RegistrySettings
  /** What of images is taken and kept. */
  readonly images: ImageSettings
}
export type Part = keyof Parts

/**
 * The limit on restarts of the whole tree where nobody says otherwise. To start a container costs some 100 ms of a processor,
 * nearly all of it the OCI runtime's and the kernel's, so a storm of crashes gets about half of the host in the long run; a
 * host that was quiet restarts at once what a storm leaves room for in some seconds.
 */
export const usualRestarts: RestartRate = {
  perSecond: 5 * availableParallelism(),
  burst: 50 * availableParallelism()
}

interface Override {
  readonly field: string
  /** For people. */
  readonly parameter: string
  readonly isSaid: (kernel: KernelParameters) => boolean
}

const saysLinks = ({ bonds, links, vlans }: KernelParameters): boolean =>
  links.length > 0 || bonds.length > 0 || vlans.length > 0

/** The fields that a word of the kernel command line decides. */
const overrides: ReadonlyArray<Override> = [
  { field: "hostname", parameter: "hostname", isSaid: ({ hostname }) => hostname !== undefined },
  { field: "time.servers", parameter: "ironwood.ntp or ip", isSaid: ({ timeServers }) => timeServers.length > 0 },
  {
    field: "kernel.consoleLevel",
    parameter: "loglevel, quiet or debug",
    isSaid: ({ consoleLevel }) => consoleLevel !== undefined
  },
  { field: "network.links", parameter: "ip, bond or vlan", isSaid: saysLinks },
  { field: "network.nameServers", parameter: "nameserver", isSaid: ({ nameServers }) => nameServers.length > 0 },
  { field: "state.label", parameter: "ironwood.state", isSaid: ({ state }) => state !== undefined },
  { field: "state.format", parameter: "ironwood.state_format", isSaid: ({ stateFormat }) => stateFormat !== undefined },
  {
    field: "api.listenInsecure",
    parameter: "ironwood.listen_insecure",
    isSaid: ({ listenInsecure }) => listenInsecure.length > 0
  }
]

/** The kernel parameter that would win over a field, for people. */
export const parameterOf = (field: string): string =>
  field === "kernel.sysctls"
    ? "`sysctl.NAME`"
    : overrides
        .filter((override) => override.field === field || override.field.startsWith(`${field}.`))
        .map(({ parameter }) => `\`${parameter}\``)
        .join(", ")

const sysctlField = /^kernel\.sysctls\[(".*")\]$/

/** The word of the kernel command line that wins over a field, if one does. */
export const overriding = (field: string, kernel: KernelParameters): string | undefined => {
  const [, quoted] = sysctlField.exec(field) ?? []
  if (quoted !== undefined) {
    const name = sysctlName(String(JSON.parse(quoted)))
    return kernel.sysctls.has(name) ? `sysctl.${name}` : undefined
  }
  return overrides.find((override) => override.field === field && override.isSaid(kernel))?.parameter
}

/** The name with dots, as the kernel knows it by slashes or dots. */
export const sysctlName = (name: string): string => name.replaceAll("/", ".")

const networkOf = ({ network = {} }: MachineConfig, kernel: KernelParameters | undefined): NetworkConfig => {
  const written = configOf(network)
  if (kernel === undefined) return written
  const { config: said } = fromParameters(kernel)
  return {
    ...written,
    ...(saysLinks(kernel) ? { links: said.links } : {}),
    ...(said.nameServers.length > 0 ? { nameServers: said.nameServers } : {})
  }
}

/** What holds, of a machine with this kernel command line (undefined: a process like others, whose machine is not its own). */
export const effective = (config: MachineConfig, kernel: KernelParameters | undefined): Parts => ({
  network: networkOf(config, kernel),
  hostname: kernel?.hostname === undefined ? config.hostname : undefined,
  time: {
    servers: kernel !== undefined && kernel.timeServers.length > 0 ? kernel.timeServers : (config.time?.servers ?? [])
  },
  sysctls: Object.fromEntries(
    Object.entries(config.kernel?.sysctls ?? {})
      .map(([name, value]) => [sysctlName(name), String(value)] as const)
      .filter(([name]) => kernel?.sysctls.has(name) !== true)
  ),
  consoleLevel: kernel?.consoleLevel === undefined ? config.kernel?.consoleLevel : undefined,
  modules: (config.kernel?.modules ?? []).map(({ name, parameters = {} }) => ({
    name,
    parameters: Object.entries(parameters)
      .map(([key, value]) => `${key}=${typeof value === "boolean" ? Number(value) : value}`)
      .join(" ")
  })),
  watchdog:
    config.watchdog === undefined
      ? undefined
      : {
          timeout: config.watchdog.timeoutSeconds ?? usualWatchdog.timeout,
          patience: config.watchdog.patienceSeconds ?? usualWatchdog.patience
        },
  listen:
    kernel !== undefined && kernel.listenInsecure.length > 0
      ? kernel.listenInsecure
      : [...new Set(config.api?.listenInsecure)],
  containers: {
    allowPrivileged: config.containers?.allowPrivileged ?? false,
    allowMounts: (config.containers?.allowMounts ?? []).map(({ path, readOnly = false }) => ({ path, readOnly })),
    allowDevices: config.containers?.allowDevices ?? []
  },
  restarts: {
    perSecond: config.restarts?.perSecond ?? usualRestarts.perSecond,
    burst: config.restarts?.burst ?? usualRestarts.burst
  },
  upgrade: {
    keys: config.upgrade?.keys ?? [],
    whenBrainFails: config.upgrade?.whenBrainFails ?? "wait"
  },
  registries: registrySettings(config.registries),
  images: imageSettings(config.images)
})

/** The disk that keeps the state. */
export const stateDisk = (config: MachineConfig, kernel: KernelParameters) => ({
  label: kernel.state ?? config.state?.label,
  format: kernel.stateFormat ?? config.state?.format
})

const kept = <A>(before: A, after: A): A => (isDeepStrictEqual(before, after) ? before : after)

/** `after`, with the parts that have not changed as they are in `before`. */
export const settle = (before: Parts, after: Parts): Parts => ({
  hostname: after.hostname,
  network: kept(before.network, after.network),
  time: kept(before.time, after.time),
  sysctls: kept(before.sysctls, after.sysctls),
  modules: kept(before.modules, after.modules),
  consoleLevel: after.consoleLevel,
  watchdog: kept(before.watchdog, after.watchdog),
  listen: kept(before.listen, after.listen),
  restarts: kept(before.restarts, after.restarts),
  upgrade: kept(before.upgrade, after.upgrade),
  registries: kept(before.registries, after.registries),
  images: kept(before.images, after.images),
  containers: kept(before.containers, after.containers)
})
