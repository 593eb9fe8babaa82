/**
 * The real `Containers`.
 *
 * Every command goes the same way: look up the record and the state, look into the table (`Lifecycle.ts`), commit what a
 * person wants from now on, ask the tree. Commands on one name take turns up to the point where the tree has been asked, so
 * what is committed last is what is done last; what takes long (a stop's grace) is waited for outside.
 *
 * Traps: a caller that goes away (its deadline has passed) takes nothing back: what was committed is done all the same.
 */
import { randomUUID } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { ActorPath } from "../actor/ActorPath.ts"
import { failuresInARow, type Tree, type TreeNode } from "../actor/Tree.ts"
import { Content } from "../storage/Content.ts"
import * as KeyedLock from "../storage/KeyedLock.ts"
import { State } from "../storage/State.ts"
import { Volumes } from "../storage/Volumes.ts"
import type { StateConflict } from "../storage/StateErrors.ts"
import {
  ContainerAlreadyExists,
  ContainerNotFound,
  ControlFailed,
  LogUnreadable,
  SandboxAlreadyExists,
  SandboxInUse,
  SandboxNotFound,
  SecretInUse,
  SecretNotFound,
  SpecInvalid,
  WrongState
} from "./ContainerError.ts"
import { Cgroups } from "../host/Cgroups.ts"
import { CLEARING } from "./ContainerActor.ts"
import type { RuntimeMissing } from "./ContainerExit.ts"
import * as ContainerRuns from "./ContainerRuns.ts"
import { type Container, Containers, type Sandbox, type StateError } from "./Containers.ts"
import { ContainerSpec, limitProblemsOf } from "./ContainerSpec.ts"
import { fallbackProblems } from "./Dependencies.ts"
import * as Isolation from "./Isolation.ts"
import * as MicroVms from "./microvm/MicroVms.ts"
import * as Refusals from "./microvm/Refusals.ts"
import { type Action, type Command, commands, type ContainerState, hint } from "./Lifecycle.ts"
import * as HostPaths from "./HostPaths.ts"
import * as Secrets from "./Secrets.ts"
import * as Executions from "./Executions.ts"
import type { RuntimeFailed } from "./OciRuntime.ts"
import * as ProcessList from "./ProcessList.ts"
import * as Records from "./Records.ts"
import * as References from "./References.ts"
import { nothingAssumed } from "./References.ts"
import * as RuntimePaths from "./RuntimePaths.ts"
import * as RuntimeSpec from "./RuntimeSpec.ts"
import * as RuntimeSupervisor from "./RuntimeSupervisor.ts"
import * as SandboxSteering from "./SandboxSteering.ts"
import { SandboxSpec } from "./SandboxSpec.ts"
import * as System from "./System.ts"
import * as UserRanges from "./UserRanges.ts"
import type { StopOptions } from "./StopOptions.ts"

export interface Options {
  /** `runtime` in the state directory. */
  readonly directory: string
  readonly logs: string
}

/** The fields in which two specs differ. */
const differences = (left: object, right: object): ReadonlyArray<string> => {
  const [leftFields, rightFields] = [new Map(Object.entries(left)), new Map(Object.entries(right))]
  return [...new Set([...leftFields.keys(), ...rightFields.keys()])].filter(
    (field) => !Equal.equals(leftFields.get(field), rightFields.get(field))
  )
}

/** A record was read and written under the lock of its name: nobody can have come between. */
const neverConflicts = <A, E, R>(effect: Effect.Effect<A, E | StateConflict, R>) =>
  Effect.catchIf(
    effect,
    (error): error is Extract<E | StateConflict, { readonly _tag: "StateConflict" }> =>
      typeof error === "object" && error !== null && "_tag" in error && error._tag === "StateConflict",
    Effect.die
  )

const ADMITTED_AT_ONCE = 4

/** What an action asks of the tree; the others are done without it. */
const requests: Readonly<Record<Action, (tree: Tree["Service"], path: ActorPath) => Effect.Effect<void, unknown>>> = {
  start: (tree, path) => tree.start(path),
  stop: (tree, path) => tree.stop(path),
  restart: (tree, path) => tree.restart(path),
  commit: () => Effect.void,
  signal: () => Effect.void,
  execute: () => Effect.void,
  connect: () => Effect.void,
  pause: () => Effect.void,
  resume: () => Effect.void,
  limit: () => Effect.void,
  keep: () => Effect.void,
  remove: () => Effect.void,
  "stop-and-remove": () => Effect.void,
  refuse: () => Effect.void
}

const make = Effect.gen(function* () {
  const state = yield* State
  const content = yield* Content
  const systems = yield* System.Systems
  const runs = yield* ContainerRuns.ContainerRuns
  const allowance = yield* Isolation.Allowance
  const secrets = yield* Secrets.Secrets
  const volumes = yield* Volumes
  const runtime = yield* RuntimeSupervisor.RuntimeSupervisor
  const executions = yield* Executions.Executions
  const microVms = yield* MicroVms.MicroVms
  const scope = yield* Effect.scope
  const records = yield* Records.open(state)
  const locks = KeyedLock.make()
  // A hundred requests at once are dealt with a few at a time, so that the event loop turns in between.
  const admission = Semaphore.makeUnsafe(ADMITTED_AT_ONCE)
  // taproot takes 16 mounts and unmounts at once, and refuses more.
  const releasing = Semaphore.makeUnsafe(4)
  const lockContainer = (name: string) => locks.withLock(`container/${name}`)
  const lockSandbox = (name: string) => locks.withLock(`sandbox/${name}`)

  yield* content.registerUsers((digest) =>
    Effect.map(records.containers.partition, (containers) =>
      containers.records.filter(({ value }) => value.image === digest).map(({ name }) => `container ${name}`)
    )
  )

  yield* volumes.registerUsers((volume) =>
    Effect.map(records.containers.partition, (containers) =>
      containers.records
        .filter(({ value }) => value.spec.volumes.some((one) => one.name === volume))
        .map(({ name }) => `container ${name}`)
    )
  )

  // --- what is said ---

  const stateWith = ({ spec }: Records.ContainerRecord, node: TreeNode | undefined): Effect.Effect<ContainerState> =>
    node?.state === "running"
      ? Effect.map(runs.isPaused(spec.name), (paused) => (paused ? "paused" : "running"))
      : Effect.succeed(node?.state ?? "unregistered")

  const describe = Effect.fnUntraced(function* (record: Records.StoredContainer): Effect.fn.Return<Container> {
    const { value } = record
    const path = RuntimeSupervisor.containerPath(value)
    const node = yield* runtime.node(path)
    const running = node?.state === "running" || node?.state === "stopping"
    const pid = Number(node?.annotations["pid"] ?? 0)
    return {
      name: record.name,
      uid: record.uid,
      generation: record.generation,
      createdAt: record.createdAt,
      updatedAt: record.updatedAt,
      spec: value.spec,
      sandbox: value.sandbox,
      image: value.image,
      path,
      desired: value.desired,
      state: yield* stateWith(value, node),
      pid: running && pid > 0 ? pid : undefined,
      ready: running ? node?.annotations["ready"] : undefined,
      incarnation: node?.incarnation ?? 0,
      restarts: node?.restarts ?? 0,
      consecutiveFailures: node === undefined ? 0 : failuresInARow(node, yield* Clock.currentTimeMillis),
      startedAt: node?.startedAt,
      lastExit: node?.lastExit,
      nextAttemptAt: node?.nextAttemptAt,
      node
    }
  })

  const find = (name: string): Effect.Effect<Records.StoredContainer, ContainerNotFound | StateError> =>
    Effect.flatMap(
      records.containers.get(name),
      Option.match({
        onNone: () => Effect.fail(new ContainerNotFound({ name })),
        onSome: (found) => Effect.succeed(found)
      })
    )

  const get = (name: string) => Effect.flatMap(find(name), describe)

  const inSandbox = (name: string) =>
    Effect.map(records.containers.partition, (containers) =>
      containers.records.filter(({ value }) => value.sandbox === name)
    )

  const describeSandbox = Effect.fnUntraced(function* (record: Records.StoredSandbox): Effect.fn.Return<Sandbox> {
    const path = RuntimeSupervisor.sandboxPath(record.name)
    return {
      name: record.name,
      uid: record.uid,
      generation: record.generation,
      createdAt: record.createdAt,
      updatedAt: record.updatedAt,
      spec: record.value.spec,
      implicit: record.value.implicit,
      firstUser: record.value.firstUser,
      path,
      containers: (yield* inSandbox(record.name)).map(({ name }) => name),
      node: yield* runtime.node(path)
    }
  })

  const findSandbox = (name: string): Effect.Effect<Records.StoredSandbox, SandboxNotFound | StateError> =>
    Effect.flatMap(
      records.sandboxes.get(name),
      Option.match({
        onNone: () => Effect.fail(new SandboxNotFound({ name })),
        onSome: (found) => Effect.succeed(found)
      })
    )

  // --- what is done ---

  /** Asks the tree, in a fiber of its own that no caller's end takes along. */
  const ask = (request: (tree: Tree["Service"]) => Effect.Effect<void, unknown>) =>
    Effect.flatMap(runtime.tree, (tree) =>
      Effect.forkIn(Option.isNone(tree) ? Effect.void : Effect.ignore(request(tree.value)), scope, {
        startImmediately: true
      })
    )

  const stateOf = (record: Records.ContainerRecord): Effect.Effect<ContainerState> =>
    Effect.flatMap(runtime.node(RuntimeSupervisor.containerPath(record)), (node) => stateWith(record, node))

  /** `start`, `stop` and `restart`: commit what is wanted from now on, ask, and wait for it outside the lock. */
  const steer = (name: string, command: "start" | "stop" | "restart", options: StopOptions = {}) =>
    Effect.gen(function* () {
      const desired = command === "stop" ? "stopped" : "running"
      const { fiber, path } = yield* lockContainer(name)(
        Effect.gen(function* () {
          const { value } = yield* find(name)
          const path = RuntimeSupervisor.containerPath(value)
          const present = yield* stateOf(value)
          const action = commands[present][command]
          const otherwise = options.gracePeriod !== undefined || options.signal !== undefined
          // A plain stop has nothing to say about how one that is under way goes on.
          const keeps = command === "stop" && !otherwise
          const change = ({ ending, ...record }: Records.ContainerRecord): Records.ContainerRecord => ({
            ...record,
            desired,
            completed: false,
            ...(otherwise ? { ending: options } : keeps && ending !== undefined ? { ending } : {})
          })
          const changed = change(value)
          if (value.desired !== desired || value.completed || !Equal.equals(value.ending, changed.ending)) {
            yield* records.containers.update(name, (record) => change(record.value))
          }
          if (action !== "stop") return { path, fiber: yield* ask((tree) => requests[action](tree, path)) }
          if (present === "stopping" && otherwise) {
            yield* Effect.forkIn(
              Effect.flatMap(runs.ending(changed), (ending) => runs.stop(changed, ending)),
              scope
            )
          }
          const shutdown = options.gracePeriod && Duration.sum(options.gracePeriod, CLEARING)
          return { path, fiber: yield* ask((tree) => tree.stop(path, { shutdown })) }
        })
      )
      // Held up by others that it needs, it may not come up for as long as nobody helps them.
      yield* command === "stop" ? Fiber.join(fiber) : Effect.raceFirst(Fiber.join(fiber), runtime.heldUp(path))
      if (command !== "stop") yield* runtime.settled(path)
      return yield* get(name)
    })

  const membersOf = (sandbox: string) =>
    Effect.flatMap(inSandbox(sandbox), (found) =>
      Effect.forEach(found, ({ value }) =>
        Effect.map(stateOf(value), (state): SandboxSteering.Member => ({ spec: value.spec, state }))
      )
    )

  /** Somebody may remove it meanwhile. */
  const unlessGone = <A, E, R>(effect: Effect.Effect<A, E | ContainerNotFound, R>) =>
    Effect.catchIf(
      effect,
      (error): error is Extract<E | ContainerNotFound, ContainerNotFound> => error instanceof ContainerNotFound,
      () => Effect.void
    )

  const eraseFiles = (record: Records.ContainerRecord) =>
    systems.present(record.sandbox).pipe(
      Effect.flatMap(
        Option.match({
          onNone: () => Effect.void,
          onSome: ({ releaseRoot }) => releasing.withPermit(releaseRoot(record.spec.name))
        })
      ),
      Effect.ensuring(runs.erase(record))
    )

  const refuse = (name: string, command: Command, state: ContainerState) =>
    new WrongState({
      name,
      command: command === "force-remove" ? "remove" : command,
      state,
      hint: hint(command, state)
    })

  /** The present run, for a command that needs one. */
  const runFor = Effect.fnUntraced(function* (name: string, command: Command) {
    const { value } = yield* find(name)
    const present = yield* stateOf(value)
    const run = yield* runs.current(name)
    if (commands[present][command] === "refuse" || Option.isNone(run)) return yield* refuse(name, command, present)
    return run.value
  })

  const controlled = <A>(name: string, command: string, effect: Effect.Effect<A, RuntimeMissing | RuntimeFailed>) =>
    Effect.mapError(effect, (error) => {
      const detail = error._tag === "RuntimeFailed" && error.stderr !== "" ? error.stderr : error.message
      return new ControlFailed({ name, command, detail })
    })

  const setPaused = (name: string, command: "pause" | "resume") =>
    Effect.gen(function* () {
      const run = yield* runFor(name, command)
      const paused = yield* runs.isPaused(name)
      if (paused !== (command === "pause")) yield* controlled(name, command, runs.setPaused(run, !paused))
      return yield* get(name)
    })

  const removeContainer = (name: string, force: boolean) =>
    lockContainer(name)(
      Effect.gen(function* () {
        const { value } = yield* find(name)
        const command = force ? "force-remove" : "remove"
        const present = yield* stateOf(value)
        const action = commands[present][command]
        yield* action === "refuse" ? Effect.fail(refuse(name, command, present)) : Effect.void
        const sandbox = yield* records.sandboxes.get(value.sandbox)
        const alone = Option.isSome(sandbox) && sandbox.value.value.implicit
        yield* neverConflicts(
          state.transaction([
            records.containers.removing(name),
            ...(alone ? [records.sandboxes.removing(value.sandbox)] : [])
          ])
        )
        // From here on it is gone; whatever cannot be cleared away now goes at the next start.
        yield* Effect.gen(function* () {
          yield* runs.hurry(name)
          yield* runtime.removeContainer(value)
          if (alone) yield* runtime.removeSandbox(value.sandbox)
          yield* Effect.flatMap(runs.ending(value), (ending) => runs.stop(value, ending))
          yield* eraseFiles(value)
        }).pipe(Effect.uninterruptible)
      })
    )

  /** The container that has the name, if it is what `spec` says. */
  const sameContainer = Effect.fnUntraced(function* (spec: ContainerSpec) {
    const present = yield* records.containers.get(spec.name)
    if (Option.isNone(present)) return Option.none()
    const fields = differences(present.value.value.spec, spec)
    if (fields.length > 0) return yield* new ContainerAlreadyExists({ name: spec.name, fields })
    return present
  })

  const lookUp = References.make(records, content)
  /** Whether its volumes are of the kind that it can have. Not known as long as its sandbox is not there. */
  const volumeProblems = Effect.fnUntraced(function* (spec: ContainerSpec, sandbox: SandboxSpec | undefined) {
    if (spec.volumes.length === 0) return []
    const own = spec.sandbox ?? spec.name
    const { records: all } = yield* records.containers.partition
    const found = yield* Effect.forEach(
      spec.volumes,
      Effect.fnUntraced(function* ({ name }, index) {
        const volume = yield* Effect.option(volumes.get(name))
        const others = all.filter(
          ({ value }) => value.sandbox !== own && value.spec.volumes.some((one) => one.name === name)
        )
        const isDisk = Option.isSome(volume) && volume.value.spec.sizeBytes !== undefined
        const problem = Refusals.volumeProblem(
          name,
          {
            isDisk,
            isThere: Option.isSome(volume),
            machines: Option.isSome(volume) ? volume.value.users.filter((user) => !user.startsWith("container ")) : []
          },
          sandbox?.isolation === "microvm",
          others.map(({ value }) => value.sandbox)
        )
        return problem === undefined ? [] : [{ field: `volumes[${index}].name`, problem }]
      })
    )
    return found.flat()
  })

  /** What a spec refers to; fails when any of it is not so, or when this host does not allow what it wants. */
  const resolve = (spec: ContainerSpec, assumed: References.Assumed, options: { readonly check: boolean }) =>
    Effect.tap(lookUp(References.referencesOf(spec), assumed, options), ({ problems, sandbox }) =>
      Effect.gen(function* () {
        const there = spec.secrets.length === 0 ? [] : yield* secrets.list
        const wrongVolumes =
          options.check && Option.isNone(sandbox)
            ? []
            : yield* volumeProblems(spec, Option.getOrUndefined(sandbox)?.value.spec)
        const lacking = spec.secrets.flatMap(({ name }, index) =>
          there.some((secret) => secret.name === name)
            ? []
            : [
                {
                  field: `secrets[${index}].name`,
                  problem: `there is no secret "${name}": make it with \`ironwood secret create\``
                }
              ]
        )
        const denied = [
          ...limitProblemsOf(spec),
          ...Isolation.problemsOf(spec.security, { privileged: allowance.privileged() }),
          ...HostPaths.problemsOf(spec, allowance),
          ...(Option.isSome(sandbox) && sandbox.value.value.spec.isolation === "microvm"
            ? Refusals.containerProblems(spec)
            : []),
          // in a check it may be one that is about to be made
          ...(Option.isNone(sandbox) && options.check
            ? []
            : UserRanges.problemsOf(
                spec,
                Option.match(sandbox, { onNone: () => "host", onSome: ({ value }) => value.spec.userNamespace })
              )),
          ...wrongVolumes,
          ...lacking
        ]
        return yield* Option.match(References.refusalOf([...problems, ...denied]), {
          onNone: () => Effect.void,
          onSome: Effect.fail
        })
      })
    )

  /** The sandbox that has the name, if it is what `spec` says. */
  const sameSandbox = Effect.fnUntraced(function* (spec: SandboxSpec) {
    const present = yield* records.sandboxes.get(spec.name)
    if (Option.isNone(present)) return Option.none()
    const { implicit, spec: other } = present.value.value
    const fields = implicit ? ["implicit"] : differences(other, spec)
    if (fields.length > 0) return yield* new SandboxAlreadyExists({ name: spec.name, fields })
    return present
  })

  /** What this host cannot do for a sandbox is told before anything of it is made. */
  const possible = Effect.fnUntraced(function* (spec: SandboxSpec) {
    const usersLacking =
      spec.userNamespace === "private" && spec.isolation !== "microvm" ? yield* systems.users.lacking : undefined
    const problems = [
      ...Refusals.sandboxProblems(spec, spec.isolation === "microvm" ? yield* microVms.lacking(spec.microvm) : {}),
      ...(usersLacking === undefined
        ? []
        : [{ field: "userNamespace", problem: `this host cannot do it: ${usersLacking}; leave it out` }])
    ]
    if (problems.length > 0) return yield* new SpecInvalid({ what: "sandbox", problems })
  })

  const described = <A, B, E>(found: Option.Option<A>, describe: (record: A) => Effect.Effect<B, E>) =>
    Option.match(found, {
      onNone: () => Effect.succeedNone,
      onSome: (record) => Effect.asSome(describe(record))
    })

  const create: Containers["Service"]["create"] = Effect.fn("Containers.create")(function* (spec, options = {}) {
    const sandboxName = spec.sandbox ?? spec.name
    const made = lockSandbox(sandboxName)(
      lockContainer(spec.name)(
        Effect.gen(function* () {
          const present = yield* sameContainer(spec)
          if (Option.isSome(present)) return present.value
          const found = yield* resolve(spec, options.assumed ?? nothingAssumed, {
            check: false
          })
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
            neverConflicts(
              state.transaction([
                records.containers.putting(spec.name, record, { expect: "absent" }),
                ...(Option.isSome(usable)
                  ? []
                  : [records.sandboxes.putting(sandboxName, sandbox, { expect: "absent" })]),
                ...made
              ])
            )
          )
          const [stored] = yield* volumes.holding(its)(commit)
          yield* Option.isSome(usable) ? runtime.startContainer(record, sandbox) : runtime.startSandbox(sandbox)
          return stored
        })
      )
    )
    const record = yield* admission.withPermit(Effect.uninterruptible(made))
    if (options.wait === true) yield* runtime.settled(RuntimeSupervisor.containerPath(record.value))
    return yield* describe(record)
  })

  return Containers.of({
    create,
    validate: (spec, assumed = nothingAssumed) =>
      Effect.gen(function* () {
        const same = yield* Effect.result(sameContainer(spec))
        if (Result.isSuccess(same) && Option.isSome(same.success))
          return Option.some(yield* describe(same.success.value))
        yield* resolve(spec, assumed, { check: true })
        return Result.isFailure(same) ? yield* same.failure : Option.none()
      }),
    unresolved: (references, assumed = nothingAssumed) =>
      Effect.map(lookUp(references, assumed, { check: true }), ({ problems }) => problems),
    get,
    list: Effect.flatMap(records.containers.list, (found) => Effect.forEach(found, describe)),
    start: (name) => steer(name, "start"),
    stop: (name, options) => steer(name, "stop", options),
    restart: (name) => steer(name, "restart"),
    kill: (name, signal) =>
      Effect.gen(function* () {
        const { process } = yield* runFor(name, "kill")
        yield* process.signal(signal)
        return yield* get(name)
      }),
    pause: (name) => setPaused(name, "pause"),
    resume: (name) => setPaused(name, "resume"),
    update: (name, change) =>
      Effect.gen(function* () {
        yield* lockContainer(name)(
          Effect.gen(function* () {
            const { value } = yield* find(name)
            const resources = { ...value.spec.resources, ...change }
            const run = yield* runs.current(name)
            if (commands[yield* stateOf(value)].update === "limit" && Option.isSome(run)) {
              const { id, system } = run.value
              const limits = JSON.stringify(RuntimeSpec.limitsOf(resources, system.limitSwap))
              yield* controlled(name, "update", system.runtime.control("update", id, limits))
            }
            const { resources: _, ...spec } = value.spec
            const changed = new ContainerSpec({ ...spec, resources })
            yield* records.containers.update(name, (record) => ({ ...record.value, spec: changed }))
          }).pipe(Effect.uninterruptible)
        )
        return yield* get(name)
      }),
    top: (name) =>
      runFor(name, "attach").pipe(
        Effect.catchTag("WrongState", ({ hint, state }) =>
          Effect.fail(new WrongState({ name, command: "look at the processes of", state, hint }))
        ),
        Effect.flatMap(({ cgroup, system: { cgroups, files } }) =>
          Effect.gen(function* () {
            const { value } = yield* find(name)
            const sandbox = yield* records.sandboxes.get(value.sandbox)
            const first = Option.match(sandbox, { onNone: () => undefined, onSome: (found) => found.value.firstUser })
            return yield* ProcessList.list(files, yield* cgroups.processes(cgroup), first)
          })
        )
      ),
    stats: (names) =>
      Effect.gen(function* () {
        const wanted =
          names.length === 0
            ? (yield* records.containers.list).map((record) => record.name)
            : yield* Effect.forEach(names, (name) => Effect.map(find(name), (found) => found.name))
        const currents = yield* runs.currents
        const found = yield* Effect.forEach(
          wanted,
          (name) =>
            Effect.gen(function* () {
              const run = currents.get(name)
              if (run === undefined) return []
              const time = yield* Clock.currentTimeNanos
              return [{ name, time, ...(yield* run.system.cgroups.stats(run.cgroup)) }]
            }),
          { concurrency: 4 }
        )
        return found.flat()
      }),
    exec: (name, spec) => Effect.flatMap(runFor(name, "exec"), (run) => executions.open(run, spec)),
    attach: (name) => runFor(name, "attach"),
    remove: (name, options) => removeContainer(name, options?.force ?? false),
    setPolicy: (name, policy) =>
      Effect.gen(function* () {
        yield* lockContainer(name)(
          Effect.gen(function* () {
            const { value } = yield* find(name)
            const there = (yield* records.containers.partition).records
            const siblings = there.filter((other) => other.value.sandbox === value.sandbox)
            const problems = fallbackProblems(name, policy.fallback, new Set(siblings.map((other) => other.name)))
            if (problems.length > 0) return yield* new SpecInvalid({ what: "container", problems })
            const { restart: _, ...spec } = value.spec
            const changed = new ContainerSpec({ ...spec, restart: policy })
            yield* records.containers.update(name, (record) => ({ ...record.value, spec: changed }))
            yield* Effect.flatMap(
              ask((tree) => tree.setPolicy(RuntimeSupervisor.containerPath(value), policy)),
              Fiber.join
            )
          })
        )
        return yield* get(name)
      }),
    logs: (name, options = {}) =>
      Stream.unwrap(
        Effect.map(find(name), ({ value }) =>
          Stream.mapError(
            runs.log(value).read(options),
            ({ code, path }) => new LogUnreadable({ name, path, problem: code })
          )
        )
      ),

    createSandbox: (spec) =>
      lockSandbox(spec.name)(
        Effect.gen(function* () {
          const present = yield* sameSandbox(spec)
          if (Option.isSome(present)) return yield* describeSandbox(present.value)
          yield* possible(spec)
          const stored = yield* Records.withRange(records, UserRanges.startOf(runs.paths.cgroup), spec, (range) =>
            neverConflicts(records.sandboxes.put(spec.name, { spec, implicit: false, ...range }, { expect: "absent" }))
          )
          yield* runtime.startSandbox(stored.value)
          return yield* describeSandbox(stored)
        }).pipe(Effect.uninterruptible)
      ),
    putSecret: secrets.put,
    listSecrets: secrets.list,
    removeSecret: Effect.fnUntraced(function* (name) {
      const { records: all } = yield* records.containers.partition
      const users = all.filter(({ value }) => value.spec.secrets.some((secret) => secret.name === name))
      if (users.length > 0) return yield* new SecretInUse({ name, containers: users.map((user) => user.name) })
      return (yield* secrets.remove(name)) ? undefined : yield* new SecretNotFound({ name })
    }),
    stopSandbox: (name, options = {}) =>
      Effect.gen(function* () {
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
          stop: (member, gracePeriod) => unlessGone(steer(member, "stop", { gracePeriod }))
        })
        return yield* Effect.flatMap(findSandbox(name), describeSandbox)
      }),
    startSandbox: (name) =>
      Effect.gen(function* () {
        yield* findSandbox(name)
        yield* SandboxSteering.start(yield* membersOf(name), (member) => unlessGone(steer(member, "start")))
        return yield* Effect.flatMap(findSandbox(name), describeSandbox)
      }),
    validateSandbox: (spec) =>
      Effect.flatMap(sameSandbox(spec), (found) =>
        Effect.andThen(Option.isSome(found) ? Effect.void : possible(spec), described(found, describeSandbox))
      ),
    listSandboxes: Effect.flatMap(records.sandboxes.list, (found) => Effect.forEach(found, describeSandbox)),
    getSandbox: (name) => Effect.flatMap(findSandbox(name), describeSandbox),
    removeSandbox: (name, options) =>
      lockSandbox(name)(
        Effect.gen(function* () {
          yield* findSandbox(name)
          const containers = (yield* inSandbox(name)).map((container) => container.name)
          const inUse = containers.length > 0 && options?.force !== true
          yield* inUse ? Effect.fail(new SandboxInUse({ name, containers })) : Effect.void
          yield* Effect.forEach(
            containers,
            (container) =>
              removeContainer(container, true).pipe(
                Effect.catchTags({
                  ContainerNotFound: () => Effect.void,
                  // Force is never refused.
                  WrongState: Effect.die
                })
              ),
            { concurrency: "unbounded", discard: true }
          )
          yield* neverConflicts(records.sandboxes.remove(name))
          yield* runtime.removeSandbox(name)
          yield* microVms.erase(name)
        })
      )
  })
})

/**
 * `Containers` and the branch of the tree below it (`RuntimeSupervisor`), which the caller puts below the root; with what
 * that branch needs to run.
 */
export const layer = (options: Options) => {
  const paths = RuntimePaths.make(options.directory, options.logs)
  return Layer.effect(Containers, make).pipe(
    Layer.provideMerge(RuntimeSupervisor.layer),
    Layer.provideMerge(MicroVms.layer),
    Layer.provideMerge(Executions.layer),
    Layer.provideMerge(ContainerRuns.layer),
    Layer.provideMerge(System.layer(paths)),
    Layer.provideMerge(Secrets.layer(paths)),
    Layer.provideMerge(Cgroups.layer)
  )
}
