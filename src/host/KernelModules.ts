/**
 * Kernel modules that the machine config names, loaded with what they depend on, as a step of a machine's start. taproot has
 * loaded what the image wants loaded before; a module that is there already is no news.
 *
 * Modules are files of the image, so one that it does not carry cannot be had. What a module depends on it says itself, in its
 * section .modinfo; nothing is compressed there.
 *
 * Trap: nothing is unloaded, since a device may be in use by it. A module that is taken out of the config is gone at the next
 * start of the machine.
 */
import * as Effect from "effect/Effect"
import { readdir, readFile } from "node:fs/promises"
import { release } from "node:os"
import { basename, join } from "node:path"
import { Processes } from "../taproot/Processes.ts"
import { within } from "./Deadline.ts"
import type { Setting } from "./Setting.ts"
import { following } from "./Step.ts"

/** A module and what it is given, as `name=value`s. */
export interface KernelModule {
  readonly name: string
  readonly parameters: string
}

const EEXIST = 17

/** As the kernel calls it. */
export const kernelName = (name: string): string => name.replaceAll("-", "_")

/** The files of the modules below a directory, by the kernel's names. */
export const filesBelow = async (directory: string): Promise<ReadonlyMap<string, string>> => {
  const names = await readdir(directory, { recursive: true }).catch((): Array<string> => [])
  return new Map(
    names
      .filter((name) => name.endsWith(".ko"))
      .map((name) => [kernelName(basename(name, ".ko")), join(directory, name)])
  )
}

/** What the file of a module says that it depends on. */
export const dependenciesIn = (file: Buffer): ReadonlyArray<string> => {
  const [, list = ""] = /\0depends=([^\0]*)\0/.exec(file.toString("latin1")) ?? []
  return list === "" ? [] : list.split(",").map(kernelName)
}

/** The files of a module and of what it depends on, in the order in which they can be loaded; or who is missing. */
const orderOf = async (
  name: string,
  files: ReadonlyMap<string, string>,
  order: ReadonlyArray<string> = []
): Promise<ReadonlyArray<string> | { readonly missing: string }> => {
  const file = files.get(name)
  if (file === undefined) return { missing: name }
  if (order.includes(file)) return order
  let before = order
  for (const dependency of dependenciesIn(await readFile(file))) {
    const next = await orderOf(dependency, files, before)
    if ("missing" in next) return next
    before = next
  }
  return [...before, file]
}

/** Built in, or loaded: the kernel has a directory for it. */
const isThere = (name: string): Promise<boolean> =>
  readdir(`/sys/module/${name}`).then(
    () => true,
    () => false
  )

/**
 * What a module is given that another one brings along. A SCSI host is to look for its disks before its driver's module counts
 * as loaded, not some time after it: whoever loads drivers to find a disk has no other way to know that there is none.
 */
const alongWith: ReadonlyMap<string, string> = new Map([["scsi_mod", "scan=sync"]])

/** How long the kernel may take for one: its driver looks for its devices before it counts as loaded, and they may be silent. */
const patience = "30 seconds"

/** Loads one; what went wrong, or an empty text. */
export const load = Effect.fnUntraced(function* (
  { name, parameters }: KernelModule,
  files: ReadonlyMap<string, string>
) {
  const wanted = kernelName(name)
  if (yield* Effect.promise(() => isThere(wanted))) return ""
  const order = yield* Effect.promise(() => orderOf(wanted, files))
  if ("missing" in order) {
    return `the image carries no module ${order.missing}${order.missing === wanted ? "" : `, which ${name} needs`}`
  }
  const { loadModule } = yield* Processes
  for (const [index, file] of order.entries()) {
    const given = index === order.length - 1 ? parameters : (alongWith.get(kernelName(basename(file, ".ko"))) ?? "")
    const refused = yield* within(
      Effect.match(loadModule(file, given), {
        onSuccess: () => "",
        onFailure: ({ errno, message }) => (errno === EEXIST ? "" : message)
      }),
      { duration: patience, orElse: () => Effect.succeed(`the kernel did not load ${file} within ${patience}`) }
    )
    if (refused !== "") return refused
  }
  return ""
})

export const modulesStep = (setting: Setting<ReadonlyArray<KernelModule>>) =>
  following("modules", { description: "modules of the kernel", deadline: "1 minute" }, setting, (wanted) =>
    Effect.gen(function* () {
      const files =
        wanted.length === 0
          ? new Map<string, string>()
          : yield* Effect.promise(() => filesBelow(`/lib/modules/${release()}`))
      const problems: Array<string> = []
      for (const module of wanted) {
        const problem = yield* load(module, files)
        if (problem !== "") problems.push(problem)
      }
      return {
        facts: wanted.length === 0 ? {} : { wanted: wanted.map(({ name }) => name).join(" ") },
        ...(problems.length === 0 ? {} : { degraded: problems.join("; ") })
      }
    })
  )
