/**
 * Image references: `name[:tag][@digest]`, or a digest alone. What a person types and what an image is stored under.
 *
 * One image has one spelling, the one that people use: `docker.io/library/hello` and `library/hello` are `hello`, and the default
 * tag is made explicit. Nothing is added that says where an image comes from: one that was imported has no registry.
 *
 * Trap: `localhost:5000/app` has a port and no tag: the tag is after the last slash.
 */
import * as Effect from "effect/Effect"
import { ReferenceInvalid } from "./ContentError.ts"
import { type Digest, isDigest } from "./Digest.ts"

/** A parsed reference. At least one of `name` and `digest` is there; `tag` only with a name. */
export interface Reference {
  readonly name: string | undefined
  readonly tag: string | undefined
  readonly digest: Digest | undefined
}

/** `docker.io/library/hello` as people call it: `hello`. */
export const familiar = (name: string): string =>
  name.replace(/^(?:index\.)?docker\.io\//, "").replace(/^library\/(?=[^/]+$)/, "")

const component = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
const host = "(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9a-fA-F:]+\\])(?::[0-9]+)?"
const namePattern = new RegExp(`^(?:${host}/)?${component}(?:/${component})*$`)
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/

/** Reads a reference; the error says which part is wrong. A name without tag and digest gets the tag `latest`. */
export const parse = Effect.fnUntraced(function* (text: string): Effect.fn.Return<Reference, ReferenceInvalid> {
  const wrong = (problem: string) => new ReferenceInvalid({ reference: text.slice(0, 300), problem })
  if (isDigest(text)) return { name: undefined, tag: undefined, digest: text }
  if (text.length === 0) return yield* wrong("it is empty")
  if (text.length > 512) return yield* wrong("it is longer than 512 characters")
  const at = text.indexOf("@")
  const digest = at < 0 ? undefined : text.slice(at + 1)
  if (digest !== undefined && !isDigest(digest)) return yield* wrong(`"${digest}" after "@" is no digest`)
  const rest = at < 0 ? text : text.slice(0, at)
  const colon = rest.indexOf(":", rest.lastIndexOf("/") + 1)
  const name = colon < 0 ? rest : rest.slice(0, colon)
  const tag = colon < 0 ? undefined : rest.slice(colon + 1)
  if (!namePattern.test(name)) {
    return yield* wrong(`the name "${name}" must be lower-case letters, digits, ".", "_", "-", in parts joined by "/"`)
  }
  if (tag !== undefined && !tagPattern.test(tag)) {
    return yield* wrong(`the tag "${tag}" must be 1 to 128 letters, digits, ".", "_" or "-"`)
  }
  return { name: familiar(name), tag: tag ?? (digest === undefined ? "latest" : undefined), digest }
})

/** The text under which a named reference is stored: `name:tag`. Undefined when it has only a digest. */
export const tagged = (reference: Reference): string | undefined =>
  reference.name === undefined || reference.tag === undefined ? undefined : `${reference.name}:${reference.tag}`

/** The text under which a pulled image is known by what its registry calls it: `name@digest`. */
export const pinned = (name: string, digest: Digest): string => `${name}@${digest}`

/** The error for a reference that must have a name (to store an image under) and has none. */
export const notAName = (text: string): ReferenceInvalid =>
  new ReferenceInvalid({ reference: text, problem: "a name with a tag is needed here, not a digest" })
