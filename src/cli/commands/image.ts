/** `ironwood image pull|import|ls|rm|tag`: the images in the store of this host. */
import { create } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Path from "effect/Path"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  type Image,
  ImageSchema,
  ImageService,
  ListImagesResponseSchema,
  PullPolicy,
  RemoveImageResponseSchema
} from "../../../proto/generated/ironwood/v1/image_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import { answered, forEach } from "../ForEach.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import { importImages, nameOf, shortDigest } from "../ImageImport.ts"
import { pullImage } from "../ImagePull.ts"
import * as Listing from "../Listing.ts"
import * as Output from "../Output.ts"
import { requestId } from "../RequestId.ts"
import { Screen } from "../Screen.ts"
import { nearest } from "../Suggest.ts"
import * as Table from "../Table.ts"
import * as Text from "../Text.ts"
import { df, exportCommand, gc, verify } from "./imageStore.ts"

const allImages = Effect.flatMap(Client, (client) =>
  Listing.allPages(
    (pageToken) => client.call(ImageService.method.listImages, { pageToken }),
    (page) => page.images
  )
)

/** Turns NOT_FOUND into a failure that says the nearest name. */
const orNearest = (reference: string) =>
  orElseStatus(status.notFound, () =>
    Effect.flatMap(allImages, (images) => {
      const near = nearest(
        reference,
        images.flatMap(({ names }) => names)
      )
      return failure(`no image is called "${reference}"`, {
        exitCode: exitCodes.notFound,
        next: `${near === undefined ? "" : `Did you mean "${near}"? `}\`ironwood image ls\` lists the images`
      })
    })
  )

const importCommand = Command.make(
  "import",
  {
    name: Flag.String("name").pipe(
      Flag.withAlias("n"),
      Flag.withMetavar("NAME[:TAG]"),
      Flag.withDescription("What to call it (default: as the archive says)"),
      Flag.withDefault("")
    ),
    path: Argument.String("PATH").pipe(
      Argument.withDescription("An OCI layout directory, an OCI archive, or an archive of `docker save`")
    )
  },
  Effect.fnUntraced(function* ({ name, path: word }) {
    const path = yield* Path.Path
    const imported = yield* importImages(path.resolve(word), name)
    return yield* Effect.forEach(
      imported,
      ({ image, unchanged }) =>
        Output.item(ImageSchema, image, () => [
          `${unchanged ? "unchanged" : "imported"} ${nameOf(image)}  ${Text.clean(image.digest)}  ${HumanText.size(image.sizeBytes)}`
        ]),
      { discard: true }
    )
  })
).pipe(
  describe({
    short: "Import the images in a directory or archive on the host",
    long: [
      "Every digest is verified; an archive that is cut short or forged is refused and leaves nothing behind.",
      "Importing again what is there already is cheap."
    ],
    examples: [
      ["docker save nginx:1.27 -o nginx.tar && ironwood image import nginx.tar", "From docker"],
      [
        "skopeo copy docker://alpine:3.20 oci:alpine:3.20 && ironwood image import alpine -n alpine:3.20",
        "From a registry, by skopeo"
      ]
    ]
  })
)

const pullPolicies = {
  always: PullPolicy.ALWAYS,
  missing: PullPolicy.IF_NOT_PRESENT,
  never: PullPolicy.NEVER
} as const

const pull = Command.make(
  "pull",
  {
    policy: Flag.Literals("policy", ["always", "missing", "never"]).pipe(
      Flag.withDescription("When to ask the registry (default: always)"),
      Flag.withDefault("always")
    ),
    platform: Flag.String("platform").pipe(
      Flag.withMetavar("OS/ARCH[/VARIANT]"),
      Flag.withDescription("For another machine than this one"),
      Flag.withDefault("")
    ),
    references: Argument.String("IMAGE").pipe(
      Argument.withDescription("Its name, with an optional registry, tag and digest"),
      Argument.variadic({ min: 1 })
    )
  },
  Effect.fnUntraced(function* ({ platform, policy, references }) {
    yield* Effect.forEach(
      references,
      (reference) =>
        Effect.flatMap(pullImage({ reference, platform, policy: pullPolicies[policy] }), ({ image, unchanged }) =>
          Output.item(ImageSchema, image, () => [
            `${unchanged ? "unchanged" : "pulled"} ${Text.clean(reference)}  ${Text.clean(image.digest)}  ${HumanText.size(image.sizeBytes)}`
          ])
        ),
      { discard: true }
    )
  })
).pipe(
  describe({
    short: "Pull images from their registries",
    long: [
      "Names are docker's: alpine is docker.io/library/alpine:latest. Layers come side by side, go on where a connection was",
      "cut, and are kept only when every digest is right. Credentials are those of `docker login` (config.json), else of the",
      "machine config. An image that has not changed costs one request."
    ],
    examples: [
      ["ironwood image pull alpine:3.20", "From docker.io"],
      ["ironwood image pull localhost:5000/app@sha256:…", "Exactly this one"],
      ["ironwood image pull --platform linux/arm64 alpine", "For another machine"]
    ]
  })
)

const ls = Command.make(
  "ls",
  {
    digests: Flag.Boolean("digests").pipe(
      Flag.withDescription("What registries call them (NAME@DIGEST), instead of their tags"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ digests }) {
    const images = yield* allImages
    return yield* Output.answer(
      ListImagesResponseSchema,
      create(ListImagesResponseSchema, { images }),
      Effect.gen(function* () {
        const screen = yield* Screen
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        const size = yield* screen.size
        const when = (moment: number | undefined) => (moment === undefined ? "" : HumanText.agoOrDate(moment, now))
        const called = (image: Image) => (digests ? image.digests : image.names.length === 0 ? ["<none>"] : image.names)
        const rows = images.flatMap((image) =>
          called(image).map((name) => [
            Text.clean(name),
            shortDigest(image.digest),
            HumanText.size(image.sizeBytes),
            String(image.layers.length),
            when(ActorText.momentOf(image.buildTime)),
            when(ActorText.momentOf(image.importTime))
          ])
        )
        return Table.render(
          [
            { title: "NAME", shrinkTo: 16 },
            { title: "DIGEST" },
            { title: "SIZE", align: "right" },
            { title: "LAYERS", align: "right" },
            { title: "BUILT", optional: true },
            { title: "IMPORTED" }
          ],
          rows,
          { heading: style.dim, ...(size === undefined ? {} : { width: size.columns }) }
        )
      })
    )
  })
).pipe(
  Command.withAlias("list"),
  describe({
    short: "List the images, a line per name",
    examples: [
      ["ironwood image ls --digests", "Exactly what was pulled, and from where"],
      ["ironwood image ls -o json | jq -r '.images[].names[]'", "All names"]
    ]
  })
)

const rm = Command.make(
  "rm",
  {
    references: Argument.String("IMAGE").pipe(
      Argument.withDescription("A name with an optional tag, or a digest: the image with all its names"),
      Argument.variadic({ min: 1 })
    )
  },
  Effect.fnUntraced(function* ({ references }) {
    const client = yield* Client
    yield* forEach(references, (reference) =>
      client
        .call(ImageService.method.removeImage, { reference, requestId: requestId() }, { timeout: "5 minutes" })
        .pipe(
          Effect.map((removed) => answered(reference, RemoveImageResponseSchema, removed)),
          orNearest(reference)
        )
    )
  })
).pipe(
  describe({
    short: "Remove names of images; an image goes with its last name",
    long: ["Refused for an image that a container uses."],
    examples: [["ironwood image rm hello:old", "One name"]]
  })
)

const tag = Command.make(
  "tag",
  {
    source: Argument.String("IMAGE").pipe(Argument.withDescription("A name with an optional tag, or a digest")),
    target: Argument.String("NAME").pipe(Argument.withDescription("The new name, with an optional tag"))
  },
  Effect.fnUntraced(function* ({ source, target }) {
    const client = yield* Client
    const { image } = yield* client
      .call(ImageService.method.tagImage, { source, target, requestId: requestId() })
      .pipe(orNearest(source))
    if (image === undefined) return yield* Effect.die("TagImage answered without an image")
    return yield* Output.answer(ImageSchema, image, Effect.succeed([target]))
  })
).pipe(
  describe({
    short: "Give an image one more name; a name in use moves over",
    long: ["Containers keep the image they were created from."],
    examples: [["ironwood image tag web:2.1 web:latest", "Let web:latest be 2.1 from now on"]]
  })
)

export const image = Command.make("image").pipe(
  Command.withSubcommands([pull, importCommand, ls, rm, tag, gc, df, verify, exportCommand]),
  describe({ short: "Pull, import, list, name, export and remove images" })
)
