/** Brains for tests: any text as a brain, packed as scripts/build.ts packs the real one. */
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface Parts {
  readonly version: string
  /** What it does. */
  readonly program: string
  readonly manifest?: Readonly<Record<string, unknown>>
  /** Files instead of, or beside, those that belong there. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>
}

const manifestOf = (version: string, more: Parts["manifest"] = {}): string =>
  JSON.stringify({
    format: "ironwood-brain/1",
    version,
    protocol: { newest: 2, oldest: 2 },
    stateLayout: 1,
    node: 20,
    ...more
  })

/** A bundle with these parts. */
export const bundleOf = ({ files = {}, manifest, program, version }: Parts): Buffer => {
  const home = mkdtempSync(join(tmpdir(), "ironwood-bundle-"))
  try {
    const contents = join(home, "contents")
    mkdirSync(contents)
    const all = {
      "manifest.json": manifestOf(version, manifest),
      "brain.cjs": `require("./brain.bundle.cjs")\n`,
      "brain.bundle.cjs": program,
      "state-worker.cjs": "",
      ...files
    }
    for (const [name, content] of Object.entries(all)) writeFileSync(join(contents, name), content)
    execFileSync("tar", ["-C", contents, "--format=ustar", "-cf", join(home, "brain.tar"), ...Object.keys(all)])
    return readFileSync(join(home, "brain.tar"))
  } finally {
    rmSync(home, { recursive: true })
  }
}
