/**
 * A machine whose memory is huge pages of the host, on two NUMA nodes, with a real guest. The test reserves them, and gives them back;
 * where the kernel, once it has compacted its memory, does not find so many in one piece it is skipped, and says so.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readFileSync, writeFileSync } from "node:fs"
import { VmMoves } from "../../src/vmm/VmSnapshots.ts"
import { consoleText, says, specOf, withVms } from "./world.ts"

const MIB = 1024 * 1024
const MEMORY = 256 * MIB
const PAGES = MEMORY / (2 * MIB)
const directory = "/sys/kernel/mm/hugepages/hugepages-2048kB"
const read = (name: string): number => Number(readFileSync(`${directory}/${name}`, "utf8"))

/** So many more than there are, for as long as the scope; how many more there are now. */
const reserved = (pages: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = read("nr_hugepages")
      writeFileSync(`${directory}/nr_hugepages`, `${before + pages}`)
      if (read("nr_hugepages") < before + pages) {
        writeFileSync("/proc/sys/vm/compact_memory", "1")
        writeFileSync(`${directory}/nr_hugepages`, `${before + pages}`)
      }
      return { before, more: read("nr_hugepages") - before }
    }),
    ({ before }) => Effect.sync(() => writeFileSync(`${directory}/nr_hugepages`, `${before}`))
  )

/** KiB of huge pages that a process has. */
const hugeOf = (pid: number): number =>
  [...readFileSync(`/proc/${pid}/smaps`, "utf8").matchAll(/^(?:Shared|Private)_Hugetlb: +(\d+) kB$/gm)].reduce(
    (sum, [, size]) => sum + Number(size),
    0
  )

describe("huge pages", () => {
  it.live("are the memory of a machine that asks for them, each node with its own part", (test) =>
    Effect.gen(function* () {
      const { more } = yield* reserved(PAGES)
      if (more < PAGES) return test.skip(`this host's memory is in pieces: ${more} of ${PAGES} huge pages`)
      yield* withVms(({ vms }) =>
        Effect.gen(function* () {
          const free = read("free_hugepages")
          const fields = {
            chipset: "q35",
            cpus: 2,
            memoryBytes: MEMORY,
            hugepages: "2MiB",
            topology: { sockets: 2, cores: 1, threads: 1, numaNodes: 2 }
          }
          const spec = yield* specOf("huge", fields)
          const { pid } = yield* vms.create(spec, { wait: true })
          yield* says(vms, "huge", "guest: ready")
          assert.isDefined(pid)
          assert.isAbove(hugeOf(pid), 0)
          const text = yield* consoleText(vms, "huge")
          for (const node of [0, 1]) assert.match(text, new RegExp(`Initmem setup node ${node} `))

          const more = yield* Effect.flip(vms.create(yield* specOf("more", fields), { wait: true }))
          assert.match(more.message, /hugepages: it needs 128 huge pages of 2MiB, and \d+ of this host's are free/)
          const refused = yield* Effect.flip((yield* VmMoves).migrate("huge"))
          assert.match(refused.message, /it is there twice while it moves: it needs 128 huge pages/)
          assert.strictEqual((yield* vms.get("huge")).pid, pid)
          yield* vms.remove("huge", { force: true })
          assert.strictEqual(read("free_hugepages"), free)
        })
      )
    }).pipe(Effect.scoped)
  )
})
