/**
 * A YAML node read as a protobuf message: walks the message's descriptor and gives protobuf JSON, with the human forms
 * (durations, sizes, short enum names) converted and every problem told with its place.
 *
 * What is wrong is left out of the message, so that the rest of it can still be checked by whoever knows more (the server).
 *
 * Scalars are read from their source text where the field is a text, so that `command: [sleep, 010]` stays `010`. Aliases
 * are followed to a depth that no honest file has.
 */
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  ScalarType
} from "@bufbuild/protobuf"
import * as Result from "effect/Result"
import { type Document, isAlias, isMap, isNode, isScalar, isSeq, type Node } from "yaml"
import { parseBytes, parseDuration } from "./Quantity.ts"
import { nearest } from "./Suggest.ts"

/** A line of a file. */
export interface Position {
  readonly file: string
  readonly line: number
}

/** How the walk talks back. */
export interface Walk {
  readonly document: Document
  /** Keys of the outermost map that are not the message's. */
  readonly ignore: ReadonlySet<string>
  readonly position: (offset: number) => Position
  /** `path` is the field that the message lacks because of it, if any: nothing else need be said about that one. */
  readonly problem: (at: Position, text: string, path: string | undefined) => void
  /** Told for every field that is set: its path in JSON names (`restart.backoff.initial`) and where it stands. */
  readonly seen: (path: string, at: Position) => void
}

const maximumDepth = 32

const startOf = (node: Node): number => node.range?.[0] ?? 0

const resolved = (node: unknown, walk: Walk): Node | undefined => {
  if (!isNode(node)) return undefined
  return isAlias(node) ? node.resolve(walk.document) : node
}

/** `no field "memry"; did you mean "memory"?` */
export const unknownField = (name: string, known: ReadonlyArray<string>, near = nearest(name, known)): string => {
  return `no field "${name}"; ${near === undefined ? `there are ${known.join(", ")}` : `did you mean "${near}"?`}`
}

/** The message as protobuf JSON, without what was wrong. */
export const toJson = (node: Node, message: DescMessage, walk: Walk): JsonObject => {
  return messageJson(node, message, walk, "", walk.ignore, 0) ?? {}
}

const messageJson = (
  found: unknown,
  message: DescMessage,
  walk: Walk,
  path: string,
  ignore: ReadonlySet<string>,
  depth: number
): JsonObject | undefined => {
  const node = resolved(found, walk)
  if (node === undefined || !isMap(node) || depth > maximumDepth) {
    walk.problem(
      walk.position(node === undefined ? 0 : startOf(node)),
      `${path}: expected fields${depth > maximumDepth ? ", not so deep" : ""}`,
      path
    )
    return undefined
  }
  const json: JsonObject = {}
  for (const pair of node.items) {
    const key = isScalar(pair.key) ? String(pair.key.value) : ""
    const at = walk.position(isNode(pair.key) ? startOf(pair.key) : startOf(node))
    if (ignore.has(key)) continue
    const field = message.fields.find(({ jsonName, name }) => jsonName === key || name === key)
    if (field === undefined) {
      const known = message.fields.map(({ jsonName }) => jsonName)
      const near = nearest(key, known)
      const text = `${path === "" ? "" : `${path}: `}${unknownField(key, known, near)}`
      walk.problem(at, text, near && within(path, near))
      continue
    }
    const inner = within(path, field.jsonName)
    if (field.jsonName in json) walk.problem(at, `${inner}: given twice`, inner)
    walk.seen(inner, at)
    const value = resolved(pair.value, walk)
    if (value === undefined || (isScalar(value) && value.value === null)) {
      walk.problem(at, `${inner}: has no value`, inner)
      continue
    }
    const read = fieldJson(value, field, walk, inner, depth)
    if (read !== undefined) json[field.jsonName] = read
  }
  return json
}

const within = (path: string, field: string): string => (path === "" ? field : `${path}.${field}`)

const fieldJson = (node: Node, field: DescField, walk: Walk, path: string, depth: number): JsonValue | undefined => {
  if (field.fieldKind === "list") {
    if (!isSeq(node)) {
      walk.problem(walk.position(startOf(node)), `${path}: expected a list, such as [a, b]`, path)
      return undefined
    }
    const type = elementType(field.listKind, field)
    // a placeholder for what is wrong: the others keep their numbers
    return node.items.map((item, index) => valueJson(item, type, walk, `${path}[${index}]`, depth) ?? zeroOf(type))
  }
  if (field.fieldKind === "map") {
    if (!isMap(node)) {
      walk.problem(walk.position(startOf(node)), `${path}: expected NAME: VALUE pairs`, path)
      return undefined
    }
    const type = elementType(field.mapKind, field)
    // fromEntries: a key `__proto__` is a key like any other
    return Object.fromEntries(
      node.items.flatMap((pair) => {
        const key = isScalar(pair.key) ? (pair.key.source ?? String(pair.key.value)) : ""
        const inner = `${path}[${key}]`
        walk.seen(inner, walk.position(isNode(pair.key) ? startOf(pair.key) : startOf(node)))
        const read = valueJson(pair.value, type, walk, inner, depth)
        return read === undefined ? [] : [[key, read]]
      })
    )
  }
  return valueJson(node, elementType(field.fieldKind, field), walk, path, depth)
}

const elementType = (kind: "message" | "enum" | "scalar", field: DescField): ValueType => {
  if (kind === "message" && field.message !== undefined) return { message: field.message }
  if (kind === "enum" && field.enum !== undefined) return { enum: field.enum }
  return { scalar: field.scalar ?? ScalarType.STRING, name: field.name }
}

type ValueType =
  | { readonly message: DescMessage }
  | { readonly enum: DescEnum }
  | { readonly scalar: ScalarType; readonly name: string }

const zeroOf = (type: ValueType): JsonValue => {
  if ("message" in type) return {}
  if ("enum" in type) return 0
  return type.scalar === ScalarType.STRING || type.scalar === ScalarType.BYTES
    ? ""
    : type.scalar !== ScalarType.BOOL && 0
}

const valueJson = (found: unknown, type: ValueType, walk: Walk, path: string, depth: number): JsonValue | undefined => {
  const node = resolved(found, walk)
  if (
    "message" in type &&
    type.message.typeName !== "google.protobuf.Duration" &&
    type.message.typeName !== "google.protobuf.Timestamp"
  ) {
    return messageJson(node, type.message, walk, path, new Set(), depth + 1)
  }
  if (node === undefined || !isScalar(node) || node.value === null) {
    const at = walk.position(node === undefined ? 0 : startOf(node))
    walk.problem(at, `${path}: expected ${expected(type)}`, path)
    return undefined
  }
  const source = typeof node.value === "string" ? node.value : (node.source ?? JSON.stringify(node.value))
  const result =
    "message" in type
      ? type.message.typeName === "google.protobuf.Duration"
        ? durationJson(source)
        : Result.succeed(source)
      : "enum" in type
        ? enumJson(source, type.enum)
        : scalarJson(node.value, source, type.scalar, type.name)
  if (Result.isSuccess(result)) return result.success
  walk.problem(walk.position(startOf(node)), `${path}: expected ${result.failure}`, path)
  return undefined
}

const expected = (type: ValueType): string => {
  if ("message" in type) return "a value such as 10s"
  if ("enum" in type) return `one of ${shortNames(type.enum).join(", ")}`
  if (type.scalar === ScalarType.STRING) return "a text"
  if (type.scalar === ScalarType.BOOL) return "true or false"
  return "a number"
}

/** A duration as protobuf JSON: `1.500s`. */
const durationJson = (text: string): Result.Result<JsonValue, string> =>
  Result.map(parseDuration(text), ({ nanos, seconds }) =>
    nanos === 0 ? `${seconds}s` : `${seconds}.${String(nanos).padStart(9, "0")}s`
  )

/** The values of an enum as people write them: without the common prefix, in lower case, with hyphens; not the unspecified. */
export const shortNames = (desc: DescEnum): ReadonlyArray<string> =>
  desc.values.filter(({ number }) => number !== 0).map(({ name }) => shortName(desc, name))

const shortName = (desc: DescEnum, name: string): string => {
  const prefix = (desc.sharedPrefix ?? "").toUpperCase()
  return (name.startsWith(prefix) ? name.slice(prefix.length) : name).toLowerCase().replaceAll("_", "-")
}

/** An enum value by its short or its full name. */
const enumJson = (text: string, desc: DescEnum): Result.Result<JsonValue, string> => {
  const wanted = text.toLowerCase().replaceAll("_", "-")
  const value = desc.values.find(
    ({ name, number }) =>
      number !== 0 && (shortName(desc, name) === wanted || name.toLowerCase().replaceAll("_", "-") === wanted)
  )
  if (value !== undefined) return Result.succeed(value.name)
  const names = shortNames(desc)
  const near = nearest(wanted, names)
  return Result.fail(`one of ${names.join(", ")}, not "${text}"${near === undefined ? "" : ` (did you mean ${near}?)`}`)
}

const integers: ReadonlySet<ScalarType> = new Set([
  ScalarType.INT32,
  ScalarType.INT64,
  ScalarType.UINT32,
  ScalarType.UINT64,
  ScalarType.SINT32,
  ScalarType.SINT64,
  ScalarType.FIXED32,
  ScalarType.FIXED64,
  ScalarType.SFIXED32,
  ScalarType.SFIXED64
])

const largest: ReadonlyMap<ScalarType, bigint> = new Map([
  [ScalarType.UINT32, 2n ** 32n - 1n],
  [ScalarType.FIXED32, 2n ** 32n - 1n],
  [ScalarType.INT32, 2n ** 31n - 1n],
  [ScalarType.SINT32, 2n ** 31n - 1n],
  [ScalarType.SFIXED32, 2n ** 31n - 1n],
  [ScalarType.UINT64, 2n ** 64n - 1n],
  [ScalarType.FIXED64, 2n ** 64n - 1n],
  [ScalarType.INT64, 2n ** 63n - 1n],
  [ScalarType.SINT64, 2n ** 63n - 1n],
  [ScalarType.SFIXED64, 2n ** 63n - 1n]
])

const unsigned: ReadonlySet<ScalarType> = new Set([
  ScalarType.UINT32,
  ScalarType.UINT64,
  ScalarType.FIXED32,
  ScalarType.FIXED64
])

const scalarJson = (
  value: unknown,
  source: string,
  type: ScalarType,
  name: string
): Result.Result<JsonValue, string> => {
  if (type === ScalarType.STRING || type === ScalarType.BYTES) return Result.succeed(source)
  if (type === ScalarType.BOOL) {
    return typeof value === "boolean" ? Result.succeed(value) : Result.fail(`true or false, not "${source}"`)
  }
  if (integers.has(type)) {
    if (name.endsWith("bytes")) return Result.map(parseBytes(source), String)
    if (!/^[+-]?\d{1,20}$/.test(source)) return Result.fail(`a whole number, not "${source}"`)
    const number = BigInt(source)
    const most = largest.get(type) ?? 0n
    const least = unsigned.has(type) ? 0n : -most - 1n
    if (number < least || number > most) return Result.fail(`a whole number from ${least} to ${most}, not ${source}`)
    return Result.succeed(String(number))
  }
  const number = typeof value === "number" ? value : source.trim() === "" ? Number.NaN : Number(source)
  return Number.isFinite(number) ? Result.succeed(number) : Result.fail(`a number, not "${source}"`)
}
