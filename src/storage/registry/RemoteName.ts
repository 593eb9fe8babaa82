/**
 * Where an image is to be had: what a person types (`alpine`, `ghcr.io/a/b:1`, `localhost:5000/app@sha256:…`) as registry,
 * repository, and tag or digest, by docker's rules.
 *
 * Trap: the first part of a name is a registry only when it looks like one: it has a dot or a colon, or is `localhost`. Without
 * one it is docker.io, whose API lives on another host, and whose own images live under `library/`.
 */
import * as Effect from "effect/Effect"
import { ReferenceInvalid } from "../ContentError.ts"
import type { Digest } from "../Digest.ts"
import * as Reference from "../Reference.ts"

export interface RemoteName {
  /** As it is configured and shown: `docker.io`, `localhost:5000`. */
  readonly registry: string
  /** `library/alpine`. */
  readonly repository: string
  readonly tag: string | undefined
  /** With a digest, the tag does not matter to the registry. */
  readonly digest: Digest | undefined
  /** What the image is called here, without tag and digest: `alpine`. */
  readonly name: string
}

const dockerHub = "docker.io"

const isRegistry = (part: string): boolean => /[.:[]/.test(part) || part === "localhost" || part !== part.toLowerCase()

export const parse = Effect.fnUntraced(function* (text: string): Effect.fn.Return<RemoteName, ReferenceInvalid> {
  const { digest, name, tag } = yield* Reference.parse(text)
  if (name === undefined) {
    const problem = "a digest alone does not say where to pull from; write NAME@DIGEST"
    return yield* new ReferenceInvalid({ reference: text.slice(0, 300), problem })
  }
  const slash = name.indexOf("/")
  const first = name.slice(0, Math.max(slash, 0))
  const registry = slash > 0 && isRegistry(first) ? first : dockerHub
  const rest = registry === dockerHub ? name : name.slice(slash + 1)
  const repository = registry === dockerHub && !rest.includes("/") ? `library/${rest}` : rest
  if (repository !== repository.toLowerCase()) {
    return yield* new ReferenceInvalid({ reference: text.slice(0, 300), problem: "the repository must be lower case" })
  }
  return { registry, repository, tag, digest, name }
})

/** What a registry is to be asked for. */
export const wanted = ({ digest, tag }: RemoteName): string => digest ?? tag ?? "latest"

/** Its whole name, for people. */
export const describe = ({ digest, name, tag }: RemoteName): string =>
  `${name}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`
