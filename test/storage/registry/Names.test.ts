/** What people type and what registries say, read: names, challenges, `Retry-After`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Challenge from "../../../src/storage/registry/Challenge.ts"
import { isInside, isLoopback } from "../../../src/storage/registry/RegistrySettings.ts"
import * as RemoteName from "../../../src/storage/registry/RemoteName.ts"
import { retryAfter } from "../../../src/storage/registry/Status.ts"

const digest = `sha256:${"a".repeat(64)}`

describe("RemoteName", () => {
  const names: ReadonlyArray<readonly [string, string, string, string, string]> = [
    ["alpine", "docker.io", "library/alpine", "latest", "alpine"],
    ["library/alpine:3", "docker.io", "library/alpine", "3", "alpine"],
    ["docker.io/alpine", "docker.io", "library/alpine", "latest", "alpine"],
    ["docker.io/library/alpine:3.20", "docker.io", "library/alpine", "3.20", "alpine"],
    ["index.docker.io/team/app", "docker.io", "team/app", "latest", "team/app"],
    ["team/app:1", "docker.io", "team/app", "1", "team/app"],
    ["ghcr.io/a/b/c:x", "ghcr.io", "a/b/c", "x", "ghcr.io/a/b/c"],
    ["localhost/app", "localhost", "app", "latest", "localhost/app"],
    ["localhost:5000/library/app", "localhost:5000", "library/app", "latest", "localhost:5000/library/app"],
    ["[::1]:5000/app:1", "[::1]:5000", "app", "1", "[::1]:5000/app"],
    [`alpine@${digest}`, "docker.io", "library/alpine", digest, "alpine"],
    [`alpine:3@${digest}`, "docker.io", "library/alpine", digest, "alpine"]
  ]
  for (const [text, registry, repository, wanted, name] of names) {
    it.effect(`reads ${text}`, () =>
      Effect.map(RemoteName.parse(text), (read) =>
        assert.deepStrictEqual(
          [read.registry, read.repository, RemoteName.wanted(read), read.name],
          [registry, repository, wanted, name]
        )
      )
    )
  }
  it.effect("refuses what no registry has", () =>
    Effect.gen(function* () {
      for (const text of [digest, "", "Alpine", "a b", "alpine:", "alpine@sha256:1", "https://alpine", "../etc"]) {
        assert.strictEqual((yield* Effect.flip(RemoteName.parse(text)))._tag, "ReferenceInvalid", text)
      }
    })
  )
})

describe("Challenge", () => {
  const read = (header: string) =>
    Challenge.parse(header).map(({ parameters, scheme }) => [scheme, Object.fromEntries(parameters)])
  it("reads one and several, quoted or not", () => {
    assert.deepStrictEqual(read('Bearer realm="https://a/t",service="a b",scope="repository:x:pull"'), [
      ["bearer", { realm: "https://a/t", service: "a b", scope: "repository:x:pull" }]
    ])
    assert.deepStrictEqual(read('Basic realm="a, b=\\"c\\"", Bearer realm=x'), [
      ["basic", { realm: 'a, b="c"' }],
      ["bearer", { realm: "x" }]
    ])
    assert.deepStrictEqual(read("Negotiate"), [["negotiate", {}]])
  })
  it("takes what is malformed as its end", () => {
    assert.deepStrictEqual(read(""), [])
    assert.deepStrictEqual(read('realm="x"'), [])
    assert.deepStrictEqual(read('Bearer realm="x'), [["bearer", {}]])
    assert.isAtMost(read("a,".repeat(100_000)).length, 64)
  })
})

describe("what a registry says", () => {
  it("Retry-After is a number or a date", () => {
    const now = Date.parse("2026-01-01T00:00:00Z")
    assert.strictEqual(retryAfter("12", now), 12)
    assert.strictEqual(retryAfter("Thu, 01 Jan 2026 00:01:00 GMT", now), 60)
    assert.strictEqual(retryAfter("Wed, 31 Dec 2025 00:00:00 GMT", now), 0)
    for (const nonsense of [undefined, "soon", "-5", "1e9"]) assert.strictEqual(retryAfter(nonsense, now), 1)
  })
  it("knows this machine and its link", () => {
    for (const host of ["localhost", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"]) assert.isTrue(isLoopback(host), host)
    for (const host of ["localhost.example.com", "128.0.0.1", "example.com:443"]) assert.isFalse(isLoopback(host), host)
    for (const host of ["169.254.169.254", "[fe80::1]", "0.0.0.0"]) assert.isTrue(isInside(host), host)
    assert.isFalse(isInside("10.0.0.1"))
  })
})
