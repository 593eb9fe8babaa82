/**
 * The commands on sandboxes: made, stopped and started with all their containers, removed. In which order their containers
 * come and go is in `SandboxSteering.ts`; here each of them is steered and removed as if a person had asked for it alone.
 *
 * Trap: one that was made for a container alone (`implicit`) goes with it, and cannot be asked for by `createSandbox`.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { State } from "../storage/State.ts"
import * as Admission from "./Admission.ts"
import { SandboxInUse } from "./ContainerError.ts"
import { ContainerLocks } from "./ContainerLocks.ts"
import type { Remove } from "./ContainerRemoval.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import * as ContainerStatus from "./ContainerStatus.ts"
import type { ContainerSteering } from "./ContainerSteering.ts"
import { MicroVms } from "./microvm/MicroVms.ts"
import * as PublishedPorts from "./PublishedPorts.ts"
import * as Records from "./Records.ts"
import { RuntimeSupervisor } from "./RuntimeSupervisor.ts"
import type { SandboxSpec } from "./SandboxSpec.ts"
import * as SandboxSteering from "./SandboxSteering.ts"
import type { StopOptions } from "./StopOptions.ts"
import * as UserRanges from "./UserRanges.ts"

export interface Containers {
  readonly steering: ContainerSteering
  readonly remove: Remove
}

export const make = Effect.fnUntraced(function* ({ remove, steering }: Containers) {
  const records = yield* Records.open(yield* State)
  const locks = yield* ContainerLocks
  const microVms = yield* MicroVms
  const { paths } = yield* ContainerRuns
  const runtime = yield* RuntimeSupervisor
  const { admitSandbox, sameSandbox } = yield* Admission.make
  const { describeSandbox, findSandbox, getSandbox, inSandbox, stateOf } = yield* ContainerStatus.make

  const membersOf = (sandbox: string) =>
    Effect.flatMap(inSandbox(sandbox), (found) =>
      Effect.forEach(found, ({ value }) =>
        Effect.map(stateOf(value), (state): SandboxSteering.Member => ({ spec: value.spec, state }))
      )
    )

  const create = (spec: SandboxSpec) =>
    locks.sandbox(spec.name)(
      Effect.gen(function* () {
        const present = yield* sameSandbox(spec)
        if (Option.isSome(present)) return yield* describeSandbox(present.value)
        yield* admitSandbox(spec)
        const stored = yield* PublishedPorts.withHostPorts(records, spec, (ports) =>
          Records.withRange(records, UserRanges.startOf(paths.cgroup), spec, (range) =>
            Effect.catchTag(
              records.sandboxes.put(spec.name, { spec, implicit: false, ...range, ...ports }, { expect: "absent" }),
              // nobody else can have made it: its name is locked
              "StateConflict",
              Effect.die
            )
          )
        )
        yield* runtime.startSandbox(stored.value)
        return yield* describeSandbox(stored)
      }).pipe(Effect.uninterruptible)
    )

  const validate = Effect.fnUntraced(function* (spec: SandboxSpec) {
    const present = yield* sameSandbox(spec)
    if (Option.isSome(present)) return Option.some(yield* describeSandbox(present.value))
    yield* admitSandbox(spec)
    return Option.none()
  })

  const stop = Effect.fnUntraced(function* (name: string, options: Pick<StopOptions, "gracePeriod"> = {}) {
    const { value } = yield* findSandbox(name)
    const members = yield* membersOf(name)
    const grace = SandboxSteering.graceOf(value.spec, members, options.gracePeriod)
    yield* SandboxSteering.stop(members, grace, {
      commit: Effect.fnUntraced(function* (names) {
        for (const member of names) {
          yield* records.containers.update(member, (record) => ({
            ...record.value,
            desired: "stopped",
            ending: { gracePeriod: grace }
          }))
        }
      }),
      // somebody may remove it meanwhile
      stop: (member, gracePeriod) =>
        Effect.catchTag(steering.stop(member, { gracePeriod }), "ContainerNotFound", () => Effect.void)
    })
    return yield* getSandbox(name)
  })

  const start = Effect.fnUntraced(function* (name: string) {
    yield* findSandbox(name)
    yield* SandboxSteering.start(yield* membersOf(name), (member) =>
      Effect.catchTag(steering.start(member), "ContainerNotFound", () => Effect.void)
    )
    return yield* getSandbox(name)
  })

  const removeSandbox = Effect.fnUntraced(
    function* (name: string, { force = false }: { readonly force?: boolean } = {}) {
      yield* findSandbox(name)
      const containers = (yield* inSandbox(name)).map((container) => container.name)
      if (containers.length > 0 && !force) return yield* new SandboxInUse({ name, containers })
      yield* Effect.forEach(
        containers,
        (container) =>
          remove(container, true).pipe(
            Effect.catchTags({
              ContainerNotFound: () => Effect.void,
              // Force is never refused.
              WrongState: Effect.die
            })
          ),
        { concurrency: "unbounded", discard: true }
      )
      // nothing is expected of it
      yield* Effect.catchTag(records.sandboxes.remove(name), "StateConflict", Effect.die)
      yield* runtime.removeSandbox(name)
      yield* microVms.erase(name)
    },
    (effect, name) => locks.sandbox(name)(effect)
  )

  return {
    createSandbox: create,
    validateSandbox: validate,
    stopSandbox: stop,
    startSandbox: start,
    removeSandbox,
    getSandbox,
    listSandboxes: Effect.flatMap(records.sandboxes.list, (found) => Effect.forEach(found, describeSandbox))
  }
})
