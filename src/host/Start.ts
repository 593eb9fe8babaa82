/**
 * The start of a machine as a branch of the tree: `init/host`, one actor per step. Order does not matter here: what has one
 * (mounts, modules, the state's disk) is done by taproot before there is a brain, or by the brain before there is a tree.
 */
import * as Supervisor from "../actor/Supervisor.ts"
import { clockStep } from "./ClockStep.ts"
import type { KernelParameters } from "./KernelParameters.ts"
import { parametersStep } from "./ParametersStep.ts"
import { stateStep } from "./MachineState.ts"
import { sysctls } from "./Sysctls.ts"

export const host = (parameters: KernelParameters) =>
  Supervisor.make("host", {
    description: "what a machine needs to be one",
    children: [parametersStep(parameters), stateStep, sysctls, clockStep(parameters.timeServers)]
  })
