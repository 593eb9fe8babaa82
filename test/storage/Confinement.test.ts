/** What is left to `unpack` once it reads what strangers wrote: to the program as it runs, and call by call. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { makeAnswers, makeCommands } from "../../src/storage/unpack/UnpackProtocol.ts"
import { end } from "../../src/storage/unpack/Unpacking.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import * as Store from "../support/store.ts"
import * as Taproot from "../support/taproot.ts"
import { command } from "../support/trees.ts"

const built = (name: string): string => fileURLToPath(new URL(`../../build/${name}`, import.meta.url))

/** See confined.c. */
const refused = [
  "open",
  "follow",
  "owner of a signal",
  "signal",
  "flags",
  "code",
  "protect",
  "socket",
  "execute",
  "root",
  "mount",
  "kill",
  "x32",
  "32 bits"
]

describe("unpack's confinement", () => {
  it.live("ends whoever makes a call that unpacking needs not", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const tree = yield* Store.scratch
      symlinkSync("/", join(tree, "link"))
      yield* command("mknod", join(tree, "device"), "c", "1", "3")
      const call = (name: string) =>
        Effect.map(processes.run({ label: "confined", argv: [built("unpack-confined"), tree, name] }), ({ exit }) =>
          exit._tag === "Signaled" ? exit.signal : exit._tag === "Exited" ? exit.code : exit.message
        )
      assert.strictEqual(yield* call("allowed"), 0)
      for (const name of refused) assert.strictEqual(yield* call(name), "SIGSYS", name)
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("tells of what the disk could not take", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const home = yield* Store.scratch
      const [blob, tree] = [join(home, "blob"), join(home, "tree")]
      writeFileSync(blob, "")
      mkdirSync(tree)
      const commands = makeCommands()
      commands.sync()
      const { stdout } = yield* processes.run({
        label: "unpack",
        argv: [built("unpack"), "1", blob, "0", "none", "none", tree],
        environment: { LD_PRELOAD: built("unpack-unsynced.so") },
        stdin: commands.take()
      })
      const problem = "sync the file system: Input/output error"
      assert.deepStrictEqual(makeAnswers()(stdout)?.at(-1), { _tag: "Failed", errno: 5, problem })
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("has the tree for its root, few capabilities, a filter, and no file but the blob's", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const home = yield* Store.scratch
      const [blob, tree] = [join(home, "blob"), join(home, "tree")]
      writeFileSync(blob, "")
      mkdirSync(tree)
      const process = yield* Effect.acquireRelease(
        processes.spawn({
          label: "unpack",
          argv: [built("unpack"), "1", blob, "0", "none", "none", tree],
          stdin: { _tag: "Stream" },
          stdout: { _tag: "Stream" }
        }),
        end
      )
      const commands = makeCommands()
      commands.sync()
      yield* process.write(commands.take())
      // it answers: so it is shut in
      yield* Stream.runHead(process.output("stdout"))
      const about = `/proc/${process.pid}`
      const status = readFileSync(`${about}/status`, "utf8")
      // chown, dac_override, fowner, fsetid, sys_admin, mknod, setfcap
      for (const line of ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t000000008820001b", "CapPrm:\t000000008820001b"]) {
        assert.include(status, `${line}\n`)
      }
      assert.strictEqual(readlinkSync(`${about}/root`), tree)
      assert.match(readFileSync(`${about}/limits`, "utf8"), /^Max core file size +0 +0 /mu)
      const files = readdirSync(`${about}/fd`).map((file) => readlinkSync(`${about}/fd/${file}`))
      assert.deepStrictEqual(files.filter((file) => !/^pipe:|^socket:|^\/dev\/null$/u.test(file)).toSorted(), [
        blob,
        tree
      ])
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )
})
