/**
 * Importing an image: the call with its progress, shown on a terminal and nowhere else.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Image, ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { Client } from "./Client.ts"
import { failure } from "./Failure.ts"
import * as HumanText from "./HumanText.ts"
import * as Output from "./Output.ts"
import * as Text from "./Text.ts"

/** Imports from an absolute path on the host Ironwood runs on; empty `name` = as the archive says. */
export const importImage = Effect.fnUntraced(function* (path: string, name: string) {
  const client = yield* Client
  let image: Image | undefined
  yield* client.stream(ImageService.method.importImage, { path, name }).pipe(
    Stream.runForEach(({ event }) =>
      Effect.gen(function* () {
        if (event.case === "image") image = event.value
        if (event.case !== "progress") return
        const { doneBytes, step, totalBytes } = event.value
        const share = totalBytes === 0n ? "" : ` of ${HumanText.size(totalBytes)}`
        const bytes = doneBytes === 0n ? "" : ` ${HumanText.size(doneBytes)}${share}`
        yield* Output.progress(`${Text.clean(step)}${bytes}`)
      })
    ),
    Effect.ensuring(Output.progressDone)
  )
  if (image !== undefined) return image
  return yield* failure("the import ended without an image", {
    next: "Try again; `ironwood image ls` shows what is there"
  })
})

/** What an image is called: its first name, or the head of its digest. */
export const nameOf = (image: Image): string => Text.clean(image.names[0] ?? shortDigest(image.digest))

/** The first twelve digits of a digest, as docker shows an image. */
export const shortDigest = (digest: string): string => digest.replace(/^sha256:/, "").slice(0, 12)
