/**
 * Registries that answer slowly, wrongly, never, elsewhere, or die in the middle: either the pull goes on and ends well, or it is a
 * typed error that says what is wrong, and nothing of the image stays.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createServer } from "node:net"
import { Content } from "../../../src/storage/Content.ts"
import {
  type RegistryHost,
  type RegistrySettings,
  usualSettings
} from "../../../src/storage/registry/RegistrySettings.ts"
import { buildImage, file } from "../../support/images.ts"
import { stored } from "../../support/imports.ts"
import { basicHeader, serve, user } from "../../support/registry.ts"
import { scriptedRegistry, type Turn } from "../../support/scriptedRegistry.ts"
import * as Store from "../../support/store.ts"

const settings: RegistrySettings = { ...usualSettings, timeoutSeconds: 1, tries: 2 }

/** One layer of a mebibyte that does not compress, so that it can be cut. */
const noise = Buffer.alloc(1_000_000)
for (let index = 0, seed = 1; index < noise.length; index++) {
  seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
  noise[index] = seed >> 16
}
const image = buildImage({ layers: [{ entries: [file("noise", noise)], compression: "none" }] })
const layer = `blobs/${image.layers[0]?.digest ?? ""}`
const half = 500_000

const withStore = <A, E>(effect: Effect.Effect<A, E, Content | Store.Store>, given = settings) =>
  Effect.provide(effect, Store.layer({}, given), { local: true })

type Script = (turn: Turn) => void

/** Sends the head and the first half of a body, then does something. */
const inTheMiddle = (
  { bytes = new Uint8Array(), range, response, serve }: Turn,
  then: (turn: Turn["response"]) => void
) => {
  if (range !== undefined) return serve()
  response.writeHead(200, { "content-length": bytes.length })
  response.write(bytes.subarray(0, half))
  setTimeout(() => then(response), 100)
}

/** Registries that get away with it: what, what they do, and what they must have been asked for the layer. */
const forgiven: ReadonlyArray<readonly [string, Script, ReadonlyArray<string | undefined>]> = [
  [
    "cuts the connection in the middle of a blob",
    (turn) => (turn.path === layer ? inTheMiddle(turn, (response) => response.destroy()) : turn.serve()),
    [undefined, "bytes=500000-"]
  ],
  [
    "cuts the connection and knows no ranges",
    (turn) => {
      if (turn.path !== layer) return turn.serve()
      if (turn.count === 1) return inTheMiddle(turn, (response) => response.destroy())
      turn.response.writeHead(200)
      return void turn.response.end(turn.bytes)
    },
    [undefined, "bytes=500000-"]
  ],
  [
    "falls silent in the middle of a blob",
    (turn) => (turn.path === layer ? inTheMiddle(turn, () => {}) : turn.serve()),
    [undefined, "bytes=500000-"]
  ],
  [
    "hangs up instead of an answer, once",
    (turn) => (turn.path === layer && turn.count === 1 ? turn.response.destroy() : turn.serve()),
    [undefined, undefined]
  ],
  [
    "answers 503, once",
    (turn) => (turn.path === layer && turn.count === 1 ? void turn.response.writeHead(503).end() : turn.serve()),
    [undefined, undefined]
  ],
  [
    "wants us to wait a second",
    (turn) =>
      turn.path === layer && turn.count === 1
        ? void turn.response.writeHead(429, { "retry-after": "1" }).end()
        : turn.serve(),
    [undefined, undefined]
  ]
]

const to =
  (status: number, headers: Record<string, string> = {}): Script =>
  (turn) =>
    void turn.response.writeHead(status, headers).end("{}")
const onLayer =
  (script: Script): Script =>
  (turn) =>
    turn.path === layer ? script(turn) : turn.serve()

/** Registries that fail: what, what they do, the error's tag and what its message must say. */
const failing: ReadonlyArray<readonly [string, Script, string, string]> = [
  ["never answers", () => {}, "RegistryStalled", "the manifest of"],
  [
    "sends a byte now and then",
    onLayer(({ response }) => {
      response.writeHead(200, { "content-length": 1_000_000 })
      const timer = setInterval(() => response.write("x"), 100)
      response.on("close", () => clearInterval(timer))
    }),
    "RegistryStalled",
    "the bytes of sha256:"
  ],
  ["always hangs up", ({ response }) => response.destroy(), "RegistryUnreachable", "socket hang up"],
  [
    "always cuts a blob, and brings nothing new",
    onLayer(({ response }) => {
      response.writeHead(200, { "content-length": 1_000_000 }).flushHeaders()
      setTimeout(() => response.destroy(), 20)
    }),
    "RegistryUnavailable",
    "it hung up in the middle of the bytes of sha256:"
  ],
  ["is broken", to(500), "RegistryUnavailable", "it answers 500"],
  [
    "explains itself, with control characters",
    ({ response }) => void response.writeHead(502).end('{"errors":[{"code":"X","message":"so \\u001b[31msorry"}]}'),
    "RegistryUnavailable",
    "so  [31msorry"
  ],
  ["wants us to wait an hour", to(429, { "retry-after": "3600" }), "RegistryBusy", "the next one in 3600 s"],
  [
    "wants us to wait until next year",
    to(429, { "retry-after": new Date(Date.now() + 1e10).toUTCString() }),
    "RegistryBusy",
    "wants fewer requests"
  ],
  ["forbids it", to(403), "CredentialsRefused", "none were given"],
  ["wants credentials and does not say how", to(401), "CredentialsRefused", "it wants credentials"],
  [
    "wants a kind of login that nobody knows",
    to(401, { "www-authenticate": "Negotiate" }),
    "CredentialsRefused",
    "does not say how to log in"
  ],
  [
    "names no token server",
    to(401, { "www-authenticate": 'Bearer realm="not a url",service="x"' }),
    "RegistryAnswerInvalid",
    "names no token server"
  ],
  [
    "names a token server of another kind",
    to(401, { "www-authenticate": 'Bearer realm="file:///etc/passwd"' }),
    "RegistryAnswerInvalid",
    "names no token server"
  ],
  [
    "is a token server that gives no token",
    ({ request, response }) =>
      request.url?.startsWith("/token") === true
        ? void response.end("<html>")
        : void response
            .writeHead(401, { "www-authenticate": `Bearer realm="http://${request.headers.host}/token"` })
            .end(),
    "RegistryAnswerInvalid",
    "sends no token"
  ],
  [
    "is a token server that gives a token with a line break",
    ({ request, response }) =>
      request.url?.startsWith("/token") === true
        ? void response.end('{"token":"a\\r\\nX-Evil: 1"}')
        : void response
            .writeHead(401, { "www-authenticate": `Bearer realm="http://${request.headers.host}/token"` })
            .end(),
    "RegistryAnswerInvalid",
    "sends no token"
  ],
  [
    "is a token server that is broken",
    ({ request, response }) =>
      request.url?.startsWith("/token") === true
        ? void response.writeHead(500).end()
        : void response
            .writeHead(401, { "www-authenticate": `Bearer realm="http://${request.headers.host}/token"` })
            .end(),
    "RegistryUnavailable",
    "asked for a token"
  ],
  ["redirects without end", to(307, { location: "/v2/app/manifests/1" }), "RedirectRefused", "more than 5 times"],
  ["redirects to nowhere", to(302), "RedirectRefused", "does not say where"],
  ["redirects to a file", to(302, { location: "file:///etc/passwd" }), "RedirectRefused", "no web address"],
  [
    "gives a page instead of a manifest",
    ({ response }) => void response.writeHead(200, { "content-type": "text/html" }).end("<html>"),
    "MediaTypeUnsupported",
    "text/html"
  ],
  [
    "gives a manifest that is no JSON",
    ({ response }) => void response.writeHead(200, { "content-type": image.manifest.mediaType }).end("<html>"),
    "DocumentInvalid",
    "is not valid"
  ],
  [
    "gives a manifest without end",
    ({ response }) => {
      response.writeHead(200, { "content-type": image.manifest.mediaType })
      const more = () => {
        while (response.write(Buffer.alloc(65_536, " ")));
      }
      response.on("drain", more)
      more()
    },
    "RegistryAnswerInvalid",
    "more than the 4194304 bytes allowed"
  ],
  [
    "says another digest of its manifest",
    (turn) => {
      if (turn.method === "HEAD" || turn.path !== "manifests/1") return turn.serve()
      turn.response.setHeader("docker-content-digest", `sha256:${"0".repeat(64)}`)
      turn.response.setHeader("content-type", image.manifest.mediaType)
      return void turn.response.end(turn.bytes)
    },
    "BlobCorrupt",
    "its bytes have the digest"
  ],
  ["has no layer", onLayer(to(404)), "BlobMissing", "layers[0]"],
  [
    "gives another layer of the same length",
    onLayer((turn) => turn.serve(Buffer.alloc(turn.bytes?.length ?? 0))),
    "BlobCorrupt",
    "its bytes have the digest"
  ],
  [
    "gives a layer with one bit changed",
    onLayer((turn) => {
      const bytes = Buffer.from(turn.bytes ?? [])
      bytes[700_000] = (bytes[700_000] ?? 0) ^ 1
      turn.serve(bytes)
    }),
    "BlobCorrupt",
    "its bytes have the digest"
  ],
  [
    "gives a layer that is too long",
    onLayer((turn) => turn.serve(Buffer.concat([turn.bytes ?? new Uint8Array(), Buffer.alloc(10)]))),
    "BlobCorrupt",
    "it has more than"
  ],
  [
    "gives a layer that is too short",
    onLayer((turn) => turn.serve(turn.bytes?.subarray(0, 1000))),
    "BlobCorrupt",
    "it has 1000 bytes"
  ],
  [
    "goes on somewhere else than it was asked to",
    onLayer((turn) => {
      if (turn.range === undefined) return inTheMiddle(turn, (response) => response.destroy())
      return void turn.response.writeHead(206, { "content-range": "bytes 0-1/2" }).end("xx")
    }),
    "RegistryAnswerInvalid",
    'it sends "bytes 0-1/2"'
  ]
]

describe("a registry that", () => {
  for (const [what, script, ranges] of forgiven) {
    it.live(`${what}: the pull goes on`, () =>
      Effect.gen(function* () {
        const registry = yield* scriptedRegistry(image, script)
        yield* withStore(
          Effect.gen(function* () {
            const pulled = yield* (yield* Content).pull(registry.name)
            assert.strictEqual(pulled.digest, image.manifest.digest)
          })
        )
        const asked = registry.asked.filter(({ path }) => path === layer).map(({ range }) => range)
        assert.deepStrictEqual(asked, ranges)
      })
    )
  }

  it.live.each(Array.from({ length: 4 }, (_, part) => part))("fails leaves nothing, part %i", (part) =>
    withStore(
      Effect.gen(function* () {
        const content = yield* Content
        for (const [what, script, tag, words] of failing.filter((_, index) => index % 4 === part)) {
          const registry = yield* scriptedRegistry(image, script)
          const error = yield* Effect.flip(content.pull(registry.name))
          assert.strictEqual(error._tag, tag, `${what}: ${error.message}`)
          assert.include(error.message, words, what)
          assert.deepStrictEqual(yield* stored, [], what)
        }
      }).pipe(Effect.scoped)
    )
  )

  it.live("keeps its blobs elsewhere does not make us send our password there", () =>
    Effect.gen(function* () {
      const elsewhere = yield* scriptedRegistry(image, (turn) => turn.serve())
      const registry = yield* scriptedRegistry(image, (turn) => {
        if (turn.authorization !== basicHeader) {
          return void turn.response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end()
        }
        return turn.path.startsWith("blobs/")
          ? void turn.response.writeHead(307, { location: `http://${elsewhere.host}/v2/app/${turn.path}` }).end()
          : turn.serve()
      })
      yield* withStore(Effect.flatMap(Content, (content) => content.pull(registry.name, { credentials: user })))
      assert.strictEqual(elsewhere.asked.length, 2)
      assert.deepStrictEqual([...new Set(elsewhere.asked.map(({ authorization }) => authorization))], [undefined])
    })
  )

  it.live("has a mirror is asked last, and the mirror never hears its password", () =>
    Effect.gen(function* () {
      const good = yield* scriptedRegistry(image, (turn) => turn.serve())
      const bad = yield* scriptedRegistry(image, onLayer(to(500)))
      const registry = yield* scriptedRegistry(image, (turn) => turn.serve())
      const host = (mirrors: ReadonlyArray<string>): RegistryHost => ({
        mirrors,
        plainHttp: undefined,
        certificateAuthority: undefined,
        credentials: user
      })
      const pull = (mirrors: ReadonlyArray<string>) =>
        withStore(
          Effect.flatMap(Content, (content) => content.pull(registry.name)),
          {
            ...settings,
            hosts: { [registry.host]: host(mirrors) }
          }
        )
      yield* pull([`http://${good.host}`])
      assert.deepStrictEqual([good.asked.length, registry.asked.length], [3, 0])
      assert.deepStrictEqual([...new Set(good.asked.map(({ authorization }) => authorization))], [undefined])
      // the manifest comes from the mirror, the layer in the end from the registry
      yield* pull([`http://${bad.host}`])
      assert.deepStrictEqual(
        registry.asked.map(({ path }) => path),
        [layer]
      )
      // a mirror that is not there at all
      yield* pull(["http://127.0.0.1:1"])
      assert.strictEqual(registry.asked.length, 1 + 3)
    })
  )

  it.live("speaks no TLS, no HTTP or is not there is told apart", () =>
    Effect.gen(function* () {
      const plain = yield* serve((_, response) => void response.end())
      const garbage = yield* Effect.acquireRelease(
        Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
          const server = createServer((socket) => {
            socket.on("error", () => {})
            socket.end("SSH-2.0-OpenSSH_9.2\r\n")
          })
          server.listen(0, "127.0.0.1", () => {
            const address = server.address()
            const port = typeof address === "object" ? (address?.port ?? 0) : 0
            resume(Effect.succeed({ port, close: () => void server.close() }))
          })
        }),
        ({ close }) => Effect.sync(close)
      )
      const failure = (name: string, hosts: RegistrySettings["hosts"] = {}) =>
        withStore(
          Effect.flatMap(Content, (content) => Effect.flip(content.pull(name))),
          { ...settings, hosts }
        )
      const secured = { mirrors: [], plainHttp: false, certificateAuthority: undefined, credentials: undefined }
      const noTls = yield* failure(`${plain.host}/app:1`, { [plain.host]: secured })
      assert.strictEqual(noTls._tag, "RegistryUnreachable")
      assert.include(noTls.message, "plainHttp")
      assert.strictEqual((yield* failure(`127.0.0.1:${garbage.port}/app:1`))._tag, "RegistryUnreachable")
      assert.include((yield* failure("127.0.0.1:1/app:1")).message, "ECONNREFUSED")
    })
  )
})
