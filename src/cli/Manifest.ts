/**
 * Spec files: YAML documents with a `kind` and the API's fields, read into API messages.
 *
 * The fields are those of the proto (`memory_bytes` or, as its JSON has it, `memoryBytes`); values may be written as
 * people write them: durations (`500ms`), sizes where the field's name ends in bytes (`64MiB`), enums by their short name in any case
 * (`permanent`, `keep-trying`). What the proto does not have is an error with file, line and the nearest name. All errors
 * of all documents are told at once; nothing has been sent anywhere then.
 *
 * Driven by the protobuf descriptors: a new field of the API is understood here without a change.
 */
import { type DescMessage, fromJson, type MessageShape } from "@bufbuild/protobuf"
import * as Result from "effect/Result"
import { isMap, isScalar, LineCounter, parseAllDocuments, parseDocument, type Document, type YAMLMap } from "yaml"
import { ContainerSpecSchema, type ContainerSpec } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { SandboxSpecSchema, type SandboxSpec } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { nearest } from "./Suggest.ts"
import * as YamlMessage from "./YamlMessage.ts"

/** Where in a file something stands. */
export type Position = YamlMessage.Position

/** One object to be made. `where` is its document's first line; `lineOf` gives the line of a field by its JSON path. */
export type ManifestObject = {
  readonly name: string
  readonly where: Position
  readonly fieldAt: (path: string) => Position | undefined
} & (
  | { readonly kind: "Image"; readonly path: string; readonly as: string }
  | { readonly kind: "Sandbox"; readonly spec: SandboxSpec }
  | { readonly kind: "Container"; readonly spec: ContainerSpec }
)

const kinds = ["Image", "Sandbox", "Container"] as const

/** More text than this is not a spec. */
const maximumCharacters = 4 * 1024 * 1024

interface Context {
  readonly file: string
  readonly counter: LineCounter
  readonly document: Document
  readonly problems: Array<string>
}

const positionOf = ({ counter, file }: Context, offset: number): Position => {
  const { line } = counter.linePos(offset)
  return { file, line: Math.max(1, line) }
}

/** `hello.yaml:12`. */
export const formatPosition = ({ file, line }: Position): string => `${file}:${line}`

/** Reads the text of a file; the failure is every problem, a line each. `file` is what messages call it. */
export const parse = (
  text: string,
  file: string
): Result.Result<ReadonlyArray<ManifestObject>, ReadonlyArray<string>> => {
  if (text.length > maximumCharacters) return Result.fail([`${file}: larger than 4 MiB, which no spec file is`])
  const counter = new LineCounter()
  const documents = parseAllDocuments(text, {
    lineCounter: counter,
    prettyErrors: false,
    uniqueKeys: true,
    version: "1.2"
  })
  const problems: Array<string> = []
  const objects: Array<ManifestObject> = []
  if (!Array.isArray(documents)) return Result.fail([`${file}: nothing in it`])
  for (const document of documents) {
    const context = { file, counter, document, problems }
    for (const error of document.errors) {
      problems.push(`${formatPosition(positionOf(context, error.pos[0]))}: ${error.message}`)
    }
    if (document.errors.length > 0 || document.contents === null) continue
    const { contents } = document
    if (isScalar(contents) && contents.value === null) continue
    if (!isMap(contents)) {
      problems.push(
        `${formatPosition(positionOf(context, contents.range?.[0] ?? 0))}: a document is fields, beginning with kind: Container`
      )
      continue
    }
    const object = objectOf(context, contents)
    if (object !== undefined) objects.push(object)
  }
  if (problems.length > 0) return Result.fail(problems)
  return objects.length === 0 ? Result.fail([`${file}: nothing in it`]) : Result.succeed(objects)
}

/**
 * Reads a file that is one message and no object: fields of `schema` at the top. A document with a `kind` is an object and
 * belongs to {@link parse}.
 */
export const parseMessage = <D extends DescMessage>(
  text: string,
  file: string,
  schema: D
): Result.Result<MessageShape<D>, ReadonlyArray<string>> => {
  if (text.length > maximumCharacters) return Result.fail([`${file}: larger than 4 MiB, which no spec file is`])
  const counter = new LineCounter()
  const document = parseDocument(text, { lineCounter: counter, prettyErrors: false, uniqueKeys: true, version: "1.2" })
  const problems: Array<string> = []
  const context = { file, counter, document, problems }
  for (const error of document.errors) {
    problems.push(`${formatPosition(positionOf(context, error.pos[0]))}: ${error.message}`)
  }
  const { contents } = document
  if (problems.length === 0 && !isMap(contents)) problems.push(`${file}: expected fields`)
  const read = isMap(contents) && problems.length === 0 ? messageOf(context, contents, schema) : undefined
  return read === undefined ? Result.fail(problems) : Result.succeed(read.message)
}

/** Whether the text holds objects (documents with a `kind`) rather than one message. */
export const hasKinds = (text: string): boolean => /^["']?kind["']?\s*:/m.test(text)

const objectOf = (context: Context, contents: YAMLMap): ManifestObject | undefined => {
  const { problems } = context
  const where = positionOf(context, contents.range?.[0] ?? 0)
  const kind = contents.get("kind")
  if (typeof kind !== "string") {
    problems.push(`${formatPosition(where)}: kind is missing; it is one of ${kinds.join(", ")}`)
    return undefined
  }
  switch (kind) {
    case "Image":
      return imageOf(context, contents, where)
    case "Sandbox": {
      const read = messageOf(context, contents, SandboxSpecSchema)
      return read === undefined
        ? undefined
        : { kind, name: read.message.name, where, fieldAt: read.fieldAt, spec: read.message }
    }
    case "Container": {
      const read = messageOf(context, contents, ContainerSpecSchema)
      return read === undefined
        ? undefined
        : { kind, name: read.message.name, where, fieldAt: read.fieldAt, spec: read.message }
    }
    default: {
      const near = nearest(kind, kinds)
      problems.push(
        `${formatPosition(where)}: kind: no such kind "${kind}"; ${near === undefined ? `it is one of ${kinds.join(", ")}` : `did you mean ${near}?`}`
      )
      return undefined
    }
  }
}

/** The fields of `kind: Image`: no message of the API, since the file is the client's. */
const imageOf = (context: Context, contents: YAMLMap, where: Position): ManifestObject | undefined => {
  const { problems } = context
  const known = ["kind", "path", "name"]
  const values = new Map<string, string>()
  for (const pair of contents.items) {
    const key = isScalar(pair.key) ? String(pair.key.value) : ""
    const at = positionOf(context, isScalar(pair.key) ? (pair.key.range?.[0] ?? 0) : 0)
    const value = isScalar(pair.value) ? pair.value.value : undefined
    if (!known.includes(key)) {
      problems.push(`${formatPosition(at)}: ${YamlMessage.unknownField(key, known)}`)
    } else if (typeof value !== "string" || value === "") {
      problems.push(`${formatPosition(at)}: ${key}: expected a text`)
    } else {
      values.set(key, value)
    }
  }
  const path = values.get("path")
  if (path === undefined) {
    if (!contents.has("path"))
      problems.push(`${formatPosition(where)}: path: is missing; an OCI layout directory or an archive`)
    return undefined
  }
  const as = values.get("name") ?? ""
  return { kind: "Image", name: as === "" ? path : as, where, fieldAt: () => where, path, as }
}

const messageOf = <D extends DescMessage>(
  context: Context,
  contents: YAMLMap,
  schema: D
): { readonly message: MessageShape<D>; readonly fieldAt: (path: string) => Position | undefined } | undefined => {
  const before = context.problems.length
  const positions = new Map<string, Position>()
  const json = YamlMessage.toJson(contents, schema, {
    document: context.document,
    ignore: new Set(["kind"]),
    position: (offset) => positionOf(context, offset),
    problem: (at, text) => context.problems.push(`${formatPosition(at)}: ${text}`),
    seen: (path, at) => positions.set(path, at)
  })
  if (context.problems.length > before) return undefined
  try {
    return { message: fromJson(schema, json), fieldAt: (path) => positions.get(path) }
  } catch (error) {
    // what the walk let through and protobuf does not take, e.g. a number beyond its range
    const where = positionOf(context, contents.range?.[0] ?? 0)
    context.problems.push(`${formatPosition(where)}: ${error instanceof Error ? error.message : String(error)}`)
    return undefined
  }
}
