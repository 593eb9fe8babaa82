/**
 * The wait of the kernel before it puts a process into a cgroup, begun early.
 *
 * Whoever writes to `cgroup.procs` needs a lock that costs every fork next to nothing and the writer much: unless somebody had
 * it within the last 20 ms or so, the kernel waits for a grace period of RCU first: 12 ms, where the rest takes 0.1. An OCI
 * runtime comes to that a few milliseconds after it was called. So who knows that one will be called says so, and while all else
 * is prepared the brain is put where it is already: when the runtime comes to it, it waits for less, or for nothing.
 *
 * Nothing depends on it: where it cannot be done everybody waits as they would have.
 *
 * Traps: to put the brain anywhere else would be a move, so a directory is believed to be its own only when it lists the brain.
 * Where nobody waits (cgroup2 with `favordynmods`, a runtime that has its process made in the cgroup) it is for nothing, and
 * costs some microseconds.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { pid } from "node:process"
import type { CgroupLayout } from "./CgroupLayout.ts"

/** `cgroup.procs` of the cgroup that the brain is in, in any hierarchy; undefined when it cannot be found. */
const own = async ({ hierarchies }: CgroupLayout): Promise<string | undefined> => {
  const lines = (await fs.readFile("/proc/self/cgroup", "utf8")).trim().split("\n")
  for (const line of lines) {
    // ID:CONTROLLERS:PATH; of cgroup2 without controllers
    const [, controllers = "", ...path] = line.split(":")
    const hierarchy = hierarchies.find((one) => one.controllers.join(",") === controllers)
    if (hierarchy === undefined) continue
    const file = `${hierarchy.mountPoint}${path.join(":")}/cgroup.procs`
    const listed = await fs.readFile(file, "latin1").catch(() => "")
    if (listed.split("\n").includes(String(pid))) return file
  }
  return undefined
}

/** Makes the effect that begins the wait, and does not wait for its end. */
export const make = (layout: Effect.Effect<CgroupLayout>): Effect.Effect<Effect.Effect<void>> =>
  Effect.map(
    Effect.cached(Effect.flatMap(layout, (found) => Effect.promise(() => own(found).catch(() => undefined)))),
    (file) =>
      Effect.map(file, (path) => {
        // "0" is whoever writes; nothing is made where a hierarchy is not mounted any more
        if (path !== undefined) void fs.writeFile(path, "0", { flag: "r+" }).catch(() => {})
      })
  )
