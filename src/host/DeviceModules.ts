/**
 * Kernel modules by need: every device says by its modalias what it is, every module of the image by its aliases what it can
 * drive. What a device without a driver needs is loaded before the brain looks for disks, and again and again after it, for
 * devices that come later. Processors are devices, too: those that can run guests need a module for that (KVM).
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
import { within } from "./Deadline.ts"
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

/** What the devices are, and whether they have a driver. */
const present = async (): Promise<ReadonlyArray<{ readonly modalias: string; readonly driven: boolean }>> => {
  const found: Array<{ readonly modalias: string; readonly driven: boolean }> = []
  for (const bus of await names("/sys/bus")) {
    for (const device of await names(`/sys/bus/${bus}/devices`)) {
      const directory = `/sys/bus/${bus}/devices/${device}`
      const modalias = await readFile(join(directory, "modalias"), "utf8").catch(() => "")
      if (modalias.trim() === "") continue
      found.push({ modalias: modalias.trim(), driven: existsSync(join(directory, "driver")) })
    }
  }
  // one for all of them, of what they can do; that is nobody's to drive
  const processors = await readFile("/sys/devices/system/cpu/modalias", "utf8").catch(() => "")
  return processors.trim() === "" ? found : [...found, { modalias: processors.trim(), driven: false }]
}

/** What this brain has tried to load, and what could not be, with why. */
const tried = new Set<string>()
const refused = new Map<string, string>()

/** As the kernel writes their names. */
const loadedModules = async (): Promise<ReadonlySet<string>> => {
  const text = await readFile("/proc/modules", "latin1").catch(() => "")
  return new Set(text.split("\n").map((line) => line.slice(0, line.indexOf(" "))))
}

/**
 * Loads what devices need that have no driver. `count`: how many modules that were; `inUse`: those that devices need and the
 * kernel has, whoever loaded them: an earlier brain, too.
 */
const loadMissing = Effect.gen(function* () {
  const directory = `/lib/modules/${release()}`
  const text = yield* Effect.promise(() => readFile(join(directory, "aliases"), "utf8").catch(() => ""))
  if (text === "") return { count: 0, inUse: [] }
  const modulesFor = aliases(text)
  const devices = yield* Effect.promise(present)
  const needed = (of: typeof devices) => [...new Set(of.flatMap(({ modalias }) => modulesFor(modalias)))]
  const missing = needed(devices.filter(({ driven }) => !driven)).filter((name) => !tried.has(name))
  if (missing.length > 0) {
    const files = yield* Effect.promise(() => filesBelow(directory))
    for (const name of missing) {
      tried.add(name)
      // also when nobody waits for it any more
      refused.set(name, `the kernel is loading ${name}`)
      const problem = yield* load({ name, parameters: "" }, files)
      if (problem === "") refused.delete(name)
      else refused.set(name, problem)
    }
  }
  const there = yield* Effect.promise(loadedModules)
  return { count: missing.length, inUse: needed(devices).filter((name) => there.has(name.replaceAll("-", "_"))) }
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

/** How long the start waits for all of them; {@link devicesStep} goes on with what is left. */
const patience = "1 minute"

/** Before anything looks for a disk or a link. A device may be behind another one, so it is looked again. */
export const loadAtStart: Effect.Effect<void, never, Processes> = within(
  Effect.gen(function* () {
    for (let rounds = 0; rounds < 4 && (yield* loadMissing).count > 0; rounds++) yield* untilQuiet
  }),
  { duration: patience, orElse: () => Effect.logWarning(`drivers of devices were not all loaded within ${patience}`) }
)

export const devicesStep = step(
  "devices",
  { description: "kernel modules that devices need", deadline: "1 minute" },
  Effect.gen(function* () {
    const { inUse } = yield* loadMissing
    return {
      facts: inUse.length === 0 ? {} : { modules: inUse.toSorted().join(" ") },
      again: "10 seconds" as const,
      ...(refused.size === 0 ? {} : { degraded: [...refused.values()].join("; ") })
    }
  })
)
