/**
 * One life of an actor that has a fiber: from the start of its body to the end of its last finalizer.
 *
 * It is the actor's `Self` at the same time. What comes from the fiber (ready, annotations, exit) is posted to the
 * engine's queue and ignored there when another incarnation has taken over in the meantime.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { ActorPath } from "../ActorPath.ts"
import type { Provided } from "../ChildSpec.ts"
import type { ExitView } from "../ExitView.ts"
import { type Annotations, Self } from "../Self.ts"
import type { Cancel } from "./Engine.ts"
import type { Node } from "./Node.ts"

/** How long a fiber that was killed may go on with finalizers before it is abandoned. */
export const ABANDON_AFTER = 5_000

/** How an incarnation is ended: with its stop hooks, without, or without waiting for anything. */
export type EndingKind = "stop" | "release" | "kill"

export class Incarnation<R> {
  readonly path: ActorPath
  readonly incarnation: number
  readonly previousExit: ExitView | undefined
  /** Set by the actor before the queue hears of it, so that no deadline is armed for one that is ready at once. */
  acknowledged = false
  ignored = false
  timedOut = false
  ending: EndingKind | undefined
  readonly #node: Node<R>
  #fiber: Fiber.Fiber<void, unknown> | undefined
  #timer: Cancel | undefined
  #cancelHook: (() => void) | undefined

  constructor(node: Node<R>) {
    this.#node = node
    this.path = node.view.path
    this.incarnation = node.view.incarnation
    this.previousExit = node.view.lastExit
  }

  /** Runs `body` until its first wait. Its scope closes before the exit is heard of. */
  run(body: Effect.Effect<void, unknown, R | Provided>): void {
    const node = this.#node
    const scope = Scope.makeUnsafe()
    const context = Context.add(Context.add(node.engine.context, Self, this), Scope.Scope, scope)
    const fiber = Effect.runForkWith(context)(Effect.onExitPrimitive(body, (exit) => Scope.closeUnsafe(scope, exit)))
    this.#fiber = fiber
    fiber.addObserver((exit) => node.engine.post(() => this.#ended(exit)))
    if (!this.acknowledged && Number.isFinite(node.spec.startDeadline) && fiber.pollUnsafe() === undefined) {
      this.#timer = node.engine.after(node.spec.startDeadline, () => this.#startTimedOut())
    }
  }

  // --- Self ---

  acknowledge(annotations: Annotations, runningFor: number, adopted: boolean): void {
    this.acknowledged = true
    this.#node.engine.post(() => {
      if (this.#node.incarnation === this) this.#node.acknowledged(annotations, runningFor, adopted)
    })
  }

  annotate(annotations: Annotations): void {
    this.#node.engine.post(() => {
      if (this.#node.incarnation === this) this.#node.annotate(annotations)
    })
  }

  ignore(): void {
    this.ignored = true
  }

  hooksWanted(): boolean {
    return this.ending === "stop"
  }

  hookRuns(cancel: (() => void) | undefined): void {
    this.#cancelHook = cancel
  }

  hookFailed(message: string): void {
    this.#node.engine.post(() => {
      if (this.#node.incarnation === this) this.#node.note("stop-hook-failed", message)
    })
  }

  stopped(exit: ExitView): void {
    this.#node.engine.post(() => {
      if (this.#node.incarnation === this) this.#node.endedWhileStopping(exit)
    })
  }

  /** The start is acknowledged, by the actor itself or for it: its deadline is met. */
  started(): void {
    this.acknowledged = true
    if (this.ending === undefined) this.#clearTimer()
  }

  // --- the end ---

  /** Begins the end. `deadline` in milliseconds; 0 kills at once. */
  end(ending: "stop" | "release", deadline: number): void {
    if (deadline === 0) return this.kill("brutal kill")
    this.#clearTimer()
    this.ending = ending
    this.#fiber?.interruptUnsafe()
    if (this.#lives && Number.isFinite(deadline)) {
      this.#timer = this.#node.engine.after(deadline, () => this.kill(`not ended after ${deadline} ms`))
    }
  }

  /** Ends without stop hooks: the one that runs is interrupted. Finalizers get {@link ABANDON_AFTER} more. */
  kill(reason: string): void {
    if (this.ending === "kill") return
    const late = this.ending !== undefined
    this.ending = "kill"
    this.#clearTimer()
    if (late) this.#node.note("killed", reason)
    this.#cancelHook?.()
    this.#fiber?.interruptUnsafe()
    if (this.#lives) this.#timer = this.#node.engine.after(ABANDON_AFTER, () => this.#abandon())
  }

  /** Most end as soon as they are told to, and need no deadline. */
  get #lives(): boolean {
    return this.#fiber?.pollUnsafe() === undefined
  }

  #startTimedOut(): void {
    this.timedOut = true
    this.kill("start deadline")
  }

  #abandon(): void {
    this.#node.note("abandoned", `its finalizers had not ended ${ABANDON_AFTER} ms after it was killed`)
    this.#ended(Exit.interrupt())
  }

  #ended(exit: Exit.Exit<void, unknown>): void {
    if (this.#node.incarnation !== this) return
    this.#clearTimer()
    this.#node.incarnationEnded(exit, this)
  }

  #clearTimer(): void {
    this.#timer?.()
    this.#timer = undefined
  }
}
