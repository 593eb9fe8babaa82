/**
 * What runs beneath the actors of containers and microVMs without being one: the processes of each container, and of a guest those
 * that are in no container (its init, what the OCI runtime does at the moment). For whoever draws the tree, and asks for it.
 *
 * A guest is asked once for all of its containers, and by one at a time: who comes while it is being asked gets the same answer.
 *
 * Traps:
 * - A guest is a stranger. It is given {@link PATIENCE}; one that still owes an answer from then on keeps nobody waiting: what is
 *   known is told without it. What it answers is at most a mebibyte, of which {@link MOST} processes are told.
 * - The threads of a guest's kernel are left out, by what the guest says of them.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ActorPath from "../actor/ActorPath.ts"
import type { ProcessFacts } from "../host/SystemFiles.ts"
import { State } from "../storage/State.ts"
import { type ContainerRun, ContainerRuns } from "./ContainerRuns.ts"
import * as ProcessList from "./ProcessList.ts"
import * as Records from "./Records.ts"
import { type System, Systems } from "./System.ts"

/** The processes beneath one actor. */
export interface Beneath {
  /** At most {@link MOST}, in the order of their pids in the container. */
  readonly processes: ReadonlyArray<ProcessList.ListedProcess>
  /** How many more there are. */
  readonly omitted: number
  /** Why they cannot be told. */
  readonly problem?: string
}

/** An actor that may have some. */
export interface Above {
  readonly kind: string
  readonly path: ActorPath.ActorPath
}

/** `guests`: of those in microVMs only. */
export type Which = "guests" | "all"

/** Told of one actor. */
export const MOST = 64
/** Milliseconds. */
export const PATIENCE = 1_000
/** Cgroups of the host that are looked at at a time. */
const AT_ONCE = 8

const CONTAINER = "container"
const MICROVM = "microvm"

/** Of a guest: those of its containers that run, by name, and the rest. */
interface Census {
  readonly containers: ReadonlyMap<string, Beneath>
  readonly rest: Beneath
}

interface Question {
  readonly since: number
  /** None: the guest cannot be asked. */
  readonly answer: Deferred.Deferred<Option.Option<Census>>
}

const KERNEL_THREADS = 2
const SILENT = { processes: [], omitted: 0, problem: "the guest has not answered yet" }
const UNKNOWN = { processes: [], omitted: 0, problem: "the guest does not tell" }

const bounded = (processes: ReadonlyArray<ProcessList.ListedProcess>, all = processes.length): Beneath => ({
  processes: processes.slice(0, MOST),
  omitted: Math.max(0, all - Math.min(MOST, processes.length))
})

/** A process that is in no process namespace but its system's first: in a guest every container has one of its own. */
const isOutermost = ({ status }: ProcessFacts): boolean => /^NSpid:\t\d+$/m.test(status)

const isKernels = ({ parent, pid }: ProcessList.ListedProcess): boolean =>
  pid === KERNEL_THREADS || parent === KERNEL_THREADS

export const make = Effect.gen(function* () {
  const systems = yield* Systems
  const runs = yield* ContainerRuns
  const records = yield* Records.open(yield* State)
  const scope = yield* Effect.scope
  const asked = new WeakMap<System, Question>()

  /** What a guest says now. */
  const census = (system: System) =>
    Effect.gen(function* () {
      const facts = yield* system.files.processes()
      // its init is always there
      if (facts.length === 0) return Option.none()
      const uptime = yield* system.files.uptime
      const inside = [...(yield* runs.currents).values()].filter((run) => run.system === system)
      const containers = new Map<string, Beneath>()
      for (const { cgroup, container } of inside) {
        const pids = new Set(yield* system.cgroups.processes(cgroup))
        const own = facts.filter(({ pid }) => pids.has(pid))
        containers.set(container, bounded(ProcessList.ordered(own, uptime, undefined)))
      }
      const outermost = ProcessList.ordered(facts.filter(isOutermost), uptime, undefined)
      return Option.some({ containers, rest: bounded(outermost.filter((one) => !isKernels(one))) })
    }).pipe(Effect.catchCause(() => Effect.succeed(Option.none<Census>())))

  /** What it said, or why that is not known. */
  const ask = Effect.fnUntraced(function* (system: System) {
    const now = yield* Clock.currentTimeMillis
    let question = asked.get(system)
    if (question === undefined) {
      const { answer } = (question = { since: now, answer: Deferred.makeUnsafe() })
      asked.set(system, question)
      yield* census(system).pipe(
        Effect.flatMap((found) => Deferred.succeed(answer, found)),
        Effect.ensuring(Effect.sync(() => asked.delete(system))),
        Effect.forkIn(scope)
      )
    }
    const left = Math.max(0, question.since + PATIENCE - now)
    const answer = yield* Effect.timeoutOption(Deferred.await(question.answer), left)
    return Option.isNone(answer) ? SILENT : Option.getOrElse(answer.value, () => UNKNOWN)
  })

  /** Of a container of the host. */
  const ofHost = Effect.fnUntraced(function* ({ cgroup, system }: ContainerRun, sandbox: string) {
    const pids = [...(yield* system.cgroups.processes(cgroup))].sort((one, other) => one - other)
    const record = Option.getOrUndefined(yield* records.sandboxes.get(sandbox))
    return bounded(yield* ProcessList.list(system.files, pids.slice(0, MOST), record?.value.firstUser), pids.length)
  })

  /** By the paths of those that have any, or should have and do not tell. */
  return Effect.fnUntraced(function* (
    actors: ReadonlyArray<Above>,
    which: Which
  ): Effect.fn.Return<ReadonlyMap<string, Beneath>> {
    const found = new Map<string, Beneath>()
    const guests = new Map<System, Array<Above>>()
    const local: Array<Effect.Effect<void>> = []
    for (const actor of actors) {
      if (actor.kind !== CONTAINER && actor.kind !== MICROVM) continue
      const sandbox = ActorPath.id(ActorPath.parent(actor.path) ?? actor.path)
      const system = Option.getOrUndefined(yield* systems.present(sandbox))
      if (system === undefined) continue
      if (system !== systems.host) {
        const members = guests.get(system)
        if (members === undefined) guests.set(system, [actor])
        else members.push(actor)
        continue
      }
      const run = which === "all" ? yield* runs.current(ActorPath.id(actor.path)) : Option.none()
      if (Option.isNone(run)) continue
      local.push(
        ofHost(run.value, sandbox).pipe(
          Effect.map((beneath) => void found.set(actor.path, beneath)),
          // it has just ended
          Effect.ignoreCause
        )
      )
    }
    const distant = [...guests].map(([system, members]) =>
      Effect.map(ask(system), (said) => {
        for (const { kind, path } of members) {
          const id = ActorPath.id(path)
          const beneath = "problem" in said ? said : kind === MICROVM ? said.rest : said.containers.get(id)
          if (beneath !== undefined) found.set(path, beneath)
        }
      })
    )
    yield* Effect.all(
      [
        Effect.all(local, { concurrency: AT_ONCE, discard: true }),
        Effect.all(distant, { concurrency: "unbounded", discard: true })
      ],
      { concurrency: "unbounded", discard: true }
    )
    return found
  })
})
