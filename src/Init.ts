/**
 * The root of the tree: read this first.
 *
 * ```
 * init                      rest_for_one
 * ├─ host                   the machine config; on a machine that boots into Ironwood the steps of its start, too
 * ├─ storage                the desired state, the journal, images
 * ├─ network                the host's links, on a machine that boots into Ironwood
 * ├─ vmm                    one child per virtual machine
 * ├─ runtime                one child per sandbox, each with its containers
 * ├─ gateway                the API
 * ├─ upgrade                which brain runs; one that has to prove itself does it here
 * └─ boot-assessment        tells the boot loader that all of this came up, where the loader counts
 * ```
 *
 * Order is dependency: what comes later stands on what comes before, starts after it and ends before it. A crash takes
 * along only what stands on it, and by default *releases* that: containers go on and are adopted again.
 *
 * Below the tree lie the services that every actor uses (`services`): each is a layer with one job, and the dependency
 * arrows between the folders are checked (`scripts/check-dependencies.ts`).
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { join } from "node:path"
import * as Supervisor from "./actor/Supervisor.ts"
import { gateway } from "./gateway/Gateway.ts"
import { answersAt } from "./gateway/SelfCheck.ts"
import * as BootAssessment from "./host/BootAssessment.ts"
import { Host } from "./host/HostFacts.ts"
import type { Place } from "./BrainProcess.ts"
import { configActor } from "./config/ConfigActor.ts"
import { MachineConfigs } from "./config/MachineConfigs.ts"
import { host, plainHost } from "./host/Start.ts"
import * as Network from "./network/Network.ts"
import { Cgroups } from "./host/Cgroups.ts"
import { Allowance } from "./runtime/Isolation.ts"
import * as ContainersLive from "./runtime/ContainersLive.ts"
import * as OciRuntimeLive from "./runtime/OciRuntimeLive.ts"
import { cgroupOf } from "./runtime/RuntimePaths.ts"
import { RuntimeSupervisor } from "./runtime/RuntimeSupervisor.ts"
import * as ContentLive from "./storage/ContentLive.ts"
import * as RootfsLive from "./storage/RootfsLive.ts"
import { storage } from "./storage/Storage.ts"
import * as Volumes from "./storage/Volumes.ts"
import { upgradeActor } from "./upgrade/UpgradeActor.ts"
import { databaseOf } from "./upgrade/Upgrades.ts"
import * as VmsLive from "./vmm/VmsLive.ts"
import { VmSupervisor } from "./vmm/VmSupervisor.ts"

/** Where everything of one Ironwood is kept, below its state directory (absolute). */
export const paths = (stateDirectory: string) => ({
  database: databaseOf(stateDirectory),
  content: join(stateDirectory, "content"),
  runtime: join(stateDirectory, "runtime"),
  logs: join(stateDirectory, "logs"),
  vms: join(stateDirectory, "vm"),
  volumes: join(stateDirectory, "volumes"),
  socket: join(stateDirectory, "ironwood.sock")
})

/** The tree of one Ironwood. */
export const init = Effect.fnUntraced(function* ({ machine, socketPath, stateDirectory }: Place) {
  const vmm = yield* VmSupervisor
  const runtime = yield* RuntimeSupervisor
  const { parts, setting } = yield* MachineConfigs
  const config = configActor(machine)
  const counted = machine === undefined ? Option.none() : yield* BootAssessment.started
  const network =
    machine === undefined
      ? []
      : [yield* Network.make({ config: setting("network"), hostname: machine.spareHostname, stateDirectory })]
  const ways = yield* gateway({
    socketPath,
    insecure: setting("listen"),
    debug: machine?.debug ?? false,
    serial: machine !== undefined,
    upgradeKeys: () => parts().upgrade.keys
  })
  return Supervisor.make("init", {
    strategy: "rest_for_one",
    kind: "root",
    description: "the root of everything that runs here",
    children: [
      machine === undefined
        ? plainHost(config)
        : host(
            machine,
            {
              hostname: setting("hostname"),
              time: setting("time"),
              sysctls: setting("sysctls"),
              modules: setting("modules"),
              watchdog: setting("watchdog"),
              consoleLevel: setting("consoleLevel")
            },
            config,
            stateDirectory
          ),
      storage({ directory: paths(stateDirectory).content, collection: () => parts().images.collection }),
      ...network,
      vmm.spec,
      runtime.spec,
      ways,
      upgradeActor(answersAt(socketPath)),
      ...Option.toArray(Option.map(counted, BootAssessment.bootAssessment))
    ]
  })
})

/** The services that the actors use; what these stand on (the state, taproot) comes from `main`. */
export const services = (stateDirectory: string) => {
  const { content, logs, runtime, vms, volumes } = paths(stateDirectory)
  const allowance = Layer.effect(
    Allowance,
    Effect.map(MachineConfigs, ({ parts }) => ({
      privileged: () => parts().containers.allowPrivileged,
      mounts: () => parts().containers.allowMounts,
      devices: () => parts().containers.allowDevices
    }))
  )
  return ContainersLive.layer({ directory: runtime, logs }).pipe(
    Layer.provide(allowance),
    Layer.provideMerge(OciRuntimeLive.layer({ directory: runtime })),
    Layer.provideMerge(RootfsLive.layer({ directory: join(runtime, "rootfs") })),
    Layer.provideMerge(VmsLive.layer({ directory: vms, cgroup: `${cgroupOf(stateDirectory)}-vm` })),
    Layer.provideMerge(Volumes.layer({ directory: volumes })),
    Layer.provideMerge(
      Layer.unwrap(
        Effect.map(MachineConfigs, ({ parts }) =>
          ContentLive.layer({
            directory: content,
            limits: () => parts().images.limits,
            registries: () => parts().registries
          })
        )
      )
    ),
    Layer.provideMerge(Layer.merge(Cgroups.layer, Host.layer))
  )
}
