/**
 * A container from flags: what `ironwood run` and `ironwood create` have in common. All that is wrong with the flags is told
 * at once, and nothing half-made stays: neither a container nor the sandbox that was made for it.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import { ContainerService, type ContainerSpecSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import {
  IsolationMode,
  NetworkMode,
  SandboxService,
  UserNamespaceMode
} from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import { exitCodes } from "./ExitCode.ts"
import { changed, type Failure, withNext } from "./Failure.ts"
import { type FlagProblem, flagOf, wrongFlags } from "./FlagProblems.ts"
import { pullImage } from "./ImagePull.ts"
import { withMissing } from "./Missing.ts"
import { portsOfImage } from "./NetworkFlags.ts"
import { generateName } from "./Names.ts"
import { requestId } from "./RequestId.ts"
import * as Text from "./Text.ts"
import { flagOfField, type Pull, read, type RunFlags } from "./RunFlags.ts"

/** Creates it, and starts it unless `notStarted`. `command` is what was typed, for messages. */
export const createContainer = Effect.fnUntraced(function* (
  command: "run" | "create",
  flags: RunFlags,
  { notStarted = false }: { readonly notStarted?: boolean } = {}
) {
  const client = yield* Client
  const name = flags.name === "" ? generateName(Math.random) : flags.name
  const { problems, pull, sandbox: place, spec: rest } = yield* read(flags)
  const spec = { ...rest, name, sandbox: flags.sandbox }
  const isUsual =
    place.network === NetworkMode.NONE &&
    place.isolation !== IsolationMode.MICROVM &&
    place.userNamespace !== UserNamespaceMode.PRIVATE &&
    place.hostname === "" &&
    [place.hosts, ...Object.values(place.dns)].every(({ length }) => length === 0)
  const ownSandbox = !isUsual && flags.sandbox === ""
  // what is made before the container is made only for one that can be
  if (problems.length > 0 || ownSandbox) yield* check(command, spec, problems, pull)
  const exposed = flags.publishAll ? yield* exposedBy(flags.image, pull) : []
  if (ownSandbox) {
    const ports = [...place.ports, ...portsOfImage(exposed, place.ports)]
    yield* client
      .call(SandboxService.method.createSandbox, { spec: { ...place, ports, name }, requestId: requestId() })
      .pipe(Effect.mapError((error) => explained(command, error, name)))
  }
  if (pull === "always" && !flags.publishAll) yield* pullImage({ reference: flags.image })
  const create = client.call(
    ContainerService.method.createContainer,
    { spec: ownSandbox ? { ...spec, sandbox: name } : spec, notStarted, requestId: requestId() },
    { timeout: "5 minutes" }
  )
  const { container } = yield* create.pipe(
    Effect.catchIf(
      (error) => pull === "missing" && error.status === status.notFound && error.about?.type === "image",
      () => Effect.andThen(pullMissing(flags.image), create)
    ),
    Effect.mapError((error) => explained(command, error, name)),
    Effect.tapError(() => (ownSandbox ? removeEmptySandbox(name) : Effect.void))
  )
  return container ?? (yield* Effect.die("CreateContainer answered without a container"))
})

/** The ports that an image names; it is pulled before. */
const exposedBy = Effect.fnUntraced(function* (reference: string, pull: Pull) {
  const client = yield* Client
  if (pull === "always") yield* pullImage({ reference })
  const get = client.call(ImageService.method.getImage, { reference })
  const { image } = yield* get.pipe(
    Effect.catchIf(
      (error) => pull === "missing" && error.status === status.notFound,
      () => Effect.andThen(pullMissing(reference), get)
    ),
    Effect.mapError(withMissing)
  )
  return image?.config?.exposedPorts ?? []
})

/** Pulls an image that is not here. Who cannot have it pulled may have it as a file. */
const pullMissing = (reference: string) =>
  Effect.mapError(pullImage({ reference }), (error) =>
    changed(error, {
      summary: `image ${Text.clean(reference)} is not here, and cannot be pulled: ${error.summary}`,
      next: error.next ?? "`ironwood image ls` lists those that are here, `ironwood image import PATH` brings one in"
    })
  )

/** What the flags are to blame for, and what to do about the rest. */
const explained = (command: string, error: Failure, name: string): Failure => {
  if (error.violations !== undefined) {
    return wrongFlags(
      command,
      error.violations.map((violation) => flagOf(violation, flagOfField))
    )
  }
  return error.status === status.alreadyExists
    ? withNext(error, `Choose another --name, or remove that one with \`ironwood rm -f ${name}\``)
    : withMissing(error)
}

/** Fails with all that is wrong, here and at the server, which only looks. */
const check = Effect.fnUntraced(function* (
  command: string,
  spec: MessageInitShape<typeof ContainerSpecSchema>,
  problems: ReadonlyArray<FlagProblem>,
  pull: Pull
) {
  const client = yield* Client
  // what will be pulled is no lack
  const assumed = pull === "never" ? {} : { images: [spec.image ?? ""] }
  const asked = client.call(ContainerService.method.createContainer, { spec, validateOnly: true, assumed }).pipe(
    Effect.as<ReadonlyArray<FlagProblem>>([]),
    Effect.catch((error) => {
      if (error.violations !== undefined) {
        return Effect.succeed(error.violations.map((violation) => flagOf(violation, flagOfField)))
      }
      if (problems.length === 0) return Effect.fail(explained(command, error, spec.name ?? ""))
      // nobody answers: what is wrong with the flags is still so
      if (error.exitCode === exitCodes.unavailable) return Effect.succeed([])
      return Effect.succeed([{ flag: error.about?.type === "image" ? "IMAGE" : "--name", text: error.summary }])
    })
  )
  const all = [...problems, ...(yield* asked)]
  return yield* all.length === 0 ? Effect.void : wrongFlags(command, all)
})

const removeEmptySandbox = Effect.fnUntraced(function* (name: string) {
  const client = yield* Client
  yield* client.call(SandboxService.method.removeSandbox, { name, requestId: requestId() }).pipe(
    orElseStatus(status.notFound, () => Effect.void),
    orElseStatus(status.failedPrecondition, () => Effect.void)
  )
})
