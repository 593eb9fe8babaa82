/**
 * Copies of disks, made by `copy` (C, beside taproot): sharing their blocks where the file system can, else with their holes; on
 * the disk when they are made; there whole or not at all.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as fs from "node:fs/promises"
import { dirname } from "node:path"
import * as DiskRoom from "../storage/DiskRoom.ts"
import { helperPath } from "../taproot/Helper.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { Processes } from "../taproot/Processes.ts"
import { SnapshotNoRoom } from "./SnapshotError.ts"
import * as VmPaths from "./VmPaths.ts"

/** What was said about it by who could not do it. */
export class CopyFailed extends Schema.TaggedError<CopyFailed>()("CopyFailed", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

export interface Copy {
  readonly from: string
  /** Must not be there. */
  readonly to: string
  /** The copy belongs to whom this belongs, with its mode. Default: to us alone. */
  readonly like?: string
}

export const copy = (processes: Processes["Service"], { from, like, to }: Copy): Effect.Effect<void, CopyFailed> =>
  Effect.gen(function* () {
    const { exit, stderr } = yield* Effect.mapError(
      processes.run({
        label: `${VmPaths.toolLabel}copy`,
        argv: [helperPath(processes.hello.taprootPid, "copy"), from, to, ...(like === undefined ? [] : [like])]
      }),
      ({ message }) => new CopyFailed({ detail: message })
    )
    if (ProcessExit.isSuccess(exit)) return
    const words = Buffer.from(stderr).toString("utf8").trim()
    return yield* new CopyFailed({ detail: words === "" ? `copy ${ProcessExit.describe(exit)}` : words })
  })

/** What a file takes of its disk, in bytes; nothing, when it cannot be asked. */
export const allocated = (path: string): Effect.Effect<number> =>
  Effect.orElseSucceed(
    Effect.tryPromise(async () => (await fs.stat(path)).blocks * 512),
    () => 0
  )

/** Fails when a disk has less room left than is wanted on it, of which a part is for others. */
export const requireRoom = Effect.fnUntraced(function* (
  name: string,
  wanted: ReadonlyArray<{ readonly path: string; readonly bytes: number }>
): Effect.fn.Return<void, SnapshotNoRoom> {
  const byDevice = new Map<number, { readonly directory: string; needed: number }>()
  for (const { bytes, path } of wanted) {
    const directory = dirname(path)
    // what cannot be looked at is told by the copy itself
    const device = yield* Effect.orElseSucceed(
      Effect.tryPromise(async () => (await fs.stat(directory)).dev),
      () => -1
    )
    const one = byDevice.get(device) ?? { directory, needed: 0 }
    one.needed += bytes
    byDevice.set(device, one)
  }
  for (const { directory, needed } of byDevice.values()) {
    const looked = yield* Effect.option(DiskRoom.look(directory))
    if (Option.isNone(looked)) continue
    const left = Math.max(0, looked.value.left - looked.value.floor)
    if (left < needed) return yield* new SnapshotNoRoom({ name, directory, needed, left })
  }
})
