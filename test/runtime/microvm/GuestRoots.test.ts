/** What becomes of a volume in a guest when the guest fails in the midst of preparing it. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { FileFailed, type SystemFiles } from "../../../src/host/SystemFiles.ts"
import * as GuestRoots from "../../../src/runtime/microvm/GuestRoots.ts"
import { Processes } from "../../../src/taproot/Processes.ts"

const { serial = "" } = GuestRoots.volumeDisk("data", "")

/** A guest with the volume's disk, which fails when it is asked for a directory for the `failing`th time. */
const guest = (failing: number) => {
  const directories = new Set<string>()
  const mounts: Array<string> = []
  let asked = 0
  const files: SystemFiles = {
    read: (path) =>
      Effect.succeed(Buffer.from(path.endsWith("serial") ? serial : mounts.map((one) => `d ${one}\n`).join(""))),
    list: (path) =>
      Effect.succeed(
        path === "/sys/block"
          ? [{ name: "vda", isDirectory: true }]
          : [...directories]
              .filter((one) => one.startsWith(`${path}/`))
              .map((one) => ({ name: one.slice(path.length + 1), isDirectory: true }))
      ),
    makeDirectory: (path) =>
      ++asked === failing
        ? Effect.fail(new FileFailed({ path, code: "ENOSPC", problem: "no space left" }))
        : Effect.sync(() => void directories.add(path)),
    write: () => Effect.void,
    remove: () => Effect.void,
    removeDirectory: () => Effect.void,
    kill: () => Effect.void,
    processes: () => Effect.succeed([]),
    uptime: Effect.succeed(0),
    onChange: () => Effect.void
  }
  const roots = Effect.map(Processes, (processes) =>
    GuestRoots.make({
      processes,
      files,
      like: () => Effect.void,
      own: () => Effect.void,
      removeTree: () => Effect.void,
      insert: () => Effect.die("no image"),
      renew: () => Effect.die("it has the volume"),
      containers: undefined
    })
  ).pipe(
    Effect.provide(
      Layer.mock(Processes, {
        hello: {
          instance: "0123456789abcdef",
          taprootPid: 1,
          role: "guest",
          brainStarts: 0,
          lastBrainEnd: { how: "none", value: 0, time: 0n },
          features: [],
          succession: { state: "none", fault: "none", end: { how: "none", value: 0, time: 0n } }
        },
        mount: ({ target }) => Effect.sync(() => void mounts.push(target))
      })
    )
  )
  return { directories, mounts, roots }
}

describe("a volume in a guest", () => {
  for (const another of [false, true]) {
    it.effect(`that was not prepared to its end is prepared again${another ? ", by another brain" : ""}`, () =>
      Effect.gen(function* () {
        for (const failing of [1, 2, 3]) {
          const { directories, mounts, roots } = guest(failing)
          const before = yield* roots
          const failed = yield* Effect.flip(before.volume("web", "data", "/data"))
          assert.include(failed.message, "the volume data cannot be had")
          const after = another ? yield* roots : before
          const path = yield* after.volume("web", "data", "/data")
          assert.strictEqual(path, `/run/ironwood/volumes/${serial}/data`)
          assert.isTrue(directories.has(path))
          assert.isTrue(directories.has(`/run/ironwood/volumes/${serial}/ready`))
          assert.strictEqual(mounts.length, 1)
        }
      })
    )
  }
})
