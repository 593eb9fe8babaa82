/**
 * Actors that do what a test tells them, and a log of what they did in the order they did it.
 *
 * A probe says `start`, and when ended `hook` (stop hook) and `close` (finalizer). It is ready at once unless
 * `readyAtOnce` is false, and runs until it is told to crash or finish.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Actor from "../../src/actor/Actor.ts"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"

export class Crash extends Schema.TaggedError<Crash>()("Crash", { text: Schema.String }) {
  override get message(): string {
    return this.text
  }
}

interface Life {
  readonly end: Deferred.Deferred<void, Crash>
  readonly readiness: Deferred.Deferred<void, Crash>
}

export interface ProbeOptions extends Actor.Options {
  readonly readyAtOnce?: boolean
  /** Asked at every start; a text fails the start. */
  readonly failing?: () => string | undefined
  /** Runs in the stop hook, after it is logged. */
  readonly hook?: Effect.Effect<void>
  /** Runs in the finalizer, after it is logged. */
  readonly finalizer?: Effect.Effect<void>
}

export class Probes {
  readonly log: Array<string> = []
  readonly #lives = new Map<string, Life>()

  /** Takes what was logged since the last call. */
  take(): ReadonlyArray<string> {
    return this.log.splice(0)
  }

  make(id: string, options: ProbeOptions = {}): ChildSpec<Crash, never> {
    const run = Effect.gen({ self: this }, function* () {
      this.log.push(`start ${id}`)
      const failure = options.failing?.()
      if (failure !== undefined) return yield* new Crash({ text: failure })
      const life: Life = { end: yield* Deferred.make<void, Crash>(), readiness: yield* Deferred.make<void, Crash>() }
      this.#lives.set(id, life)
      yield* Effect.addFinalizer(() =>
        Effect.andThen(
          Effect.sync(() => this.log.push(`close ${id}`)),
          options.finalizer ?? Effect.void
        )
      )
      yield* Actor.onStop(
        Effect.andThen(
          Effect.sync(() => this.log.push(`hook ${id}`)),
          options.hook ?? Effect.void
        )
      )
      if (options.readyAtOnce === false) yield* Deferred.await(life.readiness)
      yield* Actor.ready()
      return yield* Deferred.await(life.end)
    })
    return Actor.make(id, options, run)
  }

  #life(id: string): Life {
    const life = this.#lives.get(id)
    if (life === undefined) throw new Error(`probe ${id} was never started`)
    return life
  }

  ready(id: string): Effect.Effect<void> {
    return Effect.andThen(Deferred.succeed(this.#life(id).readiness, undefined), Effect.yieldNow)
  }

  /** Ends it with a typed failure, also before it is ready. */
  crash(id: string, text = "crash"): Effect.Effect<void> {
    const life = this.#life(id)
    const failure = new Crash({ text })
    return Effect.andThen(
      Effect.andThen(Deferred.fail(life.readiness, failure), Deferred.fail(life.end, failure)),
      Effect.yieldNow
    )
  }

  finish(id: string): Effect.Effect<void> {
    return Effect.andThen(Deferred.succeed(this.#life(id).end, undefined), Effect.yieldNow)
  }
}
