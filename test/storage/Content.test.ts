/** Importing, naming and removing images, against the real store: every form of source. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Struct from "effect/Struct"
import * as Fiber from "effect/Fiber"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { Content, type ImageRecord, type ImportedImage, type ImportProgress } from "../../src/storage/Content.ts"
import { Layers } from "../../src/storage/Layers.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import {
  archive,
  buildImage,
  directory,
  dockerArchive,
  dockerFiles,
  file,
  hostArchitecture,
  layoutFiles,
  multiPlatformFiles,
  ociArchive,
  sha256,
  symlink,
  tar,
  writeLayout
} from "../support/images.ts"
import { blobPath, fromBytes, fromFiles, fromImages, own, simple, stored, test } from "../support/imports.ts"
import * as Store from "../support/store.ts"
import * as Taproot from "../support/taproot.ts"

/** Digests are branded, so what is expected of them as text goes through here. */
const contains = (record: object, expected: object) => assert.deepInclude(record, expected)

/** The first, which must be there. */
const the = <A>(list: ReadonlyArray<A>): A => {
  for (const item of list) return item
  throw new Error("the list is empty")
}

const names = (images: ReadonlyArray<ImageRecord>) => images.map(({ references }) => references)

/** What an import brought, as it is listed. */
const inList = (image: ImportedImage): ImageRecord => Struct.omit(image, ["unchanged"])

describe("Content.importFrom", () => {
  test(
    "an OCI layout: the record says what the image says, and it is listed",
    Effect.gen(function* () {
      const image = buildImage({
        layers: [
          { entries: [directory("a"), file("a/b", "gzip")], compression: "gzip" },
          { entries: [file("a/c", "zstd")], compression: "zstd" },
          { entries: [file("a/d", "plain")], compression: "none" }
        ],
        config: {
          Entrypoint: ["/bin/sh", "-c"],
          Cmd: ["true"],
          Env: ["A=b", "C=d e"],
          User: "1000:1001",
          WorkingDir: "/a",
          StopSignal: "SIGINT",
          Volumes: { "/data": {} },
          ExposedPorts: { "80/tcp": {} },
          Labels: { k: "v" }
        }
      })
      const record = the(yield* fromImages([{ image, name: "docker.io/library/full:1.0" }]))
      contains(record, {
        digest: image.manifest.digest,
        configDigest: image.configuration.digest,
        references: ["full:1.0"],
        platform: { os: "linux", architecture: hostArchitecture },
        created: "2001-09-09T01:46:40Z",
        config: {
          entrypoint: ["/bin/sh", "-c"],
          cmd: ["true"],
          env: ["A=b", "C=d e"],
          user: "1000:1001",
          workingDir: "/a",
          stopSignal: "SIGINT",
          volumes: ["/data"],
          exposedPorts: ["80/tcp"],
          labels: { k: "v" }
        }
      })
      const content = yield* Content
      assert.deepStrictEqual(yield* content.list, [inList(record)])
      for (const reference of [
        "full:1.0",
        image.manifest.digest,
        image.configuration.digest,
        image.configuration.digest.slice(7, 19),
        `full:1.0@${image.manifest.digest}`
      ]) {
        assert.deepStrictEqual(yield* content.get(reference), inList(record), reference)
      }
      const layers = yield* Layers
      const [top, , bottom] = (yield* layers.lowerNames(record.layers.map(({ chainId }) => chainId))) ?? []
      assert.strictEqual(readFileSync(join(layers.directory, top ?? "", "a/d"), "utf8"), "plain")
      assert.strictEqual(readFileSync(join(layers.directory, bottom ?? "", "a/b"), "utf8"), "gzip")
      assert.strictEqual((yield* stored).length, 5 + 3)
    })
  )

  test(
    "an OCI archive, also packed as a whole, is the same image; what is there already is only looked at",
    Effect.gen(function* () {
      const image = simple()
      const bytes = ociArchive([{ image, name: "a:latest" }])
      const progress: Array<ImportProgress> = []
      const first = yield* fromBytes("image.tar", bytes, {
        onProgress: (step) => Effect.sync(() => void progress.push(step))
      })
      assert.deepStrictEqual(names(first), [["a:latest"]])
      assert.deepStrictEqual(
        [progress[0]?.layersDone, progress.at(-1)?.layersDone, progress.at(-1)?.step],
        [0, 1, "done"]
      )
      assert.strictEqual(progress.at(-1)?.bytesDone, progress.at(-1)?.bytesTotal)
      const before = yield* stored
      const again = first.map((image) => ({ ...image, unchanged: true }))
      assert.deepStrictEqual(yield* fromBytes("image.tar.gz", gzipSync(bytes)), again)
      assert.deepStrictEqual(yield* fromBytes("image.tar.zst", zstdCompressSync(bytes)), again)
      assert.deepStrictEqual(yield* stored, before)
    })
  )

  test(
    "a Docker archive, with plain or packed layers, and layers that are links to others",
    Effect.gen(function* () {
      const image = simple()
      const record = the(
        yield* fromBytes(
          "docker.tar",
          dockerArchive([
            { image, name: "docked:2" },
            { image: simple("two"), name: "other:1" }
          ])
        )
      )
      contains(record, { configDigest: image.configuration.digest, references: ["docked:2"] })
      assert.deepStrictEqual(
        record.layers.map(({ digest, diffId }) => digest === diffId),
        [true]
      )
      // The same again gives the same manifest.
      const again = the(yield* fromBytes("docker.tar", dockerArchive([{ image, name: "docked:2" }])))
      assert.deepStrictEqual(again, { ...record, unchanged: true })

      const files = dockerFiles([{ image, name: "packed:1" }])
      const layer = [...files.keys()].find((name) => name.endsWith("layer.tar")) ?? ""
      files.set(layer, gzipSync(files.get(layer) ?? Buffer.alloc(0)))
      const packed = the(yield* fromBytes("packed.tar", archive(files)))
      assert.deepStrictEqual(
        packed?.layers.map(({ mediaType }) => mediaType),
        ["application/vnd.oci.image.layer.v1.tar+gzip"]
      )

      // Old Dockers write a repeated layer as a symlink beside the first.
      const twice = buildImage({ layers: [[file("x")], [file("x")]] })
      const linked = tar([
        ...[...dockerFiles([{ image: twice, name: "linked:1" }])].map(([name, bytes]) =>
          file(
            name,
            name === "manifest.json"
              ? bytes.toString().replace(/("Layers":\["[^"]+",")[^"]+/, "$1second/layer.tar")
              : bytes
          )
        ),
        symlink("second/layer.tar", `../${sha256(twice.tars[0] ?? Buffer.alloc(0)).slice(7)}/layer.tar`)
      ])
      assert.deepStrictEqual(names(yield* fromBytes("linked.tar", linked)), [["linked:1"]])
    })
  )

  test(
    "an archive that is both at once, as new Dockers write it, is the OCI image with all of Docker's names",
    Effect.gen(function* () {
      const image = simple()
      const record = the(yield* fromBytes("both.tar", dockerArchive([{ image, name: "both:1" }], { both: true })))
      contains(record, { digest: image.manifest.digest, references: ["both:1"] })
    })
  )

  test(
    "several platforms: this machine's, in a nested index or side by side; none for it is an error that says which there are",
    Effect.gen(function* () {
      const here = simple("here")
      const elsewhere = buildImage({ layers: [[file("x")]], platform: { os: "linux", architecture: "s390x" } })
      const windows = buildImage({ layers: [[file("x")]], platform: { os: "windows", architecture: hostArchitecture } })
      const nested = the(yield* fromFiles(multiPlatformFiles("multi:1", [elsewhere, windows, here])))
      contains(nested, { digest: here.manifest.digest, references: ["multi:1"] })
      const sideBySide = layoutFiles([{ image: elsewhere }, { image: here }])
      sideBySide.set(
        "index.json",
        Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [elsewhere.manifest, here.manifest] }))
      )
      assert.deepStrictEqual(
        (yield* fromFiles(sideBySide)).map(({ digest }) => digest),
        [here.manifest.digest]
      )
      const missing = yield* Effect.flip(fromFiles(multiPlatformFiles("multi:1", [elsewhere, windows])))
      assert.strictEqual(
        missing.message,
        `the image is not made for linux/${hostArchitecture}; it has linux/s390x, windows/${hostArchitecture}`
      )
      const onlyElsewhere = yield* Effect.flip(fromImages([{ image: elsewhere, name: "x:1" }]))
      assert.strictEqual(onlyElsewhere._tag, "PlatformMissing")
    })
  )

  test(
    "attestations in an index are no images",
    Effect.gen(function* () {
      const image = simple()
      const attestation = {
        ...simple("attestation").manifest,
        platform: { os: "unknown", architecture: "unknown" },
        annotations: { "vnd.docker.reference.type": "attestation-manifest" }
      }
      const files = layoutFiles([{ image }])
      files.set(
        "index.json",
        Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [image.manifest, attestation] }))
      )
      assert.deepStrictEqual(
        (yield* fromFiles(files)).map(({ digest }) => digest),
        [image.manifest.digest]
      )
    })
  )

  test(
    "names: several images, one selected, another name, a bare tag",
    Effect.gen(function* () {
      const images = [
        { image: simple("a"), name: "a:1" },
        { image: simple("b"), name: "b:latest" }
      ]
      assert.deepStrictEqual(names(yield* fromImages(images)), [["a:1"], ["b:latest"]])
      assert.deepStrictEqual(names(yield* fromImages(images, { select: "b", name: "mine/c" })), [
        ["b:latest", "mine/c:latest"]
      ])
      const two = yield* Effect.flip(fromImages(images, { name: "c" }))
      assert.include(two.message, "it holds 2 images (a:1, b:latest); select the one that is to be called c:latest")
      const none = yield* Effect.flip(fromImages(images, { select: "c" }))
      assert.include(none.message, 'it holds no image "c", only a:1, b:latest')
      assert.strictEqual(
        (yield* Effect.flip(fromImages(images, { select: "a:1", name: "UPPER" })))._tag,
        "ReferenceInvalid"
      )
      assert.strictEqual(
        (yield* Effect.flip(fromImages(images, { select: "a:1", name: images[0]?.image.manifest.digest ?? "" })))._tag,
        "ReferenceInvalid"
      )
      // umoci writes a tag and nothing more: the layout's own name goes before it.
      const tagged = layoutFiles([{ image: simple("d") }])
      tagged.set(
        "index.json",
        Buffer.from(
          tagged
            .get("index.json")
            ?.toString()
            .replace(/\}\]\}$/, ',"annotations":{"org.opencontainers.image.ref.name":"v7"}}]}') ?? ""
        )
      )
      assert.deepStrictEqual(names(yield* fromFiles(tagged)), [["source:v7"]])
    })
  )

  test(
    "concurrent imports of the same image do the work once",
    Effect.gen(function* () {
      const path = yield* own("shared")
      const base = [file("base", Buffer.alloc(500_000, "b"))]
      writeLayout(path, [{ image: buildImage({ layers: [base, [file("a")]] }), name: "a:1" }])
      const other = yield* own("other")
      writeLayout(other, [{ image: buildImage({ layers: [base, [file("b")]] }), name: "b:1" }])
      const content = yield* Content
      const processes = yield* Processes
      const records = yield* Effect.forEach(
        [path, other, path, other, path, other],
        (from) => content.importFrom(from),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(records.flat().map(({ digest }) => digest)).size, 2)
      assert.strictEqual((yield* stored).length, 4 + 3 + 3)
      assert.strictEqual((yield* processes.status).processes, 0)
    })
  )
})

describe("names and removal", () => {
  test(
    "a tag moves, the image it left stays nameless until prune, and shared layers stay with who has them",
    Effect.gen(function* () {
      const content = yield* Content
      const base = [file("base", "b")]
      const first = the(yield* fromImages([{ image: buildImage({ layers: [base, [file("1")]] }), name: "app:latest" }]))
      const second = the(
        yield* fromImages([{ image: buildImage({ layers: [base, [file("2")]] }), name: "app:latest" }])
      )
      assert.deepStrictEqual(names(yield* content.list), [["app:latest"], []])
      assert.strictEqual((yield* content.get("app")).digest, second.digest)
      assert.deepStrictEqual((yield* content.tag(first.digest, "old:1")).references, ["old:1"])
      assert.deepStrictEqual((yield* content.tag("old:1", "older")).references, ["old:1", "older:latest"])
      const partly = yield* content.remove("old:1")
      assert.deepStrictEqual([partly.references, partly.removed], [["old:1"], undefined])
      const wholly = yield* content.remove("older")
      assert.strictEqual(wholly.removed, first.digest)
      assert.isAbove(wholly.freedBytes, 0)
      assert.strictEqual((yield* stored).length, 4 + 2)
      yield* content.tag("app", "again")
      yield* fromImages([{ image: simple(), name: "app:latest" }])
      const all = yield* content.remove(second.digest)
      assert.deepStrictEqual(all.references, ["again:latest"])
      assert.deepStrictEqual(names(yield* content.list), [["app:latest"]])
    })
  )

  test(
    "an image in use is not removed, nor pruned; its other names may go",
    Effect.gen(function* () {
      const content = yield* Content
      const record = the(yield* fromImages([{ image: simple(), name: "used:1" }]))
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* content.registerUsers((digest) => Effect.succeed(digest === record.digest ? ["container web"] : []))
          const refused = yield* Effect.flip(content.remove("used:1"))
          assert.strictEqual(refused.message, "image used:1 is in use by container web; remove those first")
          assert.strictEqual((yield* Effect.flip(content.remove(record.digest)))._tag, "ImageInUse")
          yield* content.tag("used:1", "second")
          yield* content.remove("used:1")
          yield* fromImages([{ image: simple("x"), name: "second:latest" }])
          assert.deepStrictEqual(
            (yield* content.collect()).images.map(({ image }) => image.digest),
            []
          )
        })
      )
      assert.deepStrictEqual(
        (yield* content.collect()).images.map(({ image }) => image.digest),
        [record.digest]
      )
    })
  )

  test(
    "unknown and impossible references",
    Effect.gen(function* () {
      const content = yield* Content
      const record = the(yield* fromImages([{ image: simple(), name: "localhost:5000/a/b:1" }]))
      assert.strictEqual((yield* content.get("localhost:5000/a/b:1")).digest, record.digest)
      for (const unknown of [
        "localhost:5000/a/b",
        "nothing",
        "b:1",
        `sha256:${"0".repeat(64)}`,
        `localhost:5000/a/b:1@sha256:${"0".repeat(64)}`,
        "0123456"
      ]) {
        assert.strictEqual((yield* Effect.flip(content.get(unknown)))._tag, "ImageNotFound", unknown)
      }
      for (const impossible of [
        "",
        "UPPER",
        "a:",
        ":a",
        "a@sha256:1",
        "a b",
        "../a",
        "a//b",
        "a:b:c",
        "x".repeat(600)
      ]) {
        assert.strictEqual((yield* Effect.flip(content.get(impossible)))._tag, "ReferenceInvalid", impossible)
      }
    })
  )
})

describe("restart", () => {
  it.live("what was imported is there; what was half-imported when the brain died is gone", () =>
    Effect.gen(function* () {
      const home = yield* Store.scratch
      const brain = Effect.provide(Store.inDirectory(home), { local: true })
      const before = yield* brain(fromImages([{ image: simple(), name: "a:1" }]))
      const whole = yield* Effect.provideService(stored, Store.Store, { directory: home })
      // A blob and a layer without a record, and temporary files, as a kill at various steps leaves them.
      const left = buildImage({ layers: [[file("left")]] })
      for (const [digest, bytes] of left.blobs) writeFileSync(join(home, "content", blobPath(digest)), bytes)
      mkdirSync(join(home, "content/temporary/layer-0/f"), { recursive: true })
      writeFileSync(join(home, "content/temporary/blob-0"), "half")
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* (yield* Content).list, before.map(inList))
        assert.deepStrictEqual(yield* stored, whole)
        // And the same image again does nothing new.
        const again = before.map((image) => ({ ...image, unchanged: true }))
        assert.deepStrictEqual(yield* fromImages([{ image: simple(), name: "a:1" }]), again)
      }).pipe(brain)
    }).pipe(Effect.provide(Taproot.layer()))
  )

  test(
    "an import that is interrupted leaves nothing, and the same import works after it",
    Effect.gen(function* () {
      const content = yield* Content
      const path = yield* own("big")
      writeLayout(path, [
        {
          image: buildImage({
            layers: [[file("a", Buffer.alloc(3_000_000, "a"))], [file("b", Buffer.alloc(3_000_000, "b"))]]
          }),
          name: "big:1"
        }
      ])
      let steps = 0
      const running = yield* Effect.forkChild(
        content.importFrom(path, {
          onProgress: () => Effect.suspend(() => (++steps === 2 ? Effect.never : Effect.void))
        })
      )
      yield* Effect.suspend(() => (steps >= 2 ? Effect.void : Effect.fail("not yet"))).pipe(
        Effect.eventually,
        Effect.timeout("20 seconds")
      )
      yield* Fiber.interrupt(running)
      yield* content.collect()
      assert.deepStrictEqual(yield* stored, [])
      assert.deepStrictEqual(names(yield* content.importFrom(path)), [["big:1"]])
    })
  )

  it.live("on a full disk it says so, keeps nothing, and works again when there is room", () =>
    Effect.gen(function* () {
      const taproot = yield* Taproot.Taproot
      const processes = yield* Processes
      const home = yield* Store.scratch
      const mount = join(home, "small")
      mkdirSync(mount)
      yield* processes.mount({ source: "tmpfs", target: mount, type: "tmpfs", data: "size=4m" })
      const small = `/proc/${taproot.pid}/root${mount}`
      const source = join(home, "source")
      const noise = (size: number) => {
        const bytes = Buffer.alloc(size)
        for (let index = 0, value = 1; index < size; index++)
          bytes[index] = value = ((value * 1_103_515_245 + 12_345) & 0xff) ^ (index >> 8)
        return bytes
      }
      writeLayout(source, [
        {
          image: buildImage({
            layers: [[file("big", noise(1_000_000))], { entries: [file("bigger", Buffer.alloc(6_000_000, "x"))] }]
          }),
          name: "big:1"
        },
        { image: simple(), name: "small:1" }
      ])
      yield* Effect.gen(function* () {
        const content = yield* Content
        const error = yield* Effect.flip(content.importFrom(source, { select: "big:1" }))
        assert.strictEqual(error._tag, "StorageFailed", error.message)
        assert.include(error.message, "the disk is full")
        assert.deepStrictEqual(yield* content.list, [])
        assert.deepStrictEqual(yield* stored, [])
        assert.deepStrictEqual(names(yield* content.importFrom(source, { select: "small:1" })), [["small:1"]])
      }).pipe(Effect.provide(Store.images(small), { local: true }))
    }).pipe(Effect.provide(Taproot.layer()))
  )
})

it.live("the sample image of set-up is importable", () =>
  Effect.gen(function* () {
    const path = join(dirname(dirname(import.meta.dirname)), "build/sample-image")
    if (!existsSync(path)) return
    const images = yield* (yield* Content).importFrom(path)
    assert.deepStrictEqual(names(images), [["hello:latest"], ["flaky:latest"]])
  }).pipe(Effect.provide(Store.layer()))
)
