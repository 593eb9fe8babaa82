/**
 * One HTTP exchange with a registry or a token server: kept-alive connections, proxies, own certificate authorities, and time
 * limits that tell a slow answer from none. Nothing is followed, retried or decoded here: see `RegistryClient`.
 *
 * A body is pulled: while its reader is busy the connection stands still, and that is not the registry's fault; only time
 * spent waiting for bytes counts.
 *
 * Trap: an answer's body must be read to its end or the scope closed, or its connection stays taken.
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as http from "node:http"
import * as https from "node:https"
import { performance } from "node:perf_hooks"
import { rootCertificates } from "node:tls"
import { RegistryStalled, RegistryUnavailable, RegistryUnreachable } from "./RegistryError.ts"
import { isLoopback, type RegistrySettings } from "./RegistrySettings.ts"

export interface Request {
  readonly method: "GET" | "HEAD" | "POST"
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
  /** What errors call the other side. */
  readonly registry: string
  /** What is waited for, for errors. */
  readonly what: string
  /** PEM, trusted besides the usual ones. */
  readonly certificateAuthority: string | undefined
}

export type BodyError = RegistryStalled | RegistryUnavailable

export interface Answer {
  readonly status: number
  /** By its name in lower case; several are one, joined by commas. */
  readonly header: (name: string) => string | undefined
  readonly body: Stream.Stream<Uint8Array, BodyError>
}

export interface Http {
  readonly send: (request: Request) => Effect.Effect<Answer, RegistryUnreachable | RegistryStalled, Scope.Scope>
}

/** Side by side to one host: layers of several images. */
const maximumConnections = 8
/** An idle connection is closed after this: many registries do so after a minute. */
const idleMilliseconds = 20_000
/** A body that brings less than this per second of waiting is no better than none. */
const leastBytesPerSecond = 1024
/** Of a body, between the connection and its reader. */
const bufferedBytes = 1024 * 1024

const certificateProblems =
  /^(?:CERT_|UNABLE_TO_|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT|ERR_TLS_CERT|HOSTNAME_MISMATCH|INVALID_CA)/

const unreachable = (registry: string, error: unknown): RegistryUnreachable => {
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : ""
  // happy eyeballs: the first of the addresses that were tried says it best
  const first = error instanceof AggregateError ? error.errors.find((one) => one instanceof Error) : error
  const said = (first instanceof Error ? first.message : String(first)).slice(0, 300)
  const made = (problem: string, passing: boolean) => new RegistryUnreachable({ registry, problem, passing })
  const field = (name: string) => `registries.hosts["${registry}"].${name} in the machine config`
  if (code === "ENOTFOUND") return made("there is no host of this name (or no name server that knows it)", false)
  if (code === "EPROTO" || code === "ERR_SSL_WRONG_VERSION_NUMBER") {
    return made(`it does not speak TLS (${said}); set ${field("plainHttp")} to true to ask it in the clear`, false)
  }
  if (certificateProblems.test(code)) {
    return made(`its certificate is not trusted (${said}); set ${field("certificateAuthority")}`, false)
  }
  return made(said, true)
}

/** The environment's proxies, or those that are configured instead. */
const proxiesOf = ({ proxy }: RegistrySettings): NodeJS.ProcessEnv =>
  proxy === undefined
    ? process.env
    : {
        ...(proxy.http === undefined ? {} : { HTTP_PROXY: proxy.http }),
        ...(proxy.https === undefined ? {} : { HTTPS_PROXY: proxy.https }),
        NO_PROXY: proxy.none.join(",")
      }

/** What is left of a body, as a stream. */
const bodyOf = (
  message: http.IncomingMessage,
  { registry, what }: Request,
  seconds: number
): Stream.Stream<Uint8Array, BodyError> =>
  Stream.fromPull(
    Effect.sync(() => {
      let pieces: Array<Uint8Array> = []
      let buffered = 0
      let over: "ended" | "cut" | undefined
      let wake: (() => void) | undefined
      const awake = () => {
        const waiting = wake
        wake = undefined
        waiting?.()
      }
      message.on("data", (piece: Uint8Array) => {
        pieces.push(piece)
        buffered += piece.length
        if (buffered >= bufferedBytes) message.pause()
        awake()
      })
      message.on("end", () => {
        over ??= "ended"
        awake()
      })
      message.on("close", () => {
        over ??= message.complete ? "ended" : "cut"
        awake()
      })
      message.on("error", () => {
        over ??= "cut"
        awake()
      })

      // since the last judgement
      let waited = 0
      let brought = 0
      const arrival = Effect.callback<void>((resume) => {
        if (buffered > 0 || over !== undefined) return resume(Effect.void)
        wake = () => resume(Effect.void)
        message.resume()
        return Effect.sync(() => {
          wake = undefined
        })
      })
      const stalled = Effect.suspend(() => Effect.fail(new RegistryStalled({ registry, seconds, waitingFor: what })))
      const wait = Effect.suspend(() => {
        const since = performance.now()
        return arrival.pipe(
          Effect.timeoutOrElse({ duration: seconds * 1000, orElse: () => stalled }),
          Effect.andThen(
            Effect.suspend(() => {
              waited += performance.now() - since
              if (waited < seconds * 1000) return Effect.void
              const tooFew = brought < leastBytesPerSecond * seconds
              waited = 0
              brought = 0
              return tooFew ? stalled : Effect.void
            })
          )
        )
      })
      const take = Effect.suspend((): Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>, BodyError> => {
        const [first, ...rest] = pieces
        if (first === undefined) {
          return over === "cut"
            ? Effect.fail(new RegistryUnavailable({ registry, problem: `it hung up in the middle of ${what}` }))
            : Cause.done()
        }
        brought += buffered
        pieces = []
        buffered = 0
        return Effect.succeed([first, ...rest])
      })
      return Effect.andThen(
        Effect.suspend(() => (buffered > 0 || over !== undefined ? Effect.void : wait)),
        take
      )
    })
  )

export const make = (settings: RegistrySettings): Http => {
  const proxyEnv = proxiesOf(settings)
  const common = { keepAlive: true, maxSockets: maximumConnections, timeout: idleMilliseconds }
  const agents = new Map<string, http.Agent>()

  const agentFor = ({ certificateAuthority, url }: Request): http.Agent => {
    const direct = isLoopback(url.host)
    const key = `${url.protocol} ${direct} ${certificateAuthority ?? ""}`
    const made = agents.get(key)
    if (made !== undefined) return made
    const options = direct ? common : { ...common, proxyEnv }
    const agent =
      url.protocol === "http:"
        ? new http.Agent(options)
        : new https.Agent({
            ...options,
            ...(certificateAuthority === undefined ? {} : { ca: [...rootCertificates, certificateAuthority] })
          })
    agents.set(key, agent)
    return agent
  }

  const send = Effect.fnUntraced(function* (
    request: Request
  ): Effect.fn.Return<Answer, RegistryUnreachable | RegistryStalled, Scope.Scope> {
    const { body, headers, method, registry, url, what } = request
    const seconds = settings.timeoutSeconds
    let sent: http.ClientRequest | undefined
    let received: http.IncomingMessage | undefined
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        if (received?.complete !== true || !received.readableEnded) sent?.destroy()
      })
    )
    const message = yield* Effect.callback<http.IncomingMessage, RegistryUnreachable>((resume) => {
      const start = url.protocol === "http:" ? http.request : https.request
      sent = start(url, { method, headers: { "accept-encoding": "identity", ...headers }, agent: agentFor(request) })
      sent.on("response", (answer) => {
        received = answer
        // a listener for good: who has stopped reading must not be killed by what comes after
        answer.on("error", () => {})
        resume(Effect.succeed(answer))
      })
      sent.on("error", (error) => resume(Effect.fail(unreachable(registry, error))))
      sent.end(body)
    }).pipe(
      Effect.timeoutOrElse({
        duration: seconds * 1000,
        orElse: () => new RegistryStalled({ registry, seconds, waitingFor: what })
      })
    )
    return {
      status: message.statusCode ?? 0,
      header: (name) => {
        const value = message.headers[name]
        return typeof value === "string" ? value : value?.join(", ")
      },
      body: bodyOf(message, request, seconds)
    }
  })

  return { send }
}

/** At most so many bytes of a body; it is read to its end only when it has no more. */
export const atMost = (answer: Answer, limit: number): Effect.Effect<Buffer, BodyError> => {
  let count = 0
  return answer.body.pipe(
    Stream.takeUntil((piece) => {
      count += piece.length
      return count > limit
    }),
    Stream.runCollect,
    Effect.map((pieces) => Buffer.concat([...pieces]))
  )
}
