/** The programs that an Ironwood under test finds: those of the host, but for an OCI runtime that does what a test wants. */
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"

/** A directory that is removed with the scope. */
export const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-failure-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A PATH with the programs of the host, but for its OCI runtimes: `crun` is what the text says. */
export const programs = (crun: string) =>
  Effect.map(temporary, (path) => {
    const seen = new Set(["crun", "runc", "youki"])
    for (const directory of (process.env["PATH"] ?? "").split(delimiter)) {
      for (const name of existsSync(directory) ? readdirSync(directory) : []) {
        if (seen.has(name)) continue
        seen.add(name)
        symlinkSync(join(directory, name), join(path, name))
      }
    }
    writeFileSync(join(path, "crun"), crun, { mode: 0o755 })
    return { PATH: path }
  })

/** Where the host has this program. */
export const where = (program: string): string => execFileSync("which", [program], { encoding: "utf8" }).trim()
