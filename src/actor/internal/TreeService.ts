/**
 * The `Tree` service on an engine: every call is one task in the engine's queue, with a typed answer. A tree that has ended
 * can still be read; calls that would change it find no actor.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Errors from "../Errors.ts"
import type { LinkHold, Tree } from "../Tree.ts"
import type { Engine } from "./Engine.ts"
import type { Group } from "./Group.ts"
import type { Node } from "./Node.ts"

type Answer<A, E> = (answer: Effect.Effect<A, E>) => void

const started =
  <R>(node: Node<R>, answer: Answer<void, Errors.StartFailed>) =>
  (exit: Errors.StartFailed["exit"] | undefined): void =>
    answer(exit === undefined ? Effect.void : Effect.fail(new Errors.StartFailed({ path: node.view.path, exit })))

/** `engine` is asked for with every call: the service is part of the context that the engine is made with. */
export const make = <R>(engine: () => Engine<R>): Tree["Service"] => {
  const onNode = <A, E>(path: string, use: (node: Node<R>, answer: Answer<A, E>) => void, changes = false) =>
    Effect.callback<A, E | Errors.NoSuchActor>((resume) =>
      engine().post(() => {
        const node = changes && engine().log.closed ? undefined : engine().find(path)
        const answer: Answer<A, E | Errors.NoSuchActor> = (effect) => engine().answer(() => resume(effect))
        if (node === undefined) answer(Effect.fail(new Errors.NoSuchActor({ path })))
        else use(node, answer)
      })
    )
  const onChild = <A, E>(path: string, use: (node: Node<R>, parent: Group<R>, answer: Answer<A, E>) => void) =>
    onNode<A, E | Errors.NotSupervised>(
      path,
      (node, answer) => {
        if (node.parent === undefined) answer(Effect.fail(new Errors.NotSupervised({ path: node.view.path })))
        else use(node, node.parent, answer)
      },
      true
    )
  const start = (node: Node<R>, parent: Group<R>, wait: boolean, answer: Answer<void, Errors.StartFailed>): void => {
    if (wait) node.onStarted(started(node, answer))
    parent.startByPerson(node)
    if (!wait) answer(Effect.void)
  }
  const supervisorDown = (parent: Group<R>) => Effect.fail(new Errors.SupervisorDown({ id: parent.id }))

  return {
    revision: Effect.sync(() => engine().log.revision),
    snapshot: (under) =>
      under === undefined
        ? Effect.callback((resume) =>
            engine().post(() => {
              const snapshot = engine().snapshot()
              engine().answer(() => resume(Effect.succeed(snapshot)))
            })
          )
        : onNode(under, (node, answer) => answer(Effect.succeed(engine().snapshot(node)))),
    watch: (from) => engine().log.watch(from),
    get: (path) => onNode(path, (node, answer) => answer(Effect.succeed(node.view))),
    children: (path) =>
      onNode(path, (node, answer) => {
        const views = []
        for (let child = node.group?.children.first; child !== undefined; child = child.next) views.push(child.view)
        answer(Effect.succeed(views))
      }),
    history: (path) => onNode(path, (node, answer) => answer(Effect.succeed(node.history))),
    start: (path, options) =>
      onChild<void, Errors.AlreadyStarted | Errors.StartFailed | Errors.SupervisorDown>(
        path,
        (node, parent, answer) => {
          if (!parent.open) return answer(supervisorDown(parent))
          if (node.alive) return answer(Effect.fail(new Errors.AlreadyStarted({ path: node.view.path })))
          node.forgive()
          start(node, parent, options?.wait !== "registered", answer)
        }
      ),
    stop: (path, options) =>
      onChild(path, (node, parent, answer) => {
        const shutdown = options?.shutdown === undefined ? undefined : Duration.toMillis(options.shutdown)
        parent.endByPerson(node, "stop", "halt", () => answer(Effect.void), shutdown)
      }),
    restart: (path, options) =>
      onChild<void, Errors.StartFailed | Errors.SupervisorDown>(path, (node, parent, answer) => {
        if (!parent.open) return answer(supervisorDown(parent))
        const wait = options?.wait !== "registered"
        node.forgive()
        if (!node.alive) return start(node, parent, wait, answer)
        parent.endByPerson(node, options?.ending ?? "stop", "start", () => {
          // Others may have decided otherwise while it ended.
          if (node.removed || !parent.open || node.state !== "waiting") {
            if (wait) answer(supervisorDown(parent))
          } else start(node, parent, wait, answer)
        })
        if (!wait) answer(Effect.void)
      }),
    remove: (path) =>
      onChild<void, Errors.StillRunning>(path, (node, parent, answer) => {
        if (node.alive) {
          return answer(Effect.fail(new Errors.StillRunning({ path: node.view.path, state: node.state })))
        }
        parent.forgetByPerson(node)
        answer(Effect.void)
      }),
    setPolicy: (path, policy) =>
      onNode(
        path,
        (node, answer) => {
          node.setPolicy(policy)
          answer(Effect.void)
        },
        true
      ),
    // The monitor has a scope of its own below the caller's, so that one that has told leaves nothing there.
    monitor: (path, onDown) =>
      Effect.uninterruptible(
        Effect.flatMap(Effect.scope, (parent) => {
          const scope = Scope.forkUnsafe(parent)
          let demonitor = () => {}
          return Effect.andThen(
            Scope.addFinalizer(
              scope,
              Effect.sync(() => demonitor())
            ),
            Effect.sync(() => {
              if (scope.state._tag === "Closed") return
              demonitor = engine().bonds.monitor(path, (down) => {
                Scope.closeUnsafe(scope, Exit.void)
                onDown(down)
              })
            })
          )
        })
      ),
    link: (self, path) =>
      onNode<LinkHold, Errors.ActorDown>(path, (node, answer) => {
        const own = engine().bonds.nodeOf(self)
        if (own === undefined) return answer(Effect.interrupt)
        if (node.alive) return answer(Effect.succeed({ release: engine().bonds.link(own, node) }))
        const { incarnation } = node.view
        answer(Effect.fail(new Errors.ActorDown({ path, incarnation, reason: "not-alive", exit: node.view.lastExit })))
      }),
    unlink: (self, path) =>
      Effect.sync(() => {
        const own = engine().bonds.nodeOf(self)
        const other = engine().find(path)
        if (own !== undefined && other !== undefined) engine().bonds.unlink(own, other)
      }),
    get canReboot() {
      return engine().canReboot
    },
    get names() {
      return engine().names
    },
    moment: (path) =>
      Effect.suspend(() => {
        const node = engine().find(path)
        return node === undefined ? Effect.fail(new Errors.NoSuchActor({ path })) : Effect.succeed(node.moment)
      })
  }
}
