/**
 * Pages of lists that are sorted by a key: a page token is the key of the last element of the page before, so that a
 * list that changes between pages neither repeats nor skips what stays in it.
 *
 * The token also carries which list it is of and a checksum of the filters, since a token is only good for the call that
 * issued it. It is opaque to clients, not secret.
 */
import { create, toBinary } from "@bufbuild/protobuf"
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import { invalid } from "./Request.ts"
import type { InvalidRequest } from "./Request.ts"

/** How many elements a page has. `byDefault` when the client does not say, never more than `most`. */
export interface PageLimits {
  readonly byDefault: number
  readonly most: number
}

/** For lists of containers, sandboxes and images. */
export const resourceLimits: PageLimits = { byDefault: 100, most: 1_000 }

/** The number of elements a client gets that asks for `asked`, 0 meaning the default. */
export const sizeOf = (asked: number, { byDefault, most }: PageLimits): number =>
  asked === 0 ? byDefault : Math.min(asked, most)

const Token = Schema.fromJsonString(Schema.Tuple([Schema.String, Schema.String]))
const encode = Schema.encodeSync(Token)
const decode = Schema.decodeUnknownOption(Token)

/** The filters of a request. Maps come off the wire in any order, and mean the same in each. */
export type Filters = Readonly<
  Record<string, string | ReadonlyArray<string | number> | Readonly<Record<string, string>>>
>

/** Names a list together with its filters. */
const scopeOf = (list: string, filters: Filters): string => {
  const canonical = Object.entries(filters).map(([name, value]) =>
    typeof value === "string"
      ? [name, value]
      : [name, Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1))]
  )
  return createHash("sha256")
    .update(JSON.stringify([list, canonical]))
    .digest("base64url")
    .slice(0, 12)
}

/** The token of the page after the element with this key. */
export const tokenAfter = (list: string, filters: Filters, key: string): string =>
  Buffer.from(encode([scopeOf(list, filters), key])).toString("base64url")

/** The key in a token; nothing for the first page. Fails for a token of another list, of other filters or of nobody. */
export const keyIn = (
  list: string,
  filters: Filters,
  token: string
): Effect.Effect<Option.Option<string>, InvalidRequest> => {
  if (token === "") return Effect.succeedNone
  const decoded = decode(Buffer.from(token, "base64url").toString())
  return Option.isSome(decoded) && decoded.value[0] === scopeOf(list, filters)
    ? Effect.succeedSome(decoded.value[1])
    : Effect.fail(invalid("page_token", "was not issued by this call with these filters: start with the first page"))
}

/** What of a request asks for a page. */
export interface PageRequest {
  readonly pageSize: number
  readonly pageToken: string
}

/** Bytes of a page. Clients take 4 MiB in one message by default, and one element has at most half of that. */
const pageBytes = 1024 * 1024

/** Elements between which others have their turn: to make a message of one and to weigh it takes some 20 µs. */
const slice = 32

/** The messages of the elements from the first one on that a page has room for; at least one, as no page may be in vain. */
export const fitting = Effect.fnUntraced(function* <A, M extends DescMessage, R>(
  schema: M,
  elements: ReadonlyArray<A>,
  toProto: (element: A) => Effect.Effect<MessageInitShape<M>, never, R>
) {
  const kept: Array<MessageShape<M>> = []
  let bytes = 0
  for (const [index, element] of elements.entries()) {
    if (index % slice === slice - 1) yield* Effect.yieldNow
    const message = create(schema, yield* toProto(element))
    bytes += toBinary(schema, message).length
    if (bytes > pageBytes && kept.length > 0) break
    kept.push(message)
  }
  return kept
})

/** What the elements of a list are on the wire, and the key they are sorted by, which is unique in the list. */
export interface ListOf<A, M extends DescMessage> {
  readonly schema: M
  readonly toProto: (element: A) => MessageInitShape<M>
  readonly key: (element: A) => string
}

/** One page of a list. `elements` is the whole list, in any order. */
export const pageBy = Effect.fnUntraced(function* <A, M extends DescMessage>(
  list: string,
  filters: Filters,
  request: PageRequest,
  elements: ReadonlyArray<A>,
  { key, schema, toProto }: ListOf<A, M>
): Effect.fn.Return<{ readonly page: Array<MessageShape<M>>; readonly nextPageToken: string }, InvalidRequest> {
  const after = yield* keyIn(list, filters, request.pageToken)
  const rest = elements
    .map((element) => ({ element, key: key(element) }))
    .filter((entry) => Option.isNone(after) || entry.key > after.value)
    .sort((one, other) => (one.key < other.key ? -1 : 1))
  const wanted = rest.slice(0, sizeOf(request.pageSize, resourceLimits))
  const page = yield* fitting(schema, wanted, ({ element }) => Effect.sync(() => toProto(element)))
  const last = wanted[page.length - 1]
  return {
    page,
    nextPageToken: last === undefined || page.length === rest.length ? "" : tokenAfter(list, filters, last.key)
  }
})

/** True when `labels` has everything that is `wanted`. */
export const hasLabels = (
  labels: Readonly<Record<string, string>>,
  wanted: Readonly<Record<string, string>>
): boolean => Object.entries(wanted).every(([name, value]) => labels[name] === value)
