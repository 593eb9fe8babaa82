/**
 * Importing images: the call with its progress, shown on a terminal and nowhere else. A path can hold several.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Image, ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { Client } from "./Client.ts"
import { failure } from "./Failure.ts"
import * as HumanText from "./HumanText.ts"
import * as Output from "./Output.ts"
import * as Text from "./Text.ts"

/** What came of an import. */
export interface Imported {
  readonly image: Image
  /** It was there already, under all its names. */
  readonly unchanged: boolean
}

/**
 * Imports all that is at an absolute path on the host Ironwood runs on; empty `name` = as the archive says. `validateOnly`: only
 * says what it would import.
 */
export const importImages = Effect.fnUntraced(function* (
  path: string,
  name: string,
  { validateOnly = false }: { readonly validateOnly?: boolean } = {}
) {
  const client = yield* Client
  const images: Array<Imported> = []
  yield* client.stream(ImageService.method.importImage, { path, name, validateOnly }).pipe(
    Stream.runForEach(({ event, unchanged }) =>
      Effect.gen(function* () {
        if (event.case === "image") images.push({ image: event.value, unchanged })
        if (event.case !== "progress") return
        const { doneBytes, step, totalBytes } = event.value
        const share = totalBytes === 0n ? "" : ` of ${HumanText.size(totalBytes)}`
        const bytes = doneBytes === 0n ? "" : ` ${HumanText.size(doneBytes)}${share}`
        yield* Output.progress(`${Text.clean(step)}${bytes}`)
      })
    ),
    Effect.ensuring(Output.progressDone)
  )
  if (images.length > 0) return images
  return yield* failure("the import ended without an image", {
    next: "Try again; `ironwood image ls` shows what is there"
  })
})

/** What an image is called: its first name, or the head of its digest. */
export const nameOf = (image: Image): string => Text.clean(image.names[0] ?? shortDigest(image.digest))

/** The first twelve digits of a digest, as docker shows an image. */
export const shortDigest = (digest: string): string => digest.replace(/^sha256:/, "").slice(0, 12)
