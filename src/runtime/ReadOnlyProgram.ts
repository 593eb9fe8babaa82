/**
 * crun as a program that nobody can write to: mounted read-only once, instead of by itself at every call.
 *
 * For a moment a container's first process still is the runtime, and whoever is in the container could open it as
 * `/proc/self/exe` and write to it (CVE-2019-5736). So crun begins each call by making a read-only mount of itself, executing
 * itself anew from there, and taking the mount away: 1.5 ms of processor time of the 3.6 that a `run` takes, and some waiting for
 * the kernel. It goes without where that has been done for it: where a variable of its environment says so and it sees that
 * it lies on a read-only mount. Here that is a bind mount in taproot's mount namespace.
 *
 * Traps:
 * - A mount keeps the file that it was made of. When there is another one at its path (an upgrade of its package), it is made
 *   anew, some seconds later.
 * - Only crun is known to do so; others are called as they are. So is crun where it cannot be mounted: then it does it by itself.
 * - A brain that ends leaves its mount, and calls may be under way from it; the next one makes its own in its place.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as fs from "node:fs/promises"
import { dirname } from "node:path"
import { defaultEnvironment } from "../taproot/SpawnFrame.ts"
import type { Processes, SpawnRequest } from "../taproot/Processes.ts"
import type { RuntimeMissing } from "./ContainerExit.ts"
import type { RuntimeFacts } from "./OciRuntime.ts"

/** How a runtime is called. */
export interface Program extends Pick<RuntimeFacts, "name" | "path"> {
  readonly environment: NonNullable<SpawnRequest["environment"]>
}

/** Called where it is. */
export const asItIs = ({ name, path }: Pick<RuntimeFacts, "name" | "path">): Program => ({
  name,
  path,
  environment: defaultEnvironment
})

/** Called where it is, which is a read-only mount already. */
export const whereItIs = ({ name, path }: Pick<RuntimeFacts, "name" | "path">): Program => ({
  name,
  path,
  environment: { ...defaultEnvironment, _LIBCONTAINER_CLONED_BINARY: "1" }
})

const MS_RDONLY = 1n
const MS_REMOUNT = 32n
const MS_BIND = 4096n
const MNT_DETACH = 2
/** Whether there is another file at its path by now. */
const LOOK_AGAIN = "2 seconds"

/** Tells a file from another that comes in its place. */
const identityOf = async (path: string): Promise<string> => {
  const { dev, ino, mtimeMs, size } = await fs.stat(path)
  return [dev, ino, mtimeMs, size].join()
}

/** Makes the effect that tells how to call the runtime that is in use. `directory`: for the mount alone. */
export const make = (
  processes: Processes["Service"],
  facts: Effect.Effect<RuntimeFacts, RuntimeMissing>,
  directory: string
): Effect.Effect<Effect.Effect<Program, RuntimeMissing>> => {
  const unmount = (target: string) => Effect.ignore(processes.unmount(target, MNT_DETACH))
  const targetIn = (place: string) => `${directory}/${place}/crun`
  /** What is mounted, and where. */
  let mounted: { readonly identity: string; readonly target: string } | undefined
  let places = 0

  /** What an earlier brain has left. */
  const clear = Effect.gen(function* () {
    const names = yield* Effect.promise(() => fs.readdir(directory).catch((): Array<string> => []))
    for (const name of names) {
      yield* unmount(targetIn(name))
      yield* Effect.ignore(Effect.tryPromise(() => fs.rm(`${directory}/${name}`, { recursive: true })))
    }
  })

  /** In a place of its own: calls may be about to begin from where it was before. */
  const mount = Effect.fnUntraced(function* (source: string) {
    if (places === 0) yield* clear
    const target = targetIn(String(++places))
    yield* Effect.tryPromise(async () => {
      await fs.mkdir(dirname(target), { recursive: true, mode: 0o700 })
      // never what is there already: it could be the program
      await fs.writeFile(target, "", { mode: 0o600, flag: "wx" })
    })
    yield* processes.mount({ source, target, type: "", flags: MS_BIND })
    const readOnly = processes.mount({ source: "", target, type: "", flags: MS_REMOUNT | MS_BIND | MS_RDONLY })
    yield* Effect.onError(readOnly, () => unmount(target))
    return target
  })

  const look = Effect.gen(function* () {
    const inUse = asItIs(yield* facts)
    const { name, path } = inUse
    const found = yield* Effect.option(Effect.tryPromise(() => identityOf(path)))
    if (name !== "crun" || Option.isNone(found)) return inUse
    const identity = found.value
    if (mounted?.identity !== identity) {
      const target = yield* Effect.option(Effect.uninterruptible(mount(path)))
      if (Option.isNone(target)) return inUse
      mounted = { identity, target: target.value }
    }
    return whereItIs({ name, path: mounted.target })
  })
  return Effect.cachedWithTTL(look, (exit) => (Exit.isSuccess(exit) ? LOOK_AGAIN : 0))
}
