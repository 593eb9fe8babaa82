/**
 * The ways to a registry: TLS with an authority of one's own, a proxy (in the clear, and with a tunnel for TLS), and a refresh
 * token. All on loopback; a name that only the proxy knows stands for a registry far away.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { request as ask } from "node:http"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Content } from "../../../src/storage/Content.ts"
import {
  type RegistryHost,
  type RegistrySettings,
  usualSettings
} from "../../../src/storage/registry/RegistrySettings.ts"
import { buildImage, file } from "../../support/images.ts"
import { selfSigned, serve } from "../../support/registry.ts"
import { scriptedRegistry } from "../../support/scriptedRegistry.ts"
import * as Store from "../../support/store.ts"

const image = buildImage({ layers: [[file("etc/motd", "hello")]] })

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-ways-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const host = (more: Partial<RegistryHost>): RegistryHost => ({
  mirrors: [],
  plainHttp: undefined,
  certificateAuthority: undefined,
  credentials: undefined,
  ...more
})

const pull = (name: string, settings: Partial<RegistrySettings>) =>
  Effect.provide(
    Effect.flatMap(Content, (content) => content.pull(name)),
    Store.layer({}, { ...usualSettings, tries: 1, ...settings }),
    { local: true }
  )

/** A proxy that knows one name, and what it was asked for. */
const proxyTo = Effect.fnUntraced(function* (name: string, target: string) {
  const asked: Array<string> = []
  const port = Number(target.slice(target.indexOf(":") + 1))
  const proxy = yield* serve((request, response) => {
    const url = new URL(request.url ?? "", "http://nobody")
    asked.push(`${request.method} ${url.host}`)
    if (url.host !== name) return void response.writeHead(502).end()
    const forwarded = ask(
      { host: "127.0.0.1", port, path: url.pathname, method: request.method, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(response)
      }
    )
    forwarded.end()
  })
  proxy.server.on("connect", (request, socket) => {
    asked.push(`CONNECT ${request.url ?? ""}`)
    const onwards = connect(port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n")
      socket.pipe(onwards)
      onwards.pipe(socket)
    })
    for (const end of [socket, onwards]) end.on("error", () => {})
  })
  return { address: `http://${proxy.host}`, asked }
})

describe("a registry", () => {
  it.live("that vouches for itself is trusted where the config says so, and only there", () =>
    Effect.gen(function* () {
      const tls = selfSigned(yield* temporary, "IP:127.0.0.1")
      const registry = yield* scriptedRegistry(image, ({ serve: answer }) => answer(), tls)
      const trusted = { [registry.host]: host({ plainHttp: false, certificateAuthority: tls.cert }) }
      assert.strictEqual((yield* pull(registry.name, { hosts: trusted })).digest, image.manifest.digest)

      const strangers = { [registry.host]: host({ plainHttp: false }) }
      const refused = yield* Effect.flip(pull(registry.name, { hosts: strangers }))
      assert.strictEqual(refused._tag, "RegistryUnreachable")
      assert.match(refused.message, /its certificate is not trusted .*certificateAuthority in the machine config/)
    }).pipe(Effect.scoped)
  )

  it.live("behind a proxy is asked through it, unless it is one of those that are not", () =>
    Effect.gen(function* () {
      const registry = yield* scriptedRegistry(image, ({ serve: answer }) => answer())
      const name = "registry.test:5000"
      const { address, asked } = yield* proxyTo(name, registry.host)
      const settings = { hosts: { [name]: host({ plainHttp: true }) }, proxy: { http: address, none: [] } }
      assert.strictEqual((yield* pull(`${name}/app:1`, settings)).digest, image.manifest.digest)
      assert.include(asked, `GET ${name}`)

      asked.length = 0
      const direct = yield* Effect.flip(
        pull(`${name}/app:1`, { ...settings, proxy: { http: address, none: ["registry.test"] } })
      )
      assert.strictEqual(direct._tag, "RegistryUnreachable")
      assert.deepStrictEqual(asked, [])
    }).pipe(Effect.scoped)
  )

  it.live("behind a proxy is spoken to through a tunnel where it is asked with TLS", () =>
    Effect.gen(function* () {
      const tls = selfSigned(yield* temporary, "DNS:registry.test")
      const registry = yield* scriptedRegistry(image, ({ serve: answer }) => answer(), tls)
      const name = "registry.test:5000"
      const { address, asked } = yield* proxyTo(name, registry.host)
      const hosts = { [name]: host({ certificateAuthority: tls.cert }) }
      const pulled = yield* pull(`${name}/app:1`, { hosts, proxy: { https: address, none: [] } })
      assert.strictEqual(pulled.digest, image.manifest.digest)
      assert.deepStrictEqual([...new Set(asked)], [`CONNECT ${name}`])
    }).pipe(Effect.scoped)
  )

  it.live("that wants a token gives one for a refresh token, which its token server sees and nobody else", () =>
    Effect.gen(function* () {
      const forms: Array<URLSearchParams> = []
      const tokens = yield* serve((request, response) => {
        let body = ""
        request.on("data", (chunk) => (body += String(chunk)))
        request.on("end", () => {
          forms.push(new URLSearchParams(body))
          response.setHeader("content-type", "application/json")
          response.end(JSON.stringify({ access_token: "short-lived", expires_in: 60 }))
        })
      })
      const registry = yield* scriptedRegistry(image, ({ authorization, response, serve: answer }) => {
        if (authorization === "Bearer short-lived") return answer()
        response.setHeader("www-authenticate", `Bearer realm="http://${tokens.host}/token",service="test"`)
        response.writeHead(401).end("{}")
      })
      const credentials = { username: "", password: "", identityToken: "long-lived" }
      const pulled = yield* pull(registry.name, { hosts: { [registry.host]: host({ credentials }) } })
      assert.strictEqual(pulled.digest, image.manifest.digest)
      assert.strictEqual(forms.length, 1)
      assert.deepStrictEqual(Object.fromEntries(forms[0] ?? []), {
        scope: "repository:app:pull",
        service: "test",
        grant_type: "refresh_token",
        refresh_token: "long-lived",
        client_id: "ironwood"
      })
      assert.isFalse(registry.asked.some(({ authorization }) => authorization?.includes("long-lived")))
    }).pipe(Effect.scoped)
  )
})
