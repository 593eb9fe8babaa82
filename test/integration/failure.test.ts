/** What goes wrong around a whole Ironwood: each ends in a clear error or waits within bounds, and nothing half-made stays. */
import { create, toBinary } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { ContainerService, StreamContainerLogsRequestSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { TreeService, WatchTreeRequestSchema } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { checkout, eventually, start } from "../support/ironwood.ts"
import { programs, where } from "../support/programs.ts"

const image = `kind: Image\npath: ${checkout}/build/sample-image\n`
const container = (name: string, script: string, more = "") =>
  `---\nkind: Container\nname: ${name}\nimage: hello\nentrypoint: [/bin/sh, -c]\ncommand: [${JSON.stringify(script)}]\n${more}`
const loop = "while :; do sleep 0.2; done"

/** Opens a stream as a client does that never reads it. */
const unread = (address: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const client = new grpc.Client(address, grpc.credentials.createInsecure())
      const bytes = (message: Uint8Array) => Buffer.from(message)
      const open = (
        method: { readonly parent: { readonly typeName: string }; readonly name: string },
        request: Uint8Array
      ) =>
        client
          .makeServerStreamRequest(`/${method.parent.typeName}/${method.name}`, bytes, (answer) => answer, request)
          .on("error", () => {})
      return { client, open }
    }),
    ({ client }) => Effect.sync(() => client.close())
  )

describe("failures around a whole Ironwood", () => {
  it.live("a runtime that dies half-way is told where the container is looked at, and leaves nothing", () =>
    Effect.gen(function* () {
      const real = where("crun")
      const script = `case " $* " in *" --detach "*) ${real} "$@"; kill -KILL $$;; *) exec ${real} "$@";; esac`
      const instance = yield* start({ environment: yield* programs(`#!/bin/sh\n${script}\n`) })
      yield* instance.run("image", "import", `${checkout}/build/sample-image`)
      const words = /could not be created: crun run killed by SIGKILL/
      const ran = yield* instance.try("run", "--rm", "hello")
      assert.strictEqual(ran.code, 1)
      assert.match(ran.stderr, words)
      yield* instance.run("run", "-d", "--name", "web", "--restart", "always", "hello")
      yield* eventually("a try", instance.run("inspect", "web"), (text) => words.test(text))
      yield* instance.run("rm", "-f", "web")
      const bundles = join(instance.stateDirectory, "runtime/bundles")
      yield* eventually(
        "nothing to be left",
        Effect.sync(() => (existsSync(bundles) ? readdirSync(bundles) : [])),
        (left) => left.length === 0
      )
      assert.strictEqual((yield* instance.try("host")).code, 0)
    })
  )

  it.live("a stop goes on when the brain dies in the middle of it: the next brain is told", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const stubborn = container("stubborn", `trap "" TERM; echo up; ${loop}`, "stopGracePeriod: 6s\n")
      yield* instance.apply(image + stubborn)
      yield* eventually("its word", instance.run("logs", "stubborn"), (text) => text.includes("up"))
      const down = yield* Effect.forkScoped(instance.try("down"))
      const brain = yield* instance.brainPid
      const log = Effect.sync(() => readFileSync(join(instance.stateDirectory, "brain.log"), "utf8"))
      const begun = "stopping everything in order"
      yield* eventually("the stop", log, (text) => text.includes(begun))
      process.kill(brain, "SIGKILL")
      const { code, stdout } = yield* Fiber.join(down)
      assert.strictEqual(code, 0)
      assert.strictEqual(stdout, "stopped\n")
      const text = yield* log
      assert.strictEqual(text.split(begun).length - 1, 2, text)
      assert.include(text, "everything has stopped")
    })
  )

  it.live("a log that nobody reads and a client that never reads its streams hold up nobody", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const { open } = yield* unread(instance.address)
      const script = `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); echo line $i that is as long as an ordinary line of a log; done; echo the end; ${loop}`
      const ran = yield* instance.apply(image + container("talker", script, "log: { maxBytes: 1MiB, maxFiles: 2 }\n"))
      assert.strictEqual(ran.code, 0, ran.stderr)
      const follow = create(StreamContainerLogsRequestSchema, { name: "talker", follow: true })
      for (let count = 0; count < 3; count++) {
        open(ContainerService.method.streamContainerLogs, toBinary(StreamContainerLogsRequestSchema, follow))
        open(TreeService.method.watchTree, toBinary(WatchTreeRequestSchema, create(WatchTreeRequestSchema, {})))
      }
      // more changes of the tree than any window holds
      yield* instance.apply(container("flaky", "exit 1", "restart: { backoff: { initial: 1ms, max: 1ms } }\n"))
      yield* eventually(
        "the talker to come to its end",
        instance.run("logs", "--tail", "1", "talker"),
        (text) => text === "the end\n",
        120
      )
      const files = readdirSync(join(instance.stateDirectory, "logs/talker/talker"))
      assert.isAtMost(files.length, 2, "the log keeps to its size")
      assert.strictEqual((yield* instance.try("rm", "-f", "talker", "flaky")).code, 0)
    })
  )
})
