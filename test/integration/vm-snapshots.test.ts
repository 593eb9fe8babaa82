/**
 * Snapshots, a restore, a clone and a migration as a person has them, at the command line and over the death of the brain: what
 * docs/virtual-machines.md shows.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import { closeSync, existsSync, openSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { kill } from "node:process"
import { eventually, type Instance, ironwood, processesWith, start } from "../support/ironwood.ts"
import { guest } from "../vmm/guest.ts"

const Vm = Schema.Struct({
  status: Schema.Struct({
    state: Schema.String,
    pid: Schema.optionalKey(Schema.Int),
    lastExit: Schema.optionalKey(Schema.Struct({ message: Schema.String }))
  })
})
const Snapshots = Schema.Struct({
  snapshots: Schema.Array(Schema.Struct({ vm: Schema.String, name: Schema.String, sizeBytes: Schema.String }))
})

/** Names that are their own on this host, where processes are looked for by them. */
const web = `web-${process.pid}`
const other = `other-${process.pid}`

/** Types these lines at its console until it has obeyed the last of them, which it answers with `word`; all that it has said since. */
const typed = ({ address, run }: Instance, name: string, lines: ReadonlyArray<string>, word: string) =>
  Effect.gen(function* () {
    const seen = run("vm", "console", "--no-follow", "-n", "5000", name)
    const before = yield* seen
    const console = ["--address", address, "vm", "console", "-n", "0", name]
    const typing = yield* Effect.forkChild(ironwood(console, lines.map((line) => `${line}\n`).join("")))
    const after = yield* eventually(
      `${name} to say "${word}"`,
      Effect.map(seen, (text) => text.slice(before.length)),
      (text) => text.includes(word),
      30
    )
    yield* Fiber.interrupt(typing)
    return after
  })

/** What its memory and its disk have. */
const asked = (instance: Instance, name: string) =>
  Effect.map(typed(instance, name, ["get", "read"], "guest: disk says"), (said) => [
    /guest: mark <(.*)>/.exec(said)?.[1],
    /guest: disk says (\S*)/.exec(said)?.[1]
  ])

/** Two marks, one in its memory and one on its disk. */
const marked = (instance: Instance, name: string, mark: string) =>
  typed(instance, name, [`set:${mark}`, `write:${mark}`], "guest: written")

describe("ironwood vm", () => {
  it.live("a machine is written down, goes back to that, is made twice, and moves; the brain dies in between", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const { run } = instance
      const { initrd, kernel } = guest()
      const disk = join(instance.stateDirectory, "data.img")
      writeFileSync(disk, "")
      truncateSync(disk, 1024 ** 2)
      const port = 20_000 + (process.pid % 10_000)
      const machine = ["--kernel", kernel, "--initrd", initrd, "--chipset", "microvm", "-m", "192MiB"]
      yield* run(
        "vm",
        "create",
        web,
        ...machine,
        "--append",
        "console=ttyS0 panic=-1 guest.do=idle",
        "--disk",
        `${disk},serial=data`,
        "-p",
        `${port}:80`
      )
      yield* eventually(
        "its guest",
        run("vm", "console", "--no-follow", "-n", "5000", web),
        (text) => text.includes("guest: ready"),
        60
      )
      const inspected = (name: string) => Effect.map(instance.json(Vm, "vm", "inspect", name), ({ status }) => status)

      yield* marked(instance, web, "before")
      assert.match(
        yield* run("vm", "snapshot", "create", web, "good"),
        /^good  \d+MiB, its guest stood still for \d+ ms\n$/
      )
      const twice = yield* instance.try("vm", "snapshot", "create", web, "good")
      assert.include(twice.stderr, "good")
      assert.notStrictEqual(twice.code, 0)
      yield* marked(instance, web, "after")
      assert.deepStrictEqual(yield* asked(instance, web), ["after", "after"])

      kill(yield* instance.brainPid, "SIGKILL")
      yield* eventually("another brain", instance.try("version"), ({ code }) => code === 0, 60)
      const { snapshots } = yield* instance.json(Snapshots, "vm", "snapshot", "ls", web)
      assert.deepStrictEqual(
        snapshots.map(({ name, vm }) => [vm, name]),
        [[web, "good"]]
      )
      assert.strictEqual(yield* run("vm", "restore", web, "good"), `${web}\n`)
      assert.deepStrictEqual(yield* asked(instance, web), ["before", "before"])
      const restored = yield* inspected(web)
      assert.deepStrictEqual([restored.state, restored.lastExit], ["VM_STATE_RUNNING", undefined])

      assert.strictEqual(yield* run("vm", "clone", web, "good", other, "-p", `${port + 1}:80`), `${other}\n`)
      assert.deepStrictEqual(yield* asked(instance, other), ["before", "before"])
      assert.isTrue(existsSync(join(instance.stateDirectory, `${other}-data.img`)))
      assert.match(yield* run("vm", "migrate", web), /^web-\d+ {2}process \d+, its guest stood still for \d+ ms\n$/)
      const moved = yield* inspected(web)
      assert.notStrictEqual(moved.pid, restored.pid)
      assert.deepStrictEqual([moved.state, moved.lastExit], ["VM_STATE_RUNNING", undefined])
      assert.deepStrictEqual(yield* asked(instance, web), ["before", "before"])
      assert.strictEqual(processesWith(`guest=${web},`).join(), String(moved.pid))
      assert.match(yield* run("vm", "ls"), /^web-\d+ +microvm, 1 CPU, 192MiB .* Up .* 0 .*$/m)

      const memory = openSync(join(instance.stateDirectory, "vm/snapshots", web, "good/memory"), "r+")
      writeSync(memory, "x", 5_000)
      closeSync(memory)
      const refused = yield* instance.try("vm", "restore", web, "good")
      assert.include(refused.stderr, "memory is damaged: it is not what was written.")
      assert.strictEqual((yield* inspected(web)).pid, moved.pid)

      // one that cannot be read is told of, and can be removed
      const manifest = join(instance.stateDirectory, "vm/snapshots", web, "good/manifest.json")
      writeFileSync(manifest, "{")
      const listed = yield* run("vm", "snapshot", "ls", web)
      assert.match(listed, /^MACHINE +SNAPSHOT .* PROBLEM$/m)
      assert.match(listed, new RegExp(`^${web} +good .*${manifest}: `, "m"))

      // a disk by its serial
      yield* run("vm", "resize", web, "--disk", "data,size=2MiB")
      assert.strictEqual(statSync(disk).size, 2 * 1024 ** 2)
      const unknown = yield* instance.try("vm", "resize", web, "--disk", "date,size=2MiB")
      assert.include(unknown.stderr, "is no disk of it")

      yield* run("vm", "stop", web)
      assert.include((yield* instance.try("vm", "rm", web)).stderr, "good")
      yield* run("vm", "snapshot", "rm", web, "good")
      assert.deepStrictEqual((yield* instance.json(Snapshots, "vm", "snapshot", "ls")).snapshots, [])
      yield* run("vm", "rm", web)
      yield* run("vm", "rm", "-f", other)
    }).pipe(Effect.scoped)
  )
})
