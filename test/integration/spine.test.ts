/**
 * The spine end to end: taproot, brain, SQLite, overlayfs, an OCI runtime and gRPC, all real, driven by the command line.
 * The promises that users come for: a failed container comes back by its policy, and nothing that happens to the brain
 * is noticed by a container.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { execFileSync, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { checkout, eventually, type Instance, ironwood, leftovers, start } from "../support/ironwood.ts"

const Containers = Schema.Struct({
  containers: Schema.Array(
    Schema.Struct({
      spec: Schema.Struct({ name: Schema.String }),
      status: Schema.Struct({
        state: Schema.String,
        pid: Schema.optionalKey(Schema.Int),
        startTime: Schema.optionalKey(Schema.String),
        restarts: Schema.optionalKey(Schema.Int),
        desired: Schema.optionalKey(Schema.String),
        lastExit: Schema.optionalKey(
          Schema.Struct({
            tag: Schema.String,
            code: Schema.optionalKey(Schema.Int),
            signal: Schema.optionalKey(Schema.String)
          })
        )
      })
    })
  ).pipe(Schema.withDecodingDefaultKey(Effect.succeed([])))
})

const Tree = Schema.Struct({
  revision: Schema.String,
  actors: Schema.Array(
    Schema.Struct({ path: Schema.String, state: Schema.String, restarts: Schema.optionalKey(Schema.Int) })
  )
})

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-test-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const image = `kind: Image\npath: ${checkout}/build/sample-image\n`
const container = (name: string, script: string, more = "") => `---
kind: Container
name: ${name}
image: hello:latest
entrypoint: [/bin/sh, -c]
command: [${JSON.stringify(script)}]
${more}`

const status = (instance: Instance, name: string) =>
  Effect.map(
    instance.json(Containers, "ps", "-a"),
    ({ containers }) => containers.find(({ spec }) => spec.name === name)?.status
  )

const running = (instance: Instance, name: string) =>
  Effect.map(
    eventually(
      `${name} to run`,
      status(instance, name),
      (seen) => seen?.state === "CONTAINER_STATE_RUNNING" && seen.pid !== undefined
    ),
    (seen) => ({ pid: seen?.pid ?? -1, restarts: seen?.restarts ?? 0 })
  )

const applied = (instance: Instance, yaml: string) =>
  Effect.gen(function* () {
    const ran = yield* instance.apply(yaml)
    assert.strictEqual(ran.code, 0, ran.stdout + ran.stderr)
  })

const kill = (pid: number, signal: NodeJS.Signals) => Effect.sync(() => process.kill(pid, signal))
const alive = (pid: number) => existsSync(`/proc/${pid}`)

const loop = "trap 'exit 0' TERM; while :; do sleep 0.2; done"

/** Kills the brain with `signal` and waits for the next one to answer. */
const killBrain = (instance: Instance, signal: NodeJS.Signals) =>
  Effect.gen(function* () {
    const before = yield* instance.brainPid
    yield* kill(before, signal)
    yield* eventually("another brain", instance.brainPid, (pid) => pid > 0 && pid !== before)
    yield* eventually("the API to answer", instance.try("ps"), ({ code }) => code === 0)
  })

/** Where numbered lines go wrong. */
const firstDifference = (text: string, word: string): string => {
  const index = text.split("\n").findIndex((line, index) => line !== `${word} ${index + 1}`)
  return `line ${index + 1} is ${JSON.stringify(text.split("\n").slice(index, index + 3))}`
}

describe("the spine", () => {
  it.live("a container that is killed comes back, by its policy, and the tree tells so", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* applied(instance, image + container("web", loop, "restart: { backoff: { initial: 100ms } }"))
      const before = yield* running(instance, "web")
      yield* kill(before.pid, "SIGKILL")
      yield* eventually(
        "another process",
        status(instance, "web"),
        (seen) => seen?.state === "CONTAINER_STATE_RUNNING" && seen.pid !== before.pid && seen.restarts === 1
      )
      const tree = yield* instance.json(Tree, "tree")
      const actor = tree.actors.find(({ path }) => path === "init/runtime/web/web")
      assert.strictEqual(actor?.state, "ACTOR_STATE_RUNNING")
      assert.strictEqual(actor?.restarts, 1)
    })
  )

  for (const [how, signal] of [
    ["is killed", "SIGKILL"],
    ["crashes", "SIGSEGV"],
    ["hangs", "SIGSTOP"]
  ] as const) {
    it.live(`no container notices that the brain ${how}`, () =>
      Effect.gen(function* () {
        const instance = yield* start()
        yield* applied(instance, image + container("one", loop) + container("two", loop))
        const one = yield* running(instance, "one")
        const two = yield* running(instance, "two")
        yield* killBrain(instance, signal)
        assert.deepStrictEqual(yield* running(instance, "one"), one)
        assert.deepStrictEqual(yield* running(instance, "two"), two)
      })
    )
  }

  it.live("a container's start is that of its process, whoever looks after it", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* applied(instance, image + container("web", loop))
      yield* running(instance, "web")
      const startOf = Effect.map(status(instance, "web"), (seen) => Date.parse(seen?.startTime ?? ""))
      const before = yield* startOf
      yield* killBrain(instance, "SIGKILL")
      // the kernel tells it to the tick, which is 10 ms
      assert.approximately(yield* startOf, before, 40)
      const history = yield* instance.run("history", "web")
      assert.match(history, /adopted +incarnation 2 took over what ran on/)
      assert.match(history, /started +incarnation 1 is ready/)
    })
  )

  it.live("what rested when the brain died rests on: parked, finished, or waiting for its next try", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const policies = {
        gone: "{ restart: permanent, budget: { restarts: 0, within: 1m }, whenSpent: park }",
        later: "{ restart: permanent, backoff: { initial: 1h, max: 1h } }",
        done: "{ restart: transient }"
      }
      const yaml = (code: (name: string) => number) =>
        Object.entries(policies).map(([name, policy]) => container(name, `exit ${code(name)}`, `restart: ${policy}\n`))
      yield* applied(instance, image + yaml((name) => (name === "done" ? 0 : 3)).join(""))
      const states = Effect.map(instance.json(Containers, "ps", "-a"), ({ containers }) =>
        containers.map(({ spec, status }) => `${spec.name} ${status.state}`).toSorted()
      )
      const wanted = [
        "done CONTAINER_STATE_FINISHED",
        "gone CONTAINER_STATE_PARKED",
        "later CONTAINER_STATE_BACKING_OFF"
      ]
      yield* eventually("all to rest", states, (seen) => seen.join() === wanted.join())
      // the journal is written behind, and the ends have to be forgotten
      yield* Effect.sleep("1 second")
      yield* killBrain(instance, "SIGKILL")
      assert.deepStrictEqual(yield* states, wanted)
      const parked = yield* status(instance, "gone")
      assert.strictEqual(parked?.lastExit?.code, 3)
    })
  )

  it.live("no container notices that the brain runs out of memory", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* applied(instance, image + container("web", loop))
      const web = yield* running(instance, "web")
      const brain = yield* instance.brainPid
      // not a byte more of address space than it has now: the next that V8 asks for is its last
      execFileSync("prlimit", ["--pid", String(brain), "--as=1:1"])
      yield* eventually(
        "another brain",
        Effect.andThen(instance.try("tree"), instance.brainPid),
        (pid) => pid > 0 && pid !== brain
      )
      yield* eventually("the API to answer", instance.try("ps"), ({ code }) => code === 0)
      assert.deepStrictEqual(yield* running(instance, "web"), web)
    })
  )

  it.live("an exit that falls while there is no brain is known and handled by policy", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* applied(instance, image + container("web", loop, "restart: { backoff: { initial: 100ms } }"))
      const before = yield* running(instance, "web")
      const brain = yield* instance.brainPid
      yield* kill(brain, "SIGSTOP") // deaf from here on, so that the exit cannot reach this brain
      yield* kill(before.pid, "SIGKILL")
      yield* kill(brain, "SIGKILL")
      const after = yield* eventually(
        "the restart",
        Effect.orElseSucceed(status(instance, "web"), () => undefined),
        (seen) => seen?.state === "CONTAINER_STATE_RUNNING" && seen.pid !== before.pid
      )
      assert.strictEqual(after?.restarts, 1)
      assert.strictEqual(after?.lastExit?.tag, "ContainerSignaled")
    })
  )

  it.live("a log has every line once, whatever happens to the brain meanwhile", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const lines = 20_000
      const script = `i=0; while [ $i -lt ${lines} ]; do i=$((i+1)); echo line $i; echo error $i >&2; [ $((i % 50)) = 0 ] && usleep 20000; done; ${loop}`
      yield* applied(instance, image + container("talker", script))
      yield* running(instance, "talker")
      for (let death = 0; death < 4; death++) {
        yield* Effect.sleep(`${300 + death * 170} millis`)
        yield* killBrain(instance, "SIGKILL")
      }
      const lastLine = Effect.map(instance.run("logs", "--tail", "1", "--stream", "stdout", "talker"), (text) =>
        text.trim()
      )
      yield* eventually("the last line", lastLine, (line) => line === `line ${lines}`, 60)
      const { stderr, stdout } = yield* instance.try("logs", "talker")
      const numbered = (word: string) => Array.from({ length: lines }, (_, index) => `${word} ${index + 1}`).join("\n")
      // not deepStrictEqual: the difference of 20,000 lines helps nobody
      assert.isTrue(stdout.trim() === numbered("line"), firstDifference(stdout, "line"))
      assert.isTrue(stderr.trim() === numbered("error"), firstDifference(stderr, "error"))
    })
  )

  it.live("a stop by a person is remembered over the brain's death and over a restart of everything", () =>
    Effect.gen(function* () {
      const parent = mkdtempSync(join(tmpdir(), "ironwood-parent-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(parent, { recursive: true, force: true })))
      const instance = yield* start({ parent })
      // made in another order than that of their names: the tree shows them so, for as long as they are there
      yield* applied(instance, image + container("web", loop) + container("db", loop))
      yield* running(instance, "web")
      const order = Effect.map(instance.run("tree", "init/runtime", "-o", "json"), (text) =>
        [...text.matchAll(/"path":\s*"init\/runtime\/(\w+)"/g)].map((found) => found[1])
      )
      assert.deepStrictEqual(yield* order, ["web", "db"])
      yield* instance.run("stop", "web")
      assert.strictEqual((yield* status(instance, "web"))?.state, "CONTAINER_STATE_STOPPED")
      yield* killBrain(instance, "SIGKILL")
      assert.strictEqual((yield* status(instance, "web"))?.state, "CONTAINER_STATE_STOPPED")
      yield* instance.run("down")
      const again = yield* ironwood(["up", "--detach", "--state-dir", instance.stateDirectory])
      assert.strictEqual(again.code, 0, again.stderr)
      assert.strictEqual((yield* status(instance, "web"))?.state, "CONTAINER_STATE_STOPPED")
      assert.deepStrictEqual(yield* order, ["web", "db"])
      yield* instance.run("start", "web")
      yield* running(instance, "web")
    })
  )

  it.live(
    "what is over is still so after a restart of everything, and how it ended is known, also when it was stopped",
    () =>
      Effect.gen(function* () {
        const parent = mkdtempSync(join(tmpdir(), "ironwood-parent-"))
        yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(parent, { recursive: true, force: true })))
        const instance = yield* start({ parent })
        const never = "restart: { restart: temporary }\n"
        const polite = "trap 'exit 5' TERM; while :; do sleep 0.1; done"
        yield* applied(
          instance,
          [
            image,
            container("done", "exit 0", never),
            container("failed", "exit 7", never),
            container("polite", polite),
            container("stubborn", "trap '' TERM; echo ready; while :; do sleep 0.1; done", "stopGracePeriod: 200ms\n")
          ].join("")
        )
        yield* eventually(
          "it to have failed",
          status(instance, "failed"),
          (seen) => seen?.state.endsWith("FAILED") === true
        )
        const ready = Effect.map(instance.try("logs", "stubborn"), ({ stdout }) => stdout)
        yield* eventually("it to ignore signals", ready, (text) => text.includes("ready"))
        yield* instance.run("stop", "polite", "stubborn")
        const seen = Effect.forEach(["done", "failed", "polite", "stubborn"], (name) =>
          Effect.map(status(instance, name), (one) => [
            name,
            one?.state.replace("CONTAINER_STATE_", ""),
            one?.lastExit?.code,
            one?.lastExit?.signal
          ])
        )
        const wanted = [
          ["done", "FINISHED", 0, ""],
          ["failed", "FAILED", 7, ""],
          ["polite", "STOPPED", 5, ""],
          ["stubborn", "STOPPED", undefined, "SIGKILL"]
        ]
        assert.deepStrictEqual(yield* seen, wanted)
        assert.match(yield* instance.run("ps", "-a"), /polite .* Stopped [^\n]*exited \(5\)/)
        yield* instance.run("down")
        const again = yield* ironwood(["up", "--detach", "--state-dir", instance.stateDirectory])
        assert.strictEqual(again.code, 0, again.stderr)
        assert.deepStrictEqual(yield* seen, wanted)
        assert.match(yield* instance.run("why", "failed"), /temporary: never started again/)
      })
  )

  it.live("who follows the events misses nothing that happened while the brain was replaced", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* applied(instance, image + container("web", loop, "restart: { backoff: { initial: 100ms } }"))
      const { pid } = yield* running(instance, "web")
      const events = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const child = spawn(join(checkout, "ironwood"), ["--address", instance.address, "events", "-o", "json"])
          const said = { text: "", child }
          child.stdout.on("data", (chunk) => (said.text += String(chunk)))
          return said
        }),
        ({ child }) => Effect.sync(() => child.kill("SIGTERM"))
      )
      yield* eventually(
        "the watch to stand",
        Effect.andThen(
          instance.run("policy", "set", "web", "--max", "30s"),
          Effect.sync(() => events.text)
        ),
        (text) => text.includes("policy-changed")
      )
      yield* killBrain(instance, "SIGKILL")
      yield* kill(pid, "SIGKILL")
      yield* eventually("the restart", status(instance, "web"), (seen) => seen?.restarts === 1 && seen.pid !== pid)
      yield* eventually(
        "the watcher to hear of it",
        Effect.sync(() => events.text),
        (text) => /"event":\s*"ended"[^\n]*killed by SIGKILL/.test(text)
      )
      const revisions = [...events.text.matchAll(/"entry":\s*\{[^{}]*?"revision":\s*"(\d+)"/g)].map((found) => found[1])
      assert.isNotEmpty(revisions)
      assert.strictEqual(new Set(revisions).size, revisions.length, "what was heard comes once")
    })
  )

  it.live("a second instance on the same state directory is refused and disturbs nothing", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const second = yield* ironwood(["up", "--detach", "--state-dir", instance.stateDirectory])
      assert.strictEqual(second.code, 4, second.stdout + second.stderr)
      assert.include(second.stderr, String(yield* instance.taprootPid))
      assert.strictEqual((yield* instance.try("ps")).code, 0)
    })
  )

  for (const [what, words] of [
    ["corrupt", /is damaged: .*Nothing was changed/],
    ["foreign", /is not ours to open: .*Nothing was changed/]
  ] as const) {
    it.live(`a ${what} database is refused at once, and left as it is`, () =>
      Effect.gen(function* () {
        const stateDirectory = yield* temporary
        const path = join(stateDirectory, "state.db")
        if (what === "foreign") {
          const database = new DatabaseSync(path)
          database.exec("PRAGMA application_id = 42; CREATE TABLE song (name TEXT); INSERT INTO song VALUES ('Summer')")
          database.close()
        } else {
          writeFileSync(path, "this is a letter to my aunt\n".repeat(300))
        }
        const before = readFileSync(path)
        for (const _ of [1, 2]) {
          const ran = yield* ironwood(["up", "--detach", "--state-dir", stateDirectory])
          assert.strictEqual(ran.code, 1, ran.stderr)
          assert.strictEqual(ran.stdout, "")
          assert.match(ran.stderr, words)
          assert.include(ran.stderr, `ironwood: Ironwood cannot start on ${stateDirectory}`)
        }
        assert.isTrue(readFileSync(path).equals(before))
        const log = readFileSync(join(stateDirectory, "brain.log"), "utf8")
        assert.notInclude(log, "starting it again")
        assert.strictEqual(log.match(/^brain: /gm)?.length, 2)
        assert.deepStrictEqual(leftovers(stateDirectory, "none"), [])
      })
    )
  }

  it.live("a spec with three wrong fields names all three and makes nothing", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const ran = yield* instance.apply(
        image + container("Bad_Name!", loop, "resources: { memoryBytes: 1 }\nstopSignal: SIGNOTHING\n")
      )
      assert.notStrictEqual(ran.code, 0)
      for (const field of ["name", "memoryBytes", "stopSignal"])
        assert.match(ran.stdout + ran.stderr, new RegExp(field, "i"))
      assert.deepStrictEqual((yield* instance.json(Containers, "ps", "-a")).containers, [])
    })
  )

  it.live("an unknown image is a clear error", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const ran = yield* instance.try("run", "--name", "ghost", "nowhere:1.2")
      assert.notStrictEqual(ran.code, 0)
      assert.include(ran.stderr, "image nowhere:1.2 is not here, and cannot be pulled: registry docker.io ")
      assert.include(ran.stderr, "image import")
    })
  )

  it.live("a truncated archive is refused and leaves nothing", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const directory = mkdtempSync(join(tmpdir(), "ironwood-archive-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true, force: true })))
      const whole = join(directory, "whole.tar")
      const cut = join(directory, "cut.tar")
      yield* Effect.callback<void>((resume) => {
        spawn("tar", ["-C", join(checkout, "build/sample-image"), "-cf", whole, "."]).once("close", () =>
          resume(Effect.void)
        )
      })
      writeFileSync(cut, readFileSync(whole).subarray(0, Math.floor(statSync(whole).size / 2)))
      const ran = yield* instance.try("image", "import", cut)
      assert.notStrictEqual(ran.code, 0)
      assert.match(ran.stderr, /truncat|end|incomplete|missing/i)
      const blobs = join(instance.stateDirectory, "content/blobs/sha256")
      assert.deepStrictEqual(existsSync(blobs) ? readdirSync(blobs) : [], [])
      yield* instance.run("image", "import", whole)
      assert.include(yield* instance.run("image", "ls"), "hello")
    })
  )
})

it.live("Ctrl-C ends `up` in order and leaves no process, mount or cgroup", () =>
  Effect.gen(function* () {
    const stateDirectory = mkdtempSync(join(tmpdir(), "ironwood-test-"))
    yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(stateDirectory, { recursive: true, force: true })))
    const child = spawn(
      join(checkout, "ironwood"),
      ["up", "--state-dir", stateDirectory, "--file", join(checkout, "examples/hello.yaml"), "--follow"],
      { stdio: ["ignore", "pipe", "pipe"], detached: true }
    )
    let output = ""
    child.stdout.on("data", (chunk) => (output += String(chunk)))
    child.stderr.on("data", (chunk) => (output += String(chunk)))
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve))
    yield* eventually(
      "the line that says ready",
      Effect.sync(() => output),
      (text) => /^ready /m.test(text),
      60
    )
    const address = `unix:${stateDirectory}/ironwood.sock`
    const ps = Effect.flatMap(ironwood(["--address", address, "ps", "-o", "json"]), ({ stdout }) =>
      Schema.decodeUnknownEffect(Containers)(JSON.parse(stdout))
    )
    const seen = yield* eventually("hello to run", ps, ({ containers }) =>
      containers.some(({ spec, status }) => spec.name === "hello" && status.pid !== undefined)
    )
    const pid = seen.containers.find(({ spec }) => spec.name === "hello")?.status.pid ?? -1
    const cgroup = /ironwood-[0-9a-f]{8}/.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))?.[0] ?? "none"
    process.kill(-(child.pid ?? 0), "SIGINT")
    assert.strictEqual(yield* Effect.promise(() => ended), 0, output)
    assert.isFalse(alive(pid))
    assert.deepStrictEqual(leftovers(stateDirectory, cgroup), [])
  })
)
