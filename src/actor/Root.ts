/**
 * Runs a tree: the root actor, above which there is no supervisor.
 *
 * A root ends in one of two ways. *Stop* takes everything down in reverse order with the stop hooks: the host shuts
 * down. *Release* ends the actors but leaves alone what they manage: the brain restarts or is upgraded. Interrupting
 * {@link run} is a release: whatever kills the brain must not kill workloads.
 *
 * Trap: a root that ends by itself (its start failed, its intensity is spent) has released its children, and fails with
 * `RootFailed`. The caller decides what that means; taproot would start the brain again.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as ActorPath from "./ActorPath.ts"
import type { ChildSpec } from "./ChildSpec.ts"
import { RootFailed, SpecInvalid } from "./Errors.ts"
import { Engine, type HostReboot } from "./internal/Engine.ts"
import { makeNode } from "./internal/Group.ts"
import { BLOCK } from "./internal/JournalWriter.ts"
import { Node } from "./internal/Node.ts"
import type { RestartRate } from "./internal/RestartGate.ts"
import * as TreeService from "./internal/TreeService.ts"
import { forgetful, Journal } from "./Journal.ts"
import * as SpecProblems from "./SpecProblems.ts"
import { Tree } from "./Tree.ts"

export type { HostReboot, RebootWish } from "./internal/Engine.ts"
export type { RestartRate } from "./internal/RestartGate.ts"

/** How a root ends: see the module header. */
export type Ending = "stop" | "release"

/** A running root. */
export interface Root {
  readonly tree: Tree["Service"]
  /** Ends everything in order, waits for it; the first call decides the ending. Idempotent. */
  readonly end: (ending: Ending) => Effect.Effect<void>
  /** Waits for the end: void after {@link end}, or a normal end of the root actor. */
  readonly await: Effect.Effect<void, RootFailed>
  /** What the machinery holds right now, to see that nothing leaks. */
  readonly resources: Effect.Effect<{
    readonly actors: number
    readonly timers: number
    readonly watchers: number
    /** Lives that are monitored or linked, hold a name or take from a mailbox. */
    readonly bonds: number
    /** Entries about names: held, or waited for. */
    readonly names: number
    /** Restarts that wait for their turn under the tree's rate. */
    readonly turns: number
    /** Actors of which something is still to be written to the journal. */
    readonly unwritten: number
  }>
}

/** What holds for the whole tree. */
export interface Options {
  /**
   * A limit on the restarts that all supervisors make together, fair between children, so that a storm of crashes does not
   * starve the host. Starts by persons and first starts do not count. Default: none.
   */
  readonly restartRate?: RestartRate | undefined
  /**
   * Carries out a policy's `reboot-host`: it should end the tree in order, then reboot. The actor that wants it is `failed`
   * meanwhile; it is parked when that is refused, as it must be of a host that would reboot over and over. Default: nobody
   * can, and such a policy escalates.
   */
  readonly rebootHost?: HostReboot | undefined
}

/** Starts a root; answers when it has acknowledged its start. Closing the scope releases it. */
export const start = Effect.fnUntraced(function* <E, R>(
  spec: ChildSpec<E, R>,
  options: Options = {}
): Effect.fn.Return<Root, RootFailed | SpecInvalid, R | Scope.Scope> {
  const problems = [...SpecProblems.ofSpec(spec), ...SpecProblems.ofRestartRate(options.restartRate)]
  if (problems.length > 0) return yield* new SpecInvalid({ id: spec.id, problems })
  const services = yield* Effect.context<R>()
  const journal = yield* Journal
  const kept = yield* journal.load
  const ceiling = kept.revision + BLOCK
  const keeps = journal !== forgetful
  if (keeps) yield* journal.append([{ _tag: "Reserve", ceiling }])

  const tree: Tree["Service"] = TreeService.make<R>(() => engine)
  const engine: Engine<R> = new Engine(
    Context.add(services, Tree, tree),
    kept,
    keeps ? { service: journal, ceiling } : undefined,
    options
  )
  const root = makeNode(new Node(engine, undefined, ActorPath.root(spec.id), spec), tree)
  engine.root = root
  const ended = yield* Deferred.make<void, RootFailed>()
  const started = yield* Deferred.make<void>()
  const { path } = root.view

  const finish = (exit: Exit.Exit<void, RootFailed>): void => {
    engine.log.close()
    engine.whenKept(() => engine.answer(() => Deferred.doneUnsafe(ended, exit)))
  }
  engine.onRootStarted = () => engine.answer(() => Deferred.doneUnsafe(started, Exit.void))
  engine.onRootEnded = (exit) =>
    finish(exit.class === "normal" || exit.tag === "Ignored" ? Exit.void : Exit.fail(new RootFailed({ path, exit })))
  const end = (ending: Ending) =>
    Effect.andThen(
      Effect.sync(() =>
        engine.post(() => {
          if (root.alive && root.state !== "stopping") root.end(ending, "halt", () => finish(Exit.void))
        })
      ),
      Effect.ignore(Deferred.await(ended))
    )
  yield* Effect.addFinalizer(() => end("release"))
  engine.post(() => root.start(false))
  yield* Effect.raceFirst(Deferred.await(started), Deferred.await(ended))
  return {
    tree,
    end,
    await: Deferred.await(ended),
    resources: Effect.sync(() => engine.resources)
  }
})

/** Runs a root until it ends; `ending` (e.g. a signal) tells when and how it shall. */
export const run = <E, R>(
  spec: ChildSpec<E, R>,
  options: Options & { readonly ending?: Effect.Effect<Ending> } = {}
): Effect.Effect<void, RootFailed | SpecInvalid, R> => Effect.scopedWith((scope) => runIn(spec, options, scope))

const runIn = Effect.fnUntraced(function* <E, R>(
  spec: ChildSpec<E, R>,
  options: Options & { readonly ending?: Effect.Effect<Ending> },
  scope: Scope.Scope
): Effect.fn.Return<void, RootFailed | SpecInvalid, R> {
  const root = yield* Effect.provideService(start(spec, options), Scope.Scope, scope)
  yield* Effect.raceFirst(root.await, Effect.flatMap(options.ending ?? Effect.never, root.end))
})
