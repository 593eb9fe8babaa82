/** What counts as an empty disk: files stand in for devices, as sparse as those. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, openSync, closeSync, rmSync, truncateSync, writeSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { isEmpty, piecesOf, read, silentDisks } from "../../src/host/StateDisk.ts"

const MiB = 1024 * 1024

/** Whether a disk of `size` bytes counts as empty that has one byte other than zero at each of `places`. */
const empty = async (size: number, ...places: ReadonlyArray<number>): Promise<boolean> => {
  const directory = mkdtempSync(join(tmpdir(), "ironwood-disk-"))
  try {
    const path = join(directory, "disk")
    writeFileSync(path, "")
    truncateSync(path, size)
    const file = openSync(path, "r+")
    for (const place of places) writeSync(file, Buffer.from([1]), 0, 1, place)
    closeSync(file)
    return await isEmpty(path)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

describe("an empty disk", () => {
  it("is one of zeros, large or small", async () => {
    for (const size of [512, MiB, 8 * MiB, 8 * MiB + 512, 512 * MiB]) assert.isTrue(await empty(size), `${size}`)
    assert.isFalse(await empty(0), "one without any bytes is none")
  })

  it("has nothing where a file system, a partition table, a volume manager or a RAID would tell of itself", async () => {
    const size = 512 * MiB
    const places = {
      "MBR or LVM": 512,
      ext4: 1_024 + 56,
      btrfs: 64 * 1024 + 64,
      "ZFS, second label": 256 * 1024,
      "GPT's copy": size - 512,
      "RAID of version 1.0": size - 8_192,
      "RAID of version 0.90": size - 64 * 1024,
      "the last byte": size - 1
    }
    for (const [what, place] of Object.entries(places)) assert.isFalse(await empty(size, place), what)
  })

  it("of a few mebibytes is read wholly", async () => {
    for (let place = 0; place < 8 * MiB; place += 512 * 1024 + 1)
      assert.isFalse(await empty(8 * MiB, place), `${place}`)
  })

  it("is looked at in the middle too, within bounds, in places that a disk has", () => {
    for (const size of [8 * MiB + 512, 9 * MiB, 1_000_000_512, 4e12]) {
      const pieces = piecesOf(size)
      assert.isAtMost(pieces.length, 260)
      for (const { length, position } of pieces) assert.isTrue(position >= 0 && position + length <= size)
      if (size > 9 * MiB) assert.isAtLeast(pieces.length, 250)
    }
  })
})

const failureOf = (reading: Promise<unknown>): Promise<string> => reading.then(() => "none", String)

it("a disk that hangs is waited for once, until it answers", async () => {
  const directory = mkdtempSync(join(tmpdir(), "ironwood-disk-"))
  try {
    // opening it hangs as long as nobody writes
    const path = join(directory, "disk")
    assert.strictEqual(spawnSync("mkfifo", [path]).status, 0)
    assert.include(await failureOf(read(path, 0, 512, 50)), `${path} does not answer within 0.05 s`)
    assert.deepStrictEqual(silentDisks(), [path])
    assert.match(await failureOf(read(path, 0, 512, 60_000)), /does not answer$/)
    closeSync(openSync(path, "w"))
    while (silentDisks().length > 0) await setTimeout(10)
  } finally {
    rmSync(directory, { recursive: true })
  }
})
