/**
 * What a registry wants to know of us before it answers: nothing, a password (`Basic`), or a token that a token server gives
 * for one repository (`Bearer`; distribution specification, "token authentication"). It is asked only after a challenge, and
 * remembered per endpoint, repository and person until it expires.
 *
 * Traps: the token server is named by the registry and gets the password, as the protocol has it; so never in the clear unless
 * the registry itself is. The scope is always ours (`pull` of this repository), whatever the challenge says.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import * as KeyedLock from "../KeyedLock.ts"
import * as Challenge from "./Challenge.ts"
import { atMost, type Http } from "./Http.ts"
import { CredentialsRefused, RegistryAnswerInvalid, type RegistryError } from "./RegistryError.ts"
import type { Credentials, Endpoint } from "./RegistrySettings.ts"
import { ofStatus } from "./Status.ts"

export interface Authorization {
  /** The `Authorization` header that is known to be wanted; undefined: none is, so far. */
  readonly known: (endpoint: Endpoint, repository: string) => Effect.Effect<string | undefined>
  /** The header that answers a challenge. `refused`: the one that was just sent. */
  readonly answer: (
    endpoint: Endpoint,
    repository: string,
    challenge: string,
    refused: string | undefined
  ) => Effect.Effect<string, RegistryError>
}

const TokenAnswer = Schema.fromJsonString(
  Schema.Struct({
    token: Schema.optionalKey(Schema.String),
    access_token: Schema.optionalKey(Schema.String),
    expires_in: Schema.optionalKey(Schema.Finite)
  })
)
/** Token servers that say nothing mean a minute. */
const usualSeconds = 60
/** A token that expires within this is not worth sending. */
const marginMilliseconds = 5_000
const maximumTokenBytes = 64 * 1024
/** Of repositories; the oldest go first. */
const remembered = 1000

interface Known {
  readonly header: string
  readonly until: number
}

const basic = ({ password, username }: Credentials): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`

/** Never the password itself, which would be in memory for longer than it must. */
const keyOf = ({ base, credentials }: Endpoint, repository: string): string =>
  `${base} ${repository} ${
    credentials === undefined ? "" : createHash("sha256").update(JSON.stringify(credentials)).digest("base64")
  }`

export const make = (http: Http): Authorization => {
  const store = new Map<string, Known>()
  const locks = KeyedLock.make()

  const remember = (key: string, known: Known) => {
    store.delete(key)
    store.set(key, known)
    for (const oldest of store.keys()) {
      if (store.size <= remembered) break
      store.delete(oldest)
    }
    return known.header
  }

  const recall = (key: string) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const known = store.get(key)
      return known === undefined || known.until <= now ? undefined : known.header
    })

  const fetchToken = Effect.fnUntraced(function* (
    endpoint: Endpoint,
    repository: string,
    parameters: ReadonlyMap<string, string>
  ): Effect.fn.Return<Known, RegistryError> {
    const { base, credentials, name: registry } = endpoint
    const invalid = (problem: string) => new RegistryAnswerInvalid({ registry, problem })
    const realm = parameters.get("realm") ?? ""
    const url = URL.canParse(realm) ? new URL(realm) : undefined
    if (url === undefined || (url.protocol !== "https:" && url.protocol !== "http:")) {
      return yield* invalid("it names no token server that can be asked (the realm of its WWW-Authenticate is no URL)")
    }
    if (url.protocol === "http:" && base.startsWith("https:")) {
      return yield* invalid(`it wants the password sent in the clear, to ${url.host}`)
    }
    const form = new URLSearchParams({ scope: `repository:${repository}:pull` })
    const service = parameters.get("service")
    if (service !== undefined) form.set("service", service)
    const refresh = credentials?.identityToken
    if (refresh !== undefined) {
      form.set("grant_type", "refresh_token")
      form.set("refresh_token", refresh)
      form.set("client_id", "ironwood")
    } else {
      if (credentials !== undefined) form.set("account", credentials.username)
      for (const [key, value] of form) url.searchParams.set(key, value)
    }
    const ask = http.send({
      method: refresh === undefined ? "GET" : "POST",
      url,
      headers: {
        accept: "application/json",
        ...(refresh !== undefined
          ? { "content-type": "application/x-www-form-urlencoded" }
          : credentials === undefined
            ? {}
            : { authorization: basic(credentials) })
      },
      ...(refresh === undefined ? {} : { body: form.toString() }),
      registry: url.host,
      what: "a token",
      certificateAuthority: endpoint.certificateAuthority
    })
    const { answer, bytes } = yield* Effect.scoped(
      Effect.flatMap(ask, (answer) => Effect.map(atMost(answer, maximumTokenBytes), (bytes) => ({ answer, bytes })))
    )
    if (answer.status === 401 || answer.status === 403) {
      const problem =
        credentials === undefined
          ? "it wants credentials, and none were given"
          : `its token server ${url.host} refuses the user name or the password`
      return yield* new CredentialsRefused({ registry, repository, problem })
    }
    if (answer.status !== 200) return yield* ofStatus(url.host, answer, bytes, "a token")
    if (bytes.length > maximumTokenBytes) return yield* invalid("its token server sends more than a token can be")
    const decoded = yield* Schema.decodeEffect(TokenAnswer)(bytes.toString("utf8")).pipe(
      Effect.mapError(() => invalid(`its token server ${url.host} sends no token`))
    )
    const token = decoded.token ?? decoded.access_token ?? ""
    if (!/^[\x21-\x7e]+$/.test(token)) return yield* invalid(`its token server ${url.host} sends no token`)
    const seconds = Math.min(Math.max(decoded.expires_in ?? usualSeconds, 1), 86_400)
    const now = yield* Clock.currentTimeMillis
    return { header: `Bearer ${token}`, until: now + Math.max(seconds * 1000 - marginMilliseconds, 1000) }
  })

  const answer = Effect.fnUntraced(function* (
    endpoint: Endpoint,
    repository: string,
    challenge: string,
    refused: string | undefined
  ): Effect.fn.Return<string, RegistryError> {
    const key = keyOf(endpoint, repository)
    const wanted = Challenge.parse(challenge)
    const bearer = wanted.find(({ scheme }) => scheme === "bearer")
    const { credentials, name: registry } = endpoint
    const no = (problem: string) => new CredentialsRefused({ registry, repository, problem })
    const obtain = Effect.gen(function* () {
      // somebody else may have got one while we waited
      const known = yield* recall(key)
      if (known !== undefined && known !== refused) return known
      if (bearer !== undefined) return remember(key, yield* fetchToken(endpoint, repository, bearer.parameters))
      if (!wanted.some(({ scheme }) => scheme === "basic")) {
        return yield* no("it does not say how to log in")
      }
      if (credentials === undefined) return yield* no("it wants credentials, and none were given")
      const header = basic(credentials)
      if (header === refused) {
        store.delete(key)
        return yield* no("the user name or the password is wrong")
      }
      return remember(key, { header, until: Number.POSITIVE_INFINITY })
    })
    return yield* locks.withLock(key)(obtain)
  })

  return { known: (endpoint, repository) => recall(keyOf(endpoint, repository)), answer }
}
