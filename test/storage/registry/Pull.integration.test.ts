/** Pulls from Debian's `docker-registry` on loopback: as anybody, with a password, with tokens; what is kept and what is not fetched twice. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Content, type LayerProgress } from "../../../src/storage/Content.ts"
import type { Credentials, RegistrySettings } from "../../../src/storage/registry/RegistrySettings.ts"
import { usualSettings } from "../../../src/storage/registry/RegistrySettings.ts"
import { buildImage, directory, file } from "../../support/images.ts"
import { simple, stored } from "../../support/imports.ts"
import { basicHeader, debianRegistry, push, pushIndex, tokenServer, user } from "../../support/registry.ts"
import * as Store from "../../support/store.ts"

const withStore = <A, E>(
  effect: Effect.Effect<A, E, Content | Store.Store>,
  settings: RegistrySettings = usualSettings
) => Effect.provide(effect, Store.layer({}, settings), { local: true })

const layered = buildImage({
  layers: [
    { entries: [directory("etc"), file("etc/motd", "gzip")], compression: "gzip" },
    { entries: [file("etc/zstd", "zstd".repeat(50_000))], compression: "zstd" },
    { entries: [file("etc/plain", "plain")], compression: "none" }
  ],
  config: { Cmd: ["/bin/true"] }
})

const Token = Schema.Struct({ token: Schema.String })

describe("Content.pull", () => {
  it.live("pulls gzip, zstd and plain layers, tells how far it is, and fetches nothing twice", () =>
    Effect.gen(function* () {
      const host = yield* debianRegistry()
      const digest = yield* push(host, "team/app", "1", layered)
      yield* withStore(
        Effect.gen(function* () {
          const content = yield* Content
          const steps: Array<string> = []
          const onProgress = (step: {
            readonly layersDone: number
            readonly layersTotal: number
            readonly bytesDone: number
            readonly bytesTotal: number
            readonly layers: ReadonlyArray<LayerProgress>
          }) =>
            Effect.sync(() => {
              assert.strictEqual(step.layers.filter(({ done }) => done).length, step.layersDone)
              assert.strictEqual(
                step.layers.reduce((sum, { bytesDone }) => sum + bytesDone, 0),
                step.bytesDone
              )
              steps.push(`${step.layersDone}/${step.layersTotal} ${step.bytesDone === step.bytesTotal}`)
            })
          const image = yield* content.pull(`${host}/team/app:1`, { onProgress })
          assert.strictEqual(image.digest, digest)
          assert.deepStrictEqual(image.references, [`${host}/team/app:1`])
          assert.deepStrictEqual(image.digests, [`${host}/team/app@${digest}`])
          assert.isFalse(image.unchanged)
          assert.strictEqual(steps[0], "0/3 false")
          assert.strictEqual(steps.at(-1), "3/3 true")
          const kept = yield* stored
          // manifest, configuration and three layers, each blob and each tree
          assert.strictEqual(kept.filter((name) => name.startsWith("content/blobs")).length, 5)
          assert.strictEqual(kept.filter((name) => name.startsWith("content/layers")).length, 3)
          assert.deepStrictEqual(
            kept.filter((name) => name.startsWith("content/temporary")),
            []
          )

          assert.isTrue((yield* content.pull(`${host}/team/app:1`)).unchanged)
          assert.isTrue((yield* content.pull(`${host}/team/app@${digest}`)).unchanged)
          assert.strictEqual((yield* content.get(`${host}/team/app@${digest}`)).digest, digest)
          assert.deepStrictEqual(yield* stored, kept)
        })
      )
    })
  )

  it.live("takes the platform of this machine from an index, and another one when asked", () =>
    Effect.gen(function* () {
      const host = yield* debianRegistry()
      const other = buildImage({
        layers: [[file("arm")]],
        platform: { os: "linux", architecture: "riscv64" }
      })
      yield* pushIndex(host, "multi", "latest", [other, layered])
      yield* withStore(
        Effect.gen(function* () {
          const content = yield* Content
          const image = yield* content.pull(`${host}/multi`)
          assert.strictEqual(image.digest, layered.manifest.digest)
          assert.deepStrictEqual(image.references, [`${host}/multi:latest`])
          assert.strictEqual(image.digests.length, 1)
          assert.notInclude(image.digests[0] ?? "", image.digest)
          // the index is what the registry calls it
          assert.strictEqual((yield* content.get(image.digests[0] ?? "")).digest, image.digest)
          assert.isTrue((yield* content.pull(`${host}/multi`)).unchanged)

          const asked = yield* content.pull(`${host}/multi`, { platform: { os: "linux", architecture: "riscv64" } })
          assert.strictEqual(asked.digest, other.manifest.digest)
          const error = yield* Effect.flip(
            content.pull(`${host}/multi`, { platform: { os: "linux", architecture: "s390x" } })
          )
          assert.strictEqual(error._tag, "PlatformMissing")
          assert.include(error.message, "linux/riscv64")
        })
      )
    })
  )

  it.live("a tag that has moved is pulled again; what it left goes with the next clean-up", () =>
    Effect.gen(function* () {
      const host = yield* debianRegistry()
      yield* withStore(
        Effect.gen(function* () {
          const content = yield* Content
          const name = `${host}/app:latest`
          const first = yield* push(host, "app", "latest", simple("one"))
          yield* content.pull(name)
          const second = yield* push(host, "app", "latest", simple("two"))
          assert.strictEqual((yield* content.pull(name, { policy: "if-not-present" })).digest, first)
          assert.strictEqual((yield* content.pull(name)).digest, second)
          const [left] = (yield* content.list).filter(({ digest }) => digest === first)
          assert.deepStrictEqual([left?.references, left?.digests], [[], []])
          assert.deepStrictEqual<ReadonlyArray<string>>(
            (yield* content.collect()).images.map(({ image }) => image.digest),
            [first]
          )
          const removal = yield* content.remove(name)
          assert.deepStrictEqual(removal.references, [name, `${host}/app@${second}`])
          assert.deepStrictEqual(yield* stored, [])
        })
      )
    })
  )

  it.live("concurrent pulls of shared layers do the work once", () =>
    Effect.gen(function* () {
      const host = yield* debianRegistry()
      const shared = { entries: [file("shared", Buffer.alloc(3_000_000, "abc"))], compression: "none" } as const
      const names = ["a", "b", "c"]
      const images = names.map((name) => buildImage({ layers: [shared, [file(name)]] }))
      for (const [index, image] of images.entries()) yield* push(host, names[index] ?? "", "1", image)
      yield* withStore(
        Effect.gen(function* () {
          const content = yield* Content
          yield* Effect.forEach(names, (name) => content.pull(`${host}/${name}:1`), { concurrency: 3 })
          const kept = yield* stored
          assert.strictEqual(kept.filter((name) => name.startsWith("content/layers")).length, 4)
          assert.strictEqual(kept.filter((name) => name.startsWith("content/blobs")).length, 3 * 2 + 4)
        })
      )
    })
  )

  it.live("with a password: none, a wrong one, the right one from the request or from the config", () =>
    Effect.gen(function* () {
      const host = yield* debianRegistry("basic")
      yield* push(host, "app", "1", simple(), basicHeader)
      const name = `${host}/app:1`
      const refused = (credentials?: Credentials) =>
        withStore(
          Effect.gen(function* () {
            const pulling = (yield* Content).pull(name, credentials === undefined ? {} : { credentials })
            const error = yield* Effect.flip(pulling)
            assert.strictEqual(error._tag, "CredentialsRefused")
            assert.notInclude(error.message, "engine")
            return error.message
          })
        )
      assert.include(yield* refused(), "none were given")
      assert.include(yield* refused({ ...user, password: "engine no. 2" }), "the user name or the password is wrong")
      yield* withStore(Effect.flatMap(Content, (content) => content.pull(name, { credentials: user })))
      const configured = { mirrors: [], plainHttp: undefined, certificateAuthority: undefined, credentials: user }
      yield* withStore(
        Effect.flatMap(Content, (content) => content.pull(name)),
        { ...usualSettings, hosts: { [host]: configured } }
      )
    })
  )

  it.live("with tokens: for anybody, for somebody, one for all requests of a pull", () =>
    Effect.gen(function* () {
      const home = yield* Store.scratch
      const tokens = yield* tokenServer(home)
      const host = yield* debianRegistry({ tokensOf: tokens.host, certificate: tokens.certificate })
      const tokenFor = (repository: string, authorization?: string) =>
        Effect.promise(async () => {
          const scope = `repository:${repository}:pull,push`
          const response = await fetch(`http://${tokens.host}/token?service=test&scope=${scope}`, {
            headers: authorization === undefined ? {} : { authorization }
          })
          return `Bearer ${Schema.decodeUnknownSync(Token)(await response.json()).token}`
        })
      yield* push(host, "open", "1", layered, yield* tokenFor("open"))
      yield* push(host, "private/app", "1", layered, yield* tokenFor("private/app", basicHeader))
      yield* withStore(
        Effect.gen(function* () {
          const content = yield* Content
          tokens.asked.length = 0
          yield* content.pull(`${host}/open:1`)
          yield* content.pull(`${host}/open:1`)
          assert.strictEqual(tokens.asked.length, 1)
          assert.strictEqual(tokens.asked[0]?.query.get("scope"), "repository:open:pull")
          const none = yield* Effect.flip(content.pull(`${host}/private/app:1`))
          assert.strictEqual(none._tag, "CredentialsRefused")
          const wrong = yield* Effect.flip(
            content.pull(`${host}/private/app:1`, { credentials: { ...user, password: "x" } })
          )
          assert.include(wrong.message, "refuses the user name or the password")
          yield* content.pull(`${host}/private/app:1`, { credentials: user })
        })
      )
    })
  )

  it.live("what is not there: the tag, the registry; and what may not be asked for", () =>
    Effect.gen(function* () {
      const host = yield* debianRegistry()
      yield* withStore(
        Effect.gen(function* () {
          const content = yield* Content
          const missing = yield* Effect.flip(content.pull(`${host}/app:1`))
          assert.strictEqual(missing._tag, "RemoteImageNotFound")
          assert.include(missing.message, `has no image ${host}/app:1`)
          const never = yield* Effect.flip(content.pull("app:1", { policy: "never" }))
          assert.strictEqual(never._tag, "PullNotAllowed")
          const wrong = yield* Effect.flip(content.pull("App:1"))
          assert.strictEqual(wrong._tag, "ReferenceInvalid")
          const nowhere = yield* Effect.flip(content.pull("nowhere.invalid/app:1"))
          assert.strictEqual(nowhere._tag, "RegistryUnreachable")
          assert.deepStrictEqual(yield* stored, [])
        })
      )
    })
  )
})
