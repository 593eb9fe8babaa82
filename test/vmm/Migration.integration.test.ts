/**
 * A migration of which one side is killed in the midst of it, when part of the memory has arrived: one machine goes on, and nothing of
 * the other is left.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { kill } from "node:process"
import * as State from "../../src/storage/State.ts"
import * as Records from "../../src/vmm/Records.ts"
import { VmMoves } from "../../src/vmm/VmSnapshots.ts"
import type { Vms } from "../../src/vmm/Vms.ts"
import { eventually } from "../support/eventually.ts"
import { processesWith } from "../support/ironwood.ts"
import { mark, says, specOf, type, until, withVms } from "./world.ts"

/** Nothing else of a QEMU has this size. */
const MEMORY_MIB = 333

/** KiB of its guest's memory that a QEMU has; 0 when it has ended. */
const arrived = (pid: number): number => {
  let text = ""
  try {
    text = readFileSync(`/proc/${pid}/smaps`, "utf8")
  } catch {
    return 0
  }
  const mapping = new RegExp(`^Size: +${MEMORY_MIB * 1024} kB\n(?:(?!Rss).*\n)*Rss: +(\\d+) kB`, "m").exec(text)
  return Number(mapping?.[1] ?? 0)
}

/** Its name is its own on this host: its processes are looked for there. */
const NAME = `moves-${process.pid}`
const processes = () => processesWith(`guest=${NAME},`)

/** A machine with a mark in its memory that moves; `victim` says which process is killed once part of the memory has arrived. */
const interrupted = (vms: Vms["Service"], state: string, victim: (old: number, other: number) => number) =>
  Effect.gen(function* () {
    const moves = yield* VmMoves
    const path = join(state, "web.img")
    writeFileSync(path, "")
    truncateSync(path, 1024 ** 2)
    const fields = { memoryBytes: MEMORY_MIB * 1024 ** 2, disks: [{ path }] }
    const { pid: old = Number.NaN } = yield* vms.create(yield* specOf(NAME, fields), { wait: true })
    yield* says(vms, NAME, "guest: ready")
    yield* type(vms, NAME, "set:here")
    yield* says(vms, NAME, "guest: set")
    const moving = yield* Effect.forkChild(Effect.flip(moves.migrate(NAME)))
    let other = Number.NaN
    yield* eventually("memory to arrive", () => {
      other = processes().find((pid) => pid !== old) ?? Number.NaN
      return arrived(other) > 0
    })
    kill(victim(old, other), "SIGKILL")
    const error = yield* Fiber.join(moving)
    assert.strictEqual(error._tag, "SnapshotFailed")
    assert.match(error.message, /migrate/)
    return { moves, old, other }
  })

/** No work is under way with it, and of its lives there is one. */
const one = (state: string, pid: number) =>
  Effect.gen(function* () {
    const records = yield* Records.open(yield* State.State)
    yield* eventually("one process", () => processes().join() === String(pid))
    const record = yield* records.get(NAME)
    assert.deepStrictEqual(record._tag === "Some" ? record.value.value.work : "no record", undefined)
    const lives = readdirSync(join(state, "vm/machines", NAME)).filter((entry) => entry.startsWith("life-"))
    assert.deepStrictEqual(lives, [])
  })

describe("a migration", () => {
  it.live("whose new process is killed: the machine goes on where it is, and can move later", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const { moves, old } = yield* interrupted(vms, state, (_old, other) => other)
        const after = yield* vms.get(NAME)
        assert.deepStrictEqual([after.state, after.pid, after.restarts], ["running", old, 0])
        yield* one(state, old)
        assert.strictEqual(yield* mark(vms, NAME), "here")

        // before it has said a word, too
        const moving = yield* Effect.forkChild(Effect.flip(moves.migrate(NAME)))
        yield* eventually("another process", () => {
          const other = processes().find((pid) => pid !== old)
          if (other !== undefined) kill(other, "SIGKILL")
          return other !== undefined
        })
        assert.strictEqual((yield* Fiber.join(moving))._tag, "SnapshotFailed")
        yield* one(state, old)
        assert.strictEqual(yield* mark(vms, NAME), "here")

        const { vm } = yield* moves.migrate(NAME)
        assert.notStrictEqual(vm.pid, old)
        assert.strictEqual(yield* mark(vms, NAME), "here")
        assert.isUndefined(vm.lastExit)
        assert.isTrue(existsSync(join(state, "web.img")))
      })
    )
  )

  it.live("whose old process is killed: the machine has ended, and its policy starts it again", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const { old, other } = yield* interrupted(vms, state, (old) => old)
        const back = yield* until(vms, NAME, "back", (vm) => vm.state === "running" && vm.restarts === 1)
        assert.notInclude([old, other], back.pid)
        assert.strictEqual(back.lastExit?.message, "somebody killed its hypervisor (SIGKILL)")
        yield* one(state, back.pid ?? Number.NaN)
        yield* says(vms, NAME, "guest: ready", 2)
        assert.strictEqual(yield* mark(vms, NAME), "", "it has booted")
        yield* vms.stop(NAME, Duration.zero)
        assert.strictEqual(
          (yield* vms.get(NAME)).lastExit?.message,
          "Ironwood ended its hypervisor (SIGTERM): its guest had not powered off"
        )
      })
    )
  )
})
