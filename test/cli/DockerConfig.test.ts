/** Credentials that docker has left on this machine: in its file, with a helper, in a store. The helper is a real program. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { credentialsFor, registryOf } from "../../src/cli/DockerConfig.ts"
import * as TestScreen from "./TestScreen.ts"

/** Knows one registry, and by a token. */
const helper = `#!/bin/sh
[ "$1" = get ] || exit 1
read -r server || [ -n "$server" ]
case "$server" in
  vault.test) echo '{"ServerURL":"vault.test","Username":"ada","Secret":"from the helper"}' ;;
  https://index.docker.io/v1/) echo '{"ServerURL":"x","Username":"<token>","Secret":"refresh"}' ;;
  *) echo "credentials not found" >&2; exit 1 ;;
esac
`

/** Runs with docker's file having this content, and the helper on the path as \`docker-credential-test\`. */
const withDocker = <A, E, R>(config: unknown, effect: Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "ironwood-docker-"))
      writeFileSync(join(directory, "config.json"), JSON.stringify(config))
      const program = join(directory, "docker-credential-test")
      writeFileSync(program, helper)
      chmodSync(program, 0o755)
      const before = { PATH: process.env["PATH"], DOCKER_CONFIG: process.env["DOCKER_CONFIG"] }
      process.env["PATH"] = `${directory}:${before.PATH ?? ""}`
      process.env["DOCKER_CONFIG"] = directory
      return { directory, before }
    }),
    () => effect,
    ({ before, directory }) =>
      Effect.sync(() => {
        for (const [name, value] of Object.entries(before)) {
          if (value === undefined) delete process.env[name]
          else process.env[name] = value
        }
        rmSync(directory, { recursive: true })
      })
  )

describe("docker's credentials", () => {
  it("belong to a registry, which a short name leaves out", () => {
    assert.deepStrictEqual(
      ["alpine", "team/app:1", "index.docker.io/x/y", "localhost/x", "10.0.0.1:5000/x", "[::1]:5000/x"].map(registryOf),
      ["docker.io", "docker.io", "docker.io", "localhost", "10.0.0.1:5000", "[::1]:5000"]
    )
  })

  it.layer(Layer.merge(NodeServices.layer, TestScreen.make().layer))((it) => {
    it.effect("are in its file, as name and password or as a refresh token", () =>
      withDocker(
        {
          auths: {
            "open.test": { auth: Buffer.from("ada:engine:1").toString("base64") },
            "https://token.test/v2/": { identitytoken: "long" }
          }
        },
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* credentialsFor("open.test/app"), {
            username: "ada",
            password: "engine:1",
            identityToken: ""
          })
          assert.deepStrictEqual(yield* credentialsFor("token.test/app"), {
            username: "",
            password: "",
            identityToken: "long"
          })
          assert.isUndefined(yield* credentialsFor("other.test/app"))
        })
      )
    )

    it.effect("are with a helper, for one registry", () =>
      withDocker(
        { credHelpers: { "vault.test": "test", "gone.test": "no-such-helper" } },
        Effect.gen(function* () {
          const found = yield* credentialsFor("vault.test/app:1")
          assert.strictEqual(found?.password, "from the helper")
          assert.isUndefined(yield* credentialsFor("gone.test/app"))
          assert.isUndefined(yield* credentialsFor("alpine"))
        })
      )
    )

    it.effect("are in a store, for all that stands nowhere else, docker.io by its old address", () =>
      withDocker(
        { auths: { "open.test": { username: "ada", password: "plain" } }, credsStore: "test" },
        Effect.gen(function* () {
          assert.strictEqual((yield* credentialsFor("open.test/app"))?.password, "plain")
          assert.strictEqual((yield* credentialsFor("vault.test/app"))?.password, "from the helper")
          assert.strictEqual((yield* credentialsFor("alpine:3"))?.identityToken, "refresh")
          assert.isUndefined(yield* credentialsFor("other.test/app"))
        })
      )
    )
  })
})
