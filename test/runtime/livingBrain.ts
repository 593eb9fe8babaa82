/** A taproot with a brain of `brain.ts` below it, and how a test talks to that: requests over its socket, as long as it lives. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { eventually } from "../support/eventually.ts"
import { commandLineOf } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import { leftovers, stateDirectory, writeImage } from "./world.ts"

/** The part of a container that is looked at here. */
export const View = Schema.Struct({
  name: Schema.String,
  state: Schema.String,
  desired: Schema.String,
  pid: Schema.optionalKey(Schema.Finite),
  incarnation: Schema.Finite,
  restarts: Schema.Finite,
  node: Schema.optionalKey(Schema.Struct({ annotations: Schema.Record(Schema.String, Schema.String) })),
  lastExit: Schema.optionalKey(Schema.Struct({ tag: Schema.String, message: Schema.String }))
})
export type View = typeof View.Type

export class NoAnswer extends Schema.TaggedError<NoAnswer>()("NoAnswer", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

const Answer = Schema.fromJsonString(
  Schema.Struct({ value: Schema.optionalKey(Schema.Unknown), error: Schema.optionalKey(Schema.String) })
)

/** One request to the brain; fails when there is no brain to answer. */
export const ask = (state: string, request: object): Effect.Effect<unknown, NoAnswer> =>
  Effect.callback<string, NoAnswer>((resume) => {
    const socket = connect(join(state, "brain.sock"))
    let text = ""
    const gone = (detail: string) => resume(Effect.fail(new NoAnswer({ detail })))
    socket.on("connect", () => socket.write(`${JSON.stringify(request)}\n`))
    socket.on("data", (bytes) => {
      text += String(bytes)
      if (text.endsWith("\n")) resume(Effect.succeed(text))
    })
    socket.on("error", (error) => gone(error.message))
    socket.on("close", () => gone("the brain hung up"))
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.flatMap(Schema.decodeEffect(Answer)),
    Effect.mapError((error) => new NoAnswer({ detail: error.message })),
    Effect.flatMap(({ error, value }) =>
      error === undefined ? Effect.succeed(value) : Effect.fail(new NoAnswer({ detail: error }))
    )
  )

export const insist = (state: string, request: object) =>
  ask(state, request).pipe(
    Effect.retry(Schedule.spaced("20 millis")),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.fail(new NoAnswer({ detail: `no answer to ${JSON.stringify(request)}` }))
    })
  )

export const list = (state: string) =>
  Effect.flatMap(insist(state, { call: "list" }), Schema.decodeUnknownEffect(Schema.Array(View)))

/** Waits until the container is as wanted. */
export const until = (state: string, name: string, wanted: (view: View) => boolean) => {
  let last: ReadonlyArray<View> = []
  return list(state).pipe(
    Effect.tap((found) =>
      Effect.sync(() => {
        last = found
      })
    ),
    Effect.map((found) => found.find((view) => view.name === name)),
    Effect.filterOrFail(
      (view): view is View => view !== undefined && wanted(view),
      () => new NoAnswer({ detail: "not yet" })
    ),
    Effect.retry(Schedule.spaced("20 millis")),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.fail(new NoAnswer({ detail: `${name} was last seen as ${JSON.stringify(last)}` }))
    })
  )
}

/** The newest brain below a taproot. */
export const brainPid = (taproot: number): number | undefined =>
  readFileSync(`/proc/${taproot}/task/${taproot}/children`, "latin1")
    .trim()
    .split(" ")
    .map(Number)
    .find((pid) => commandLineOf(pid).includes("brain.ts"))

export const killBrain = (taproot: ChildProcess) =>
  Effect.gen(function* () {
    const pid = brainPid(taproot.pid ?? 0)
    if (pid === undefined) return
    process.kill(pid, "SIGKILL")
    yield* eventually("the brain is dead", () => !existsSync(`/proc/${pid}/exe`) && brainPid(taproot.pid ?? 0) !== pid)
  })

const brainFile = fileURLToPath(new URL("brain.ts", import.meta.url))

/** A taproot with a brain; ended in order with the scope, unless it has been killed. */
export const startTaproot = (state: string, brain = brainFile) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const args = ["--private-mounts", "--", process.execPath, brain, state]
      return spawn(Taproot.binary, args, { stdio: ["ignore", "inherit", "inherit"] })
    }),
    (taproot) =>
      Effect.gen(function* () {
        taproot.kill("SIGTERM")
        yield* eventually("taproot has ended", () => taproot.exitCode !== null || taproot.signalCode !== null)
      }).pipe(Effect.ensuring(Effect.sync(() => taproot.kill("SIGKILL"))), Effect.orDie)
  )

/** A state directory with the image `busybox` in it, and at the end nothing of its runs on the host. */
export const prepared = Effect.gen(function* () {
  const state = yield* stateDirectory
  yield* Effect.addFinalizer(() => Effect.sync(() => assert.deepStrictEqual(leftovers(state), [])))
  mkdirSync(join(state, "images"), { recursive: true })
  return { state, image: writeImage(state, "busybox") }
})

/** A state directory, and the taproot whose brain has it. */
export interface World {
  readonly state: string
  readonly taproot: ChildProcess
}

/** A brain in a state directory of its own that has imported the image `busybox`. */
export const withBrain = <A>(use: (world: World) => Effect.Effect<A, unknown>): Effect.Effect<A, unknown> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { image, state } = yield* prepared
      const taproot = yield* startTaproot(state)
      yield* insist(state, { call: "import", name: image })
      return yield* use({ state, taproot })
    })
  )
