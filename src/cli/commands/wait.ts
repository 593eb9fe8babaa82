/** `ironwood wait`: returns when containers or actors have ended, run, or are ready. */
import { type Actor, ActorSchema, ActorState } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as ActorText from "../ActorText.ts"
import { Client, type Connection } from "../Client.ts"
import { exitCodeOf } from "../ContainerExitCode.ts"
import { exitCodes } from "../ExitCode.ts"
import { type Failure, failure } from "../Failure.ts"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"
import { durationFlag, secondsOrDuration } from "../QuantityFlags.ts"
import { targets } from "../Steering.ts"
import * as Target from "../Target.ts"
import * as Watch from "../Watch.ts"

const conditions = ["ended", "running", "ready"] as const

type Condition = (typeof conditions)[number]

/** Down, and nobody but a person brings them up again. */
const over: ReadonlySet<ActorState> = new Set([
  ActorState.STOPPED,
  ActorState.PARKED,
  ActorState.FINISHED,
  ActorState.FAILED
])

/** What is waited for, under the word that was typed. */
interface Awaited {
  readonly word: string
  readonly path: string
  /** Of a container. */
  readonly name: string | undefined
}

const awaitedOf = Effect.fnUntraced(function* (word: string) {
  const target = yield* Target.resolve(word)
  if (target._tag === "Actor") return { word, path: target.path, name: undefined } satisfies Awaited
  const client = yield* Client
  const { container } = yield* client.call(ContainerService.method.getContainer, { name: target.name })
  return { word, path: container?.actorPath ?? "", name: target.name } satisfies Awaited
})

/** Nothing failed, but what is waited for does not come of itself. */
const neverComes = ({ word }: Awaited, condition: Condition, actor: Actor): Failure =>
  failure(`${word} is ${ActorText.state(actor).word}, and will not be ${condition} of itself`, {
    next: `\`ironwood why ${word}\` says why; \`ironwood start ${word}\` starts it`
  })

/** Whether a container's probe says that it is ready; what has none is as soon as it runs. */
const isReady = (client: Connection, { name }: Awaited) =>
  name === undefined
    ? Effect.succeed(true)
    : Effect.map(
        client.call(ContainerService.method.getContainer, { name }),
        ({ container }) => container?.status?.ready !== false
      )

/** Whether it is so with the actor as it is now. */
const isSo = (client: Connection, awaited: Awaited, condition: Condition, actor: Actor) => {
  const ended = over.has(actor.state)
  if (condition === "ended") return Effect.succeed(ended)
  if (ended) return neverComes(awaited, condition, actor)
  if (actor.state !== ActorState.RUNNING) return Effect.succeed(false)
  return condition === "ready" ? isReady(client, awaited) : Effect.succeed(true)
}

/** The actor as it was when it was so. One that is removed has ended. */
const until = Effect.fnUntraced(function* (client: Connection, awaited: Awaited, condition: Condition) {
  const { path, word } = awaited
  let last: Actor | undefined
  const gone = () =>
    condition === "ended" && last !== undefined
      ? Effect.succeed(true)
      : failure(`${word} is gone`, { exitCode: exitCodes.notFound, next: "`ironwood tree` shows what there is" })
  const look = (actor: Actor) => {
    if (actor.path !== path) return Effect.succeed(false)
    last = actor
    return isSo(client, awaited, condition, actor)
  }
  yield* Watch.follow(client, { path }).pipe(
    Stream.mapEffect((followed): Effect.Effect<boolean, Failure> => {
      if (followed._tag !== "Event") return Effect.succeed(false)
      const { event } = followed.event
      switch (event.case) {
        case "snapshot": {
          const actor = event.value.actors.find((one) => one.path === path)
          if (actor !== undefined) return look(actor)
          return event.value.last && event.value.actors.length === 0 ? gone() : Effect.succeed(false)
        }
        case "changed":
          return look(event.value)
        case "removed":
          return event.value.path === path ? gone() : Effect.succeed(false)
        default:
          return Effect.succeed(false)
      }
    }),
    Stream.takeUntil((met) => met),
    Stream.runDrain
  )
  return last
})

/** For people: the exit code of a container that has ended, as docker has it; else what it is. */
const lineOf = ({ name, word }: Awaited, condition: Condition, actor: Actor | undefined): string => {
  if (condition !== "ended") return word
  const facts = actor?.lastExit?.facts
  if (name === undefined) return actor === undefined ? "gone" : ActorText.state(actor).word
  return String(
    exitCodeOf(
      facts === undefined
        ? undefined
        : { signal: facts.signal, ...(facts.exitCode === undefined ? {} : { code: facts.exitCode }) }
    )
  )
}

export const wait = Command.make(
  "wait",
  {
    condition: Flag.Literals("for", conditions).pipe(
      Flag.withDescription("What to wait for (default: ended)"),
      Flag.withDefault("ended")
    ),
    timeout: durationFlag("timeout", secondsOrDuration).pipe(
      Flag.withDescription("Give up after this time, with exit code 7 (default: never)"),
      Flag.optional
    ),
    targets
  },
  Effect.fnUntraced(function* ({ condition, targets: words, timeout }) {
    const client = yield* Client
    const awaited = yield* Effect.forEach(words, awaitedOf)
    const waiting = Effect.forEach(
      awaited,
      (one) => Effect.map(until(client, one, condition), (actor) => ({ one, actor })),
      { concurrency: "unbounded" }
    )
    const met = yield* Option.match(timeout, {
      onNone: () => waiting,
      onSome: ({ nanos, seconds }) =>
        Effect.timeoutOrElse(waiting, {
          duration: Duration.nanos(seconds * 1_000_000_000n + BigInt(nanos)),
          orElse: () =>
            failure(`not all are ${condition} yet: ${words.join(", ")}`, {
              exitCode: exitCodes.timeout,
              next: "`ironwood why NAME` says what each is up to"
            })
        })
    })
    for (const { actor, one } of met) {
      const line = lineOf(one, condition, actor)
      yield* Output.value(actor === undefined ? null : Output.json(ActorSchema, actor), [line])
    }
  })
).pipe(
  describe({
    short: "Wait until containers or actors have ended, run, or are ready",
    long: [
      "Ended is what is down and stays down: a container that its policy starts again has not ended. Prints the exit code of each",
      "container then, as docker does, in the order in which they were named. `--for ready` is when the readiness probe says so, and",
      "as soon as it runs without one; what has given up meanwhile is an error at once. Waits on over a restart of Ironwood's brain."
    ],
    examples: [
      ["ironwood wait import", "Until a job is done; prints its exit code"],
      ["ironwood wait --for ready --timeout 30s web database", "Before something that needs both"]
    ]
  })
)
