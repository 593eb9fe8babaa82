/** The machine config of a whole Ironwood, from the command line: changed while it runs, and tried over the death of its brain. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Qemu from "../../scripts/boot/Qemu.ts"
import { eventually, ironwood, start } from "../support/ironwood.ts"

const Config = Schema.Struct({ document: Schema.String, revision: Schema.String })

const Revisions = Schema.Struct({
  revisions: Schema.Array(Schema.Struct({ number: Schema.String, fate: Schema.String, current: Schema.Boolean }))
})

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-config-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const answersAt = (address: string) =>
  Effect.map(ironwood(["--address", address, "version"]), ({ stdout }) => stdout.includes("taproot"))

describe("the machine config of a whole Ironwood", () => {
  it.live(
    "is checked, applied live, tried, taken back by the next brain, and kept",
    () =>
      Effect.gen(function* () {
        const instance = yield* start()
        const directory = yield* temporary
        const port = yield* Effect.promise(Qemu.freePort)
        const address = `127.0.0.1:${port}`
        const file = (name: string, text: string) => {
          const path = join(directory, name)
          writeFileSync(path, text)
          return path
        }

        const wrong = file(
          "wrong.yaml",
          "version: ironwood/v1\nhostname: -no-\ntime:\n  servers:\n    - 192.0.2.1\n    - nonsense\nrestarts: { burst: 0 }\n"
        )
        const refused = yield* instance.try("config", "validate", "-f", wrong)
        assert.strictEqual(refused.code, 2)
        assert.include(refused.stderr, "the machine config is wrong in 3 places")
        assert.include(refused.stderr, `${wrong}:2: hostname: Expected a host name`)
        assert.include(refused.stderr, `${wrong}:6: time.servers[1]: Expected an IP address`)
        assert.include(refused.stderr, `${wrong}:7: restarts.burst: Expected a whole number from 1`)
        const misplaced = yield* instance.try("config", "patch", "hostname: not-mine")
        assert.strictEqual(misplaced.code, 2)
        assert.include(misplaced.stderr, "a machine that is not its own")

        const first = file("first.yaml", "version: ironwood/v1 # mine\nrestarts: { perSecond: 50 }\n")
        assert.match(yield* instance.run("config", "diff", "-f", first), /restarts.perSecond +\(not set\) +50 +at once/)
        yield* instance.run("config", "apply", "-f", first, "--dry-run")
        assert.deepInclude(yield* instance.json(Config, "config", "get"), { revision: "0" })
        yield* instance.run("config", "apply", "-f", first)
        assert.include(yield* instance.run("config", "get"), "# mine")

        const patch = `api: { listenInsecure: ["${address}"] }`
        const tried = yield* instance.run("config", "patch", patch, "--try", "20s", "--expect", "1")
        assert.include(tried, "ironwood config confirm")
        assert.isTrue(yield* answersAt(address), "it is listened on when the answer is there")
        assert.strictEqual(
          (yield* instance.try("config", "apply", "-f", first)).code,
          4,
          "another is refused meanwhile"
        )

        const pid = yield* instance.brainPid
        process.kill(pid, "SIGKILL")
        yield* eventually("another brain", instance.brainPid, (now) => now !== -1 && now !== pid)
        yield* eventually("the new brain to listen where the old one did", answersAt(address), (answers) => answers)
        yield* eventually(
          "the trial to end",
          Effect.orElseSucceed(instance.json(Config, "config", "get"), () => ({ revision: "", document: "" })),
          ({ revision }) => revision === "1"
        )
        yield* eventually("nobody to listen there", answersAt(address), (answers) => !answers)

        yield* instance.run("config", "patch", "restarts: { burst: 5 }", "--try", "1h")
        assert.strictEqual(yield* instance.run("config", "confirm"), "revision 3 stays\n")
        assert.strictEqual((yield* instance.try("config", "confirm")).code, 4)
        const { revisions } = yield* instance.json(Revisions, "config", "history")
        assert.deepStrictEqual(revisions, [
          { number: "3", fate: "CONFIG_FATE_CONFIRMED", current: true },
          { number: "2", fate: "CONFIG_FATE_REVERTED", current: false },
          { number: "1", fate: "CONFIG_FATE_APPLIED", current: false }
        ])
        yield* instance.run("config", "apply", "--revision", "1")
        assert.include(yield* instance.run("config", "get"), "# mine")
        const schema: unknown = JSON.parse(yield* instance.run("config", "schema"))
        assert.property(schema, "$schema")
      }).pipe(Effect.scoped),
    180_000
  )
})
