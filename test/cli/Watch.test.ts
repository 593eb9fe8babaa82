/** Following the tree and a log over the death of the server: nothing is missed, nothing comes twice. */
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { ContainerService, LogStream } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { prepare, reading } from "./CommandLine.ts"
import { GrpcFailure, type Registration, serveAt, socket, streaming } from "./FakeServer.ts"
import { actors } from "./Samples.ts"

/** Looks until it is so; the test's own deadline ends what never comes. */
const until = (isSo: () => boolean) =>
  Effect.suspend(() => (isSo() ? Effect.void : Effect.fail("not yet"))).pipe(
    Effect.retry(Schedule.spaced("10 millis")),
    Effect.orDie
  )

/** A server that can be killed. */
const mortal = (path: string, registrations: ReadonlyArray<Registration>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    yield* serveAt(path, registrations).pipe(Scope.provide(scope))
    return { kill: Scope.close(scope, Exit.void) }
  })

describe("events", () => {
  it.live("come back by themselves and go on after the last revision", () =>
    Effect.gen(function* () {
      const path = yield* socket
      const asked: Array<bigint | undefined> = []
      const watch = (from: bigint) =>
        streaming(TreeService.method.watchTree, (request, sink) => {
          asked.push(request.fromRevision)
          for (const step of [1n, 2n]) {
            sink.send({ event: { case: "removed", value: { path: `init/x${from + step}`, revision: from + step } } })
          }
        })
      const { kill } = yield* mortal(path, [watch(10n)])
      const { captured, run } = prepare(["--address", `unix:${path}`, "events", "--from", "10"])
      const fiber = yield* Effect.forkChild(run)
      yield* until(() => captured.out().includes("init/x12"))
      yield* kill
      yield* until(() => captured.err().includes("the connection is lost, trying again"))
      const { kill: killAgain } = yield* mortal(path, [watch(12n)])
      yield* until(() => captured.out().includes("init/x14"))
      yield* killAgain
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(asked, [10n, 12n])
      assert.deepStrictEqual(
        captured
          .out()
          .trimEnd()
          .split("\n")
          .map((line) => line.slice(line.lastIndexOf(" ") + 1)),
        ["init/x11", "init/x12", "init/x13", "init/x14"]
      )
      assert.include(captured.err(), "connected again")
    })
  )

  it.live("end with the server's error when trying again does not mend it", () =>
    Effect.gen(function* () {
      const path = yield* socket
      yield* serveAt(path, [
        streaming(TreeService.method.watchTree, (_, sink) =>
          sink.fail(new GrpcFailure(grpc.status.INVALID_ARGUMENT, "from_revision lies in the future"))
        )
      ])
      const { captured, run } = prepare(["--address", `unix:${path}`, "events", "--from", "99"])
      assert.strictEqual(yield* run, 2)
      assert.include(captured.err(), "from_revision lies in the future")
    })
  )
})

describe("tree --watch", () => {
  it.live("redraws in place, tells a lost connection, respects a resize, and gives the cursor back", () =>
    Effect.gen(function* () {
      const path = yield* socket
      const watch = streaming(TreeService.method.watchTree, (_, sink) => {
        sink.send({ event: { case: "snapshot", value: { revision: 1n, actors: actors.slice(0, 4), first: true } } })
        sink.send({ event: { case: "snapshot", value: { revision: 42n, actors: actors.slice(4), last: true } } })
      })
      const { kill } = yield* mortal(path, [watch, ...reading])
      const { captured, run } = prepare(["--address", `unix:${path}`, "tree", "--watch"], { columns: 80, rows: 30 })
      const fiber = yield* Effect.forkChild(run)
      yield* until(() => captured.out().includes("revision 42"))
      assert.include(captured.out(), "10 actors: 1 parked, 1 backing-off, 8 running")
      captured.resize({ columns: 60, rows: 8 })
      yield* until(() => captured.out().includes("\u001B[2J\u001B[H"))
      const pictures = () => captured.out().split("\u001B[?2026h")
      const last = pictures().at(-1) ?? ""
      assert.isAtMost(last.split("\n").length, 8)
      yield* kill
      yield* until(() => captured.out().includes("trying again"))
      yield* Fiber.interrupt(fiber)
      assert.isTrue(captured.out().startsWith("\u001B[?25l"))
      assert.isTrue(captured.out().endsWith("\u001B[?25h"))
    })
  )

  it.live("keeps the times in it up to date while nothing happens", () =>
    Effect.gen(function* () {
      const path = yield* socket
      yield* serveAt(path, [
        streaming(TreeService.method.watchTree, (_, sink) => {
          sink.send({
            event: { case: "snapshot", value: { revision: 42n, actors: [...actors], first: true, last: true } }
          })
        })
      ])
      const { captured, run } = prepare(["--address", `unix:${path}`, "tree", "--watch"], { columns: 80 })
      const fiber = yield* Effect.forkChild(run)
      yield* until(() => captured.out().split("\u001B[?2026h").length > 4)
      yield* Fiber.interrupt(fiber)
    })
  )

  it.live("is plain event lines when the output is no terminal", () =>
    Effect.gen(function* () {
      const path = yield* socket
      yield* serveAt(path, [
        streaming(TreeService.method.watchTree, (_, sink) => {
          sink.send({
            event: { case: "snapshot", value: { revision: 42n, actors: [...actors], first: true, last: true } }
          })
        })
      ])
      const { captured, run } = prepare(["--address", `unix:${path}`, "tree", "--watch"])
      const fiber = yield* Effect.forkChild(run)
      yield* until(() => captured.out().split("\n").length > actors.length)
      yield* Fiber.interrupt(fiber)
      assert.notInclude(captured.out(), "\u001B")
      assert.include(captured.out(), "backing-off  init/runtime/flaky/flaky")
      const lines = captured.out().trim().split("\n")
      const times = lines.slice(0, -1).map((line) => line.slice(0, 12))
      assert.deepStrictEqual(times, times.toSorted(), "as in any log, times only go up")
      assert.include(lines.at(-1), "snapshot")
    })
  )
})

describe("logs -f", () => {
  it.live("goes on over the death of the server, without a line lost or doubled", () =>
    Effect.gen(function* () {
      const path = yield* socket
      // three lines of one moment, the last two of which the first server never gets to send
      const entry = (line: string, second: number) => ({
        time: { seconds: BigInt(second), nanos: 0 },
        stream: LogStream.STDOUT,
        line: new TextEncoder().encode(line)
      })
      const log = [entry("a", 1), entry("b", 2), entry("c", 2), entry("d", 2), entry("e", 3)]
      const logs = (most: number) =>
        streaming(ContainerService.method.streamContainerLogs, ({ since }, sink) => {
          sink.send({
            entries: log.slice(0, most).filter(({ time }) => since === undefined || time.seconds >= since.seconds)
          })
        })
      const { kill } = yield* mortal(path, [...reading, logs(3)])
      const { captured, run } = prepare(["--address", `unix:${path}`, "logs", "-f", "hello"])
      const fiber = yield* Effect.forkChild(run)
      yield* until(() => captured.out() === "a\nb\nc\n")
      yield* kill
      yield* serveAt(path, [...reading, logs(5)])
      yield* until(() => captured.out().endsWith("e\n"))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(captured.out(), "a\nb\nc\nd\ne\n")
    })
  )

  it.live("keeps the streams apart, joins partial lines, and prints bytes as they are", () =>
    Effect.gen(function* () {
      const path = yield* socket
      const entry = (line: string, stream: LogStream, partial = false) => ({
        time: { seconds: 1n, nanos: 5 },
        stream,
        line: new TextEncoder().encode(line),
        partial
      })
      yield* serveAt(path, [
        ...reading,
        streaming(ContainerService.method.streamContainerLogs, (_, sink) => {
          sink.send({
            entries: [
              entry("long ", LogStream.STDOUT, true),
              entry("oops", LogStream.STDERR),
              entry("line", LogStream.STDOUT)
            ]
          })
          sink.end()
        })
      ])
      const { captured, run } = prepare(["--address", `unix:${path}`, "logs", "-t", "hello"])
      assert.strictEqual(yield* run, 0)
      assert.strictEqual(captured.out(), "1970-01-01T00:00:01.000000005Z long line\n")
      assert.strictEqual(captured.err(), "1970-01-01T00:00:01.000000005Z oops\n")
    })
  )
})
