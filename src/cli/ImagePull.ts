/**
 * Pulling an image: the call with its progress. On a terminal that is a bar in one line; elsewhere a line on standard error
 * whenever a layer is done, so that a log of it can be read.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import {
  type Image,
  ImageService,
  type ImportProgress,
  PullPolicy
} from "../../proto/generated/ironwood/v1/image_pb.ts"
import { Client } from "./Client.ts"
import { credentialsFor } from "./DockerConfig.ts"
import { failure } from "./Failure.ts"
import * as HumanText from "./HumanText.ts"
import * as Output from "./Output.ts"
import { Screen } from "./Screen.ts"
import * as Text from "./Text.ts"

export interface PullRequest {
  readonly reference: string
  readonly policy?: PullPolicy
  readonly platform?: string
}

const barWidth = 24

/** `alpine:latest [=======>      ] 12MiB of 40MiB  1 of 3 layers  8.1MiB/s` */
export const bar = (progress: ImportProgress, bytesPerSecond: number): string => {
  const { doneBytes, doneLayers, image, totalBytes, totalLayers } = progress
  const share = totalBytes === 0n ? 1 : Math.min(Number(doneBytes) / Number(totalBytes), 1)
  const filled = Math.floor(share * barWidth)
  const bar = `${"=".repeat(filled)}${filled < barWidth ? ">" : ""}`.padEnd(barWidth)
  const what =
    doneBytes >= totalBytes && doneLayers < totalLayers
      ? "unpacking"
      : `${HumanText.size(Math.floor(bytesPerSecond))}/s`
  return `${Text.clean(image)} [${bar}] ${HumanText.size(doneBytes)} of ${HumanText.size(totalBytes)}  ${doneLayers} of ${HumanText.count(totalLayers, "layer")}  ${what}`
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
  let saidLayers = -1
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
          if (screen.isErrorTerminal) return yield* Output.progress(bar(progress, Number(progress.doneBytes) / seconds))
          if (progress.doneLayers === saidLayers) return
          saidLayers = progress.doneLayers
          yield* Output.remark(
            `pulling ${Text.clean(progress.image)}: ${progress.doneLayers} of ${HumanText.count(progress.totalLayers, "layer")}, ${HumanText.size(progress.doneBytes)} of ${HumanText.size(progress.totalBytes)}`
          )
        })
      ),
      Effect.ensuring(Output.progressDone)
    )
  return (
    pulled ??
    (yield* failure("the pull ended without an image", {
      next: "Try again; `ironwood image ls` shows what is there"
    }))
  )
})
