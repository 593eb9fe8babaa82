/**
 * Pulling an image: the call with its progress. On a terminal that is a bar for each layer on its way; elsewhere a line on
 * standard error whenever a layer is done, so that a log of it can be read.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import {
  type Image,
  ImageService,
  type ImportProgress,
  type LayerProgress,
  PullPolicy
} from "../../proto/generated/ironwood/v1/image_pb.ts"
import { Client } from "./Client.ts"
import { credentialsFor } from "./DockerConfig.ts"
import { failure } from "./Failure.ts"
import * as HumanText from "./HumanText.ts"
import { shortDigest } from "./ImageImport.ts"
import * as Output from "./Output.ts"
import { Screen } from "./Screen.ts"
import * as Text from "./Text.ts"

export interface PullRequest {
  readonly reference: string
  readonly policy?: PullPolicy
  readonly platform?: string
}

const barWidth = 24
/** More layers than these are not shown one by one. */
const mostLayers = 8

const barOf = (done: bigint, total: bigint): string => {
  const share = total === 0n ? 1 : Math.min(Number(done) / Number(total), 1)
  const filled = Math.floor(share * barWidth)
  return `[${`${"=".repeat(filled)}${filled < barWidth ? ">" : ""}`.padEnd(barWidth)}]`
}

const layerLine = ({ digest, doneBytes, totalBytes }: LayerProgress): string => {
  const what =
    doneBytes >= totalBytes
      ? "unpacking"
      : doneBytes === 0n
        ? "waiting"
        : `${HumanText.size(doneBytes)} of ${HumanText.size(totalBytes)}`
  return `  ${Text.clean(shortDigest(digest))} ${barOf(doneBytes, totalBytes)} ${what}`
}

/**
 * The image as a whole, and a bar for each layer that is on its way:
 *
 *     alpine:latest 12MiB of 40MiB  1 of 3 layers  8.1MiB/s
 *       3f2a9c0e11bd [=======>                ] 12MiB of 20MiB
 */
export const picture = (progress: ImportProgress, bytesPerSecond: number): ReadonlyArray<string> => {
  const { doneBytes, doneLayers, image, layers, totalBytes, totalLayers } = progress
  const speed = doneBytes < totalBytes ? `  ${HumanText.size(Math.floor(bytesPerSecond))}/s` : ""
  const open = layers.filter(({ done }) => !done)
  const shown = open.slice(0, mostLayers)
  return [
    `${Text.clean(image)} ${HumanText.size(doneBytes)} of ${HumanText.size(totalBytes)}  ${doneLayers} of ${HumanText.count(totalLayers, "layer")}${speed}`,
    ...shown.map(layerLine),
    ...(open.length > shown.length ? [`  … and ${HumanText.count(open.length - shown.length, "layer")}`] : [])
  ]
}

/** Whether what is said there can be heard on the way: to a socket or this machine itself it cannot. */
const isPrivate = (address: string): boolean =>
  address.startsWith("unix:") || /^(?:127\.\d+\.\d+\.\d+|localhost|\[::1\])(?::\d+)?$/.test(address)

/** Pulls it, with the credentials that docker has for its registry. */
export const pullImage = Effect.fnUntraced(function* ({
  platform = "",
  policy = PullPolicy.UNSPECIFIED,
  reference
}: PullRequest) {
  const client = yield* Client
  const screen = yield* Screen
  const credentials = yield* credentialsFor(reference)
  const sent = credentials !== undefined && isPrivate(client.address) ? credentials : undefined
  if (credentials !== undefined && sent === undefined) {
    yield* Output.remark(`docker's credentials are not sent: the connection to ${client.address} is not encrypted`)
  }
  const begun = yield* Clock.currentTimeMillis
  let pulled: { readonly image: Image; readonly unchanged: boolean } | undefined
  const columns = (yield* screen.size)?.columns ?? 80
  let saidLayers = -1
  let drawn = 0
  const draw = (lines: ReadonlyArray<string>) =>
    Effect.tap(
      Output.progressLines(
        drawn,
        lines.map((line) => Text.fit(line, columns))
      ),
      () => Effect.sync(() => void (drawn = lines.length))
    )
  yield* client
    .stream(ImageService.method.pullImage, {
      reference,
      policy,
      platform,
      ...(sent === undefined ? {} : { credentials: sent })
    })
    .pipe(
      Stream.runForEach(({ event, unchanged }) =>
        Effect.gen(function* () {
          if (event.case === "image") pulled = { image: event.value, unchanged }
          if (event.case !== "progress" || event.value.step === "done") return
          const progress = event.value
          const seconds = Math.max((yield* Clock.currentTimeMillis) - begun, 1) / 1000
          if (screen.isErrorTerminal) return yield* draw(picture(progress, Number(progress.doneBytes) / seconds))
          if (progress.doneLayers === saidLayers) return
          saidLayers = progress.doneLayers
          yield* Output.remark(
            `pulling ${Text.clean(progress.image)}: ${progress.doneLayers} of ${HumanText.count(progress.totalLayers, "layer")}, ${HumanText.size(progress.doneBytes)} of ${HumanText.size(progress.totalBytes)}`
          )
        })
      ),
      Effect.ensuring(Effect.suspend(() => draw([])))
    )
  return (
    pulled ??
    (yield* failure("the pull ended without an image", {
      next: "Try again; `ironwood image ls` shows what is there"
    }))
  )
})
