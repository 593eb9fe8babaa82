/** The store is looked after: what goes when nobody uses it, what it takes up, whether it is well, and images out of it. */
import { assert, describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type CollectOptions, Content } from "../../src/storage/Content.ts"
import { buildImage, directory, file, hardlink, opaque, symlink, whiteout } from "../support/images.ts"
import { fromImages, own, stored, test } from "../support/imports.ts"
import { Store } from "../support/store.ts"

const shared = [directory("etc"), file("etc/shared", "x".repeat(1000))]
const [one, two] = ["one", "two"].map((name) => ({
  image: buildImage({ layers: [shared, [file(name, name.repeat(100))]] }),
  name: `${name}:1`
}))

const both = Effect.suspend(() =>
  one === undefined || two === undefined ? Effect.die("none") : fromImages([one, two])
)

const day = 86_400_000

describe("Content.collect", () => {
  const gone = (options: CollectOptions = {}) =>
    Effect.flatMap(Content, (content) =>
      Effect.map(content.collect(options), ({ images }) => images.flatMap(({ image }) => image.references).toSorted())
    )

  test(
    "takes what nobody uses: named ones when asked, by age, by how full the disk is, and never what is in use",
    Effect.gen(function* () {
      const content = yield* Content
      const [first] = yield* both
      yield* content.registerUsers((digest) => Effect.succeed(digest === first?.digest ? ["container web"] : []))
      assert.deepStrictEqual(yield* gone(), [])
      assert.deepStrictEqual(yield* gone({ all: true, unusedFor: day }), [])
      assert.deepStrictEqual(yield* gone({ untilPercent: 100 }), [])
      const before = yield* stored
      assert.deepStrictEqual(yield* gone({ all: true, dryRun: true }), ["two:1"])
      assert.deepStrictEqual(yield* stored, before)
      const report = yield* content.collect({ untilPercent: 0 })
      // manifest, configuration and one layer: the other is shared with the image in use
      assert.deepStrictEqual([report.images.length, report.blobs, report.layers], [1, 3, 1])
      assert.isAbove(report.freedBytes, 300)
      assert.deepStrictEqual(yield* gone({ all: true }), [])
      assert.strictEqual((yield* content.get("one:1")).digest, first?.digest)
    }).pipe(Effect.scoped)
  )

  test(
    "tells what everything takes up",
    Effect.gen(function* () {
      const content = yield* Content
      yield* both
      const [first] = yield* content.list
      yield* content.registerUsers((digest) => Effect.succeed(digest === first?.digest ? ["container web"] : []))
      const usage = yield* content.usage
      const [mine, other] = usage.images
      assert.deepStrictEqual(mine?.users, ["container web"])
      assert.deepStrictEqual(other?.users, [])
      assert.strictEqual(mine?.layerBytes, 1300)
      assert.isAbove(mine?.ownBytes ?? 0, 300)
      assert.isBelow(mine?.ownBytes ?? 0, (mine?.blobBytes ?? 0) + 1000)
      assert.deepStrictEqual([usage.blobs.count, usage.layers.count], [7, 3])
      assert.strictEqual(usage.layers.bytes, 1600)
      assert.strictEqual(usage.layers.unusedBytes, 300)
      assert.isTrue(Option.isSome(usage.disk))
    }).pipe(Effect.scoped)
  )
})

describe("Content.verify", () => {
  const varied = buildImage({
    layers: [
      [directory("a/b", { mode: 0o700 }), file("a/b/c", "lower"), file("a/gone")],
      [
        file("a/b/d", "upper", { mode: 0o4755, xattrs: { "user.x": "y" } }),
        symlink("link", "a/b/d"),
        hardlink("hard", "a/b/d"),
        whiteout("a/gone"),
        opaque("new"),
        file("new/file")
      ]
    ]
  })
  const imported = fromImages([{ image: varied, name: "varied:1" }])
  const blobFile = (digest: string) =>
    Effect.map(Store, (store) => join(store.directory, "content/blobs", digest.replace(":", "/")))

  test(
    "finds nothing in a store that is well",
    Effect.gen(function* () {
      yield* imported
      const report = yield* (yield* Content).verify()
      assert.deepStrictEqual(report, { images: 1, blobs: 4, layers: 2, damages: [] })
      assert.deepStrictEqual((yield* (yield* Content).verify({ quick: true })).damages, [])
    })
  )

  test(
    "finds a blob that has changed, one that is cut, one that is gone, a file of a layer that has changed, a layer that is gone",
    Effect.gen(function* () {
      const content = yield* Content
      const [image] = yield* imported
      const [lower, upper] = image?.layers ?? []
      const { directory: home } = yield* Store
      const found = (options = {}) =>
        Effect.map(content.verify(options), ({ damages }) =>
          damages.map(({ digest, kind, problem }) => [kind, digest, problem] as const)
        )
      const blob = yield* blobFile(lower?.digest ?? "")
      const bytes = readFileSync(blob)
      const altered = Buffer.from(bytes)
      altered[20] = (altered[20] ?? 0) ^ 1
      writeFileSync(blob, altered)
      assert.deepStrictEqual(yield* found({ quick: true }), [])
      assert.match((yield* found())[0]?.[2] ?? "", /its bytes have the digest/)
      writeFileSync(blob, bytes.subarray(1))
      assert.match((yield* found({ quick: true }))[0]?.[2] ?? "", /bytes, not/)
      rmSync(blob)
      assert.deepStrictEqual<ReadonlyArray<unknown>>(yield* found({ quick: true }), [
        ["blob", lower?.digest, "it is not there"]
      ])
      writeFileSync(blob, bytes)
      assert.deepStrictEqual(yield* found(), [])

      const layersHome = join(home, "content/layers")
      const trees = readdirSync(layersHome).filter((name) => !name.startsWith("empty-"))
      const withFile = trees.find((name) => existsSync(join(layersHome, name, "f/a/b/d"))) ?? ""
      writeFileSync(join(layersHome, withFile, "f/a/b/d"), "UPPER")
      const [changed] = yield* found()
      assert.deepStrictEqual([changed?.[0], changed?.[1]], ["layer", upper?.chainId])
      assert.match(changed?.[2] ?? "", /a\/b\/d: /)

      // in use it is told, not in use it goes and can be had again
      const using = yield* Effect.scoped(
        Effect.gen(function* () {
          yield* content.registerUsers(() => Effect.succeed(["container web"]))
          return yield* content.verify({ repair: true })
        })
      )
      assert.deepStrictEqual(
        using.damages.map(({ removed }) => removed),
        [false]
      )
      const repaired = yield* content.verify({ repair: true })
      assert.deepStrictEqual(
        repaired.damages.map(({ images, removed }) => [images, removed]),
        [[["varied:1"], true]]
      )
      assert.deepStrictEqual(yield* stored, [])
      yield* imported
      assert.deepStrictEqual(yield* found(), [])
    })
  )
})

describe("Content.exportTo", () => {
  for (const archive of [true, false]) {
    test(
      `writes ${archive ? "an archive" : "a directory"} that gives the same images, and nothing over what is there`,
      Effect.gen(function* () {
        const content = yield* Content
        const before = yield* both
        const target = yield* own(archive ? "out.tar" : "out")
        const exported = yield* content.exportTo(target, ["one:1", "two:1", "one:1"], { archive })
        assert.strictEqual(exported.images.length, 2)
        const again = yield* Effect.flip(content.exportTo(target, ["one:1"], { archive }))
        assert.include(again.message, "there is something already")
        for (const name of ["one:1", "two:1"]) yield* content.remove(name)
        assert.deepStrictEqual(yield* stored, [])
        const after = yield* content.importFrom(target)
        assert.deepStrictEqual(
          after.map(({ digest, references }) => `${digest} ${references.join(" ")}`).toSorted(),
          before.map(({ digest, references }) => `${digest} ${references.join(" ")}`).toSorted()
        )
        const missing = yield* Effect.flip(content.exportTo(`${target}2`, ["three"], { archive }))
        assert.strictEqual(missing._tag, "ImageNotFound")
        const damaged = yield* Store
        const blob = join(damaged.directory, "content/blobs", (after[0]?.digest ?? "").replace(":", "/"))
        writeFileSync(blob, "x")
        const error = yield* Effect.flip(content.exportTo(`${target}3`, ["one:1"], { archive }))
        assert.strictEqual(error._tag, "BlobCorrupt")
        assert.deepStrictEqual(
          readdirSync(damaged.directory).filter((name) => name.startsWith("out")),
          [archive ? "out.tar" : "out"]
        )
      })
    )
  }
})
