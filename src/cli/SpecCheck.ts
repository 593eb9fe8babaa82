/**
 * Whether spec files can be applied, before anything is done: every object is shown to the server, which only looks
 * (`validate_only`), and all that is wrong here and there is told at once, with the lines of the files where it stands.
 *
 * What an object lacks and the files bring along (an image, a sandbox) will be there in time.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { ContainerService, type ContainerSpec } from "../../proto/generated/ironwood/v1/container_pb.ts"
import type { Image } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { VmService } from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { assumedOf } from "./Assumed.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import { type ExitCode, exitCodes } from "./ExitCode.ts"
import { changed, type Failure, failure } from "./Failure.ts"
import { importImages } from "./ImageImport.ts"
import * as Manifest from "./Manifest.ts"
import { withMissing } from "./Missing.ts"
import type { Screen } from "./Screen.ts"
import { labelOf, type Specs } from "./SpecFiles.ts"
import * as Text from "./Text.ts"

/** One thing that keeps the files from being applied. */
interface Wrong extends Manifest.Problem {
  readonly exitCode: ExitCode
  /** It is no field of a file: how it is told when nothing else is wrong. */
  readonly alone?: Failure
}

const wrongFiles = (problems: ReadonlyArray<Manifest.Problem>): ReadonlyArray<Wrong> =>
  problems.map(({ at, text }) => ({ at, text: Text.clean(text), exitCode: exitCodes.usage }))

/** Fails when anything is wrong, with all of it: file by file, from top to bottom. */
const refuse = Effect.fnUntraced(function* (wrong: ReadonlyArray<Wrong>): Effect.fn.Return<void, Failure> {
  const [first, second] = wrong
  if (first === undefined) return yield* Effect.void
  if (first.alone !== undefined && second === undefined) return yield* first.alone
  const files = [...new Set(wrong.map(({ at }) => at.file))]
  const sorted = wrong.toSorted(
    (one, other) => files.indexOf(one.at.file) - files.indexOf(other.at.file) || one.at.line - other.at.line
  )
  return yield* failure(wrong.length === 1 ? "the spec is wrong" : `the spec is wrong in ${wrong.length} places`, {
    exitCode: wrong.every(({ exitCode }) => exitCode === first.exitCode) ? first.exitCode : exitCodes.usage,
    details: sorted.map(Manifest.formatProblem),
    next: "Nothing was changed"
  })
})

/** Fails when the files themselves are wrong, with all that can be seen without a server. */
export const refuseProblems = ({ problems }: Specs): Effect.Effect<void, Failure> => refuse(wrongFiles(problems))

/** `memory_bytes` as its JSON has it. */
const jsonName = (path: string): string => path.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

/** The path in the spec of a field of the request; the keys of maps stay as they are. */
const specField = (field: string): string =>
  field.replace(/^spec\./, "").replace(/^[^[]*|\]\.[^[]*/g, (names) => jsonName(names))

/** What the server says about an object, but for what has been told of the file already. */
const wrongObject = (object: Manifest.ManifestObject, error: Failure): ReadonlyArray<Wrong> => {
  const { exitCode, violations } = error
  if (violations === undefined) return [wrongAsAWhole(object, error)]
  return violations.flatMap(({ description, field: asked }) => {
    const field = specField(asked)
    const text = Text.clean(`${field}: ${description}`)
    return object.isWrong(field) ? [] : [{ at: object.fieldAt(field), text, exitCode }]
  })
}

const wrongAsAWhole = (object: Manifest.ManifestObject, error: Failure): Wrong => {
  const told = nextAfter(error, object)
  const { details, exitCode, summary } = told
  const whole = summary.startsWith(labelOf(object)) ? summary : `${labelOf(object)}: ${summary}`
  return { at: object.where, text: [whole, ...details].join("; "), exitCode, alone: titled(told, object) }
}

/** The failure of an object with where it stands in the files. */
export const titled = (error: Failure, object: Manifest.ManifestObject): Failure => {
  const label = labelOf(object)
  const { summary } = error
  // many a sentence of the server begins with the object's name
  const said = summary.startsWith(`${label} `) ? summary.slice(label.length) : `: ${summary}`
  return changed(error, { summary: `${label} (${Manifest.formatPosition(object.where)})${said}` })
}

/** What of a container's or machine's spec can be set while it runs; everything else needs it made anew. */
const live: ReadonlySet<string> = new Set(["restart"])

/** Whether this says that a container is there and differs only in what can be set while it runs. */
export const isLive = ({ differing }: Failure): boolean => differing?.every((field) => live.has(field)) ?? false

/** The failure of an object with what can be done about it. */
export const nextAfter = (error: Failure, object: Manifest.ManifestObject): Failure =>
  (object.kind === "Container" || object.kind === "Vm") && error.status === status.alreadyExists
    ? changed(error, {
        summary: `${labelOf(object)} exists with another spec`,
        details: (error.differing ?? [])
          .filter((field) => !live.has(field))
          .map(
            (field) => `${Manifest.formatPosition(object.fieldAt(field))}: ${Text.clean(field)} cannot be changed live`
          ),
        next: "What is there differs from the file: `ironwood apply --replace` removes it and makes it anew"
      })
    : withMissing(error)

/**
 * Asks the server about every object without doing anything, and fails with all that is wrong, here and there. What an
 * object lacks and the files bring along (an image, a sandbox) is there in time; what differs is changed live where that
 * can be, and replaced, if so wanted. Gives the containers that are to be changed live.
 */
export const check = Effect.fnUntraced(function* (specs: Specs, { replace }: { readonly replace: boolean }) {
  const client = yield* Client
  const wrong: Array<Wrong> = [...wrongFiles(specs.problems)]
  const images: Array<Image> = []
  const changing = new Set<Manifest.ManifestObject>()
  let everyImage = true

  const changesLive = (object: Manifest.ManifestObject) => Effect.sync(() => void changing.add(object))
  const container = (object: Manifest.ManifestObject, spec: ContainerSpec) =>
    client
      .call(ContainerService.method.createContainer, {
        spec,
        validateOnly: true,
        assumed: assumedOf(specs.objects, images)
      })
      .pipe(
        Effect.asVoid,
        orElseStatus(status.alreadyExists, (error) =>
          isLive(error) ? changesLive(object) : replace || object.isPartial ? Effect.void : error
        ),
        // an import that could not be looked at may well bring it
        orElseStatus(status.notFound, (error) => (everyImage || error.about?.type !== "image" ? error : Effect.void))
      )
  const ask = (object: Manifest.ManifestObject): Effect.Effect<void, Failure, Client | Screen> => {
    if (object.kind === "Image") {
      return importImages(object.path, object.as, { validateOnly: true }).pipe(
        Effect.map((found) => void images.push(...found.map(({ image }) => image))),
        Effect.tapError(() => Effect.sync(() => (everyImage = false)))
      )
    }
    if (object.kind === "Container") return container(object, object.spec)
    if (object.kind === "Vm") {
      return client.call(VmService.method.createVm, { spec: object.spec, validateOnly: true }).pipe(
        Effect.asVoid,
        orElseStatus(status.alreadyExists, (error) =>
          isLive(error) ? changesLive(object) : replace || object.isPartial ? Effect.void : error
        )
      )
    }
    return client.call(SandboxService.method.createSandbox, { spec: object.spec, validateOnly: true }).pipe(
      Effect.asVoid,
      orElseStatus(status.alreadyExists, (error) => (object.isPartial ? Effect.void : error))
    )
  }
  // images first: what they bring is no lack of a container's
  const isImage = (object: Manifest.ManifestObject) => object.kind === "Image"
  const objects = [...specs.objects.filter(isImage), ...specs.objects.filter((object) => !isImage(object))]
  for (const object of objects) {
    const error = yield* Effect.flip(ask(object)).pipe(Effect.option)
    if (Option.isNone(error)) continue
    if (error.value.exitCode === exitCodes.unavailable) {
      // nobody answers: what is wrong with the files is still so
      if (wrong.length === 0) return yield* error.value
      break
    }
    wrong.push(...wrongObject(object, error.value))
  }
  yield* refuse(wrong)
  return changing
})
