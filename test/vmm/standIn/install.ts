/**
 * Puts the stand-ins of `program.ts` where a test has a driver look for its program: a directory with `cloud-hypervisor` and
 * `firecracker`, which any user may run.
 */
import * as Effect from "effect/Effect"
import { buildSync } from "esbuild"
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

let built: string | undefined
const bundle = (): string => {
  built ??= buildSync({
    entryPoints: [fileURLToPath(new URL("program.ts", import.meta.url))],
    bundle: true,
    platform: "node",
    format: "esm",
    write: false
  }).outputFiles[0]?.text
  return built ?? ""
}

export interface StandIns {
  /** Where they are. */
  readonly path: string
  /** How they misbehave from now on; see `program.ts`. */
  readonly behave: (behaviour: Readonly<Record<string, unknown>>) => void
  /** What they were asked, one request a line. */
  readonly requests: () => ReadonlyArray<string>
}

/** For as long as the scope lives. */
export const install = Effect.acquireRelease(
  Effect.sync((): StandIns => {
    const path = realpathSync(mkdtempSync(join(tmpdir(), "ironwood-stand-in-")))
    chmodSync(path, 0o755)
    writeFileSync(join(path, "program.mjs"), bundle(), { mode: 0o644 })
    const node = join(path, "node")
    try {
      linkSync(realpathSync(process.execPath), node)
    } catch {
      copyFileSync(process.execPath, node)
    }
    for (const name of ["cloud-hypervisor", "firecracker"]) {
      const script = `#!/bin/sh\n# a recording stand-in, no hypervisor\nexec ${node} ${path}/program.mjs ${name} ${path} "$@"\n`
      writeFileSync(join(path, name), script)
      chmodSync(join(path, name), 0o755)
    }
    appendFileSync(join(path, "requests"), "")
    chmodSync(join(path, "requests"), 0o666)
    return {
      path,
      behave: (behaviour) => writeFileSync(join(path, "behaviour"), JSON.stringify(behaviour), { mode: 0o644 }),
      requests: () => readFileSync(join(path, "requests"), "utf8").split("\n").slice(0, -1)
    }
  }),
  ({ path }) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)
