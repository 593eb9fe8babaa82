/**
 * What can go wrong between this host and a registry, as data. What an image itself is to blame for (a wrong digest, a missing
 * platform, a hostile layer) are the same errors as for an image on disk: see `ContentError`.
 *
 * `isPassing` tells what may be gone a moment later: only that is tried again, by the client itself a few times and then by
 * whoever asked for the image. None of these errors ever holds a password or a token.
 */
import * as Schema from "effect/Schema"
import type { ImageError } from "../ContentError.ts"

/** No connection: no such host, refused, broken off, TLS that does not hold. */
export class RegistryUnreachable extends Schema.TaggedError<RegistryUnreachable>()("RegistryUnreachable", {
  /** Host, and port if it is not the usual one. */
  registry: Schema.String,
  problem: Schema.String,
  /** A certificate that is not trusted or a name that does not exist stays so. */
  passing: Schema.Boolean
}) {
  override get message(): string {
    return `registry ${this.registry} cannot be reached: ${this.problem}`
  }
}

/** It took the connection or began to answer, and then nothing (or next to nothing) came for too long. */
export class RegistryStalled extends Schema.TaggedError<RegistryStalled>()("RegistryStalled", {
  registry: Schema.String,
  seconds: Schema.Finite,
  /** What was waited for: `an answer`, `the bytes of sha256:…`. */
  waitingFor: Schema.String
}) {
  override get message(): string {
    return `registry ${this.registry} has stalled: ${this.waitingFor} did not come for ${this.seconds} s; ${this.hint}`
  }
  get hint(): string {
    return "try again later, or set registries.timeoutSeconds in the machine config when it is just slow"
  }
}

/** It answers that it cannot now (a status of 500 and above, 408), or hung up in the middle of an answer. */
export class RegistryUnavailable extends Schema.TaggedError<RegistryUnavailable>()("RegistryUnavailable", {
  registry: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `registry ${this.registry} does not serve: ${this.problem}; try again later`
  }
}

/** 429: too many requests, or the pulls that this account has are used up. */
export class RegistryBusy extends Schema.TaggedError<RegistryBusy>()("RegistryBusy", {
  registry: Schema.String,
  /** As `Retry-After` says; a guess when it says nothing. */
  retryAfterSeconds: Schema.Int
}) {
  override get message(): string {
    return `registry ${this.registry} wants fewer requests: the next one in ${this.retryAfterSeconds} s; ${this.hint}`
  }
  get hint(): string {
    return "wait, use credentials that may pull more, or configure a mirror (registries.hosts in the machine config)"
  }
}

/** 401 or 403: it wants credentials, other ones, or rights that these do not have. */
export class CredentialsRefused extends Schema.TaggedError<CredentialsRefused>()("CredentialsRefused", {
  registry: Schema.String,
  repository: Schema.String,
  /** `none were given`, `the user name or password is wrong`… */
  problem: Schema.String
}) {
  override get message(): string {
    return `registry ${this.registry} does not let us pull ${this.repository}: ${this.problem}; ${this.hint}`
  }
  get hint(): string {
    return `check the name of the image, log in (docker login ${this.registry}), or set registries.hosts["${this.registry}"] in the machine config`
  }
}

/** 404: it has no such repository, tag or digest. */
export class RemoteImageNotFound extends Schema.TaggedError<RemoteImageNotFound>()("RemoteImageNotFound", {
  reference: Schema.String,
  registry: Schema.String
}) {
  override get message(): string {
    return `registry ${this.registry} has no image ${this.reference}; ${this.hint}`
  }
  get hint(): string {
    return "check the name and the tag"
  }
}

/** It answers what no registry should. */
export class RegistryAnswerInvalid extends Schema.TaggedError<RegistryAnswerInvalid>()("RegistryAnswerInvalid", {
  registry: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `registry ${this.registry} gives an answer that cannot be used: ${this.problem}`
  }
}

/** It sends us somewhere we do not go. */
export class RedirectRefused extends Schema.TaggedError<RedirectRefused>()("RedirectRefused", {
  registry: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `registry ${this.registry} redirects to where we do not go: ${this.problem}`
  }
}

/** The registry has the image, and it is one that cannot be used: the same again gives the same. */
export class RemoteImageInvalid extends Schema.TaggedError<RemoteImageInvalid>()("RemoteImageInvalid", {
  reference: Schema.String,
  /** The tag of the `ImageError`. */
  reason: Schema.String,
  problem: Schema.String
}) {
  static readonly of = (reference: string, { _tag, message }: ImageError): RemoteImageInvalid =>
    new RemoteImageInvalid({ reference, reason: _tag, problem: message })
  override get message(): string {
    return `image ${this.reference} cannot be used: ${this.problem}`
  }
}

/** The policy `never`, and the image is not here. */
export class PullNotAllowed extends Schema.TaggedError<PullNotAllowed>()("PullNotAllowed", {
  reference: Schema.String
}) {
  override get message(): string {
    return `no image ${this.reference} here, and the pull policy is "never"; ${this.hint}`
  }
  get hint(): string {
    return `pull it (ironwood image pull ${this.reference}), import it, or use another policy`
  }
}

/** What a registry can fail with. */
export const RegistryError = Schema.Union([
  RegistryUnreachable,
  RegistryStalled,
  RegistryUnavailable,
  RegistryBusy,
  CredentialsRefused,
  RemoteImageNotFound,
  RegistryAnswerInvalid,
  RedirectRefused
])
export type RegistryError = typeof RegistryError.Type

/** Whether the same request may succeed a moment later. */
export const isPassing = (error: { readonly _tag: string; readonly passing?: boolean }): boolean =>
  error._tag === "RegistryStalled" ||
  error._tag === "RegistryUnavailable" ||
  error._tag === "RegistryBusy" ||
  (error._tag === "RegistryUnreachable" && error.passing === true)
