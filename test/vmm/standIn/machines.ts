/** Machines for the stand-ins: files that only root may read, and specs that a driver does not refuse. */
import * as Effect from "effect/Effect"
import { chmodSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { specOf } from "../world.ts"
import { install, type StandIns } from "./install.ts"

export const drivers = [
  { hypervisor: "cloud-hypervisor", chipset: "q35" },
  { hypervisor: "firecracker", chipset: "microvm" }
] as const

/** A disk of so many bytes that only root may read. */
export const makeDisk = (path: string, bytes = 4096): string => {
  writeFileSync(path, "")
  truncateSync(path, bytes)
  chmodSync(path, 0o600)
  return path
}

/** `kernel` and `disk`. */
const files = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "ironwood-files-"))
    for (const name of ["kernel", "disk"]) {
      writeFileSync(join(path, name), name === "kernel" ? "\x7fELF" : name)
      truncateSync(join(path, name), 4096)
      chmodSync(join(path, name), 0o600)
    }
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

export const machine = (
  driver: (typeof drivers)[number],
  path: string,
  wish: string,
  fields: Readonly<Record<string, unknown>> = {}
) =>
  specOf(driver.hypervisor, {
    ...driver,
    memoryBytes: 128 * 1024 ** 2,
    hostMemoryBytes: 1024 ** 3,
    kernel: join(path, "kernel"),
    initrd: join(path, "kernel"),
    commandLine: `guest.do=${wish}`,
    disks: [{ path: join(path, "disk") }],
    stopGracePeriod: 5_000,
    ...fields
  })

/** The stand-ins, and where the files are. */
export const withStandIns = <E, R>(test: (standIns: StandIns, path: string) => Effect.Effect<void, E, R>) =>
  Effect.scoped(Effect.flatMap(Effect.all([install, files]), ([standIns, path]) => test(standIns, path)))
