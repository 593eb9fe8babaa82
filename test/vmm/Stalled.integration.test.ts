/** A machine whose disk takes no more, because the host has no room for it: it stands still, and goes on where it was. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmdirSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { geteuid } from "node:process"
import type { Vms } from "../../src/vmm/Vms.ts"
import { eventually } from "../support/ironwood.ts"
import { says, specOf, until, withVms } from "./world.ts"

const MIB = 1024 ** 2

/** A file system in memory with so much room, which `resize` changes. Made before taproot, which has mounts of its own from then on. */
const small = (mebibytes: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const place = mkdtempSync(join(tmpdir(), "ironwood-small-"))
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${mebibytes}m`, "small", place])
      const resize = (mebibytes: number) => execFileSync("mount", ["-o", `remount,size=${mebibytes}m`, place])
      return { place, resize }
    }),
    ({ place }) =>
      Effect.sync(() => {
        execFileSync("umount", [place])
        rmdirSync(place)
      })
  )

/** Waits until the tree says so of it. */
const tells = (vms: Vms["Service"], words: string | undefined) =>
  eventually(
    `the tree to say ${words ?? "nothing"} of it`,
    Effect.map(vms.get("full"), ({ node }) => node?.annotations["degraded"]),
    (degraded) => degraded === words
  )

/** Who is not root cannot mount. */
describe.skipIf(geteuid?.() !== 0)("a machine whose disk is full", () => {
  it.live("stands still and says why; once there is room it goes on, and nothing of what it wrote is lost", () =>
    Effect.gen(function* () {
      const { place, resize } = yield* small(4)
      const disk = join(place, "disk")
      writeFileSync(disk, "")
      truncateSync(disk, 16 * MIB)
      yield* withVms(({ vms }) =>
        Effect.gen(function* () {
          yield* vms.create(yield* specOf("full", { disks: [{ path: disk }] }))
          yield* says(vms, "full", "guest: ready")
          yield* Effect.flatMap(vms.attach("full"), ({ write }) => write(Buffer.from("fill:8\n")))
          const stalled = yield* until(vms, "full", "stalled", ({ state }) => state === "stalled")
          assert.deepStrictEqual([stalled.desired, stalled.restarts, stalled.incarnation], ["running", 0, 1])
          assert.isAbove(stalled.since ?? 0, stalled.startedAt ?? Number.POSITIVE_INFINITY, "not since its start")
          yield* tells(vms, "it stands still: a disk of it took no more; make room, then resume it")

          // without room it stands still again
          yield* vms.resume("full")
          yield* until(vms, "full", "stalled again", ({ state }) => state === "stalled")

          resize(32)
          assert.strictEqual((yield* vms.resume("full")).state, "running")
          yield* says(vms, "full", "guest: filled")
          const content = readFileSync(disk)
          assert.isTrue(
            content.subarray(0, 8 * MIB).equals(Buffer.alloc(8 * MIB, "fill\n")),
            "what was written is whole"
          )
          assert.isTrue(
            content.subarray(8 * MIB).every((byte) => byte === 0),
            "and nothing else is"
          )
          yield* tells(vms, undefined)
          assert.strictEqual((yield* vms.get("full")).pid, stalled.pid)
          yield* vms.remove("full", { force: true })
        })
      )
    }).pipe(Effect.scoped)
  )
})
