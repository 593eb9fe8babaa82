/** What keeps a machine's state when its disk does what it should, and when it hangs. On a real machine: `test/boot`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as MachineState from "../../src/host/MachineState.ts"
import * as ProcessesRecording from "../../src/taproot/ProcessesRecording.ts"

const runDirectory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-state-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** What a start makes of a disk, and the mounts that it asked taproot for. */
const start = Effect.fnUntraced(function* (
  { answer, answerOther = () => ({ _tag: "Done" }) }: ProcessesRecording.Options,
  patience: "50 millis" | "1 minute" = "1 minute"
) {
  const directory = yield* runDirectory
  const mounts = join(directory, "mounts")
  writeFileSync(mounts, "rootfs / rootfs rw 0 0\n")
  const world: MachineState.World = {
    disks: {
      isEmpty: () => Promise.resolve(false),
      silentDisks: () => ["/dev/vdz"],
      withLabel: (label) => Promise.resolve(label === "mine" ? ["/dev/vda"] : [])
    },
    mounts,
    runDirectory: directory,
    patience
  }
  return (label: string | undefined) =>
    Effect.gen(function* () {
      const state = yield* MachineState.MachineState
      const { frames } = yield* ProcessesRecording.SimulatedTaproot
      const asked = frames.flatMap((frame) => (frame._tag === "Mount" ? [[frame.source, frame.target]] : []))
      return { state, asked, directory }
    }).pipe(
      Effect.provide(
        Layer.provideMerge(
          MachineState.layer("/var/lib/ironwood", { label, format: undefined }, world),
          ProcessesRecording.layer({ answer: answer ?? (() => ({ _tag: "Ends", code: 0 })), answerOther })
        )
      )
    )
})

describe("a machine's state", () => {
  it.live("is on the disk with the label, which is mounted aside and moved", () =>
    Effect.gen(function* () {
      const { asked, directory, state } = yield* (yield* start({}))("mine")
      assert.deepStrictEqual(state, { device: "/dev/vda", problem: "" })
      const aside = join(directory, "state-disk")
      assert.deepStrictEqual(asked, [
        ["/dev/vda", aside],
        [aside, "/var/lib/ironwood"]
      ])
    })
  )

  it.live("is in memory, and says why, when the disk's mount never ends", () =>
    Effect.gen(function* () {
      const hangs: ProcessesRecording.Options = {
        answerOther: (request) =>
          request._tag === "Mount" && request.source === "/dev/vda" ? { _tag: "Silence" } : { _tag: "Done" }
      }
      const { asked, directory, state } = yield* (yield* start(hangs, "50 millis"))("mine")
      assert.isUndefined(state.device)
      assert.include(state.problem, "mounting /dev/vda did not end within 50ms")
      assert.deepStrictEqual(asked.at(-1), ["tmpfs", "/var/lib/ironwood"])
      // told by the brains after this one, too
      assert.strictEqual(readFileSync(join(directory, "state-problem"), "utf8"), state.problem)
    })
  )

  it.live("is in memory when the check of the disk does not end", () =>
    Effect.gen(function* () {
      const hangs: ProcessesRecording.Options = { answer: () => ({ _tag: "Runs" }) }
      const { state } = yield* (yield* start(hangs, "50 millis"))("mine")
      assert.isUndefined(state.device)
      assert.include(state.problem, "`e2fsck -p /dev/vda` did not end within 50ms")
    })
  )

  it.live("names the disks that do not answer where none has the label", () =>
    Effect.gen(function* () {
      const { state } = yield* (yield* start({}))(undefined)
      assert.strictEqual(state.problem, 'no disk has an ext4 labelled "ironwood-state"; /dev/vdz does not answer')
    })
  )
})
