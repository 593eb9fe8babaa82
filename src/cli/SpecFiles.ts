/**
 * Spec files as `apply` and `up` take them: all of them read into objects, with everything that is wrong in their texts.
 *
 * Nobody is asked here: the rules of the values are the server's (see SpecCheck.ts).
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { statSync } from "node:fs"
import { exitCodes } from "./ExitCode.ts"
import { type Failure, failure } from "./Failure.ts"
import * as Manifest from "./Manifest.ts"
import * as Text from "./Text.ts"

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
              : statSync(file, { throwIfNoEntry: false })?.isDirectory() === true
                ? `${file} is a directory`
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

/** What spec files say, as far as it could be read, and what could not. */
export interface Specs {
  readonly objects: ReadonlyArray<Manifest.ManifestObject>
  readonly problems: ReadonlyArray<Manifest.Problem>
}

/** Reads spec files (`-`: standard input). */
export const read = Effect.fnUntraced(function* (
  files: ReadonlyArray<string>
): Effect.fn.Return<Specs, Failure, FileSystem.FileSystem | Path.Path | Stdio.Stdio> {
  const path = yield* Path.Path
  const objects: Array<Manifest.ManifestObject> = []
  const problems: Array<Manifest.Problem> = []
  for (const file of files) {
    const parsed = Manifest.parse(yield* readText(file), file === "-" ? "stdin" : file)
    problems.push(...parsed.problems)
    const directory = file === "-" ? "." : path.dirname(file)
    for (const object of parsed.objects) {
      objects.push(object.kind === "Image" ? { ...object, path: path.resolve(directory, object.path) } : object)
    }
  }
  return { objects, problems: [...problems, ...repeated(objects)] }
})

/** Objects of one kind and name: the second would only be in the way of the first. */
const repeated = (objects: ReadonlyArray<Manifest.ManifestObject>): ReadonlyArray<Manifest.Problem> => {
  const first = new Map<string, Manifest.Position>()
  return objects.flatMap((object) => {
    if (object.kind === "Image" || object.name === "") return []
    const label = labelOf(object)
    const there = first.get(label)
    first.set(label, there ?? object.where)
    return there === undefined
      ? []
      : [{ at: object.fieldAt("name"), text: `name: ${label} is at ${Manifest.formatPosition(there)} already` }]
  })
}

/** `container web`. */
export const labelOf = ({ kind, name }: Manifest.ManifestObject): string => `${kind.toLowerCase()} ${Text.clean(name)}`
