/**
 * Stopping and starting all containers of a sandbox, in the order of what they need of each other, and stopping them within
 * one time for all.
 *
 * {@link stop} goes wave by wave, those that nobody needs first. Each wave has what is left of the time; when it is over, the
 * others are killed at once. That they shall all be stopped is committed before the first of them is: a brain that dies in
 * the middle stops the rest when it is back (all at once, each with the time of all).
 *
 * Trap: init containers that have finished stay so. They run again when the sandbox is started while nothing of it is up.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { ContainerSpec } from "./ContainerSpec.ts"
import { dependenciesOf } from "./Dependencies.ts"
import type { ContainerState } from "./Lifecycle.ts"
import type { SandboxSpec } from "./SandboxSpec.ts"

/** A container of the sandbox, as it is now. */
export interface Member {
  readonly spec: ContainerSpec
  readonly state: ContainerState
}

const over: ReadonlyArray<ContainerState> = ["stopped", "finished", "failed"]
const up: ReadonlyArray<ContainerState> = ["starting", "running", "paused", "backing-off", "stopping"]

const namesOf = (spec: ContainerSpec): ReadonlyArray<string> => Object.values(dependenciesOf(spec)).flat()

/** Wave by wave: each container is in a later one than all it needs. Circles and names of nobody are no need. */
export const waves = (members: ReadonlyArray<Member>): ReadonlyArray<ReadonlyArray<string>> => {
  let rest = members.map(({ spec }) => ({ name: spec.name, needs: namesOf(spec) }))
  const found: Array<ReadonlyArray<string>> = []
  while (rest.length > 0) {
    const open = new Set(rest.map(({ name }) => name))
    const free = rest.filter(({ needs }) => !needs.some((need) => open.has(need)))
    const wave = free.length === 0 ? rest : free
    found.push(wave.map(({ name }) => name))
    rest = rest.filter((one) => !wave.includes(one))
  }
  return found
}

/** The time in which all of them stop: `given`, else the sandbox's, else the longest of theirs. */
export const graceOf = (
  sandbox: SandboxSpec,
  members: ReadonlyArray<Member>,
  given: Duration.Duration | undefined
): Duration.Duration =>
  given ??
  sandbox.stopGracePeriod ??
  members.map(({ spec }) => spec.stopGracePeriod).reduce((one, other) => Duration.max(one, other), Duration.zero)

export interface Stopping<E, R> {
  /** Remembers that all of these shall be stopped. */
  readonly commit: (names: ReadonlyArray<string>) => Effect.Effect<void, E, R>
  /** Stops one within a time. */
  readonly stop: (name: string, grace: Duration.Duration) => Effect.Effect<unknown, E, R>
}

/** See the module header. */
export const stop = Effect.fnUntraced(function* <E, R>(
  members: ReadonlyArray<Member>,
  grace: Duration.Duration,
  { commit, stop }: Stopping<E, R>
) {
  const end = (yield* Clock.currentTimeMillis) + Duration.toMillis(grace)
  const open = members.filter(({ state }) => !over.includes(state))
  yield* commit(open.map(({ spec }) => spec.name))
  for (const wave of waves(open).toReversed()) {
    const left = Math.max(0, end - (yield* Clock.currentTimeMillis))
    yield* Effect.forEach(wave, (name) => stop(name, Duration.millis(left)), {
      concurrency: "unbounded",
      discard: true
    })
  }
})

/** Starts those that are down; those that have finished only while nothing is up. */
export const start = Effect.fnUntraced(function* <E, R>(
  members: ReadonlyArray<Member>,
  start: (name: string) => Effect.Effect<unknown, E, R>
) {
  const isUp = members.some(({ state }) => up.includes(state))
  const down = new Set(
    members.flatMap(({ spec, state }) => (up.includes(state) || (isUp && state === "finished") ? [] : [spec.name]))
  )
  for (const name of waves(members).flat()) if (down.has(name)) yield* start(name)
})
