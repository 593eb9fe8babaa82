/**
 * A state directory on a disk that runs full, from outside and by what runs here: it is told, nothing half-made stays, the brain
 * lives and comes back, and room can be made with the commands alone.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { randomFillSync } from "node:crypto"
import { existsSync, mkdtempSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { buildImage, file, writeLayout } from "../support/images.ts"
import { checkout, eventually, type Instance, start } from "../support/ironwood.ts"

const image = `kind: Image\npath: ${checkout}/build/sample-image\n`
const container = (name: string, script: string, more = "") =>
  `---\nkind: Container\nname: ${name}\nimage: hello\nentrypoint: [/bin/sh, -c]\ncommand: [${JSON.stringify(script)}]\n${more}`
const loop = "while :; do sleep 0.2; done"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-failure-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A file system of its own, so large. */
const disk = (size: string) =>
  Effect.tap(temporary, (path) =>
    Effect.acquireRelease(
      Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "none", path])),
      () => Effect.sync(() => execFileSync("umount", ["--lazy", path]))
    )
  )

/** Takes the last byte of the disk; gives the file that has it. */
const fill = (directory: string) =>
  Effect.sync(() => {
    const filler = join(directory, "filler")
    for (const size of [1_048_576, 4_096, 1]) {
      assert.throws(() => {
        for (;;) writeFileSync(filler, Buffer.alloc(size), { flag: "a" })
      }, /ENOSPC/)
    }
    return filler
  })

const blobs = ({ stateDirectory }: Instance): ReadonlyArray<string> => {
  const path = join(stateDirectory, "content/blobs/sha256")
  return existsSync(path) ? readdirSync(path) : []
}

describe("a full disk", () => {
  it.live("is told, nothing half-made stays, and it goes on when there is room", () =>
    Effect.gen(function* () {
      const parent = yield* disk("12m")
      const instance = yield* start({ parent })
      const source = yield* temporary
      const noise = randomFillSync(Buffer.alloc(16_000_000))
      writeLayout(source, [{ image: buildImage({ layers: [[file("big", noise)]] }), name: "big:1" }])
      const big = yield* instance.try("image", "import", source)
      assert.strictEqual(big.code, 8, big.stderr)
      assert.match(big.stderr, /disk is full/)
      assert.deepStrictEqual(blobs(instance), [])
      const applied = yield* instance.apply(
        `kind: Image\npath: ${source}\n${image.replace(/^/, "---\n")}${container("web", loop)}`
      )
      assert.strictEqual(applied.code, 8, applied.stderr)
      assert.notInclude(applied.stdout, "web")

      // not a byte is left for what is asked for now
      const filler = join(instance.stateDirectory, "filler")
      assert.throws(() => writeFileSync(filler, Buffer.alloc(13_000_000)), /ENOSPC/)
      const failed = yield* instance.try("run", "-d", "--name", "web", "hello")
      assert.strictEqual(failed.code, 8, failed.stderr)
      assert.match(failed.stderr, /disk is full/)
      assert.strictEqual(yield* instance.run("ps", "-aq"), "")
      rmSync(filler)
      assert.strictEqual(yield* instance.run("run", "-d", "--name", "web", "hello"), "web\n")
    })
  )

  it.live("costs log lines, not the brain: it stays, and the next one starts on it", () =>
    Effect.gen(function* () {
      const parent = yield* disk("12m")
      const instance = yield* start({ parent })
      yield* instance.apply(image + container("web", loop))
      const filler = yield* fill(parent)
      const log = join(instance.stateDirectory, "brain.log")
      const before = statSync(log).size
      const first = yield* instance.brainPid
      // each of its deaths is a line that cannot be written
      yield* instance.try("restart", "web")
      process.kill(first, "SIGKILL")
      const ps = yield* eventually("the next brain", instance.try("ps"), ({ code }) => code === 0)
      assert.include(ps.stdout, "web")
      const second = yield* instance.brainPid
      assert.notStrictEqual(second, first)
      yield* Effect.sleep("2 seconds")
      assert.strictEqual(yield* instance.brainPid, second, "and it stays")
      rmSync(filler)
      process.kill(second, "SIGKILL")
      yield* eventually("another brain", instance.try("ps"), ({ code }) => code === 0)
      yield* eventually(
        "its log, now that there is room",
        Effect.sync(() => statSync(log).size),
        (size) => size > before
      )
    })
  )

  it.live("that a container fills is told, and the container can be stopped, removed, and all goes on", () =>
    Effect.gen(function* () {
      const parent = yield* disk("12m")
      const instance = yield* start({ parent })
      const flood = "while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done"
      // restarts now and then, and is rotated later than the disk is full
      const files = "log: { maxBytes: 100MiB, maxFiles: 5 }\n"
      const applied = yield* instance.apply(
        image + container("flaky", "sleep 0.5; exit 1") + container("flood", flood, files)
      )
      assert.strictEqual(applied.code, 0, applied.stderr)
      const state = instance.run("inspect", "init/storage/state")
      yield* eventually("it to be told", state, (text) => text.includes("the disk is full"), 120)
      const { bavail, bsize } = statfsSync(parent)
      assert.isAbove(bavail * bsize, 200_000, "not filled to the last byte")
      const { code, stderr } = yield* instance.try("stop", "-t", "1", "flood")
      assert.strictEqual(code, 0, stderr)
      // the same with not a byte left
      yield* instance.run("start", "flood")
      const filler = yield* fill(parent)
      const removed = yield* instance.try("rm", "-f", "flaky")
      assert.strictEqual(removed.code, 0, removed.stderr)
      yield* instance.run("stop", "-t", "1", "flood")
      assert.strictEqual(yield* instance.run("rm", "flood"), "flood\n")
      yield* eventually("room", instance.try("run", "-d", "--name", "web", "hello"), ({ code }) => code === 0)
      yield* eventually("it to be taken back", state, (text) => !text.includes("the disk is full"))
      rmSync(filler)
    })
  )
})
