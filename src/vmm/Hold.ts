/**
 * The hold of a brain on one machine that runs: one control connection for all who need it, taken when it is needed first, and
 * again when it was lost.
 *
 * `follow` is how an actor lives with its machine: it returns with the end of the guest or of its hypervisor, and says on the way
 * how things are. A hypervisor that does not answer ends nothing: it is told as trouble, and asked again.
 *
 * Trap: a machine that is reset while its processors stand still is for its hypervisor one that was never let go (`created`). Here
 * it is paused: only one that was never let go is let go by whoever follows it.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Match from "effect/Match"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { ProcessExit } from "../taproot/ProcessExit.ts"
import type { Process } from "../taproot/Processes.ts"
import { type Control, ControlLost, type GuestEvent, type GuestState } from "./Hypervisor.ts"

/** How a machine's life came to its end. */
export type Ended =
  | { readonly _tag: "PoweredOff" }
  | { readonly _tag: "Rebooted" }
  | { readonly _tag: "Panicked" }
  | { readonly _tag: "Hung" }
  /** Its hypervisor's process ended. */
  | { readonly _tag: "Gone"; readonly exit: ProcessExit }

/** Who is told how things are. */
export interface Listener {
  readonly state: (state: GuestState) => void
  /** Its hypervisor does not answer, and why; empty: it does again. */
  readonly trouble: (why: string) => void
  /** The guest has rebooted; true: that is its end. */
  readonly rebooted: () => boolean
  /** Something was taken out of it. */
  readonly unplugged: () => void
}

/** Nobody. */
export const silent: Listener = { state: () => {}, trouble: () => {}, rebooted: () => false, unplugged: () => {} }

export interface Hold {
  readonly get: Effect.Effect<Control, ControlLost>
  /** As the guest was seen last. */
  readonly seen: () => GuestState
  /** Since when it has been seen so, in milliseconds since 1970; undefined: since the hold began. */
  readonly seenSince: () => number | undefined
  /** Sees how the guest is now. */
  readonly look: Effect.Effect<GuestState, ControlLost>
  /** Lets it go on, and has seen that it does. */
  readonly goOn: Effect.Effect<GuestState, ControlLost>
  readonly follow: (listener: Listener) => Effect.Effect<Ended>
  /** Gives it back; whoever needs it takes it again. */
  readonly release: Effect.Effect<void>
}

const LOOK_AGAIN = Duration.seconds(15)
const TRY_AGAIN = Duration.seconds(1)

/** What a guest in this state has come to. */
export const endOf = (state: GuestState): Option.Option<Ended> => {
  switch (state) {
    case "powered-off":
      return Option.some({ _tag: "PoweredOff" })
    case "panicked":
      return Option.some({ _tag: "Panicked" })
    case "hung":
      return Option.some({ _tag: "Hung" })
    default:
      return Option.none()
  }
}

/**
 * `connect` takes the hold; it is given back with `scope`. `begun`: a person has paused it, so it was let go before. `settle`: an
 * earlier brain was about something with its memory: what is done about that first.
 */
export const make = (
  connect: Effect.Effect<Control, ControlLost, Scope.Scope>,
  process: Process,
  scope: Scope.Scope,
  begun: boolean,
  settle?: (control: Control) => Effect.Effect<void, ControlLost>
): Hold => {
  const turn = Semaphore.makeUnsafe(1)
  // an answer that comes late must not hide the one that was asked for after it
  const looking = Semaphore.makeUnsafe(1)
  let held: { readonly control: Control; readonly scope: Scope.Closeable } | undefined
  let seen: GuestState = "running"
  let seenSince: number | undefined
  let letGoOnce = begun
  let looks = 0
  let unsettled = settle

  const see = (state: GuestState): Effect.Effect<GuestState> =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      looks++
      if (state !== "created") letGoOnce = true
      const before = seen
      seen = state === "created" && letGoOnce ? "paused" : state
      if (seen !== before) seenSince = now
      return seen
    })

  const ask = (control: Control) => looking.withPermit(Effect.flatMap(control.state, see))

  const letGo = Effect.suspend(() => {
    const was = held
    held = undefined
    return was === undefined ? Effect.void : Scope.close(was.scope, Exit.void)
  })

  const get = turn.withPermit(
    Effect.gen(function* () {
      if (held !== undefined) return held.control
      const own = yield* Scope.fork(scope)
      const control = yield* Effect.onError(Scope.provide(connect, own), (cause) =>
        Scope.close(own, Exit.failCause(cause))
      )
      held = { control, scope: own }
      const lost = Effect.suspend(() => (held?.control === control ? letGo : Effect.void))
      yield* Effect.forkIn(Effect.andThen(control.lost, lost), scope)
      return control
    })
  )

  /** Until the guest's end or the loss of the hold. */
  const followOnce = (listener: Listener): Effect.Effect<Ended, ControlLost> =>
    Effect.gen(function* () {
      const control = yield* get
      const events = yield* control.events
      const look = Effect.map(ask(control), (state) => {
        listener.trouble("")
        listener.state(state)
        return endOf(state)
      })
      if (unsettled !== undefined) yield* unsettled(control)
      unsettled = undefined
      const first = yield* look
      if (Option.isSome(first)) return first.value
      // one that a brain had made when it died
      if (seen === "created") yield* Effect.andThen(control.resume, look)
      const hear = (event: GuestEvent): Effect.Effect<Option.Option<Ended>, ControlLost> =>
        Match.valueTags(event, {
          Changed: () => look,
          Rebooted: () =>
            Effect.sync((): Option.Option<Ended> =>
              listener.rebooted() ? Option.some({ _tag: "Rebooted" }) : Option.none()
            ),
          Unplugged: () => Effect.as(Effect.sync(listener.unplugged), Option.none<Ended>())
        })
      const looks = Stream.map(Stream.fromSchedule(Schedule.spaced(LOOK_AGAIN)), (): GuestEvent => ({
        _tag: "Changed"
      }))
      const ended = yield* Stream.merge(events, looks, { haltStrategy: "left" }).pipe(
        Stream.mapEffect(hear),
        Stream.filter(Option.isSome),
        Stream.runHead
      )
      return Option.isSome(ended)
        ? ended.value.value
        : yield* new ControlLost({ command: "follow", detail: "the connection ended" })
    }).pipe(Effect.scoped)

  const look = Effect.flatMap(
    Effect.flatMap(get, ({ state }) => state),
    see
  )

  return {
    get,
    look,
    goOn: Effect.gen(function* () {
      const { resume } = yield* get
      const before = looks
      yield* resume
      // Whoever looked meanwhile may have seen it as it was before, or stalled again.
      return yield* looks === before ? see("running") : look
    }),
    seen: () => seen,
    seenSince: () => seenSince,
    release: letGo,
    follow: (listener) =>
      Effect.raceFirst(
        Effect.map(process.exit, (exit): Ended => ({ _tag: "Gone", exit })),
        Effect.gen(function* () {
          while (true) {
            const ended = yield* Effect.result(followOnce(listener))
            if (ended._tag === "Success") return ended.success
            // that its process has ended is told by the other side of the race
            yield* Effect.sleep("100 millis")
            listener.trouble(`its hypervisor does not answer: ${ended.failure.detail}`)
            yield* Effect.sleep(TRY_AGAIN)
          }
        })
      )
  }
}
