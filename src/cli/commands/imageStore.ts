/** `ironwood image gc|df|verify|export`: what the store takes up, whether it is well, and what goes into it and out of it. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  CollectImagesResponseSchema,
  ExportImagesResponseSchema,
  GetImageUsageResponseSchema,
  ImageService,
  type VerifyReport,
  VerifyReportSchema
} from "../../../proto/generated/ironwood/v1/image_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import { nameOf, shortDigest } from "../ImageImport.ts"
import * as Output from "../Output.ts"
import { durationFlag, toProto } from "../QuantityFlags.ts"
import { requestId } from "../RequestId.ts"
import { Screen } from "../Screen.ts"
import * as Table from "../Table.ts"
import * as Text from "../Text.ts"

export const gc = Command.make(
  "gc",
  {
    all: Flag.Boolean("all").pipe(
      Flag.withAlias("a"),
      Flag.withDescription("Also images that have a name"),
      Flag.withDefault(false)
    ),
    unusedFor: durationFlag("unused-for").pipe(
      Flag.withDescription("Only those that nobody has used for so long, e.g. 720h"),
      Flag.optional
    ),
    until: Flag.Int("until").pipe(
      Flag.withMetavar("PERCENT"),
      Flag.withDescription("Those unused for longest, until the disk is no fuller than this"),
      Flag.withDefault(0)
    ),
    dryRun: Flag.Boolean("dry-run").pipe(Flag.withDescription("Only tell which"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function* ({ all, dryRun, unusedFor, until }) {
    const client = yield* Client
    const answer = yield* client.call(
      ImageService.method.collectImages,
      {
        all,
        validateOnly: dryRun,
        untilPercent: until,
        requestId: requestId(),
        ...Option.match(unusedFor, { onNone: () => ({}), onSome: (age) => ({ unusedFor: toProto(age) }) })
      },
      { timeout: "30 minutes" }
    )
    return yield* Output.answer(
      CollectImagesResponseSchema,
      answer,
      Effect.succeed([
        ...answer.images.map(
          (image) => `${dryRun ? "would remove" : "removed"} ${nameOf(image)}  ${Text.clean(image.digest)}`
        ),
        ...(dryRun
          ? [`${HumanText.count(answer.images.length, "image")} would go`]
          : [
              `freed ${HumanText.size(answer.freedBytes)}: ${HumanText.count(answer.images.length, "image")}, ${HumanText.count(answer.blobs, "blob")}, ${HumanText.count(answer.layers, "layer")}`
            ])
      ])
    )
  })
).pipe(
  describe({
    short: "Remove images that nobody uses, and what no image has",
    long: [
      "Without flags only images that have lost their name go. An image that a container uses, running or not, never does. The",
      "machine config can have it done by itself (images.collection)."
    ],
    examples: [
      ["ironwood image gc --all --unused-for 720h", "Everything that nobody has used for a month"],
      ["ironwood image gc --until 80", "Until the disk is at most 80 % full"]
    ]
  })
)

export const df = Command.make(
  "df",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const usage = yield* client.call(ImageService.method.getImageUsage, {})
    return yield* Output.answer(
      GetImageUsageResponseSchema,
      usage,
      Effect.gen(function* () {
        const style = yield* currentStyle
        const size = yield* (yield* Screen).size
        const now = yield* Clock.currentTimeMillis
        const rows = usage.images.map(({ blobBytes, image, lastUsedTime, layerBytes, ownBytes, users }) => {
          const moment = ActorText.momentOf(lastUsedTime)
          return [
            image === undefined ? "" : nameOf(image),
            HumanText.size(blobBytes),
            HumanText.size(layerBytes),
            HumanText.size(ownBytes),
            users.length === 0 ? "" : Text.clean(users.join(", ")),
            moment === undefined ? "" : HumanText.ago(moment, now)
          ]
        })
        const table = Table.render(
          [
            { title: "IMAGE", shrinkTo: 16 },
            { title: "BLOBS", align: "right" },
            { title: "UNPACKED", align: "right" },
            { title: "OWN", align: "right" },
            { title: "USED BY", shrinkTo: 8 },
            { title: "LAST USED", optional: true }
          ],
          rows,
          { heading: style.dim, ...(size === undefined ? {} : { width: size.columns }) }
        )
        const share = (what: string, found: typeof usage.blobs) =>
          found === undefined
            ? []
            : [
                `${HumanText.count(found.count, what)}: ${HumanText.size(found.bytes)}, of which ${HumanText.size(found.unusedBytes)} not in use`
              ]
        return [
          ...table,
          "",
          ...share("blob", usage.blobs),
          ...share("unpacked layer", usage.layers),
          ...(usage.diskBytes === 0n
            ? []
            : [`disk: ${HumanText.size(usage.diskLeftBytes)} of ${HumanText.size(usage.diskBytes)} left`])
        ]
      })
    )
  })
).pipe(
  describe({
    short: "Show what images take up",
    long: ["OWN is what no other image has: what removing the image frees."],
    examples: [["ironwood image df", "Image by image, and in all"]]
  })
)

export const verify = Command.make(
  "verify",
  {
    quick: Flag.Boolean("quick").pipe(
      Flag.withDescription("Only whether all is there, and as long as it must be"),
      Flag.withDefault(false)
    ),
    repair: Flag.Boolean("repair").pipe(
      Flag.withDescription("Remove what is damaged and not in use, so that it can be pulled again"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ quick, repair }) {
    const client = yield* Client
    let report: VerifyReport | undefined
    yield* client.stream(ImageService.method.verifyImages, { quick, repair }).pipe(
      Stream.runForEach(({ event }) =>
        Effect.suspend(() => {
          if (event.case === "report") report = event.value
          return event.case === "progress"
            ? Output.progress(`verified ${event.value.done} of ${event.value.total}`)
            : Effect.void
        })
      ),
      Effect.ensuring(Output.progressDone)
    )
    if (report === undefined) return yield* failure("the verification ended without a report", { next: "Try again" })
    const { blobs, damages, images, layers } = report
    yield* Output.answer(
      VerifyReportSchema,
      report,
      Effect.succeed([
        ...damages.map(
          ({ digest, images: names, kind, problem, removed }) =>
            `${removed ? "removed" : "damaged"} ${Text.clean(kind)} ${Text.clean(digest)} (${Text.clean(names.join(", ") || "no image")}): ${Text.clean(problem)}`
        ),
        `${HumanText.count(images, "image")}, ${HumanText.count(blobs, "blob")}, ${HumanText.count(layers, "unpacked layer")}: ${damages.length === 0 ? "all is well" : HumanText.count(damages.length, "damage")}`
      ])
    )
    if (damages.every(({ removed }) => removed)) return yield* Effect.void
    return yield* failure("the store is damaged", {
      exitCode: exitCodes.failed,
      next: repair
        ? "Remove the containers that use these images, then run it again"
        : "`ironwood image verify --repair` removes what nobody uses; then pull or import it again"
    })
  })
).pipe(
  describe({
    short: "Look whether the whole store is as it must be",
    long: ["Every blob is read and its digest computed; every unpacked layer is compared with its blob."],
    examples: [["ironwood image verify --repair", "After a disk has lost something"]]
  })
)

export const exportCommand = Command.make(
  "export",
  {
    output: Flag.String("output-path").pipe(
      Flag.withAlias("O"),
      Flag.withMetavar("PATH"),
      Flag.withDescription(
        "Where to, on the host; must not exist yet. One that ends in .tar is an archive, else a directory"
      )
    ),
    references: Argument.String("IMAGE").pipe(
      Argument.withDescription("A name with an optional tag, or a digest"),
      Argument.variadic({ min: 1 })
    )
  },
  Effect.fnUntraced(function* ({ output, references }) {
    const client = yield* Client
    const path = yield* Path.Path
    const target = path.resolve(output)
    const exported = yield* client
      .call(
        ImageService.method.exportImages,
        { references: [...references], path: target, archive: target.endsWith(".tar"), requestId: requestId() },
        { timeout: "30 minutes" }
      )
      .pipe(
        orElseStatus(status.notFound, (error) =>
          failure(error.summary, { exitCode: exitCodes.notFound, next: "`ironwood image ls` lists the images" })
        )
      )
    return yield* Output.answer(
      ExportImagesResponseSchema,
      exported,
      Effect.succeed([
        `exported ${exported.digests.map(shortDigest).join(", ")} to ${Text.clean(exported.path)}  ${HumanText.size(exported.bytes)}`
      ])
    )
  })
).pipe(
  describe({
    short: "Write images as an OCI layout or archive",
    long: ["It appears whole or not at all. `ironwood image import`, docker, podman and skopeo read it."],
    examples: [
      ["ironwood image export web:2 -O /tmp/web.tar", "An archive"],
      ["ironwood image export web:2 db:1 -O /tmp/images", "A directory with both"]
    ]
  })
)
