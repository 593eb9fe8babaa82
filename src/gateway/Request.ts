/**
 * Requests are hostile until decoded: what they carry is turned into the domain's types by the domain's own schemas, and
 * everything that is wrong is told at once, each with the path of its field in the request. Before any handler looks at
 * it, a request must have the fields that its proto says are REQUIRED ({@link missingFields}).
 *
 * The schemas know the domain's names; {@link fieldPath} finds the request's by walking the message's descriptor:
 * `["resources", "memoryBytes"]` in a container's spec is `spec.resources.memory_bytes`, a map's key is `[key]`.
 */
import { getOption, isFieldSet } from "@bufbuild/protobuf"
import type { DescField, DescMessage, DescMethod, Message } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { field_behavior as behaviorOption, FieldBehavior } from "../../proto/generated/google/api/field_behavior_pb.ts"

/** One field that is wrong. `field` is a path as in `spec.command[2]`; empty: the request as a whole. */
export const Violation = Schema.Struct({ field: Schema.String, description: Schema.String })
export type Violation = typeof Violation.Type

/** The request is wrong in at least one field. Nothing was done. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  violations: Schema.Array(Violation)
}) {
  override get message() {
    return this.violations
      .map(({ field, description }) => (field === "" ? description : `${field}: ${description}`))
      .join("; ")
  }
}

/** A request that is wrong in one field. */
export const invalid = (field: string, description: string): InvalidRequest =>
  new InvalidRequest({ violations: [{ field, description }] })

const requiredFields = new Map<DescMessage, ReadonlyArray<DescField>>()

/** The fields of a request that `google.api.field_behavior` calls REQUIRED; looked up once for each message. */
const requiredOf = (message: DescMessage): ReadonlyArray<DescField> => {
  const known = requiredFields.get(message)
  if (known !== undefined) return known
  const required = message.fields.filter((field) => getOption(field, behaviorOption).includes(FieldBehavior.REQUIRED))
  requiredFields.set(message, required)
  return required
}

/** What is wrong when the request lacks a required field of its own (not of what is in it); an empty text is none. */
export const missingFields = (method: DescMethod, request: Message): InvalidRequest | undefined => {
  const missing = requiredOf(method.input).filter((field) => !isFieldSet(request, field))
  if (missing.length === 0) return undefined
  return new InvalidRequest({ violations: missing.map(({ name }) => ({ field: name, description: "must be set" })) })
}

const messageOf = (field: DescField | undefined): DescMessage | undefined =>
  field !== undefined && (field.fieldKind === "message" || field.fieldKind === "list" || field.fieldKind === "map")
    ? field.message
    : undefined

/** The path of a field of `message` in the request, below `prefix` (`spec`), from a path in the domain's names. */
export const fieldPath = (prefix: string, message: DescMessage, path: ReadonlyArray<PropertyKey>): string => {
  let text = prefix
  let within: DescMessage | undefined = message
  let inside: "message" | "list" | "map" = "message"
  for (const key of path) {
    if (inside !== "message") {
      text += `[${String(key)}]`
      inside = "message"
      continue
    }
    const field: DescField | undefined = within?.fields.find((candidate) => candidate.localName === key)
    text += `${text === "" ? "" : "."}${field?.name ?? String(key)}`
    within = messageOf(field)
    inside = field?.fieldKind === "list" || field?.fieldKind === "map" ? field.fieldKind : "message"
  }
  return text
}

/** What is to be said of a key that a schema does not take: in a map it is a name that cannot be, else no field at all. */
const keyNames: Readonly<Record<string, string>> = {
  environment: "is no variable's name: 1 to 256 characters without =",
  labels: "is no label's name: 1 to 128 characters without blanks and ="
}

const descriptionOf = (message: string, path: ReadonlyArray<PropertyKey>): string => {
  if (message === "Missing key") return "must be set"
  if (message !== "Expected no excess property") return message
  return keyNames[String(path.at(-2))] ?? "is no field that is known here"
}

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** What a schema found wrong, as violations of the fields of `message` at `prefix`. */
export const violationsOf = (
  prefix: string,
  message: DescMessage,
  issue: SchemaIssue.Issue
): ReadonlyArray<Violation> =>
  issuesOf(issue).issues.map((found) => {
    const path = (found.path ?? []).map((segment) => (typeof segment === "object" ? segment.key : segment))
    return { field: fieldPath(prefix, message, path), description: descriptionOf(found.message, path) }
  })

/**
 * A decoder of a part of requests: `schema` is the domain's, `message` the descriptor of that part and `prefix` its path
 * in the request. Fields that the schema does not know are wrong too: a mapping forgot them.
 */
export const decoder = <S extends Schema.Top & { readonly DecodingServices: never }>(
  prefix: string,
  message: DescMessage,
  schema: S
): ((encoded: unknown) => Effect.Effect<S["Type"], InvalidRequest>) => {
  const decode = Schema.decodeUnknownEffect(schema, { errors: "all", onExcessProperty: "error" })
  return (encoded) =>
    Effect.mapError(
      decode(encoded),
      ({ issue }) => new InvalidRequest({ violations: violationsOf(prefix, message, issue) })
    )
}

/** The domain's word for an enum value: nothing for 0, and what no schema takes for a value that we do not know. */
export const wordOf = (words: Readonly<Record<string, number>>, value: number): string | undefined =>
  value === 0 ? undefined : (Object.keys(words).find((word) => words[word] === value) ?? `unknown value ${value}`)

/** An object without the entries that are undefined: left out, so that the schema fills in the default. */
export const given = (entries: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined))
