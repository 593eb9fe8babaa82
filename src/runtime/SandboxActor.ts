/**
 * The actor of a sandbox: supervises its containers, as many as desired state names, and clears away what they shared
 * (namespaces, `/dev/shm`, cgroup) when somebody wants the sandbox gone.
 *
 * Each life of a sandbox has its init containers run once: those that others name in `afterSuccess`. A life begins when nothing
 * of an earlier one is left: at first, and after a start of the host, of taproot, or of the sandbox as a whole.
 *
 * Containers start and fail independently. One whose policy escalates restarts the sandbox's supervisor, which *releases*
 * the others: they go on running and are found again. A sandbox itself never escalates: no container can take the runtime
 * down with it.
 */
import * as Effect from "effect/Effect"
import * as Actor from "../actor/Actor.ts"
import type { ChildSpec } from "../actor/ChildSpec.ts"
import * as DynamicSupervisor from "../actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import type { Processes } from "../taproot/Processes.ts"
import { Cgroups } from "../host/Cgroups.ts"
import { containerActor } from "./ContainerActor.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import type { Executions } from "./Executions.ts"
import { microVmActor } from "./microvm/MicroVmActor.ts"
import { MicroVms } from "./microvm/MicroVms.ts"
import { byAge, type ContainerRecord, isWanted, type Records, type SandboxRecord } from "./Records.ts"
import { Systems } from "./System.ts"
import { userNetworkActor } from "./UserNetworkActor.ts"

/** The services that containers and sandboxes stand on. */
export type Services = ContainerRuns | Cgroups | Executions | MicroVms | Processes | Systems

export type SandboxSupervisor = DynamicSupervisor.DynamicSupervisor<never, Services>

/** The init containers that run again in a new life of their sandbox: they have run, and somebody waits for that. */
const toRunAgain = (containers: ReadonlyArray<ContainerRecord>): ReadonlySet<string> => {
  const named = new Set(containers.flatMap(({ spec }) => spec.afterSuccess))
  return containers.some(isWanted)
    ? new Set(containers.flatMap(({ completed, spec: { name } }) => (completed && named.has(name) ? [name] : [])))
    : new Set()
}

const networks = { none: "no network", host: "the host's network", user: "a network of its own" } as const

const descriptionOf = ({ isolation, network, processes, userNamespace }: SandboxRecord["spec"]): string =>
  [
    ...(isolation === "microvm" ? ["a microVM"] : []),
    networks[network],
    ...(processes === "shared" ? ["shared processes"] : []),
    ...(userNamespace === "private" ? ["users of its own"] : [])
  ].join(", ")

/** The supervisor of a sandbox; its spec goes below the runtime's. */
export const sandboxActor = (sandbox: SandboxRecord, records: Records): Effect.Effect<SandboxSupervisor> => {
  const { name } = sandbox.spec
  return DynamicSupervisor.make(name, {
    kind: "sandbox",
    description: descriptionOf(sandbox.spec),
    policy: RestartPolicy.workload,
    children: Effect.gen(function* () {
      const { isLeft, namespaces, paths } = yield* ContainerRuns
      const cgroups = yield* Cgroups
      yield* Actor.onStop(Effect.andThen(namespaces.forget(name), cgroups.remove(`${paths.cgroup}/${name}`)))
      // A record that does not decode is no reason to lose the others.
      const containers = yield* records.containers.partition
      const own = byAge(containers.records.filter(({ value }) => value.sandbox === name)).map(({ value }) => value)
      const isMicroVm = sandbox.spec.isolation === "microvm"
      if (isMicroVm) {
        yield* (yield* Systems).expect(name)
        // what an earlier brain left: with it, its containers are found
        yield* (yield* MicroVms).find(name)
      }
      const left = new Set<string>()
      for (const record of own) if (yield* isLeft(record)) left.add(record.spec.name)
      const goesOn = sandbox.implicit || left.size > 0 || (yield* namespaces.exist(name))
      const again = goesOn ? new Set<string>() : toRunAgain(own)
      const actors: ReadonlyArray<ChildSpec<unknown, Services>> = yield* Effect.forEach(
        own,
        Effect.fnUntraced(function* (record) {
          const anew = again.has(record.spec.name)
          if (anew) {
            // its actor goes by `wanted`, whether it can be written or not
            yield* Effect.ignore(
              records.containers.update(record.spec.name, ({ value }) => ({ ...value, completed: false }))
            )
          }
          const wanted = anew ? { ...record, completed: false } : record
          return containerActor(wanted, sandbox, records, !anew && !left.has(record.spec.name))
        })
      )
      const machine: ChildSpec<unknown, Services> = microVmActor(sandbox, records)
      const network: ReadonlyArray<ChildSpec<unknown, Services>> =
        sandbox.spec.network === "user" ? [userNetworkActor(sandbox)] : []
      return [...network, ...(isMicroVm ? [machine] : []), ...actors]
    })
  })
}
