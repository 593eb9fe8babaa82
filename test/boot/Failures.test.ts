/**
 * What may be wrong with a machine: it says so and serves, or refuses with a reason. Network, disk, clock, command line and
 * config are in the other files here.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { connect, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { sampleDirectory } from "../../scripts/boot/Samples.ts"
import { file } from "../../scripts/image/Cpio.ts"
import { taprootFile } from "../../scripts/image.ts"
import { checkout, eventually } from "../support/ironwood.ts"
import { boot, type Machine, stopping } from "../support/machine.ts"

const Tree = Schema.Struct({
  actors: Schema.Array(
    Schema.Struct({
      degraded: Schema.optionalKey(Schema.String),
      lastExit: Schema.optionalKey(Schema.Struct({ message: Schema.String }))
    })
  )
})

const Version = Schema.Struct({ brainStarts: Schema.Int, brainPid: Schema.Int })

/** Waits until an actor's words, of its last end or of what it lacks, are these. */
const says = (machine: Machine, path: string, text: string | RegExp, seconds = 60) =>
  eventually(
    `${path} to say ${String(text)}`,
    Effect.map(
      Effect.orElseSucceed(machine.json(Tree, "tree", path), () => ({ actors: [] })),
      ({ actors: [actor] }) => `${actor?.degraded ?? ""} ${actor?.lastExit?.message ?? ""}`
    ),
    (words) => (typeof text === "string" ? words.includes(text) : text.test(words)),
    seconds
  )

const container = (name: string, ...command: ReadonlyArray<string>): string =>
  `kind: Container\nname: ${name}\nimage: hello:latest\nentrypoint: ${JSON.stringify(command)}\n`

const image = `kind: Image\npath: ${sampleDirectory}\n---\n`

/** taproot as it is on a kernel that does not know cgroup2: the name of the file system is another one in it. */
const withoutCgroup2 = (): Buffer => {
  const taproot = readFileSync(join(checkout, "build/taproot"))
  for (let at = taproot.indexOf("cgroup2\0"); at >= 0; at = taproot.indexOf("cgroup2\0", at))
    taproot.write("cgroup9", at)
  return taproot
}

/** An emulator that shares its processors with others takes minutes for the ten thousand that a machine has to reap. */
const orphans = process.env["IRONWOOD_STORM"] === "1" ? 10_000 : 1_000

/** A directory that is removed with the scope. */
const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-failures-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** A program of this folder, compiled. Not below /usr: a kernel without overlayfs cannot lay it over what is there. */
const compiled = (name: string) =>
  Effect.map(temporary, (directory) => {
    const program = join(directory, name)
    execFileSync("musl-gcc", ["-static", "-O1", "-o", program, join(import.meta.dirname, `${name}.c`)])
    return file(name, readFileSync(program), 0o755)
  })

/** Takes up the other end of a line and reads no more than a byte from it. */
const takenUp = (path: string) =>
  Effect.acquireRelease(
    Effect.retry(
      Effect.callback<Socket, Error>((resume) => {
        // one that is only paused reads ahead all that a machine says
        const once = { buffer: Buffer.alloc(1), callback: () => false }
        const socket = connect({ path, onread: once }, () => resume(Effect.succeed(socket)))
        socket.once("error", (error) => resume(Effect.fail(error)))
      }),
      { schedule: Schedule.spaced("50 millis"), times: 100 }
    ),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** Two more boots than CI has time for. */
describe.skipIf(process.env["IRONWOOD_BOOT"] !== "all")("a machine on which something is wrong", () => {
  it.live(
    "says what its kernel lacks and refuses containers for it; reaps orphans that end all at once",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot({
          memoryMiB: 768 + orphans / 8,
          parameters: ["module_blacklist=overlay"],
          files: [
            yield* compiled("orphans"),
            file("init", withoutCgroup2(), 0o755),
            taprootFile({ heartbeatMillis: 30_000, by: ["/orphans", String(orphans)] })
          ]
        })
        yield* machine.prints(/orphans: \d+ ended at once; none left after [\d.]+ ms/)
        yield* machine.prints("cannot mount cgroup9 on /sys/fs/cgroup: No such device")
        yield* machine.up
        yield* says(machine, "init/host/kernel", "cgroup2 could not be mounted: no container can be started")
        yield* says(machine, "init/host/kernel", "this kernel has no overlayfs: no container can be started")
        yield* machine.prints(/init\/host\/kernel running degraded: cgroup2 .*; this kernel has no overlayfs/)

        yield* machine.apply(image + container("first", "/bin/sleep", "1000"))
        yield* says(machine, "init/runtime/first/first", /mounting overlay .* failed/)
        assert.match(yield* machine.run("host"), /crun .*does not work here: .*cgroup/)
        yield* machine.run("down")
        assert.strictEqual(yield* machine.ended, 0)
        assert.notInclude(machine.console(), "Kernel panic")
      }).pipe(Effect.scoped),
    900_000
  )

  it.live(
    "outlives a container that forks without end and a console that takes nothing",
    () =>
      Effect.gen(function* () {
        const path = join(yield* temporary, "console")
        const machine = yield* boot({
          memoryMiB: 448,
          console: "ttyS1",
          parameters: ["quiet"],
          more: ["-chardev", `socket,id=silent,path=${path},server=on,wait=off`, "-serial", "chardev:silent"]
        })
        yield* takenUp(path)
        yield* machine.up
        assert.strictEqual((yield* machine.json(Version, "version")).brainStarts, 1)

        yield* machine.apply(
          image + container("bomb", "/bin/busybox", "awk", 'BEGIN { for (;;) system("sleep 1000 &") }')
        )
        yield* says(
          machine,
          "init/runtime/bomb/bomb",
          /it has as many processes as it may \(\d+\): \d+ forks? w\w+ refused/
        )
        assert.match(yield* machine.run("tree", "--troubled"), /bomb .*refused/)
        yield* says(machine, "init/host/console", "it shows emergencies only: it has not taken what it was sent")
        yield* machine.run("rm", "--force", "bomb")
        assert.strictEqual(yield* machine.run("down"), stopping)
        assert.strictEqual(yield* machine.ended, 0)
      }).pipe(Effect.scoped),
    900_000
  )

  it.live(
    "outlives a crash of its first process, which loses what it knew: containers are started anew, none twice",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot()
        yield* machine.up
        yield* machine.apply(image + container("web", "/bin/sleep", "1000"))
        const running = /\bweb\b.*\bUp\b/
        yield* eventually("the container", machine.run("ps"), (text) => running.test(text), 60)
        const version = machine.json(Version, "version")
        const { brainPid: before } = yield* version
        yield* machine.failBrain("TAPROOT")
        yield* machine.prints("taproot: it crashed (signal 11); starting it anew")
        const after = Effect.orElseSucceed(version, () => ({ brainStarts: 0, brainPid: before }))
        yield* eventually("another brain", after, ({ brainPid }) => brainPid !== before, 240)
        yield* eventually("the container", machine.run("ps"), (text) => running.test(text), 120)
        const processes = yield* machine.run("top", "web")
        assert.strictEqual(processes.split("sleep").length - 1, 1, processes)
        assert.strictEqual(yield* machine.run("down"), stopping)
        assert.strictEqual(yield* machine.ended, 0)
        assert.notInclude(machine.console(), "Kernel panic")
      }).pipe(Effect.scoped),
    900_000
  )
})
