/**
 * Registries for tests, on loopback and gone with the scope: Debian's `docker-registry` (without authentication, with a
 * password, or with tokens of a small token server), and how to push an image built by `images.ts` to one.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { execFileSync, spawn } from "node:child_process"
import { createSign } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type RequestListener, type Server } from "node:http"
import { createServer as createTlsServer } from "node:https"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import type { BuiltImage } from "./images.ts"

/** Who may pull and push where a password is wanted. */
export const user = { username: "ada", password: "engine no. 1" }
/** bcrypt of the password, as `htpasswd -B` writes it. */
const htpasswd = "ada:$2b$05$TDWsfAti1pqGUOSaig/qC.BzMXUL49VDmFdHNHV5m2MLqvr2ZT572\n"

export const basicHeader = `Basic ${Buffer.from(`${user.username}:${user.password}`).toString("base64")}`

/** Key and certificate of a server, in PEM; it is its own authority. */
export interface Tls {
  readonly key: string
  readonly cert: string
}

/** A key, and a certificate for these names (as of subjectAltName: `IP:127.0.0.1`, `DNS:registry.test`). */
export const selfSigned = (directory: string, ...names: ReadonlyArray<string>): Tls => {
  const [key, certificate] = [join(directory, "tls.key"), join(directory, "tls.crt")]
  const files = ["-keyout", key, "-out", certificate]
  const subject = ["-subj", "/CN=test", "-addext", `subjectAltName=${names.join(",")}`, "-days", "2"]
  execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", ...files, ...subject], { stdio: "ignore" })
  return { key: readFileSync(key, "utf8"), cert: readFileSync(certificate, "utf8") }
}

/** A server on a port of its own; `127.0.0.1:PORT`. */
export const serve = (
  listener: RequestListener,
  tls?: Tls
): Effect.Effect<{ readonly host: string; readonly server: Server }, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{ readonly host: string; readonly server: Server }>((resume) => {
      const server = tls === undefined ? createServer(listener) : createTlsServer({ ...tls }, listener)
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const { port } =
          typeof address === "object" && address !== null ? address : ({ port: 0 } satisfies Partial<AddressInfo>)
        resume(Effect.succeed({ host: `127.0.0.1:${port}`, server }))
      })
    }),
    ({ server }) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )

const freePort: Effect.Effect<number> = Effect.scoped(
  Effect.map(
    serve(() => {}),
    ({ host }) => Number(host.slice(host.indexOf(":") + 1))
  )
)

const base64url = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url")

/** A token server as the distribution specification describes one: RS256, the certificate in `x5c`. */
export const tokenServer = Effect.fnUntraced(function* (directory: string) {
  const [key, certificate] = [join(directory, "token.key"), join(directory, "token.crt")]
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-keyout",
      key,
      "-out",
      certificate,
      "-subj",
      "/CN=test",
      "-days",
      "2"
    ],
    { stdio: "ignore" }
  )
  const asked: Array<{ readonly authorization: string | undefined; readonly query: URLSearchParams }> = []
  const x5c = readFileSync(certificate, "utf8").replace(/-----[A-Z ]+-----|\s/g, "")
  const { host } = yield* serve((request, response) => {
    const query = new URL(request.url ?? "/", "http://x").searchParams
    const { authorization } = request.headers
    asked.push({ authorization, query })
    const scope = /^repository:([^:]+):([a-z,]+)$/.exec(query.get("scope") ?? "")
    const [, name = "", actions = ""] = scope ?? []
    // what is called private is for those with the password
    const allowed = authorization === basicHeader || (authorization === undefined && !name.startsWith("private"))
    if (!allowed) return void response.writeHead(401).end("{}")
    const now = Math.floor(Date.now() / 1000)
    const content = `${base64url({ typ: "JWT", alg: "RS256", x5c: [x5c] })}.${base64url({
      iss: "test",
      aud: query.get("service"),
      sub: "",
      exp: now + 300,
      nbf: now - 10,
      iat: now,
      jti: String(asked.length),
      access: [{ type: "repository", name, actions: actions.split(",") }]
    })}`
    const signature = createSign("RSA-SHA256").update(content).sign(readFileSync(key)).toString("base64url")
    response.setHeader("content-type", "application/json")
    response.end(JSON.stringify({ token: `${content}.${signature}`, expires_in: 300 }))
  })
  return { host, certificate, asked }
})

/** Debian's registry, empty. */
export const debianRegistry = Effect.fnUntraced(function* (
  authentication: "none" | "basic" | { readonly tokensOf: string; readonly certificate: string } = "none"
) {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync("/dev/shm/ironwood-registry-")),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
  )
  const host = `127.0.0.1:${yield* freePort}`
  const auth =
    authentication === "none"
      ? ""
      : authentication === "basic"
        ? `auth: {htpasswd: {realm: test, path: ${directory}/htpasswd}}\n`
        : `auth: {token: {realm: "http://${authentication.tokensOf}/token", service: test, issuer: test, rootcertbundle: ${authentication.certificate}}}\n`
  writeFileSync(join(directory, "htpasswd"), htpasswd)
  writeFileSync(
    join(directory, "config.yml"),
    `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${directory}/data}}\nhttp: {addr: "${host}"}\n${auth}`
  )
  yield* Effect.acquireRelease(
    Effect.sync(() => spawn("docker-registry", ["serve", join(directory, "config.yml")], { stdio: "ignore" })),
    (child) =>
      Effect.callback<void>((resume) => {
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  const isUp = Effect.promise(() =>
    fetch(`http://${host}/v2/`).then(
      () => true,
      () => false
    )
  )
  for (let count = 0; count < 200 && !(yield* isUp); count++) yield* Effect.sleep("50 millis")
  return host
})

const send = async (method: string, url: string, headers: Record<string, string>, body?: Uint8Array) => {
  const response = await fetch(url, { method, headers, ...(body === undefined ? {} : { body: Uint8Array.from(body) }) })
  await response.arrayBuffer()
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status}`)
  return response
}

/** Documents of an image (with an index, if one is given) to a registry, under a tag; gives the digest that the tag has. */
export const push = (
  host: string,
  repository: string,
  tag: string,
  image: BuiltImage,
  authorization?: string
): Effect.Effect<string> =>
  Effect.promise(async () => {
    const headers = authorization === undefined ? {} : { authorization }
    const base = `http://${host}/v2/${repository}`
    for (const [digest, bytes] of image.blobs) {
      if (digest === image.manifest.digest) continue
      const start = await send("POST", `${base}/blobs/uploads/`, headers)
      const location = new URL(start.headers.get("location") ?? "", base)
      location.searchParams.set("digest", digest)
      await send("PUT", location.href, { ...headers, "content-type": "application/octet-stream" }, bytes)
    }
    await pushManifest(base, tag, image.manifest.mediaType, image.blobs.get(image.manifest.digest), headers)
    return image.manifest.digest
  })

const pushManifest = (
  base: string,
  reference: string,
  mediaType: string,
  bytes: Uint8Array | undefined,
  headers: Record<string, string>
) => send("PUT", `${base}/manifests/${reference}`, { ...headers, "content-type": mediaType }, bytes ?? new Uint8Array())

/** An index of images that were pushed by digest. */
export const pushIndex = (
  host: string,
  repository: string,
  tag: string,
  images: ReadonlyArray<BuiltImage>
): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (const image of images) yield* push(host, repository, image.manifest.digest, image)
    const mediaType = "application/vnd.oci.image.index.v1+json"
    const bytes = Buffer.from(
      JSON.stringify({ schemaVersion: 2, mediaType, manifests: images.map(({ manifest }) => manifest) })
    )
    yield* Effect.promise(() => pushManifest(`http://${host}/v2/${repository}`, tag, mediaType, bytes, {}))
  })
