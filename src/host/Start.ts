/**
 * The start of a machine as a branch of the tree: `init/host`, one actor per step. Order does not matter here: what has one
 * (mounts, modules, the state's disk) is done by taproot before there is a brain, or by the brain before there is a tree.
 */
import type { ChildSpec } from "../actor/ChildSpec.ts"
import * as Supervisor from "../actor/Supervisor.ts"
import { clockStep } from "./ClockStep.ts"
import { devicesStep } from "./DeviceModules.ts"
import { kernelStep } from "./KernelFeatures.ts"
import { type KernelModule, modulesStep } from "./KernelModules.ts"
import type { KernelParameters } from "./KernelParameters.ts"
import { stateStep } from "./MachineState.ts"
import { consoleStep, hostnameStep } from "./Names.ts"
import { parametersStep } from "./ParametersStep.ts"
import { randomSeedStep } from "./RandomSeed.ts"
import { rebootsStep } from "./RebootGuard.ts"
import type { Setting } from "./Setting.ts"
import { sysctls } from "./Sysctls.ts"
import { type Watchdog, watchdogStep } from "./Watchdog.ts"

/** What of the machine config the steps do. */
export interface Settings {
  readonly hostname: Setting<string | undefined>
  readonly time: Setting<{ readonly servers: ReadonlyArray<string> }>
  readonly sysctls: Setting<Readonly<Record<string, string>>>
  readonly modules: Setting<ReadonlyArray<KernelModule>>
  readonly consoleLevel: Setting<number | undefined>
  readonly watchdog: Setting<Watchdog | undefined>
}

/** `config` is the actor that looks after the machine config. */
export const host = <E, R>(
  parameters: KernelParameters,
  settings: Settings,
  config: ChildSpec<E, R>,
  stateDirectory: string
) =>
  Supervisor.make("host", {
    description: "what a machine needs to be one",
    children: [
      parametersStep(parameters),
      kernelStep,
      config,
      stateStep,
      randomSeedStep(stateDirectory),
      rebootsStep,
      sysctls(settings.sysctls, parameters.sysctls),
      modulesStep(settings.modules),
      devicesStep,
      watchdogStep(settings.watchdog),
      hostnameStep(settings.hostname),
      consoleStep(settings.consoleLevel),
      clockStep(settings.time)
    ]
  })

/** Of an Ironwood that is a process on a machine that is not its own. */
export const plainHost = <E, R>(config: ChildSpec<E, R>) =>
  Supervisor.make("host", { description: "what Ironwood was told about this host", children: [config] })
