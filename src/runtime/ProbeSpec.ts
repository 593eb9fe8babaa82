/**
 * How a container is asked whether it is well: Kubernetes' three probes with Kubernetes' words and defaults.
 *
 * `startup`: until it has succeeded once, the others wait; when it fails too often, the container ends. `liveness`: when it fails
 * too often in a row, the container ends, and its restart policy decides (failure `ProbeFailed`). `readiness`: whether it is
 * ready is told, nothing else.
 *
 * Traps: durations are stored as milliseconds. A `tcp`, `http` or `grpc` probe connects to the container's own loopback.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

const Port = Schema.Int.pipe(
  Schema.check(Schema.isBetween({ minimum: 1, maximum: 65_535 }, { expected: "a port from 1 to 65535" }))
)

const line = (maximum: number) =>
  Schema.String.pipe(
    Schema.check(
      Schema.makeFilter((text: string) =>
        text.length > maximum || /[\0-\x20\x7f]/.test(text)
          ? `must have at most ${maximum} characters, none of them blank`
          : undefined
      )
    )
  )

const millis = (minimum: number, expected: string, byDefault: number) =>
  Schema.Finite.pipe(
    Schema.check(Schema.isBetween({ minimum, maximum: 86_400_000 }, { expected })),
    Schema.decodeTo(Schema.Duration, SchemaTransformation.durationFromMillis),
    Schema.withDecodingDefaultKey(Effect.succeed(byDefault))
  )

const threshold = (byDefault: number) =>
  Schema.Int.pipe(
    Schema.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }, { expected: "a number from 1 to 10000" })),
    Schema.withDecodingDefaultKey(Effect.succeed(byDefault))
  )

export const Probe = Schema.Struct({
  /** A program in the container: well when it exits with 0. */
  exec: Schema.optionalKey(
    Schema.Struct({
      command: Schema.Array(
        Schema.String.pipe(
          Schema.check(
            Schema.makeFilter((text: string) =>
              text.includes("\0") || text.length > 131_071
                ? "must hold no NUL byte, and at most 131071 characters"
                : undefined
            )
          )
        )
      ).pipe(Schema.check(Schema.isBetweenLength(1, 1024, { expected: "the program and its arguments" })))
    })
  ),
  /** A GET request: well when the answer is 200 to 399. */
  http: Schema.optionalKey(
    Schema.Struct({
      port: Port,
      path: line(2048).pipe(
        Schema.check(Schema.isStartingWith("/", { expected: "a path that begins with /" })),
        Schema.withDecodingDefaultKey(Effect.succeed("/"))
      ),
      /** Default: `localhost`. */
      host: line(255).pipe(Schema.withDecodingDefaultKey(Effect.succeed("localhost"))),
      /** `https`: over TLS, whosever certificate it is; as Kubernetes does. */
      scheme: Schema.Literals(["http", "https"]).pipe(Schema.withDecodingDefaultKey(Effect.succeed("http" as const)))
    })
  ),
  /** Well when somebody listens. */
  tcp: Schema.optionalKey(Schema.Struct({ port: Port })),
  /** grpc.health.v1: well when the service is SERVING. */
  grpc: Schema.optionalKey(
    Schema.Struct({ port: Port, service: line(255).pipe(Schema.withDecodingDefaultKey(Effect.succeed(""))) })
  ),
  /** From the container's start to the first try; default 0. */
  initialDelay: millis(0, "0 to 24h", 0),
  /** From try to try; default 10 s. */
  period: millis(100, "100ms to 24h", 10_000),
  /** How long a try may take; default 1 s. */
  timeout: millis(10, "10ms to 24h", 1_000),
  /** So many successes in a row after a failure mean that it is well; default 1, which is all that startup and liveness take. */
  successThreshold: threshold(1),
  /** So many failures in a row mean that it is not; default 3. */
  failureThreshold: threshold(3)
}).pipe(
  Schema.check(
    Schema.makeFilter(({ exec, grpc, http, tcp }) =>
      [exec, grpc, http, tcp].filter((way) => way !== undefined).length === 1
        ? undefined
        : "takes exactly one of exec, http, tcp and grpc"
    )
  )
)
export type Probe = typeof Probe.Type

const once = (name: "startup" | "liveness") =>
  Schema.optionalKey(
    Probe.pipe(
      Schema.check(
        Schema.makeFilter(({ successThreshold }) =>
          successThreshold === 1
            ? undefined
            : { path: ["successThreshold"], issue: `must be 1: one success is enough for ${name}` }
        )
      )
    )
  )

export const ProbesSpec = Schema.Struct({
  startup: once("startup"),
  readiness: Schema.optionalKey(Probe),
  liveness: once("liveness")
})
export type ProbesSpec = typeof ProbesSpec.Type
