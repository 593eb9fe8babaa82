/**
 * The real `Containers`: its creations and answers, and its other parts put together.
 *
 * - `Admission.ts`: what is refused before anything is made
 * - `ContainerStatus.ts`: what is said about a container
 * - `ContainerSteering.ts`: what it shall be from now on
 * - `RunCommands.ts`: what is done with the run that it has
 * - `ContainerRemoval.ts`: that it is forgotten
 * - `ProcessesBeneath.ts`: what runs in it, for the tree
 * - `SandboxCommands.ts`: all of that for sandboxes
 *
 * A creation commits the container, with a sandbox of its own where it names none, and has the tree start it.
 *
 * Trap: a caller that goes away (its deadline has passed) takes nothing back: what was committed is done all the same.
 */
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { Cgroups } from "../host/Cgroups.ts"
import { Content } from "../storage/Content.ts"
import { State } from "../storage/State.ts"
import { Volumes } from "../storage/Volumes.ts"
import * as Admission from "./Admission.ts"
import { LogUnreadable, SecretInUse, SecretNotFound } from "./ContainerError.ts"
import * as ContainerLocks from "./ContainerLocks.ts"
import * as ContainerRemoval from "./ContainerRemoval.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import * as ContainerRunsLive from "./ContainerRunsLive.ts"
import { Containers } from "./Containers.ts"
import * as ContainerStatus from "./ContainerStatus.ts"
import * as ContainerSteering from "./ContainerSteering.ts"
import * as Executions from "./Executions.ts"
import * as MicroVms from "./microvm/MicroVms.ts"
import * as ProcessesBeneath from "./ProcessesBeneath.ts"
import * as Records from "./Records.ts"
import { nothingAssumed } from "./References.ts"
import * as RunCommands from "./RunCommands.ts"
import * as RuntimePaths from "./RuntimePaths.ts"
import * as RuntimeSupervisor from "./RuntimeSupervisor.ts"
import * as SandboxCommands from "./SandboxCommands.ts"
import { SandboxSpec } from "./SandboxSpec.ts"
import * as Secrets from "./Secrets.ts"
import * as System from "./System.ts"

export interface Options {
  /** `runtime` in the state directory. */
  readonly directory: string
  readonly logs: string
}

/** A hundred requests at once are dealt with a few at a time, so that the event loop turns in between. */
const CREATED_AT_ONCE = 4

const make = Effect.gen(function* () {
  const state = yield* State
  const content = yield* Content
  const locks = yield* ContainerLocks.ContainerLocks
  const runs = yield* ContainerRuns
  const runtime = yield* RuntimeSupervisor.RuntimeSupervisor
  const secrets = yield* Secrets.Secrets
  const systems = yield* System.Systems
  const microVms = yield* MicroVms.MicroVms
  const volumes = yield* Volumes
  const records = yield* Records.open(state)
  const { admit, lookUp, sameContainer } = yield* Admission.make
  const { describe, find, get } = yield* ContainerStatus.make
  const steering = yield* ContainerSteering.make
  const remove = yield* ContainerRemoval.make
  const ofRuns = yield* RunCommands.make
  const processes = yield* ProcessesBeneath.make
  const ofSandboxes = yield* SandboxCommands.make({ steering, remove })
  const creating = Semaphore.makeUnsafe(CREATED_AT_ONCE)

  /** The names of the containers that use something. */
  const users = (uses: (record: Records.ContainerRecord) => boolean) =>
    Effect.map(records.containers.partition, (containers) =>
      containers.records.filter(({ value }) => uses(value)).map(({ name }) => name)
    )
  const named = (containers: ReadonlyArray<string>) => containers.map((name) => `container ${name}`)

  yield* content.registerUsers((digest) =>
    Effect.map(
      users(({ image }) => image === digest),
      named
    )
  )
  yield* volumes.registerUsers((volume) =>
    Effect.map(
      users(({ spec }) => spec.volumes.some((one) => one.name === volume)),
      named
    )
  )

  const create: Containers["Service"]["create"] = Effect.fn("Containers.create")(function* (spec, options = {}) {
    const sandboxName = spec.sandbox ?? spec.name
    const made = locks.sandbox(sandboxName)(
      locks.container(spec.name)(
        Effect.gen(function* () {
          const present = yield* sameContainer(spec)
          if (Option.isSome(present)) return present.value
          const found = yield* admit(spec, options.assumed ?? nothingAssumed, { check: false })
          const usable = found.sandbox
          const sandbox = Option.isSome(usable)
            ? usable.value.value
            : { spec: new SandboxSpec({ name: sandboxName, network: "none", labels: {} }), implicit: true }
          const record = {
            spec,
            sandbox: sandboxName,
            // one that is not here yet is pulled by its actor
            ...Option.match(found.image, { onNone: () => ({}), onSome: ({ digest }) => ({ image: digest }) }),
            identity: randomUUID(),
            desired: options.start === false ? "stopped" : "running",
            completed: false
          } satisfies Records.ContainerRecord
          const its = spec.volumes.map(({ name }) => name)
          const commit = Effect.flatMap(volumes.making(its), (made) =>
            state.transaction([
              records.containers.putting(spec.name, record, { expect: "absent" }),
              ...(Option.isSome(usable) ? [] : [records.sandboxes.putting(sandboxName, sandbox, { expect: "absent" })]),
              ...made
            ])
          )
          // nobody else can have made any of it: the names are locked, and the volumes held
          const [stored] = yield* Effect.catchTag(volumes.holding(its)(commit), "StateConflict", Effect.die)
          yield* Option.isSome(usable) ? runtime.startContainer(record, sandbox) : runtime.startSandbox(sandbox)
          return stored
        })
      )
    )
    const record = yield* creating.withPermit(Effect.uninterruptible(made))
    if (options.wait === true) yield* runtime.settled(RuntimeSupervisor.containerPath(record.value))
    return yield* describe(record)
  })

  const validate: Containers["Service"]["validate"] = Effect.fnUntraced(function* (spec, assumed = nothingAssumed) {
    const same = yield* Effect.result(sameContainer(spec))
    if (Result.isSuccess(same) && Option.isSome(same.success)) return Option.some(yield* describe(same.success.value))
    yield* admit(spec, assumed, { check: true })
    return Result.isFailure(same) ? yield* same.failure : Option.none()
  })

  const removeSecret: Containers["Service"]["removeSecret"] = Effect.fnUntraced(function* (name) {
    const containers = yield* users(({ spec }) => spec.secrets.some((secret) => secret.name === name))
    if (containers.length > 0) return yield* new SecretInUse({ name, containers })
    return (yield* secrets.remove(name)) ? undefined : yield* new SecretNotFound({ name })
  })

  return Containers.of({
    create,
    validate,
    unresolved: (references, assumed = nothingAssumed) =>
      Effect.map(lookUp(references, assumed, { check: true }), ({ problems }) => problems),
    get,
    list: Effect.flatMap(records.containers.list, (found) => Effect.forEach(found, describe)),
    ...steering,
    ...ofRuns,
    processes,
    remove: (name, options) => remove(name, options?.force ?? false),
    logs: (name, options = {}) =>
      Stream.unwrap(
        Effect.map(find(name), ({ value }) =>
          Stream.mapError(
            runs.log(value).read(options),
            ({ code, path }) => new LogUnreadable({ name, path, problem: code })
          )
        )
      ),
    ...ofSandboxes,
    isolations: Effect.gen(function* () {
      const [users, { machine }] = yield* Effect.all([systems.users.lacking, microVms.lacking({})])
      return [
        { name: "private users", problem: users },
        { name: "user network", problem: systems.userNetworks.lacking },
        { name: "microvm", problem: machine }
      ]
    }),
    putSecret: secrets.put,
    listSecrets: secrets.list,
    removeSecret
  })
})

/**
 * `Containers` and the branch of the tree below it (`RuntimeSupervisor`), which the caller puts below the root; with what
 * that branch needs to run.
 */
export const layer = (options: Options) => {
  const paths = RuntimePaths.make(options.directory, options.logs)
  return Layer.effect(Containers, make).pipe(
    Layer.provide(ContainerLocks.layer),
    Layer.provideMerge(RuntimeSupervisor.layer),
    Layer.provideMerge(MicroVms.layer),
    Layer.provideMerge(Executions.layer),
    Layer.provideMerge(ContainerRunsLive.layer),
    Layer.provideMerge(System.layer(paths)),
    Layer.provideMerge(Secrets.layer(paths)),
    Layer.provideMerge(Cgroups.layer)
  )
}
