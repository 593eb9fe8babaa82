/**
 * Where the API is served on TCP besides its unix socket, to everybody who can reach it: `init/gateway/tcp`, one actor per
 * address. It follows a setting: an address that is new is listened on, one that is not wanted any more is given up, in order;
 * the others and their connections are left alone.
 *
 * An address may belong to a link that does not have it yet. That is no failure: the actor is degraded until then, and nothing
 * waits for it. Anything else that is in the way is one, and tried for ever.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Actor from "../actor/Actor.ts"
import type { ChildSpec, Provided } from "../actor/ChildSpec.ts"
import * as DynamicSupervisor from "../actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import type { Setting } from "../host/Setting.ts"
import { isAddressHere } from "./LocalAddress.ts"
import { serve, type ServeOptions, type Service } from "./EffectGrpc.ts"

const untilItCan = RestartPolicy.make({
  backoff: { initial: "200 millis", max: "5 seconds" },
  whenSpent: "keep-trying"
})

/** What came of listening, by address; empty: it goes. */
type Outcomes = Map<string, string>

/** The supervisor of the listeners that the setting says. */
export const listeners = Effect.fnUntraced(function* <E, R>(
  setting: Setting<ReadonlyArray<string>>,
  services: ReadonlyArray<Service<E, R | Provided>>,
  options: ServeOptions<E>
) {
  const outcomes: Outcomes = new Map()

  /** Reports once something is known of every address. */
  const report = Effect.gen(function* () {
    const wanted = yield* setting.current
    if (!wanted.every((address) => outcomes.has(address))) return
    const problems = wanted.map((address) => outcomes.get(address) ?? "").filter((problem) => problem !== "")
    yield* setting.report(wanted, problems.join("; "))
  })

  const told = (address: string, problem: string) =>
    Effect.andThen(
      Effect.sync(() => outcomes.set(address, problem)),
      report
    )

  const listener = (address: string): ChildSpec<unknown, R> =>
    Actor.make(
      address,
      {
        kind: "gateway",
        description: "the API for everybody who can reach it",
        shutdown: "10 seconds",
        policy: untilItCan
      },
      Effect.gen(function* () {
        yield* Actor.ready()
        if (!(yield* isAddressHere(address))) {
          const problem = `cannot listen on ${address} yet: no link of this host has that address`
          yield* told(address, problem)
          yield* Actor.degraded(problem)
          yield* Effect.repeat(Effect.delay(isAddressHere(address), "250 millis"), { until: (isHere) => isHere })
          yield* Actor.degraded("")
        }
        yield* Effect.tapError(serve(address, services, options), ({ message }) => told(address, message))
        yield* told(address, "")
        yield* Actor.annotate({ address, authentication: "none" })
        return yield* Effect.never
      })
    )

  const supervisor: DynamicSupervisor.DynamicSupervisor<never, R> = yield* DynamicSupervisor.make("tcp", {
    description: "the API on TCP",
    children: Effect.gen(function* () {
      const wanted = yield* setting.current
      outcomes.clear()
      yield* Effect.forkScoped(follow(wanted))
      return wanted.map(listener)
    })
  })

  const follow = (first: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      let running = first
      const ending = new Map<string, Fiber.Fiber<void>>()
      for (;;) {
        yield* report
        yield* setting.changed(running)
        const wanted = yield* setting.current
        const gone = running.filter((address) => !wanted.includes(address))
        const added = wanted.filter((address) => !running.includes(address))
        running = wanted
        for (const address of added) {
          const earlier = ending.get(address)
          if (earlier !== undefined) yield* Fiber.await(earlier)
          yield* Effect.ignore(supervisor.startChild(listener(address), { wait: "registered" }))
        }
        for (const address of gone) {
          outcomes.delete(address)
          const end = Effect.ignore(Effect.andThen(supervisor.terminateChild(address), supervisor.deleteChild(address)))
          // the call that asked for this may have come over it: that one is answered before it has ended
          ending.set(address, yield* Effect.forkScoped(end))
        }
      }
    })

  return supervisor.spec
})
