/** Waiting for what containers come to, told by the tree; and commands of docker that have another name here. */
import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { ContainerSchema, ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { type Actor, ActorSchema, ActorState, TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { ironwood } from "./CommandLine.ts"
import { GrpcFailure, serve, streaming, unary } from "./FakeServer.ts"

const path = (name: string) => `init/runtime/${name}/${name}`

const actor = (name: string, state: ActorState, exitCode?: number): Actor =>
  create(ActorSchema, {
    path: path(name),
    kind: "container",
    state,
    ...(exitCode === undefined ? {} : { lastExit: { tag: "ContainerExited", facts: { exitCode } } })
  })

/** What becomes of each container, as the tree tells it; a name behind the last is removed. */
const host = (
  lives: Readonly<Record<string, ReadonlyArray<Actor | "removed">>>,
  ready: ReadonlyArray<boolean> = []
) => {
  const answers = [...ready]
  return serve(
    unary(ContainerService.method.getContainer, ({ name }) => {
      if (!(name in lives)) throw new GrpcFailure(grpc.status.NOT_FOUND, `no container ${name}`)
      const isReady = answers.length > 1 ? answers.shift() : answers[0]
      return {
        container: create(ContainerSchema, {
          spec: { name },
          actorPath: path(name),
          status: isReady === undefined ? {} : { ready: isReady }
        })
      }
    }),
    unary(ContainerService.method.listContainers, () => ({ containers: [] })),
    unary(TreeService.method.getTree, () => ({ revision: 1n, actors: [] })),
    streaming(TreeService.method.watchTree, (request, sink) => {
      const [name, life] = Object.entries(lives).find(([one]) => request.path === path(one)) ?? ["", []]
      const [first, ...rest] = life
      let revision = 1n
      const actors = first === undefined || first === "removed" ? [] : [first]
      sink.send({ event: { case: "snapshot", value: { actors, revision, last: true } } })
      for (const next of rest) {
        revision += 1n
        sink.send({
          event:
            next === "removed"
              ? { case: "removed", value: { path: path(name), revision } }
              : { case: "changed", value: { ...next, revision } }
        })
      }
    })
  )
}

describe("wait", () => {
  const { BACKING_OFF, FAILED, FINISHED, PARKED, RUNNING, STARTING } = ActorState

  it.live("ends when all have ended for good, and tells their exit codes in the order asked", () =>
    Effect.gen(function* () {
      const address = yield* host({
        slow: [
          actor("slow", RUNNING),
          actor("slow", BACKING_OFF, 9),
          actor("slow", RUNNING, 9),
          actor("slow", FAILED, 3)
        ],
        quick: [actor("quick", FINISHED, 0)],
        gone: [actor("gone", RUNNING, 7), "removed"]
      })
      assert.deepStrictEqual(yield* ironwood(["--address", address, "wait", "slow", "quick", "gone"]), {
        code: 0,
        out: "3\n0\n7\n",
        err: ""
      })
    })
  )

  it.live("is told by the readiness probe, not by the process alone", () =>
    Effect.gen(function* () {
      const life = { web: [actor("web", STARTING), actor("web", RUNNING), actor("web", RUNNING)] }
      // asked when the name is looked up, twice, and at each change
      const address = yield* host(life, [false, false, false, true])
      const waiting = ["--address", address, "wait", "--for", "ready", "web"]
      assert.deepStrictEqual(yield* ironwood(waiting), { code: 0, out: "web\n", err: "" })
      const never = yield* host(life, [false])
      const impatient = yield* ironwood(["--address", never, "wait", "--for", "ready", "--timeout", "200ms", "web"])
      assert.deepStrictEqual([impatient.code, impatient.out], [7, ""])
      assert.include(impatient.err, "not all are ready yet: web")
    })
  )

  it.live("does not wait for what cannot come of itself", () =>
    Effect.gen(function* () {
      const address = yield* host({
        web: [actor("web", RUNNING), actor("web", PARKED, 1)],
        gone: [actor("gone", STARTING), "removed"]
      })
      const parked = yield* ironwood(["--address", address, "wait", "--for", "ready", "web"])
      assert.strictEqual(parked.code, 0, "it ran")
      const later = yield* host({ web: [actor("web", STARTING), actor("web", PARKED, 1)] })
      const failed = yield* ironwood(["--address", later, "wait", "--for", "running", "web"])
      assert.strictEqual(failed.code, 1)
      assert.include(failed.err, "web is parked, and will not be running of itself")
      const gone = yield* ironwood(["--address", address, "wait", "--for", "running", "gone"])
      assert.strictEqual(gone.code, 3)
      const unknown = yield* ironwood(["--address", address, "wait", "nobody"])
      assert.strictEqual(unknown.code, 3)
    })
  )
})

describe("commands of docker", () => {
  it.live("are told by their names here, with what was typed behind them", () =>
    Effect.gen(function* () {
      const err = (...args: ReadonlyArray<string>) =>
        Effect.map(ironwood(args), (ran) => [ran.code, ran.err.split("\n")[0]])
      const here = (command: string, text: string) => [
        2,
        `ironwood: there is no command ${command}: here it is \`${text}\``
      ]
      assert.deepStrictEqual(yield* err("pull", "nginx:1.27"), here("pull", "ironwood image pull nginx:1.27"))
      assert.deepStrictEqual(yield* err("images", "-q"), here("images", "ironwood image ls -q"))
      assert.deepStrictEqual(yield* err("rmi", "a b"), here("rmi", "ironwood image rm …"))
      assert.include((yield* err("build", "."))[1], "images are built elsewhere")
      assert.include((yield* err("pll"))[1], "Unknown subcommand")
      assert.include((yield* err("image", "images"))[1], "Unknown subcommand")
    })
  )
})
