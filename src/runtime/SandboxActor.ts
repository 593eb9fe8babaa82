/**
 * The actor of a sandbox: supervises its containers, as many as desired state names, and clears away what they shared
 * (network namespace, cgroup) when somebody wants the sandbox gone.
 *
 * Containers start and fail independently. One whose policy escalates restarts the sandbox's supervisor, which *releases*
 * the others: they go on running and are found again. A sandbox itself never escalates: no container can take the runtime
 * down with it.
 */
import * as Effect from "effect/Effect"
import * as Actor from "../actor/Actor.ts"
import * as DynamicSupervisor from "../actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import type { Processes } from "../taproot/Processes.ts"
import { Cgroups } from "../host/Cgroups.ts"
import { containerActor } from "./ContainerActor.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import type { Executions } from "./Executions.ts"
import { byAge, type Records, type SandboxRecord } from "./Records.ts"

/** The services that containers and sandboxes stand on. */
export type Services = ContainerRuns | Cgroups | Executions | Processes

export type SandboxSupervisor = DynamicSupervisor.DynamicSupervisor<never, Services>

/** The supervisor of a sandbox; its spec goes below the runtime's. */
export const sandboxActor = (sandbox: SandboxRecord, records: Records): Effect.Effect<SandboxSupervisor> => {
  const { name, network } = sandbox.spec
  return DynamicSupervisor.make(name, {
    kind: "sandbox",
    description: network === "host" ? "the host's network" : "no network",
    policy: RestartPolicy.workload,
    children: Effect.gen(function* () {
      const { isLeft, networks, paths } = yield* ContainerRuns
      const cgroups = yield* Cgroups
      yield* Actor.onStop(Effect.andThen(networks.forget(name), cgroups.remove(`${paths.cgroup}/${name}`)))
      // A record that does not decode is no reason to lose the others.
      const containers = yield* records.containers.partition
      const own = byAge(containers.records).filter(({ value }) => value.sandbox === name)
      return yield* Effect.forEach(own, ({ value }) =>
        Effect.map(isLeft(value), (left) => containerActor(value, sandbox, records, !left))
      )
    })
  })
}
