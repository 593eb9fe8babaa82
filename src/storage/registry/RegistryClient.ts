/**
 * The client of the OCI distribution API, as much of it as pulling needs: manifests and blobs of one repository. It logs in
 * when asked to, follows redirects (without taking credentials along), tries again what may pass, goes on where a blob was
 * cut off, and asks mirrors before the registry.
 *
 * Nothing is checked against its digest here, except that a manifest is what its tag is said to be: whoever stores bytes does
 * that (`Blobs.receive`, `ImageResolver`), for every source alike.
 *
 * Trap: a mirror that fails in whatever way is passed over; the error that is told at the end is the registry's own.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { BlobCorrupt, BlobMissing } from "../ContentError.ts"
import { type Digest, finish, hasher, isDigest, ofBytes } from "../Digest.ts"
import { type Descriptor, isIndex, isManifest, maximumDocumentBytes, mediaTypes } from "../OciImage.ts"
import * as Authorization from "./Authorization.ts"
import * as Http from "./Http.ts"
import {
  CredentialsRefused,
  isPassing,
  RedirectRefused,
  RegistryAnswerInvalid,
  RegistryBusy,
  type RegistryError,
  RemoteImageNotFound
} from "./RegistryError.ts"
import { type Credentials, type Endpoint, endpoints, isInside, type RegistrySettings } from "./RegistrySettings.ts"
import * as RemoteName from "./RemoteName.ts"
import { maximumExplanation, ofStatus, words } from "./Status.ts"

/** A manifest or an index as the registry gave it for a tag or a digest. */
export interface Found {
  readonly descriptor: Descriptor
  readonly bytes: Uint8Array
}

/** The images of one repository. */
export interface Repository {
  /** The digest that the tag has now, by a request without a body; undefined: the registry does not tell it so. */
  readonly currentDigest: Effect.Effect<Digest | undefined, RegistryError>
  /** What the tag or digest of the name stands for. */
  readonly find: Effect.Effect<Found, RegistryError | BlobCorrupt>
  /** The bytes of a manifest, an index or a blob; `field` says for the error who asked for it. */
  readonly blob: (
    descriptor: Pick<Descriptor, "digest" | "mediaType">,
    field: string
  ) => Stream.Stream<Uint8Array, RegistryError | BlobMissing>
}

export interface RegistryClient {
  readonly repository: (name: RemoteName.RemoteName, credentials: Credentials | undefined) => Repository
}

const accept = [...mediaTypes.index, ...mediaTypes.manifest].join(", ")

/** Waits between the tries of one request. */
const firstWait = 250
const maximumWait = 8_000
/** Of a mirror: there is somebody else to ask. */
const mirrorTries = 2
/** A registry that wants us to wait longer has said no. */
const longestRetryAfter = 60
const maximumRedirects = 5
/** How often one blob goes on after it was cut off, however far it came in between. */
const maximumResumptions = 64
/** A connection that brought this much counts as a success: the number of tries starts anew. */
const progressBytes = 1024 * 1024

export const make = (settings: RegistrySettings): RegistryClient => {
  const http = Http.make(settings)
  const authorization = Authorization.make(http)

  /** How long to wait before try `count` after this error; undefined: there is no point. */
  const waitBefore = Effect.fnUntraced(function* (error: RegistryError | BlobMissing, count: number, most: number) {
    if (count >= most || !isPassing(error)) return undefined
    if (error instanceof RegistryBusy && error.retryAfterSeconds > longestRetryAfter) return undefined
    const curve = Math.min(firstWait * 2 ** (count - 1), maximumWait)
    const jittered = curve * (0.8 + 0.4 * (yield* Random.next))
    return Math.max(jittered, error instanceof RegistryBusy ? error.retryAfterSeconds * 1000 : 0)
  })

  const retried = <A, E extends RegistryError, R>(
    effect: Effect.Effect<A, E, R>,
    most: number,
    count = 1
  ): Effect.Effect<A, E, R> =>
    Effect.catch(effect, (error) =>
      Effect.flatMap(waitBefore(error, count, most), (wait) =>
        wait === undefined
          ? Effect.fail(error)
          : Effect.andThen(
              Effect.sleep(wait),
              Effect.suspend(() => retried(effect, most, count + 1))
            )
      )
    )

  const redirected = (endpoint: Endpoint, from: URL, location: string | undefined) => {
    const refused = (problem: string) => Effect.fail(new RedirectRefused({ registry: endpoint.name, problem }))
    if (location === undefined || !URL.canParse(location, from)) return refused("it does not say where")
    const to = new URL(location, from)
    const shown = `${to.protocol}//${to.host}`
    if (to.protocol !== "https:" && to.protocol !== "http:") return refused(`${shown} is no web address`)
    if (to.protocol === "http:" && from.protocol === "https:") return refused(`${shown} is not encrypted`)
    if (isInside(to.hostname) && !isInside(new URL(endpoint.base).hostname)) {
      return refused(`${shown} is inside this machine or its link`)
    }
    to.username = ""
    to.password = ""
    return Effect.succeed(to)
  }

  interface Exchange {
    readonly endpoint: Endpoint
    readonly repository: string
    readonly method: "GET" | "HEAD"
    /** Below `/v2/REPOSITORY/`. */
    readonly path: string
    readonly headers: Readonly<Record<string, string>>
    readonly what: string
  }

  /** An answer that is one in the end: logged in, redirects followed. Its status may be any other. */
  const exchange = Effect.fnUntraced(function* ({
    endpoint,
    headers,
    method,
    path,
    repository,
    what
  }: Exchange): Effect.fn.Return<Http.Answer, RegistryError, Scope.Scope> {
    const start = new URL(`${endpoint.base}/v2/${repository}/${path}`)
    let url = start
    let header = yield* authorization.known(endpoint, repository)
    let challenges = 0
    for (let redirects = 0; ;) {
      // credentials are for the registry alone, not for where it keeps its blobs
      const own = url.origin === start.origin
      const answer: Http.Answer = yield* http.send({
        method,
        url,
        headers: {
          "user-agent": "ironwood",
          ...headers,
          ...(own && header !== undefined ? { authorization: header } : {})
        },
        registry: endpoint.name,
        what,
        certificateAuthority: endpoint.certificateAuthority
      })
      const challenge = answer.header("www-authenticate")
      if (answer.status === 401 && own && challenge !== undefined && challenges < 2) {
        challenges++
        yield* Effect.ignore(Http.atMost(answer, maximumExplanation))
        const before = header
        header = yield* authorization.answer(endpoint, repository, challenge, before)
        if (header === before) return answer
        continue
      }
      if (![301, 302, 303, 307, 308].includes(answer.status)) return answer
      if (++redirects > maximumRedirects) {
        const problem = `more than ${maximumRedirects} times, one after the other`
        return yield* new RedirectRefused({ registry: endpoint.name, problem })
      }
      yield* Effect.ignore(Http.atMost(answer, maximumExplanation))
      url = yield* redirected(endpoint, url, answer.header("location"))
    }
  })

  /** The error of an answer that is none to what was asked. */
  const failureOf = Effect.fnUntraced(function* (
    { endpoint, repository, what }: Exchange,
    answer: Http.Answer
  ): Effect.fn.Return<never, RegistryError> {
    const registry = endpoint.name
    const bytes = yield* Effect.orElseSucceed(Http.atMost(answer, maximumExplanation), () => Buffer.alloc(0))
    if (answer.status === 401 || answer.status === 403) {
      const problem =
        endpoint.credentials === undefined
          ? `it wants credentials, and none were given${words(bytes)}`
          : `these credentials may not${words(bytes)}`
      return yield* new CredentialsRefused({ registry, repository, problem })
    }
    return yield* ofStatus(registry, answer, bytes, what)
  })

  const repository = (name: RemoteName.RemoteName, credentials: Credentials | undefined): Repository => {
    const all = endpoints(settings, name.registry, credentials)
    /** The one that had the manifest is the first to be asked for blobs. */
    let preferred = 0
    const inOrder = () => all.map((_, index) => (index + preferred) % all.length)
    const triesOf = (index: number) =>
      index === all.length - 1 ? settings.tries : Math.min(settings.tries, mirrorTries)
    const path = `manifests/${RemoteName.wanted(name)}`
    const what = `the manifest of ${RemoteName.describe(name)}`
    const exchangeOf = (endpoint: Endpoint, method: "GET" | "HEAD"): Exchange => ({
      endpoint,
      repository: name.repository,
      method,
      path,
      headers: { accept },
      what
    })
    const notFound = (registry: string) => new RemoteImageNotFound({ reference: RemoteName.describe(name), registry })

    /** The first answer of mirrors and registry; the registry's error when none has one. */
    const first = <A, E extends RegistryError | BlobCorrupt>(
      ask: (endpoint: Endpoint, index: number) => Effect.Effect<A, E>
    ): Effect.Effect<A, E | RegistryAnswerInvalid> => {
      const from = (index: number): Effect.Effect<A, E | RegistryAnswerInvalid> => {
        const endpoint = all[index]
        if (endpoint === undefined) {
          return new RegistryAnswerInvalid({ registry: name.registry, problem: "no place to ask is configured" })
        }
        const asked = ask(endpoint, index).pipe(Effect.tap(() => Effect.sync(() => void (preferred = index))))
        return index === all.length - 1
          ? asked
          : Effect.catch(asked, (error) =>
              Effect.andThen(
                Effect.logInfo(`mirror ${endpoint.name} is passed over: ${error.message}`),
                Effect.suspend(() => from(index + 1))
              )
            )
      }
      return from(0)
    }

    const currentDigest = first((endpoint, index) => {
      const asked = exchangeOf(endpoint, "HEAD")
      const head = Effect.gen(function* () {
        const answer = yield* exchange(asked)
        if (answer.status === 404) return yield* notFound(endpoint.name)
        if (answer.status === 405) return undefined
        if (answer.status !== 200) return yield* failureOf(asked, answer)
        const digest = answer.header("docker-content-digest")
        return isDigest(digest) ? digest : undefined
      })
      return retried(Effect.scoped(head), triesOf(index))
    })

    const find = first((endpoint, index) => {
      const asked = exchangeOf(endpoint, "GET")
      const get = Effect.gen(function* () {
        const answer = yield* exchange(asked)
        if (answer.status === 404) return yield* notFound(endpoint.name)
        if (answer.status !== 200) return yield* failureOf(asked, answer)
        const bytes = yield* Http.atMost(answer, maximumDocumentBytes)
        const invalid = (problem: string) => new RegistryAnswerInvalid({ registry: endpoint.name, problem })
        if (bytes.length > maximumDocumentBytes) {
          return yield* invalid(`${what} has more than the ${maximumDocumentBytes} bytes allowed`)
        }
        const mediaType = (answer.header("content-type") ?? "").split(";")[0]?.trim() ?? ""
        return { bytes, mediaType, promised: answer.header("docker-content-digest") }
      })
      return Effect.gen(function* () {
        const { bytes, mediaType, promised } = yield* retried(Effect.scoped(get), triesOf(index))
        const said = name.digest ?? (isDigest(promised) ? promised : ofBytes(bytes))
        const actual = finish(hasher(said).update(bytes), said)
        if (actual !== said) {
          const problem = `its bytes have the digest ${actual} (${what}, from ${endpoint.name})`
          return yield* new BlobCorrupt({ digest: said, problem })
        }
        return { bytes, descriptor: { mediaType, digest: said, size: bytes.length } }
      })
    })

    /** A body from an offset on, once. */
    const open = (
      endpoint: Endpoint,
      { digest, mediaType }: Pick<Descriptor, "digest" | "mediaType">,
      field: string,
      offset: number
    ) => {
      const kind = isIndex(mediaType) || isManifest(mediaType) ? "manifests" : "blobs"
      const asked: Exchange = {
        endpoint,
        repository: name.repository,
        method: "GET",
        path: `${kind}/${digest}`,
        headers: {
          ...(kind === "manifests" ? { accept } : {}),
          ...(offset === 0 ? {} : { range: `bytes=${offset}-` })
        },
        what: `the bytes of ${digest}`
      }
      return Stream.scoped(
        Stream.unwrap(
          Effect.gen(function* () {
            const answer = yield* exchange(asked)
            if (answer.status === 404) {
              return yield* new BlobMissing({ digest, source: `${endpoint.name}/${name.repository}`, field })
            }
            if (answer.status === 206 && offset > 0) {
              const range = answer.header("content-range") ?? ""
              if (!range.startsWith(`bytes ${offset}-`)) {
                const problem = `asked for ${digest} from byte ${offset} on, it sends "${range.slice(0, 60)}"`
                return yield* new RegistryAnswerInvalid({ registry: endpoint.name, problem })
              }
              return answer.body
            }
            if (answer.status !== 200) return yield* failureOf(asked, answer)
            // it does not know ranges: what we have comes once more
            return without(answer.body, offset)
          })
        )
      )
    }

    const blob = (
      descriptor: Pick<Descriptor, "digest" | "mediaType">,
      field: string
    ): Stream.Stream<Uint8Array, RegistryError | BlobMissing> => {
      const order = inOrder()
      /** From `offset` on, by the `place`th of them; `count`: the how-manieth try without progress. */
      const from = (
        offset: number,
        place: number,
        count: number,
        resumptions: number
      ): Stream.Stream<Uint8Array, RegistryError | BlobMissing> => {
        const index = order[place] ?? 0
        const endpoint = all[index]
        if (endpoint === undefined) return Stream.empty
        let at = offset
        return open(endpoint, descriptor, field, offset).pipe(
          Stream.map((piece) => {
            at += piece.length
            return piece
          }),
          Stream.catch((error) =>
            Stream.unwrap(
              Effect.gen(function* () {
                const so = at - offset >= progressBytes ? 1 : count
                const wait =
                  resumptions >= maximumResumptions ? undefined : yield* waitBefore(error, so, triesOf(index))
                if (wait !== undefined) {
                  yield* Effect.sleep(wait)
                  return from(at, place, so + 1, resumptions + 1)
                }
                if (place === order.length - 1) return yield* error
                yield* Effect.logInfo(`${endpoint.name} is passed over: ${error.message}`)
                return from(at, place + 1, 1, resumptions + 1)
              })
            )
          )
        )
      }
      return Stream.suspend(() => from(0, 0, 1, 0))
    }

    return { currentDigest, find, blob }
  }

  return { repository }
}

/** A body without its first bytes. */
const without = <E>(body: Stream.Stream<Uint8Array, E>, count: number): Stream.Stream<Uint8Array, E> => {
  if (count === 0) return body
  let left = count
  return body.pipe(
    Stream.map((piece) => {
      const skipped = Math.min(left, piece.length)
      left -= skipped
      return piece.subarray(skipped)
    }),
    Stream.filter((piece) => piece.length > 0)
  )
}
