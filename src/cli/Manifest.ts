/**
 * Spec files: YAML documents with a `kind` and the API's fields, read into API messages.
 *
 * The fields are those of the proto (`memory_bytes` or, as its JSON has it, `memoryBytes`); values may be written as
 * people write them: durations (`500ms`), sizes where the field's name ends in bytes (`64MiB`), enums by their short name in any case
 * (`permanent`, `keep-trying`). What the proto does not have is an error with file, line and the nearest name. All errors
 * of all documents are told at once, beside the objects as far as they could be read: the server, which knows the rules of
 * the values, is asked about those ({@link ManifestObject.isWrong} says what needs no second word).
 *
 * A `kind: Pod` is a sandbox with its containers in one document: the fields of a sandbox, `initContainers` and `containers`.
 * It is read as these objects (`PodManifest.ts`).
 *
 * Beside the fields of its spec a container may say `notStarted: true`, as the request that creates it.
 *
 * Driven by the protobuf descriptors: a new field of the API is understood here without a change.
 */
import { type DescMessage, fromJson, type MessageShape } from "@bufbuild/protobuf"
import * as Result from "effect/Result"
import {
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseAllDocuments,
  parseDocument,
  type Document,
  type YAMLMap
} from "yaml"
import { ContainerSpecSchema, type ContainerSpec } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { SandboxSpecSchema, type SandboxSpec } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import * as PodManifest from "./PodManifest.ts"
import { VmSpecSchema, type VmSpec } from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { nearest } from "./Suggest.ts"
import * as YamlMessage from "./YamlMessage.ts"

/** Where in a file something stands. */
export type Position = YamlMessage.Position

/** Something that is wrong. */
export interface Problem {
  /** Line 0: the file as a whole. */
  readonly at: Position
  readonly text: string
}

/** What a file says. */
export interface Parsed {
  readonly objects: ReadonlyArray<ManifestObject>
  readonly problems: ReadonlyArray<Problem>
}

/** One object to be made. `where` is its document's first line. */
export type ManifestObject = {
  readonly name: string
  readonly where: Position
  /** Where a field stands, by its JSON path (`resources.cpus`), or what is nearest to it. */
  readonly fieldAt: (path: string) => Position
  /** True when this field, or what it is in, was not understood: a problem has been told, and the object lacks it. */
  readonly isWrong: (path: string) => boolean
  /** True when it lacks anything. */
  readonly isPartial: boolean
} & (
  | { readonly kind: "Image"; readonly path: string; readonly as: string }
  | { readonly kind: "Sandbox"; readonly spec: SandboxSpec }
  | {
      readonly kind: "Container"
      readonly spec: ContainerSpec
      /** `notStarted: true`: created and left down. */
      readonly notStarted: boolean
    }
  | { readonly kind: "Vm"; readonly spec: VmSpec; readonly notStarted: boolean }
)

/** A container among the objects. */
export type ContainerObject = Extract<ManifestObject, { readonly kind: "Container" }>

const kinds = ["Image", "Sandbox", "Pod", "Container", "Vm"] as const

/** More text than this is not a spec. */
const maximumCharacters = 4 * 1024 * 1024

interface Context {
  readonly file: string
  readonly counter: LineCounter
  readonly document: Document
  readonly problems: Array<Problem>
}

const positionOf = ({ counter, file }: Context, offset: number): Position => {
  const { line } = counter.linePos(offset)
  return { file, line: Math.max(1, line) }
}

/** `hello.yaml:12`. */
export const formatPosition = ({ file, line }: Position): string => (line === 0 ? file : `${file}:${line}`)

/** `hello.yaml:12: name: has no value`. */
export const formatProblem = ({ at, text }: Problem): string => `${formatPosition(at)}: ${text}`

const noObjects = (file: string, text: string): Parsed => ({ objects: [], problems: [{ at: { file, line: 0 }, text }] })

/** Reads the text of a file. `file` is what messages call it. */
export const parse = (text: string, file: string): Parsed => {
  if (text.length > maximumCharacters) return noObjects(file, "larger than 4 MiB, which no spec file is")
  const counter = new LineCounter()
  const documents = parseAllDocuments(text, {
    lineCounter: counter,
    prettyErrors: false,
    uniqueKeys: true,
    version: "1.2"
  })
  const problems: Array<Problem> = []
  const objects: Array<ManifestObject> = []
  if (!Array.isArray(documents)) return noObjects(file, "nothing in it")
  for (const document of documents) {
    const context = { file, counter, document, problems }
    for (const error of document.errors) {
      problems.push({ at: positionOf(context, error.pos[0]), text: error.message })
    }
    if (document.errors.length > 0 || document.contents === null) continue
    const { contents } = document
    if (isScalar(contents) && contents.value === null) continue
    if (!isMap(contents)) {
      const at = positionOf(context, contents.range?.[0] ?? 0)
      problems.push({ at, text: "a document is fields, beginning with kind: Container" })
      continue
    }
    objects.push(...objectsOf(context, contents))
  }
  return problems.length + objects.length === 0 ? noObjects(file, "nothing in it") : { objects, problems }
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
  const problems: Array<Problem> = []
  const context = { file, counter, document, problems }
  for (const error of document.errors) problems.push({ at: positionOf(context, error.pos[0]), text: error.message })
  const { contents } = document
  if (problems.length === 0 && !isMap(contents)) problems.push({ at: { file, line: 0 }, text: "expected fields" })
  const read = isMap(contents) && problems.length === 0 ? messageOf(context, contents, schema) : undefined
  return read === undefined || read.isPartial ? Result.fail(problems.map(formatProblem)) : Result.succeed(read.spec)
}

/** Whether the text holds objects (documents with a `kind`) rather than one message. */
export const hasKinds = (text: string): boolean => /^["']?kind["']?\s*:/m.test(text)

const objectsOf = (context: Context, contents: YAMLMap): ReadonlyArray<ManifestObject> => {
  const { problems } = context
  const where = positionOf(context, contents.range?.[0] ?? 0)
  const kind = contents.get("kind")
  if (typeof kind !== "string") {
    problems.push({ at: where, text: `kind is missing; it is one of ${kinds.join(", ")}` })
    return []
  }
  switch (kind) {
    case "Image":
      return orNone(imageOf(context, contents, where))
    case "Sandbox":
      return orNone(sandboxOf(context, contents))
    case "Container":
      return orNone(containerOf(context, contents))
    case "Pod":
      return podOf(context, contents)
    case "Vm":
      return orNone(vmOf(context, contents))
    default: {
      const near = nearest(kind, kinds)
      problems.push({
        at: where,
        text: `kind: no such kind "${kind}"; ${near === undefined ? `it is one of ${kinds.join(", ")}` : `did you mean ${near}?`}`
      })
      return []
    }
  }
}

const orNone = <A>(found: A | undefined): ReadonlyArray<A> => (found === undefined ? [] : [found])

const sandboxOf = (context: Context, contents: YAMLMap, besides: ReadonlyArray<string> = []) => {
  const where = positionOf(context, contents.range?.[0] ?? 0)
  const read = messageOf(context, contents, SandboxSpecSchema, besides)
  return read && { kind: "Sandbox" as const, name: read.spec.name, where, ...read }
}

const containerOf = (context: Context, contents: YAMLMap): ContainerObject | undefined => {
  const where = positionOf(context, contents.range?.[0] ?? 0)
  const read = messageOf(context, contents, ContainerSpecSchema, ["notStarted", "not_started"])
  return (
    read && { kind: "Container", name: read.spec.name, where, notStarted: notStartedOf(context, contents), ...read }
  )
}

const vmOf = (context: Context, contents: YAMLMap): ManifestObject | undefined => {
  const where = positionOf(context, contents.range?.[0] ?? 0)
  const read = messageOf(context, contents, VmSpecSchema, ["notStarted", "not_started"])
  return read && { kind: "Vm", name: read.spec.name, where, notStarted: notStartedOf(context, contents), ...read }
}

const podOf = (context: Context, contents: YAMLMap): ReadonlyArray<ManifestObject> => {
  const sandbox = sandboxOf(context, contents, [...PodManifest.initFields, ...PodManifest.fields])
  const list = (names: ReadonlyArray<string>): ReadonlyArray<ContainerObject> => {
    const pair = contents.items.find(({ key }) => isScalar(key) && names.includes(String(key.value)))
    if (pair === undefined) return []
    const at = positionOf(context, isScalar(pair.key) ? (pair.key.range?.[0] ?? 0) : 0)
    if (!isSeq(pair.value)) {
      context.problems.push({ at, text: `${names[0]}: expected a list of containers` })
      return []
    }
    return pair.value.items.flatMap((item) => {
      if (isMap(item)) return orNone(containerOf(context, item))
      context.problems.push({ at, text: `${names[0]}: expected containers, each with its fields` })
      return []
    })
  }
  const containers = PodManifest.inPod(sandbox?.name ?? "", list(PodManifest.initFields), list(PodManifest.fields))
  for (const { fieldAt, spec } of containers.elsewhere) {
    context.problems.push({ at: fieldAt("sandbox"), text: `sandbox: ${spec.name} is in this pod: leave it out` })
  }
  return [...orNone(sandbox), ...containers.objects]
}

const notStartedOf = (context: Context, contents: YAMLMap): boolean => {
  const pair = contents.items.find(
    ({ key }) => isScalar(key) && (key.value === "notStarted" || key.value === "not_started")
  )
  if (pair === undefined) return false
  const value = isScalar(pair.value) ? pair.value.value : undefined
  if (typeof value === "boolean") return value
  const at = positionOf(context, isScalar(pair.key) ? (pair.key.range?.[0] ?? 0) : 0)
  context.problems.push({ at, text: "notStarted: expected true or false" })
  return false
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
      problems.push({ at, text: YamlMessage.unknownField(key, known) })
    } else if (typeof value !== "string" || value === "") {
      problems.push({ at, text: `${key}: expected a text` })
    } else {
      values.set(key, value)
    }
  }
  const path = values.get("path")
  if (path === undefined) {
    if (!contents.has("path"))
      problems.push({ at: where, text: "path: is missing; an OCI layout directory or an archive" })
    return undefined
  }
  const as = values.get("name") ?? ""
  const name = as === "" ? path : as
  return { kind: "Image", name, where, fieldAt: () => where, isWrong: () => false, isPartial: false, path, as }
}

/** The path of what a field is in: `resources` of `resources.cpus`, `command` of `command[2]`; empty at the top. */
const parentOf = (path: string): string => /^(.*?)(?:\.[^.[\]]*|\[[^[]*\])$/s.exec(path)?.[1] ?? ""

/** `besides`: keys that are no fields of the message. */
const messageOf = <D extends DescMessage>(
  context: Context,
  contents: YAMLMap,
  schema: D,
  besides: ReadonlyArray<string> = []
) => {
  const positions = new Map<string, Position>()
  const wrong = new Set<string>()
  const where = positionOf(context, contents.range?.[0] ?? 0)
  const before = context.problems.length
  const json = YamlMessage.toJson(contents, schema, {
    document: context.document,
    ignore: new Set(["kind", ...besides]),
    position: (offset) => positionOf(context, offset),
    problem: (at, text, path) => {
      context.problems.push({ at, text })
      if (path !== undefined) wrong.add(path)
    },
    seen: (path, at) => positions.set(path, at)
  })
  const fieldAt = (path: string): Position => (path === "" ? where : (positions.get(path) ?? fieldAt(parentOf(path))))
  const isWrong = (path: string): boolean => wrong.has(path) || (path !== "" && isWrong(parentOf(path)))
  try {
    const spec: MessageShape<D> = fromJson(schema, json)
    return { spec, fieldAt, isWrong, isPartial: context.problems.length > before }
  } catch (error) {
    // what the walk let through and protobuf does not take, e.g. a number beyond its range
    context.problems.push({ at: where, text: error instanceof Error ? error.message : String(error) })
    return undefined
  }
}
