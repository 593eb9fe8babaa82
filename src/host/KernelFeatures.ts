/**
 * What a kernel must have for containers to run on it, as a step of a machine's start: what it lacks is told in the tree
 * before anybody meets it as the failure of a container.
 *
 * Trap: a file system that is a module is unknown to the kernel until the module is loaded, so this looks again for as long
 * as something is missing.
 */
import * as Effect from "effect/Effect"
import { readFile } from "node:fs/promises"
import { step } from "./Step.ts"

/** Of cgroup2: those that the limits of a container take. */
const controllers = ["cpu", "memory", "pids"]

/** What is looked at: `/proc/filesystems`, `/proc/self/mounts`, and `cgroup.controllers` of the root cgroup. */
export interface Seen {
  readonly fileSystems: string
  readonly mounts: string
  readonly controllers: string
}

const cgroupProblem = ({ controllers: there, fileSystems, mounts }: Seen): string => {
  const cost = "no container can be started, and the brain's memory has no limit"
  if (!/\bcgroup2$/m.test(fileSystems)) return `this kernel has no cgroup2: ${cost}`
  if (!/^\S+ \/sys\/fs\/cgroup cgroup2 /m.test(mounts)) return `cgroup2 could not be mounted: ${cost}`
  const missing = controllers.filter((name) => !there.trim().split(/\s+/).includes(name))
  return missing.length === 0
    ? ""
    : `cgroup2 lacks the controllers ${missing.join(", ")} (does the kernel command line say cgroup_disable?): what they limit has no limit`
}

const overlayProblem = ({ fileSystems }: Seen): string =>
  /\boverlay$/m.test(fileSystems)
    ? ""
    : "this kernel has no overlayfs: no container can be started; if it is a module of the image, name overlay in kernel.modules"

/** What is missing, each a sentence. */
export const missing = (seen: Seen): ReadonlyArray<string> =>
  [cgroupProblem(seen), overlayProblem(seen)].filter((problem) => problem !== "")

const read = (path: string) => Effect.promise(() => readFile(path, "utf8").catch(() => ""))

export const kernelStep = step(
  "kernel",
  { description: "what containers need of the kernel", deadline: "10 seconds" },
  Effect.gen(function* () {
    const problems = missing({
      fileSystems: yield* read("/proc/filesystems"),
      mounts: yield* read("/proc/self/mounts"),
      controllers: yield* read("/sys/fs/cgroup/cgroup.controllers")
    })
    return problems.length === 0
      ? { facts: {} }
      : { facts: {}, degraded: problems.join("; "), again: "5 seconds" as const }
  })
)
