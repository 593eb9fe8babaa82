/**
 * Root file systems of microVMs under measurement: an image of three layers (100 MiB as tar archives, 2,400 files) to one squashfs
 * file, by `RootImages` in a content store of its own, and by the tools that unpack it and pack it again. All on tmpfs.
 *
 * Trap: memory is that of the programs alone. What `RootImages` takes itself cannot be seen here: this process has made the image.
 */
import * as Effect from "effect/Effect"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { readdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { Content } from "../src/storage/Content.ts"
import { buildImage, writeLayout } from "../test/support/images.ts"
import * as Store from "../test/support/store.ts"
import { timed } from "./Measure.ts"
import { command } from "./Peers.ts"
import { layer } from "./SampleLayers.ts"

export interface RootSquashfs {
  /** Milliseconds from the image's blobs to the file. */
  readonly first: () => Promise<number>
  /** The same with the file there. */
  readonly again: () => Promise<number>
  /** The same by `umoci raw unpack` and `mksquashfs`. */
  readonly byTools: () => Promise<number>
  readonly close: () => Promise<void>
}

/** The most memory that a program of each of these names has had while `act` ran, in MiB. */
export const peaks = async (
  names: ReadonlyArray<string>,
  act: () => Promise<unknown>
): Promise<Map<string, number>> => {
  const found = new Map<string, number>()
  const look = (): void => {
    for (const pid of readdirSync("/proc")) {
      if (!/^\d+$/.test(pid)) continue
      try {
        const status = readFileSync(`/proc/${pid}/status`, "utf8")
        const name = /^Name:\s+(.+)$/m.exec(status)?.[1] ?? ""
        const peak = Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024
        if (names.includes(name)) found.set(name, Math.max(peak, found.get(name) ?? 0))
      } catch {
        // it has ended
      }
    }
  }
  const timer = setInterval(look, 25)
  try {
    await act()
  } finally {
    clearInterval(timer)
  }
  return found
}

/** `space`: a directory for what is made here. */
export const rootSquashfs = async (space: string): Promise<RootSquashfs> => {
  const layout = join(space, "root-layout")
  const layers = [layer("a", 64, 1_700), layer("b", 26, 550), layer("c", 10, 150)]
  writeLayout(layout, [{ image: buildImage({ layers }), name: "root:latest" }])
  const tree = join(space, "root-tree")
  const packed = join(space, "root.squashfs")

  const runtime = ManagedRuntime.make(Store.layer())
  const { make } = await runtime.runPromise(
    Effect.gen(function* () {
      const content = yield* Content
      const [image] = yield* content.importFrom(layout)
      if (image === undefined) return yield* Effect.die(new Error("nothing was imported"))
      return { make: content.rootImage(image.digest) }
    })
  )
  const again = () => timed(() => runtime.runPromise(make))
  return {
    first: async () => {
      const took = await again()
      rmSync((await runtime.runPromise(make)).path)
      return took
    },
    again,
    byTools: async () => {
      const took = await timed(async () => {
        await command("umoci", ["raw", "unpack", "--image", `${layout}:latest`, tree])
        const how = ["-comp", "zstd", "-Xcompression-level", "1", "-quiet", "-no-progress"]
        await command("mksquashfs", [tree, packed, ...how])
      })
      for (const path of [tree, packed]) rmSync(path, { recursive: true })
      return took
    },
    close: () => runtime.dispose()
  }
}
