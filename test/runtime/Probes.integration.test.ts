/** Probes of real containers: by a program, and over the loopback of a network namespace that has nothing else. */
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as https from "node:https"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Processes } from "../../src/taproot/Processes.ts"
import { SandboxSpec } from "../../src/runtime/SandboxSpec.ts"
import { create, shell, until, withContainers } from "./world.ts"

const soon = { period: 100, timeout: 5_000, failureThreshold: 2 }

/** A server of grpc.health.v1 on loopback of the host: `db` is down. */
const healthServer = Effect.acquireRelease(
  Effect.callback<{ readonly server: grpc.Server; readonly port: number }>((resume) => {
    const server = new grpc.Server()
    server.register(
      "/grpc.health.v1.Health/Check",
      (call: grpc.ServerUnaryCall<Buffer, Buffer>, answer: grpc.sendUnaryData<Buffer>) => {
        const service = call.request.subarray(2).toString()
        if (service !== "" && service !== "db") return answer({ code: grpc.status.NOT_FOUND })
        return answer(null, Buffer.from([0x08, service === "" ? 1 : 2]))
      },
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      "unary"
    )
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (_, port) =>
      resume(Effect.succeed({ server, port }))
    )
  }),
  ({ server }) => Effect.sync(() => server.forceShutdown())
)

/** A server of HTTPS on loopback of the host, with a certificate that nobody vouches for. */
const secureServer = Effect.acquireRelease(
  Effect.callback<{ readonly server: https.Server; readonly port: number }>((resume) => {
    const directory = mkdtempSync(join(tmpdir(), "ironwood-tls-"))
    const [key, cert] = [join(directory, "key"), join(directory, "cert")]
    const words = [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-subj",
      "/CN=x"
    ]
    execFileSync("openssl", [...words, "-keyout", key, "-out", cert], { stdio: "ignore" })
    const server = https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (request, answer) => {
      answer.statusCode = request.url === "/well" && request.headers.host === "me" ? 204 : 503
      answer.end()
    })
    rmSync(directory, { recursive: true })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      resume(Effect.succeed({ server, port: typeof address === "object" ? (address?.port ?? 0) : 0 }))
    })
  }),
  ({ server }) =>
    Effect.sync(() => {
      server.close()
      server.closeAllConnections()
    })
)

describe("probes of containers", () => {
  it.live("a failed liveness probe ends it and spends its policy; readiness is told", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const restart = { restart: "permanent", backoff: { initial: 1, max: 1 }, maxConsecutive: 3, whenSpent: "park" }
        yield* create(containers, {
          name: "sick",
          command: shell("trap 'exit 0' TERM; while :; do sleep 0.05; done"),
          restart,
          probes: { liveness: { exec: { command: shell("echo broken >&2; exit 4") }, ...soon } }
        })
        const parked = yield* until(containers, "sick", ({ state }) => state === "parked")
        assert.deepInclude(parked.lastExit, { tag: "ProbeFailed", class: "failure" })
        assert.deepStrictEqual(parked.lastExit?.facts, { probe: "liveness" })
        assert.strictEqual(
          parked.lastExit?.message,
          "its liveness probe failed 2 times in a row: its program exited with code 4: broken"
        )
        assert.strictEqual(parked.incarnation, 3)

        const serve =
          "mkdir -p /srv/a; httpd -p 127.0.0.1:80 -h /srv; nc -l -p 81 -e true & while [ ! -e /tmp/up ]; do sleep 0.05; done; echo ok > /srv/a/index.html; sleep 100000"
        yield* create(containers, {
          name: "web",
          command: shell(serve),
          probes: {
            startup: { tcp: { port: 80 }, period: 100, timeout: 5_000, failureThreshold: 100 },
            readiness: { http: { port: 80, path: "/a/" }, ...soon }
          }
        })
        yield* until(containers, "web", ({ ready }) => ready === "no: HTTP status 404")
        yield* Effect.scoped(
          Effect.flatMap(
            containers.exec("web", {
              command: ["/bin/touch", "/tmp/up"],
              environment: {},
              stdin: false,
              detach: false
            }),
            ({ process }) => process.exit
          )
        )
        yield* until(containers, "web", ({ ready }) => ready === "yes")

        yield* create(containers, { name: "deaf", probes: { readiness: { tcp: { port: 80 }, ...soon } } })
        yield* until(containers, "deaf", ({ ready }) => ready === "no: connecting: Connection refused")
      })
    )
  )

  it.live("asks a health service, and leaves no process behind", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const { port } = yield* healthServer
        yield* containers.createSandbox(new SandboxSpec({ name: "host", network: "host", labels: {} }))
        const ask = (name: string, service: string) =>
          create(containers, { name, sandbox: "host", probes: { readiness: { grpc: { port, service }, ...soon } } })
        yield* ask("serving", "")
        yield* until(containers, "serving", ({ ready }) => ready === "yes")
        yield* ask("down", "db")
        yield* until(containers, "down", ({ ready }) => ready === "no: it is not SERVING")
        yield* ask("unknown", "none")
        yield* until(containers, "unknown", ({ ready }) => ready === "no: it has no such service")
        for (const name of ["serving", "down", "unknown"]) yield* containers.remove(name, { force: true })
        while ((yield* (yield* Processes).status).processes > 0) yield* Effect.sleep("5 millis")
      })
    )
  )

  it.live("asks over TLS, whosever certificate it is, and says what is wrong where nobody speaks it", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const { port } = yield* secureServer
        const plain = yield* healthServer
        yield* containers.createSandbox(new SandboxSpec({ name: "host", network: "host", labels: {} }))
        const ask = (name: string, http: object) =>
          create(containers, { name, sandbox: "host", probes: { readiness: { http, ...soon } } })
        yield* ask("well", { port, path: "/well", host: "me", scheme: "https" })
        yield* until(containers, "well", ({ ready }) => ready === "yes")
        yield* ask("unwell", { port, path: "/else", scheme: "https" })
        yield* until(containers, "unwell", ({ ready }) => ready === "no: HTTP status 503")
        yield* ask("other", { port: plain.port, scheme: "https" })
        const { ready } = yield* until(containers, "other", ({ ready }) => ready?.startsWith("no: TLS: ") === true)
        assert.isAbove(ready?.length ?? 0, "no: TLS: ".length)
        for (const name of ["well", "unwell", "other"]) yield* containers.remove(name, { force: true })
        while ((yield* (yield* Processes).status).processes > 0) yield* Effect.sleep("5 millis")
      })
    )
  )
})
