/**
 * From the text of a machine config (YAML or JSON, which is YAML too) to the config, or to everything that is wrong with it,
 * each with its field. What comes from a disk, a hypervisor or a network is hostile: bounded in size, depth and number of
 * values before anything looks at it.
 *
 * Trap: the text is kept beside the config, so that a person gets back the comments that were written; the config alone
 * decides.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Yaml from "effect/encoding/Yaml"
import { createHash } from "node:crypto"
import { MachineConfig } from "./MachineConfig.ts"
import { apply as applyPatch, equals, isObject, type Json } from "./MergePatch.ts"

/** One field that is wrong. The path is that in the document, like `time.servers[1]`; empty: the document as a whole. */
export const Violation = Schema.Struct({ field: Schema.String, description: Schema.String })
export type Violation = typeof Violation.Type

/** A document that decodes. */
export interface Document {
  /** As it was written. */
  readonly text: string
  readonly config: MachineConfig
}

/** The most bytes that a document may have. */
export const mostBytes = 256 * 1024

/** Values and depth that no honest document has. */
const mostValues = 10_000
const mostDepth = 16

/** The path of a field: `kernel.sysctls["vm.swappiness"]`. */
export const fieldPath = (path: ReadonlyArray<PropertyKey>): string =>
  path.reduce<string>(
    (text, key) =>
      typeof key === "number"
        ? `${text}[${key}]`
        : /^[A-Za-z_]\w*$/.test(String(key))
          ? `${text}${text === "" ? "" : "."}${String(key)}`
          : `${text}[${JSON.stringify(String(key))}]`,
    ""
  )

const whole = (description: string): ReadonlyArray<Violation> => [{ field: "", description }]

/** The value as JSON, if it is no more than one and within the bounds. Anchors can make a short text a huge value. */
const bounded = (value: unknown): Result.Result<Json, string> => {
  let values = 0
  const walk = (found: unknown, depth: number): Json | undefined => {
    values += 1
    if (values > mostValues || depth > mostDepth) return undefined
    if (found === null || typeof found === "string" || typeof found === "boolean" || typeof found === "number") {
      return found
    }
    if (Array.isArray(found)) {
      const items = found.map((item) => walk(item, depth + 1))
      return items.every((item) => item !== undefined) ? items : undefined
    }
    if (typeof found !== "object") return undefined
    const members: Array<readonly [string, Json]> = []
    for (const [name, item] of Object.entries(found)) {
      const read = walk(item, depth + 1)
      if (read === undefined) return undefined
      members.push([name, read])
    }
    return Object.fromEntries(members)
  }
  const read = walk(value, 0)
  return read === undefined
    ? Result.fail(`Expected at most ${mostValues} values, at most ${mostDepth} deep`)
    : Result.succeed(read)
}

/** A text as JSON, or what is wrong with it. */
export const parse = (text: string): Result.Result<Json, string> => {
  if (Buffer.byteLength(text) > mostBytes) return Result.fail(`Expected at most ${mostBytes} bytes`)
  return Result.flatMap(
    Result.try({
      try: (): unknown => Yaml.parse(text),
      catch: (cause) => `it is neither YAML nor JSON: ${cause instanceof Error ? cause.message : String(cause)}`
    }),
    bounded
  )
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

const words: ReadonlyMap<string, string> = new Map([
  ["Missing key", "must be set"],
  ["Expected no excess property", "is no field of a machine config; `ironwood config schema` has them all"]
])

const check = Schema.decodeUnknownResult(MachineConfig, { errors: "all", onExcessProperty: "error" })
const isWritten = Schema.is(Schema.toEncoded(MachineConfig))

/** A config, from the JSON of one. */
export const decode = (json: Json): Result.Result<MachineConfig, ReadonlyArray<Violation>> => {
  const checked = check(json)
  if (Result.isFailure(checked) && isObject(json)) {
    return Result.fail(
      format(checked.failure.issue).issues.map(({ message, path = [] }) => ({
        field: fieldPath(path.map((part) => (typeof part === "object" ? part.key : part))),
        description: words.get(message) ?? message
      }))
    )
  }
  return isWritten(json)
    ? Result.succeed(json)
    : Result.fail(whole("Expected fields, beginning with `version: ironwood/v1`"))
}

/** Reads a text. */
export const read = (text: string): Result.Result<Document, ReadonlyArray<Violation>> =>
  Result.map(Result.flatMap(Result.mapError(parse(text), whole), decode), (config) => ({ text, config }))

/** Reads bytes, which must be UTF-8; what fills up a disk behind the text, zeros, is not part of it. */
export const readBytes = (bytes: Uint8Array): Result.Result<Document, ReadonlyArray<Violation>> =>
  Result.flatMap(
    Result.try({
      try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
      catch: () => whole("it is no text in UTF-8")
    }),
    read
  )

/** A config as a text: for one that was patched, or is to be shown without comments. */
export const write = (config: MachineConfig): string => `${JSON.stringify(config, null, 2)}\n`

/** A document after a JSON Merge Patch; one that changes nothing leaves the text, with its comments, as it is. */
export const patched = (document: Document, patch: Json): Result.Result<Document, ReadonlyArray<Violation>> =>
  Result.map(decode(applyPatch(document.config, patch)), (config) =>
    equals(config, document.config) ? document : { text: write(config), config }
  )

/** The digest of what was read, as `sha256:HEX`. */
export const digestOf = (bytes: Uint8Array | string): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`

/** Violations in one sentence. */
export const describe = (violations: ReadonlyArray<Violation>): string =>
  violations.map(({ description, field }) => (field === "" ? description : `${field}: ${description}`)).join("; ")
