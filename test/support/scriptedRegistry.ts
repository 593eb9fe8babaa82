/**
 * A registry that does what a test tells it to: it serves one image as a good registry would, and a script may answer any request
 * otherwise. It remembers what it was asked.
 */
import * as Effect from "effect/Effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { BuiltImage } from "./images.ts"
import { serve, type Tls } from "./registry.ts"

export interface Asked {
  readonly method: string
  /** Without the repository: `manifests/1`, `blobs/sha256:…`. */
  readonly path: string
  readonly range: string | undefined
  readonly authorization: string | undefined
}

export interface Turn extends Asked {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** How often this path was asked for, this time included. */
  readonly count: number
  /** The bytes that it stands for; none: there is no such thing. */
  readonly bytes: Uint8Array | undefined
  /** Answers as a good registry does, with other bytes if they are given. */
  readonly serve: (bytes?: Uint8Array) => void
}

export const scriptedRegistry = Effect.fnUntraced(function* (
  image: BuiltImage,
  script: (turn: Turn) => void,
  tls?: Tls
) {
  const asked: Array<Asked> = []
  const { host } = yield* serve((request, response) => {
    const path = (request.url ?? "").replace("/v2/app/", "")
    const { authorization, range } = request.headers
    const turn: Asked = { method: request.method ?? "", path, range, authorization }
    asked.push(turn)
    const isManifest = path.startsWith("manifests/")
    const name = path.slice(path.indexOf("/") + 1)
    const digest = isManifest && name === "1" ? image.manifest.digest : name
    const found = image.blobs.get(digest)
    const answer = (bytes = found) => {
      if (bytes === undefined) return void response.writeHead(404).end("{}")
      const from = range === undefined ? 0 : Number(/^bytes=(\d+)-$/.exec(range)?.[1])
      response.setHeader("content-type", isManifest ? image.manifest.mediaType : "application/octet-stream")
      if (isManifest) response.setHeader("docker-content-digest", digest)
      response.setHeader("content-length", bytes.length - from)
      if (range !== undefined) response.setHeader("content-range", `bytes ${from}-${bytes.length - 1}/${bytes.length}`)
      response.writeHead(range === undefined ? 200 : 206)
      return void response.end(request.method === "HEAD" ? undefined : bytes.subarray(from))
    }
    script({
      ...turn,
      request,
      response,
      count: asked.filter((one) => one.path === path).length,
      bytes: found,
      serve: answer
    })
  }, tls)
  return { host, name: `${host}/app:1`, asked }
})
