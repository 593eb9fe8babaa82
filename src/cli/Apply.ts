/**
 * Making what spec files say: every object is created, found to be there already, or failed by itself.
 *
 * All files are read and checked first; one mistake anywhere and nothing is sent. Then images come before sandboxes and sandboxes
 * before containers, each kind in the order of the files. An object that fails leaves nothing half made and does not stop
 * the next one; what the server says about a field is told with the line of the file where it stands.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Result from "effect/Result"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { ContainerService, type ContainerSpec } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import { exitCodes } from "./ExitCode.ts"
import { changed, type Failure, failure, withNext } from "./Failure.ts"
import { style as currentStyle } from "./Globals.ts"
import { importImage, nameOf } from "./ImageImport.ts"
import * as Manifest from "./Manifest.ts"
import * as Output from "./Output.ts"
import { withMissing } from "./Missing.ts"
import { removeContainer } from "./Remove.ts"
import { requestId } from "./RequestId.ts"
import * as Text from "./Text.ts"

/** What became of an object. */
export type Outcome = "created" | "unchanged" | "replaced" | "imported"

/** The text of a spec file (`-`: standard input). */
export const readText = Effect.fnUntraced(function* (file: string) {
  const files = yield* FileSystem.FileSystem
  if (file !== "-") {
    return yield* files
      .readFileString(file)
      .pipe(
        Effect.mapError((error) =>
          failure(
            error.reason._tag === "NotFound"
              ? `there is no file ${file}`
              : `${file} cannot be read (${error.reason._tag})`,
            { exitCode: exitCodes.usage, next: "Name a spec file; examples/ has some" }
          )
        )
      )
  }
  const stdio = yield* Stdio.Stdio
  return yield* stdio.stdin.pipe(
    Stream.decodeText(),
    Stream.mkString,
    Effect.mapError(() => failure("standard input cannot be read", { exitCode: exitCodes.usage }))
  )
})

/** Reads and checks spec files (`-`: standard input); a failure tells all mistakes in all of them. */
export const read = Effect.fnUntraced(function* (files: ReadonlyArray<string>) {
  const path = yield* Path.Path
  const objects: Array<Manifest.ManifestObject> = []
  const problems: Array<string> = []
  for (const file of files) {
    const parsed = Manifest.parse(yield* readText(file), file === "-" ? "stdin" : file)
    if (Result.isFailure(parsed)) {
      problems.push(...parsed.failure.map(Text.clean))
      continue
    }
    const directory = file === "-" ? "." : path.dirname(file)
    for (const object of parsed.success) {
      objects.push(object.kind === "Image" ? { ...object, path: path.resolve(directory, object.path) } : object)
    }
  }
  if (problems.length === 0) return objects
  return yield* failure(
    problems.length === 1 ? "the spec is wrong" : `the spec is wrong in ${problems.length} places`,
    {
      exitCode: exitCodes.usage,
      details: problems,
      next: "Nothing was changed"
    }
  )
})

/** `memory_bytes` as its JSON has it. */
const jsonName = (path: string): string => path.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

/** What the server says about fields of a spec, told with the lines of the file. */
const located = (error: Failure, object: Manifest.ManifestObject): Failure =>
  changed(error, {
    details: error.details.map((line) => {
      const match = /^(?:spec\.)?([\w.[\]-]+): (.*)$/s.exec(line)
      if (match === null) return line
      const field = jsonName(match[1] ?? "")
      const at = object.fieldAt(field) ?? object.where
      return `${Manifest.formatPosition(at)}: ${field}: ${match[2] ?? ""}`
    })
  })

const nextAfter = (error: Failure, object: Manifest.ManifestObject): Failure =>
  object.kind === "Container" && error.status === status.alreadyExists
    ? withNext(error, "What is there differs from the file: `ironwood apply --replace` removes it and makes it anew")
    : withMissing(error)

/** Makes one object; its name and what became of it. */
const make = Effect.fnUntraced(function* (object: Manifest.ManifestObject, replace: boolean) {
  const client = yield* Client
  if (object.kind === "Image") {
    const image = yield* importImage(object.path, object.as)
    return { name: nameOf(image), outcome: "imported" satisfies Outcome }
  }
  if (object.kind === "Container") return { name: object.name, outcome: yield* makeContainer(object.spec, replace) }
  const there = yield* exists(client.call(SandboxService.method.getSandbox, { name: object.name }))
  yield* client.call(SandboxService.method.createSandbox, { spec: object.spec, requestId: requestId() })
  return { name: object.name, outcome: there ? "unchanged" : "created" }
})

const makeContainer = Effect.fnUntraced(function* (spec: ContainerSpec, replace: boolean) {
  const client = yield* Client
  const { name } = spec
  const create = Effect.suspend(() =>
    client.call(ContainerService.method.createContainer, { spec, requestId: requestId() }, { timeout: "5 minutes" })
  )
  const there = yield* exists(client.call(ContainerService.method.getContainer, { name }))
  const outcome: Outcome = there ? "unchanged" : "created"
  if (!there || !replace) return yield* Effect.as(create, outcome)
  return yield* create.pipe(
    Effect.as(outcome),
    orElseStatus(status.alreadyExists, () =>
      removeContainer(name, true).pipe(Effect.andThen(create), Effect.as("replaced" satisfies Outcome))
    )
  )
})

const exists = <A, R>(call: Effect.Effect<A, Failure, R>): Effect.Effect<boolean, Failure, R> =>
  call.pipe(
    Effect.as(true),
    orElseStatus(status.notFound, () => Effect.succeed(false)),
    // a name the server refuses is not there; creating it tells what is wrong with it, and with the rest
    Effect.catchIf(
      (error) => error.exitCode === exitCodes.usage,
      () => Effect.succeed(false)
    )
  )

const order = ["Image", "Sandbox", "Container"] as const

/** Makes the objects, a printed line each; fails at the end when some failed. */
export const apply = Effect.fnUntraced(function* (
  objects: ReadonlyArray<Manifest.ManifestObject>,
  options: { readonly replace: boolean }
) {
  const style = yield* currentStyle
  const failures: Array<{ readonly object: Manifest.ManifestObject; readonly error: Failure }> = []
  const sorted = order.flatMap((kind) => objects.filter((object) => object.kind === kind))
  for (const object of sorted) {
    const label = (name: string) => `${object.kind.toLowerCase()} ${Text.clean(name)}`
    yield* Output.progress(`${label(object.name)}…`)
    yield* make(object, options.replace).pipe(
      Effect.tap(Output.progressDone),
      Effect.flatMap(({ name, outcome }) =>
        Output.lines([`${label(name)}  ${outcome === "unchanged" ? style.dim(outcome) : style.green(outcome)}`])
      ),
      Effect.catchTag("Failure", (error) =>
        Effect.gen(function* () {
          // nobody answers: the others would only say the same
          if (error.exitCode === exitCodes.unavailable) return yield* error
          failures.push({ object, error: nextAfter(located(error, object), object) })
          yield* Output.progressDone
          return yield* Output.lines([`${label(object.name)}  ${style.red("failed")}`])
        })
      )
    )
  }
  const [first, second] = failures
  if (first === undefined) return yield* Effect.void
  const titled = ({ error, object }: (typeof failures)[number]): Failure =>
    changed(error, {
      summary: `${object.kind.toLowerCase()} ${Text.clean(object.name)} (${Manifest.formatPosition(object.where)}): ${error.summary}`
    })
  if (second === undefined) return yield* titled(first)
  const { exitCode } = first.error
  return yield* failure(`${failures.length} of ${objects.length} objects failed`, {
    exitCode: failures.every(({ error }) => error.exitCode === exitCode) ? exitCode : exitCodes.failed,
    details: failures.flatMap((one) => titled(one).message.split("\n"))
  })
})
