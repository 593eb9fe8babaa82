/**
 * Kernel modules by need: every device says by its modalias what it is, every module of the image by its aliases what it can
 * drive. What a device without a driver needs is loaded before the brain looks for disks, and again and again after it, for
 * devices that come later.
 *
 * The aliases of the modules that an image carries are one file of it, `aliases` beside the modules: a pattern as of fnmatch(3)
 * and a module per line.
 *
 * Trap: a driver finds its disks after its module is loaded, in its own time; {@link loadAtStart} waits until no more appear.
 */
import * as Effect from "effect/Effect"
import { existsSync } from "node:fs"
import { readdir, readFile } from "node:fs/promises"
import { release } from "node:os"
import { join } from "node:path"
import type { Processes } from "../taproot/Processes.ts"
import { filesBelow, load } from "./KernelModules.ts"
import { step } from "./Step.ts"

/** A pattern of fnmatch(3) as it is used in aliases: `*`, `?` and `[…]`. */
const expressionOf = (pattern: string): RegExp =>
  new RegExp(
    `^${pattern
      .replaceAll(/[.+^${}()|\\]/g, String.raw`\$&`)
      .replaceAll("*", ".*")
      .replaceAll("?", ".")}$`,
    "u"
  )

/** Of lines `PATTERN MODULE`: the modules for a modalias. */
export const aliases = (text: string): ((modalias: string) => ReadonlyArray<string>) => {
  const byBus = new Map<string, Array<{ readonly pattern: string; readonly module: string }>>()
  for (const line of text.split("\n")) {
    const [pattern, module] = line.split(" ")
    if (pattern === undefined || module === undefined) continue
    const bus = pattern.slice(0, pattern.indexOf(":") + 1)
    const known = byBus.get(bus)
    if (known === undefined) byBus.set(bus, [{ pattern, module }])
    else known.push({ pattern, module })
  }
  return (modalias) => {
    const candidates = byBus.get(modalias.slice(0, modalias.indexOf(":") + 1)) ?? []
    const found = candidates.filter(({ pattern }) => expressionOf(pattern).test(modalias))
    return [...new Set(found.map(({ module }) => module))]
  }
}

const names = (directory: string): Promise<ReadonlyArray<string>> => readdir(directory).catch(() => [])

/** What the devices without a driver are. */
const waiting = async (): Promise<ReadonlyArray<string>> => {
  const found = new Set<string>()
  for (const bus of await names("/sys/bus")) {
    for (const device of await names(`/sys/bus/${bus}/devices`)) {
      const directory = `/sys/bus/${bus}/devices/${device}`
      if (existsSync(join(directory, "driver"))) continue
      const modalias = await readFile(join(directory, "modalias"), "utf8").catch(() => "")
      if (modalias.trim() !== "") found.add(modalias.trim())
    }
  }
  return [...found]
}

/** What was loaded since the brain started; and what could not be, with why. */
const loaded = new Set<string>()
const refused = new Map<string, string>()

/** Loads what devices need that have no driver; how many modules that were. */
const loadMissing = Effect.gen(function* () {
  const directory = `/lib/modules/${release()}`
  const text = yield* Effect.promise(() => readFile(join(directory, "aliases"), "utf8").catch(() => ""))
  if (text === "") return 0
  const modulesFor = aliases(text)
  const wanted = new Set((yield* Effect.promise(waiting)).flatMap(modulesFor))
  const missing = [...wanted].filter((name) => !loaded.has(name) && !refused.has(name))
  if (missing.length === 0) return 0
  const files = yield* Effect.promise(() => filesBelow(directory))
  for (const name of missing) {
    const problem = yield* load({ name, parameters: "" }, files)
    if (problem === "") loaded.add(name)
    else refused.set(name, problem)
  }
  return missing.length
})

const partitions = Effect.promise(() => readFile("/proc/partitions", "utf8").catch(() => ""))

/** Waits until no disk has appeared for a while, but not for long. */
const untilQuiet = Effect.gen(function* () {
  let before = ""
  for (let quiet = 0, looks = 0; quiet < 3 && looks < 30; looks++) {
    const now = yield* partitions
    quiet = now === before ? quiet + 1 : 0
    before = now
    yield* Effect.sleep("100 millis")
  }
})

/** Before anything looks for a disk or a link. A device may be behind another one, so it is looked again. */
export const loadAtStart: Effect.Effect<void, never, Processes> = Effect.gen(function* () {
  for (let rounds = 0; rounds < 4 && (yield* loadMissing) > 0; rounds++) yield* untilQuiet
})

export const devicesStep = step(
  "devices",
  { description: "kernel modules that devices need", deadline: "1 minute" },
  Effect.gen(function* () {
    yield* loadMissing
    return {
      facts: loaded.size === 0 ? {} : { modules: [...loaded].sort().join(" ") },
      again: "10 seconds" as const,
      ...(refused.size === 0 ? {} : { degraded: [...refused.values()].join("; ") })
    }
  })
)
