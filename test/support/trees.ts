/**
 * What a directory tree holds, entry by entry, as text to compare with: `tree(directory)` lists type, mode, owner, links,
 * device numbers, target, size, time and extended attributes of everything in it, sorted by path.
 *
 * It runs find and getfattr through `Processes`, so it sees what taproot's mount namespace shows (overlay mounts too).
 */
import * as Effect from "effect/Effect"
import { isSuccess } from "../../src/taproot/ProcessExit.ts"
import { Processes } from "../../src/taproot/Processes.ts"

/** Runs a command in taproot's namespace; dies with its output when it fails. */
export const command = (...argv: readonly [string, ...Array<string>]) =>
  Effect.gen(function* () {
    const processes = yield* Processes
    const result = yield* Effect.orDie(processes.run({ label: "test", argv }))
    const said = Buffer.from(result.stdout).toString("latin1")
    if (isSuccess(result.exit)) return said
    return yield* Effect.die(new Error(`${argv.join(" ")}: ${said}${Buffer.from(result.stderr).toString()}`))
  })

/** One line per entry: `path type mode uid:gid links extra time {attributes}`; times with nanoseconds, names as bytes. */
export const tree = Effect.fnUntraced(function* (directory: string) {
  const listed = yield* command("find", directory, "-printf", "%P\\t%y %m %U:%G\\t%s\\t%l\\t%T@\\0")
  const attributes = new Map<string, Array<string>>()
  const dumped = yield* command("getfattr", "-h", "-R", "-d", "-m", "-", "-e", "hex", "--absolute-names", directory)
  let current: Array<string> = []
  for (const line of dumped.split("\n")) {
    if (line.startsWith("# file: ")) {
      current = []
      const name = line.slice("# file: ".length).replace(/\/$/, "")
      attributes.set(name.slice(directory.length + 1), current)
    } else if (line !== "") current.push(line)
  }
  return listed
    .split("\0")
    .filter((line) => line !== "")
    .map((line) => {
      const [path = "", kind = "", size = "", target = "", time = ""] = line.split("\t")
      const extra = kind.startsWith("f") ? size : kind.startsWith("l") ? `-> ${target}` : ""
      return [`/${path}`, kind, extra, time.replace(/0$/, ""), ...(attributes.get(path) ?? [])]
        .filter((part) => part !== "")
        .join(" ")
    })
    .sort()
})
