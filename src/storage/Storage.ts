/**
 * The `storage` supervisor of the tree: `state` (`StateActor.ts`) and `content`, and how well they are.
 *
 * The database and the store are opened before the tree (its journal is in the database), so these actors do not make
 * them: they look after them. Each says in the tree when writes fail or the disk runs full, and takes it back when that
 * has passed.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Actor from "../actor/Actor.ts"
import * as Supervisor from "../actor/Supervisor.ts"
import * as DiskRoom from "./DiskRoom.ts"
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

/** `content`: images have a disk to lie on. */
const content = (directory: string) =>
  Actor.make(
    "content",
    { kind: "content", description: "images and unpacked layers" },
    Effect.gen(function* () {
      yield* Actor.ready({ directory })
      let shown = ""
      yield* shortageOf(directory).pipe(
        Effect.flatMap((found) => {
          if (found === shown) return Effect.void
          shown = found
          return Actor.degraded(found)
        }),
        Effect.repeat(Schedule.spaced(period))
      )
    })
  )

/** The supervisor `storage`. `directory` is that of the content store. */
export const storage = ({ directory }: { readonly directory: string }) =>
  Supervisor.make("storage", {
    strategy: "rest_for_one",
    description: "what must outlive everything else",
    children: [stateActor, content(directory)]
  })
