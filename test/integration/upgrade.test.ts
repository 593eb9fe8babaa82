/**
 * Upgrades of a whole Ironwood with a container running: the real taproot, the real brain as an upgrade of itself, and brains
 * that fail in every way. The container never notices: it is the same process from the beginning to the end.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { checkout, eventually, type Instance, start } from "../support/ironwood.ts"
import * as Lifecycle from "../../src/upgrade/Lifecycle.ts"
import * as Record from "../../src/upgrade/Record.ts"
import * as Snapshot from "../../src/upgrade/StateSnapshot.ts"
import { bundleOf, type Parts } from "../upgrade/bundles.ts"

const Status = Schema.Struct({
  brains: Schema.Array(Schema.Struct({ id: Schema.String, running: Schema.Boolean, proving: Schema.Boolean })),
  last: Schema.optionalKey(
    Schema.Struct({
      version: Schema.String,
      fate: Schema.String,
      fallBack: Schema.optionalKey(Schema.Struct({ reason: Schema.String, detail: Schema.String }))
    })
  )
})

const nothing: typeof Status.Type = { brains: [] }

const Containers = Schema.Struct({
  containers: Schema.Array(
    Schema.Struct({ status: Schema.Struct({ state: Schema.String, pid: Schema.optionalKey(Schema.Int) }) })
  )
})

const hello = `kind: Image
path: ${join(checkout, "build/sample-image")}
---
kind: Container
name: hello
image: hello:latest
`

const realBrain = join(checkout, "build/brain.tar")

const work = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-brains-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const pidOf = (instance: Instance) =>
  Effect.map(
    eventually(
      "the container to run",
      instance.json(Containers, "ps", "-a"),
      ({ containers }) =>
        containers[0]?.status.state === "CONTAINER_STATE_RUNNING" && containers[0].status.pid !== undefined
    ),
    ({ containers }) => containers[0]?.status.pid ?? -1
  )

const runningBrain = (instance: Instance) =>
  Effect.map(instance.json(Status, "upgrade", "status"), ({ brains }) => brains.find(({ running }) => running)?.id)

/** The real brain with one more step in the layout of the state, which dies before it can have proved itself. */
const newerLayout = (): Buffer => {
  const built = (name: string): string => {
    const text = readFileSync(join(checkout, "build", name), "utf8")
    const last = "INSERT INTO journal_revision VALUES (1, 0);\n  `"
    assert.include(text, last)
    return text.replace(last, `${last},"CREATE TABLE newer (word TEXT) STRICT"`)
  }
  return bundleOf({
    version: "9.2.0",
    manifest: { stateLayout: 2 },
    program: `${built("brain.bundle.cjs")}\nsetTimeout(() => process.exit(3), 2000)`,
    files: { "state-worker.cjs": built("state-worker.cjs") }
  })
}

/** Kills the brain and waits until it is gone and there is another. */
const killBrain = Effect.fnUntraced(function* (instance: Instance) {
  const pid = yield* instance.brainPid
  process.kill(pid, "SIGKILL")
  yield* eventually("another brain", instance.brainPid, (now) => now !== pid)
})

/** Speaks on descriptor 3 as a brain does: HELLO with these versions, then a heartbeat a second. */
const speaking = (newest: number, oldest: number): string => `
const { Socket } = require("node:net")
const channel = new Socket({ fd: 3, readable: true, writable: true })
channel.on("end", () => process.exit(76)).on("error", () => process.exit(76)).resume()
const hello = Buffer.from([5, 0, 0, 0, 1, 0, 0, 0, 0])
hello.writeUInt16LE(${newest}, 5)
hello.writeUInt16LE(${oldest}, 7)
channel.write(hello)
setInterval(() => channel.write(Buffer.from([9, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0])), 1000)
`

const failures: ReadonlyArray<{
  readonly name: string
  readonly parts: Parts
  readonly reason: string
  readonly detail: RegExp
}> = [
  {
    name: "ends at once",
    parts: { version: "9.0.1", program: "process.exit(9)" },
    reason: "FALL_BACK_REASON_ENDED",
    detail: /ended with exit code 9/
  },
  {
    name: "hangs before it says a word",
    parts: { version: "9.0.2", program: "for (;;);" },
    reason: "FALL_BACK_REASON_UNHEALTHY",
    detail: /killed by signal 9/
  },
  {
    name: "lives and beats, and never serves anything",
    parts: { version: "9.0.4", program: speaking(2, 2) },
    reason: "FALL_BACK_REASON_UNHEALTHY",
    detail: /ran, and was killed by signal 9/
  },
  {
    name: "speaks another protocol than it says",
    parts: { version: "9.0.5", program: speaking(9, 8) },
    reason: "FALL_BACK_REASON_PROTOCOL",
    detail: /ended with exit code 76/
  }
]

describe("an upgrade of the brain", () => {
  it.live(
    "switches with every workload running, and falls back from brains that fail in every way",
    () =>
      Effect.gen(function* () {
        const directory = yield* work
        const instance = yield* start()
        const applied = yield* instance.apply(hello)
        assert.strictEqual(applied.code, 0, applied.stderr)
        const pid = yield* pidOf(instance)
        const unchanged = (when: string) =>
          Effect.map(pidOf(instance), (now) => assert.strictEqual(now, pid, `the container has noticed: ${when}`))

        const before = yield* instance.brainPid
        const installed = yield* instance.run("upgrade", "install", realBrain)
        assert.match(installed, /is installed; nothing vouches for it but its digest\n.* runs and has proved itself/)
        assert.notStrictEqual(yield* instance.brainPid, before)
        const upgraded = yield* runningBrain(instance)
        assert.match(upgraded ?? "", /^sha256:/)
        yield* unchanged("the upgrade")

        for (const { detail, name, parts, reason } of failures) {
          const file = join(directory, `${parts.version}.tar`)
          writeFileSync(file, bundleOf(parts))
          const { code, stderr } = yield* instance.try("upgrade", "install", file, "--deadline", "5s")
          assert.strictEqual(code, 1, `${name}: ${stderr}`)
          const { last } = yield* instance.json(Status, "upgrade", "status")
          assert.deepInclude(last, { version: parts.version, fate: "UPGRADE_FATE_FELL_BACK" }, name)
          assert.strictEqual(last?.fallBack?.reason, reason, `${name}: ${last?.fallBack?.detail}`)
          assert.match(last?.fallBack?.detail ?? "", detail, name)
          assert.strictEqual(yield* runningBrain(instance), upgraded, `${name}: the one before it runs`)
          assert.include(yield* instance.run("tree", "--all", "init/upgrade"), `${parts.version} `, name)
          yield* unchanged(name)
        }

        // the state, too, is as it was before one that had brought it to a layout that the one before cannot read
        const database = join(instance.stateDirectory, "state.db")
        writeFileSync(join(directory, "newer.tar"), newerLayout())
        const newer = yield* instance.try("upgrade", "install", join(directory, "newer.tar"))
        assert.include(newer.stderr, "9.2.0", newer.stderr)
        assert.include(newer.stderr, "ended with exit code 3")
        assert.strictEqual(yield* runningBrain(instance), upgraded)
        assert.strictEqual(Snapshot.layoutOf(database), 1)
        assert.strictEqual(Snapshot.layoutOf(join(instance.stateDirectory, "state-given-up/state.db")), 2)
        yield* unchanged("another layout of the state")

        // killed again and again the upgraded brain cannot keep itself up, and the built-in one has its turn
        yield* eventually("it to have proved itself", instance.json(Status, "upgrade", "status"), ({ brains }) =>
          brains.every(({ proving }) => !proving)
        )
        for (let kills = 0; kills < 5; kills++) yield* killBrain(instance)
        yield* eventually("the built-in brain", Effect.option(runningBrain(instance)), ({ _tag }) => _tag === "Some")
        assert.strictEqual(yield* runningBrain(instance), "built-in")
        const { last } = yield* instance.json(Status, "upgrade", "status")
        assert.strictEqual(last?.fallBack?.reason, "FALL_BACK_REASON_UNSTABLE")
        yield* unchanged("five kills")
        // a person may have it back, and may go back
        yield* instance.run("upgrade", "use", (upgraded ?? "").slice("sha256:".length, "sha256:".length + 8))
        assert.strictEqual(yield* runningBrain(instance), upgraded)
        yield* instance.run("upgrade", "rollback")
        assert.strictEqual(yield* runningBrain(instance), "built-in")
        yield* unchanged("a rollback")
      }).pipe(Effect.scoped),
    600_000
  )

  it.live(
    "is refused with a reason, interrupted at any step harms nothing, and signatures count once keys are there",
    () =>
      Effect.gen(function* () {
        const directory = yield* work
        const instance = yield* start()
        const put = (name: string, bytes: Uint8Array): string => {
          writeFileSync(join(directory, name), bytes)
          return join(directory, name)
        }
        const refused = Effect.fnUntraced(function* (file: string, words: RegExp) {
          const { code, stderr } = yield* instance.try("upgrade", "install", file)
          assert.notStrictEqual(code, 0)
          assert.match(stderr, words)
          assert.strictEqual(yield* runningBrain(instance), "built-in")
        })
        const brain = { version: "9.1.0", program: "process.exit(1)" }
        yield* refused(put("garbage", Buffer.alloc(5_000, 7)), /chunk: .*checksum/)
        yield* refused(
          put("protocol.tar", bundleOf({ ...brain, manifest: { protocol: { newest: 9, oldest: 8 } } })),
          /speaks version 8 to 9 of the protocol, the taproot of this image 2 to 2/
        )
        yield* refused(put("node.tar", bundleOf({ ...brain, manifest: { node: 99 } })), /it needs Node 99/)
        yield* refused(put("layout.tar", bundleOf({ ...brain, manifest: { stateLayout: 0 } })), /the state has 1/)

        // killed in the middle of what is sent: nothing is there, and the next brain is the one before
        const client = spawn(join(checkout, "ironwood"), [
          "--address",
          instance.address,
          "upgrade",
          "install",
          realBrain
        ])
        yield* killBrain(instance)
        yield* Effect.callback<void>((resume) => void client.once("close", () => resume(Effect.void)))
        yield* eventually("a brain", Effect.option(runningBrain(instance)), ({ _tag }) => _tag === "Some")
        // or it came too late for that, and is handed over to, and from
        yield* instance.run("upgrade", "use", "built-in")
        yield* eventually(
          "the brain before",
          Effect.orElseSucceed(runningBrain(instance), () => ""),
          (brain) => brain === "built-in"
        )

        // installed, decided, and the power is cut before anybody is handed over to
        yield* instance.run("upgrade", "install", realBrain, "--only")
        const brains = join(instance.stateDirectory, "brains")
        const [id = ""] = readdirSync(brains).filter((name) => name.length === 64)
        const record = Record.load(brains)
        assert.isObject(record)
        if (typeof record !== "object") return
        const wanted = { brain: id, version: "0.1.0", instance: "0".repeat(32), patienceMillis: 5_000, at: 1 }
        Record.save(brains, Lifecycle.ask(record, wanted))
        yield* killBrain(instance)
        const interrupted = yield* eventually(
          "the end of the trial",
          Effect.orElseSucceed(instance.json(Status, "upgrade", "status"), () => nothing),
          (status) => status.last?.fate === "UPGRADE_FATE_FELL_BACK"
        )
        assert.strictEqual(interrupted.last?.fallBack?.reason, "FALL_BACK_REASON_INTERRUPTED")
        assert.strictEqual(yield* runningBrain(instance), "built-in")

        // garbage where the record was
        writeFileSync(join(brains, "record.json"), "{ not json")
        yield* killBrain(instance)
        const garbage = yield* eventually(
          "a brain that says so",
          Effect.map(instance.try("upgrade", "status"), ({ stdout }) => stdout),
          (text) => text.includes("record.json cannot be read")
        )
        assert.include(garbage, "built-in")

        const key = (yield* instance.run("upgrade", "keygen", join(directory, "key"))).trim()
        yield* instance.run("config", "patch", JSON.stringify({ upgrade: { keys: [key] } }))
        const signed = put("signed.tar", readFileSync(realBrain))
        yield* refused(signed, /the brain is refused: it is not signed/)
        yield* instance.run("upgrade", "keygen", join(directory, "stranger"))
        yield* instance.run("upgrade", "sign", signed, "--key", join(directory, "stranger"))
        yield* refused(signed, /no key of this machine has made its signature/)
        yield* instance.run("upgrade", "sign", signed, "--key", join(directory, "key"))
        assert.include(yield* instance.run("upgrade", "install", signed), `the key ${key} vouches for it`)
        assert.strictEqual(yield* runningBrain(instance), `sha256:${id}`)
      }).pipe(Effect.scoped),
    600_000
  )
})
