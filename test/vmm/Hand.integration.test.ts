/**
 * `hand`: what it gives to a monitor and what it does not, and what a monitor that a guest has taken over can do to it: say
 * nonsense, nothing, or too much. That a real QEMU gets what it is given is shown by the tests of hot-plug and of snapshots.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawnSync } from "node:child_process"
import { existsSync, lstatSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { join } from "node:path"
import { createInterface } from "node:readline"
import * as Taproot from "../support/taproot.ts"
import { stateDirectory, tool } from "./world.ts"

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\n'
const DONE = '{"return": {}}\n'

interface Monitor {
  readonly path: string
  /** The lines that it has heard. */
  readonly heard: ReadonlyArray<string>
}

/** One that listens there until the scope ends: what it does with a connection, and with each line that it hears. */
const monitor = (
  path: string,
  answer: (socket: Socket, line: string) => void,
  begin: (socket: Socket) => void = (socket) => socket.write(GREETING)
) =>
  Effect.acquireRelease(
    Effect.callback<Monitor & { readonly close: () => void }>((resume) => {
      const heard: Array<string> = []
      const open = new Set<Socket>()
      const server = createServer((socket) => {
        open.add(socket)
        socket.on("error", () => undefined)
        const lines = createInterface({ input: socket })
        // which has those of its socket, too
        lines.on("error", () => undefined)
        lines.on("line", (line) => {
          heard.push(line)
          answer(socket, line)
        })
        begin(socket)
      })
      const close = () => {
        for (const socket of open) socket.destroy()
        server.close()
      }
      server.listen(path, () => resume(Effect.succeed({ path, heard, close })))
    }),
    ({ close }) => Effect.sync(close)
  )

const obeys = (socket: Socket) => socket.write(DONE)
const refuses = (socket: Socket, line: string) =>
  socket.write(line.includes("qmp_capabilities") ? DONE : '{"error": {"class": "GenericError", "desc": "no"}}\n')

/** Writes the same again and again, as fast as it is taken. */
const flood = (socket: Socket, text: string): void => {
  const more = () => {
    while (!socket.destroyed && socket.write(text));
  }
  socket.on("drain", more)
  more()
}

const usage = "usage: hand SOCKET ro|rw|new|in|peer:PATH NAME\n"

describe("hand", () => {
  it.live("gives a file by the command for its kind, and says what the monitor said, past all events", () =>
    Effect.gen(function* () {
      const home = yield* stateDirectory
      const at = (name: string) => join(home, name)
      writeFileSync(at("file"), "content")
      symlinkSync("file", at("link"))
      const event = '{"event": "STOP", "timestamp": {}}\n'
      const good = yield* monitor(at("good"), (socket) => socket.write(event + event + DONE))
      const capabilities = '{"execute": "qmp_capabilities"}'
      const gives = (what: string, command: string) =>
        Effect.gen(function* () {
          const before = good.heard.length
          assert.deepStrictEqual(yield* tool("hand", [good.path, what, "disk-1"]), { end: 0, stdout: DONE, stderr: "" })
          assert.deepStrictEqual(good.heard.slice(before), [capabilities, command])
        })
      const asSet = '{"execute": "add-fd", "arguments": {"opaque": "disk-1"}}'
      const byName = '{"execute": "getfd", "arguments": {"fdname": "disk-1"}}'
      yield* gives(`ro:${at("file")}`, asSet)
      yield* gives(`rw:${at("link")}`, asSet)
      yield* gives(`in:${at("file")}`, byName)
      yield* gives(`new:${at("made")}`, byName)
      assert.deepStrictEqual([statSync(at("made")).size, statSync(at("made")).mode & 0o7777], [0, 0o600])

      const other = yield* monitor(at("other"), obeys)
      const both = yield* tool("hand", [good.path, `peer:${other.path}`, "memory"])
      assert.deepStrictEqual(both, { end: 0, stdout: DONE + DONE, stderr: "" })
      assert.deepStrictEqual(other.heard, good.heard.slice(-2))

      const bad = yield* monitor(at("bad"), refuses)
      const refused = yield* tool("hand", [bad.path, `ro:${at("file")}`, "disk-1"])
      assert.strictEqual(refused.end, 0)
      assert.include(refused.stdout, '"desc": "no"')
      // where the other one wants no end of it, this one gets none
      const before = good.heard.length
      const alone = yield* tool("hand", [good.path, `peer:${bad.path}`, "memory"])
      assert.strictEqual(alone.stdout, refused.stdout)
      assert.strictEqual(good.heard.length, before)
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("tells a monitor nothing when words are wrong or files are not what they should be", () =>
    Effect.gen(function* () {
      const home = yield* stateDirectory
      const at = (name: string) => join(home, name)
      const { heard, path } = yield* monitor(at("monitor"), obeys)
      writeFileSync(at("file"), "content")
      mkdirSync(at("directory"))
      symlinkSync("elsewhere", at("dangling"))
      symlinkSync("file", at("link"))
      assert.strictEqual(spawnSync("mkfifo", [at("pipe")]).status, 0)
      for (const words of [
        [],
        [path, `ro:${at("file")}`],
        [path, `ro:${at("file")}`, "name", "more"],
        [path, at("file"), "name"],
        [path, `any:${at("file")}`, "name"],
        ...["", "A", "a b", 'x"}', "a\n", "n".repeat(65)].map((name) => [path, `ro:${at("file")}`, name])
      ]) {
        assert.deepStrictEqual(yield* tool("hand", words), { end: 64, stdout: "", stderr: usage })
      }
      for (const [what, problem] of [
        ["ro:nothing", "No such file or directory"],
        ["rw:directory", "Is a directory"],
        ["in:directory", "Is a directory"],
        // nobody writes to it, and that is not waited for
        ["ro:pipe", "No such device"],
        ["in:pipe", "No such device"],
        ["rw:monitor", "No such device or address"],
        ["new:file", "File exists"],
        ["new:link", "File exists"],
        ["new:dangling", "File exists"],
        ["new:nothing/file", "No such file or directory"]
      ] as const) {
        const file = at(what.slice(what.indexOf(":") + 1))
        const { end, stderr } = yield* tool("hand", [path, what.replace(":", `:${home}/`), "name"])
        assert.deepStrictEqual([end, stderr], [66, `hand: ${file}: ${problem}\n`], what)
      }
      assert.strictEqual((yield* tool("hand", [path, "ro:/dev/zero", "name"])).end, 66)
      assert.strictEqual(readFileSync(at("file"), "utf8"), "content")
      assert.isTrue(lstatSync(at("dangling")).isSymbolicLink())
      assert.isFalse(existsSync(at("elsewhere")))
      assert.deepStrictEqual(heard, [])

      for (const [socket, problem] of [
        [at("nothing"), /: No such file or directory\n$/],
        [at("file"), /: Connection refused\n$/],
        // libcs have other words for it
        [at("s".repeat(120)), /: File ?name too long\n$/]
      ] as const) {
        for (const words of [
          [socket, `ro:${at("file")}`, "name"],
          [path, `peer:${socket}`, "name"]
        ]) {
          const { end, stderr } = yield* tool("hand", words)
          assert.strictEqual(end, 71)
          assert.include(stderr, `hand: ${socket}: `)
          assert.match(stderr, problem)
        }
      }
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("is done with a monitor that says nonsense, too much, or nothing", () =>
    Effect.gen(function* () {
      const home = yield* stateDirectory
      const file = join(home, "file")
      writeFileSync(file, "content")
      const none = () => undefined
      const from = (
        name: string,
        ...does: readonly [(socket: Socket, line: string) => void, (socket: Socket) => void]
      ) => Effect.flatMap(monitor(join(home, name), ...does), ({ path }) => tool("hand", [path, `ro:${file}`, "name"]))

      // a line is a line: what it means is its reader's matter
      const rubbish = yield* from(
        "rubbish",
        (socket) => socket.write("}}\x01 \\ what\n"),
        (socket) => socket.write("\n")
      )
      assert.deepStrictEqual(rubbish, { end: 0, stdout: "}}\x01 \\ what\n", stderr: "" })
      const ends = yield* from("ends", none, (socket) => socket.end())
      assert.deepStrictEqual(ends, { end: 71, stdout: "", stderr: "hand: the monitor: Broken pipe\n" })
      const half = yield* from(
        "half",
        (socket) => socket.end('{"return":'),
        (socket) => socket.write(GREETING)
      )
      assert.deepStrictEqual([half.end, half.stdout], [71, ""])
      const long = yield* from("long", none, (socket) => flood(socket, "x".repeat(10_000)))
      assert.deepStrictEqual([long.end, long.stdout], [71, ""])
      assert.match(long.stderr, /^hand: the monitor: Message too l/)
      const events = yield* from("events", none, (socket) => flood(socket, '{"event": "RESET"}\n'.repeat(100)))
      assert.deepStrictEqual(events, { end: 71, stdout: "", stderr: "hand: the monitor: Protocol error\n" })

      const never = [
        from("silent", none, none),
        from("deaf", none, (socket) => socket.write(GREETING)),
        from("slow", none, (socket) => {
          const timer = setInterval(() => socket.write("x"), 500)
          socket.on("close", () => clearInterval(timer))
        })
      ]
      const late = yield* Effect.all(never, { concurrency: "unbounded" })
      for (const { end, stdout } of late) assert.deepStrictEqual([end, stdout], ["SIGALRM", ""])
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )
})
