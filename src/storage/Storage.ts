/**
 * The `storage` supervisor of the tree: `state` (`StateActor.ts`) and `content`, and how well they are.
 *
 * The database and the store are opened before the tree (its journal is in the database), so these actors do not make
 * them: they look after them. Each says in the tree when writes fail or the disk runs full, and takes it back when that
 * has passed.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Actor from "../actor/Actor.ts"
import * as Supervisor from "../actor/Supervisor.ts"
import { type CollectOptions, Content } from "./Content.ts"
import * as DiskRoom from "./DiskRoom.ts"
import type { CollectionSettings } from "./ImageSettings.ts"
import { stateActor } from "./StateActor.ts"

/** How often they look. */
const period = "15 seconds"

/** A file system with less than both of these left is told as running full. */
const lowBytes = 1024 ** 3
const lowShare = 0.05

/** What is wrong with the room that a file system has left; empty when nothing. */
export const shortageOf = (directory: string): Effect.Effect<string> =>
  Effect.match(DiskRoom.look(directory), {
    onFailure: (problem) => `${directory} cannot be read: ${problem}`,
    onSuccess: (found) => (found.left < lowBytes && found.left < found.total * lowShare ? DiskRoom.describe(found) : "")
  })

/** What has been lost since the last time, as far as a quick look tells; empty when nothing. */
const damageOf = Effect.fnUntraced(function* (content: Content["Service"]) {
  const found = yield* Effect.result(content.verify({ quick: true }))
  if (Result.isFailure(found)) return `the store cannot be looked through: ${found.failure.message}`
  const { damages } = found.success
  const [first] = damages
  if (first === undefined) return ""
  const rest = damages.length === 1 ? "" : ` and ${damages.length - 1} more`
  return `${first.kind} ${first.digest} of ${first.images.join(", ")}: ${first.problem}${rest}; \`ironwood image verify\` tells all`
})

/** Removes what nobody uses, as far as that is wanted, and notes what is used. */
const collect = Effect.fnUntraced(function* (content: Content["Service"], settings: CollectionSettings, full: number) {
  const { highPercent, lowPercent, unusedDays } = settings
  const wanted: ReadonlyArray<CollectOptions> = [
    ...(unusedDays === undefined ? [] : [{ all: true, unusedFor: unusedDays * 86_400_000 }]),
    ...(highPercent === undefined || full <= highPercent
      ? []
      : [{ untilPercent: Math.min(lowPercent ?? Math.max(highPercent - 10, 1), highPercent) }])
  ]
  for (const options of wanted.length === 0 ? [{ dryRun: true }] : wanted) {
    const { freedBytes, images } = yield* content.collect(options)
    if (images.length === 0 || options.dryRun === true) continue
    const names = images.map(({ image }) => image.references[0] ?? image.digest).join(", ")
    yield* Effect.logInfo(`images that nobody uses were removed: ${names}; ${freedBytes} bytes are free again`)
  }
})

/** Images are collected when so many looks have passed, and whenever the disk is too full. */
const looksPerCollection = 40

/** `content`: images have a disk to lie on, are all there, and go when nobody uses them, if that is wanted. */
const content = (directory: string, settings: () => CollectionSettings) =>
  Actor.make(
    "content",
    { kind: "content", description: "images and unpacked layers" },
    Effect.gen(function* () {
      const content = yield* Content
      yield* Actor.ready({ directory })
      let shown = ""
      let looks = 0
      let damage = yield* damageOf(content)
      const look = Effect.gen(function* () {
        const full = yield* Effect.match(DiskRoom.look(directory), {
          onFailure: () => 0,
          onSuccess: DiskRoom.usedPercent
        })
        const { highPercent = 101 } = settings()
        if (looks++ % looksPerCollection === 0 || full > highPercent) {
          yield* collect(content, settings(), full).pipe(
            Effect.catch((error) => Effect.logWarning(`images could not be collected: ${error.message}`))
          )
          if (damage !== "") damage = yield* damageOf(content)
        }
        const found = [damage, yield* shortageOf(directory)].filter((words) => words !== "").join("; ")
        if (found === shown) return
        shown = found
        yield* Actor.degraded(found)
      })
      yield* Effect.repeat(look, Schedule.spaced(period))
    })
  )

export interface StorageOptions {
  /** That of the content store. */
  readonly directory: string
  /** What goes by itself. */
  readonly collection: () => CollectionSettings
}

/** The supervisor `storage`. */
export const storage = ({ collection, directory }: StorageOptions) =>
  Supervisor.make("storage", {
    strategy: "rest_for_one",
    description: "what must outlive everything else",
    children: [stateActor, content(directory, collection)]
  })
