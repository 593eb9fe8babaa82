/**
 * Values on their way to the database and back: JSON through a `Schema`, bounded in size, with problems that name the
 * field.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { type FieldProblem, StateValueInvalid } from "./StateErrors.ts"

/** Characters that the JSON of one value may have. Bigger things are content, not state. */
export const MAX_VALUE_LENGTH = 1024 * 1024

/** Characters that a name may have. */
export const MAX_NAME_LENGTH = 512

const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

const fieldOf = (path: ReadonlyArray<unknown>): string =>
  path
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("")
    .replace(/^\./, "")

const problemsOf = (error: Schema.SchemaError): ReadonlyArray<FieldProblem> =>
  formatIssue(error.issue).issues.map(({ message, path = [] }) => ({
    field: fieldOf(path.map((segment) => (typeof segment === "object" ? segment.key : segment))),
    problem: message
  }))

/** A schema's way to JSON and back; errors name the field. */
export interface JsonCodec<A> {
  readonly encode: (value: A) => Result.Result<string, ReadonlyArray<FieldProblem>>
  readonly decode: (json: string) => Result.Result<A, ReadonlyArray<FieldProblem>>
}

export const jsonCodec = <A, I>(schema: Schema.Codec<A, I>): JsonCodec<A> => {
  const codec = Schema.fromJsonString(Schema.toCodecJson(schema))
  const encode = Schema.encodeResult(codec, { errors: "all" })
  const decode = Schema.decodeUnknownResult(codec, { errors: "all" })
  return {
    encode: (value) =>
      Result.mapError(encode(value), problemsOf).pipe(
        Result.filterOrFail(
          (json) => json.length <= MAX_VALUE_LENGTH,
          (json) => [
            { field: "", problem: `it is ${json.length} characters long as JSON, more than ${MAX_VALUE_LENGTH}` }
          ]
        )
      ),
    decode: (json) => Result.mapError(decode(json), problemsOf)
  }
}

/** What is wrong with a name; empty when it is a good one. SQLite keeps UTF-8, in which half a surrogate pair has no place. */
export const nameProblems = (name: string): ReadonlyArray<FieldProblem> => {
  if (name.length === 0) return [{ field: "name", problem: "it is empty" }]
  if (name.length > MAX_NAME_LENGTH)
    return [{ field: "name", problem: `it has more than ${MAX_NAME_LENGTH} characters` }]
  if (!name.isWellFormed() || name.includes("\0"))
    return [{ field: "name", problem: "it holds a lone surrogate or a NUL" }]
  return []
}

/** The error of a value that was given (`stored` false) or found in the database. */
export const valueInvalid = (
  kind: string,
  name: string,
  stored: boolean,
  problems: ReadonlyArray<FieldProblem>
): StateValueInvalid => new StateValueInvalid({ kind, name, stored, problems })
