/**
 * The compile cache of Node for programs of an image, the same bytes for the same programs.
 *
 * V8 orders what it writes by hashes that are seeded anew in each process, so every run writes another cache. With
 * `--hash-seed` the bytes are always the same, and what reads them sorts them anew anyhow, but V8 takes a cache only from a
 * process that had its own flags. So one run makes the content, with a seed, and another one tells where it would have put
 * it and which flags it had; the former gets the words about flags of the latter. A program's path is in its cache, too, so
 * they are run by one that is the same everywhere. That the result is taken is tried in the end, by the path that it has.
 *
 * Trap: this knows the first bytes of a file of Node's cache (five numbers, the last one the checksum of the rest) and of V8's
 * (the fourth number is the hash of the flags). Another version of Node may have others: then the trial fails, not the machine.
 */
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { crc32 } from "node:zlib"
import { ImageFailed } from "./Kernel.ts"

/** Of a file of the cache. */
const checksumAt = 16
const contentAt = 20
const flagsAt = contentAt + 12

/** Of whatever directory a program is run in; Node is to take it as it is. */
const everywhere = "/proc/self/cwd"
const asItIs = ["--preserve-symlinks", "--preserve-symlinks-main"]

/** Runs a program of `home` once, by its path in `by`; the words that Node has about its cache. */
const runOnce = (home: string, program: string, flags: ReadonlyArray<string>, by = home): string => {
  const done = spawnSync(process.execPath, [...flags, join(by, program), "--version"], {
    cwd: home,
    encoding: "utf8",
    env: { ...process.env, NODE_DEBUG_NATIVE: "COMPILE_CACHE" }
  })
  if (done.status !== 0) throw new ImageFailed(`${program} does not run: ${done.stderr}`)
  return `${done.stdout}${done.stderr}`
}

/** The files of the cache by their paths below `home`, after a run of each program. */
const cacheOf = (home: string, programs: ReadonlyArray<string>, flags: ReadonlyArray<string>) => {
  rmSync(join(home, "cache"), { recursive: true, force: true })
  for (const program of programs) runOnce(home, program, [...flags, ...asItIs], everywhere)
  const [tag = ""] = readdirSync(join(home, "cache"))
  return readdirSync(join(home, "cache", tag))
    .sort()
    .map((name) => ({ name, path: join("cache", tag, name), bytes: readFileSync(join(home, "cache", tag, name)) }))
}

/** Fills `cache` in the directory of the programs. */
export const makeCompileCache = (
  home: string,
  programs: ReadonlyArray<string>,
  flags: ReadonlyArray<string>
): ReadonlyArray<{ readonly path: string; readonly bytes: Buffer }> => {
  const seeded = new Map(
    cacheOf(home, programs, [...flags, "--hash-seed=1"]).map(({ bytes, name }) => [name, bytes] as const)
  )
  const made = cacheOf(home, programs, flags).map(({ bytes: usual, name, path }) => {
    const bytes = seeded.get(name)
    if (bytes === undefined) throw new ImageFailed(`the compile cache has ${name} only sometimes`)
    usual.copy(bytes, flagsAt, flagsAt, flagsAt + 4)
    bytes.writeUInt32LE(crc32(bytes.subarray(contentAt)), checksumAt)
    writeFileSync(join(home, path), bytes)
    return { path, bytes }
  })
  for (const program of programs) {
    const said = runOnce(home, program, flags)
    if (!said.includes("was accepted") || said.includes("was rejected")) {
      throw new ImageFailed(`Node does not take the compile cache of ${program}:\n${said}`)
    }
  }
  return made
}
