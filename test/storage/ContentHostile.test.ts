/** Sources of images that are wrong, cut off, damaged or hostile: each is a typed error that names what is wrong, and nothing of it stays. */
import { assert, describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { gzipSync } from "node:zlib"
import { Content } from "../../src/storage/Content.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import {
  buildImage,
  type BuiltImage,
  descriptor,
  dockerFiles,
  file,
  layoutFiles,
  ociArchive,
  sha256,
  symlink,
  tar
} from "../support/images.ts"
import { blobPath, fromBytes, fromFiles, simple, stored, test } from "../support/imports.ts"

/** Wrong sources: what, its files (or bytes), the error's tag and what its message must say. */
const wrong: ReadonlyArray<readonly [string, () => ReadonlyMap<string, Uint8Array> | Uint8Array, string, string]> = [
  ["an empty file", () => Buffer.alloc(0), "SourceInvalid", "neither oci-layout"],
  [
    "a text file",
    () => Buffer.from("hello\n".repeat(200)),
    "SourceInvalid",
    "it is neither a directory nor a tar archive"
  ],
  ["an archive of something else", () => tar([file("a")]), "SourceInvalid", "neither oci-layout"],
  [
    "an archive that is cut off",
    () => ociArchive([{ image: simple("x".repeat(5000)), name: "a:1" }]).subarray(0, 1500),
    "SourceInvalid",
    "cut off"
  ],
  [
    "a packed archive that is cut off",
    () => gzipSync(ociArchive([{ image: simple(), name: "a:1" }])).subarray(0, 300),
    "SourceInvalid",
    "cannot be unpacked (gzip"
  ],
  ["a layout without an index", () => without(layoutFiles([]), "index.json"), "SourceInvalid", "no index.json"],
  ["a layout without images", () => layoutFiles([]), "SourceInvalid", "it holds no image"],
  [
    "a layout of another version",
    () => replaced("oci-layout", '{"imageLayoutVersion":"2.0.0"}'),
    "DocumentInvalid",
    "imageLayoutVersion"
  ],
  ["an index that is no JSON", () => replaced("index.json", "{"), "DocumentInvalid", "index.json is not valid"],
  [
    "an index without manifests",
    () => replaced("index.json", '{"schemaVersion":2}'),
    "DocumentInvalid",
    '["manifests"]'
  ],
  [
    "an index with a wrong digest",
    () =>
      replaced(
        "index.json",
        '{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"sha256:../../etc/passwd","size":1}]}'
      ),
    "DocumentInvalid",
    '["manifests"][0]["digest"]'
  ],
  [
    "an index with a negative size",
    () =>
      replaced(
        "index.json",
        `{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"sha256:${"0".repeat(64)}","size":-1}]}`
      ),
    "DocumentInvalid",
    '["manifests"][0]["size"]'
  ],
  [
    "a huge index",
    () => replaced("index.json", " ".repeat(5 * 1024 * 1024)),
    "DocumentInvalid",
    "more than the 4194304 allowed"
  ],
  [
    "a deeply nested index",
    () => replaced("index.json", `{"schemaVersion":2,"manifests":${"[".repeat(10_000)}`),
    "DocumentInvalid",
    "nested 10001 deep"
  ],
  [
    "an index with too many manifests",
    () =>
      replaced(
        "index.json",
        `{"schemaVersion":2,"manifests":[${Array.from({ length: 1025 }, () => JSON.stringify(simple().manifest)).join(",")}]}`
      ),
    "DocumentInvalid",
    '["manifests"]'
  ],
  ["an index of indexes without end", () => nestedIndexes(6), "DocumentInvalid", "nested more than 4 deep"],
  [
    "an unknown kind of manifest",
    () =>
      replaced(
        "index.json",
        `{"schemaVersion":2,"manifests":[{"mediaType":"text/plain","digest":"sha256:${"0".repeat(64)}","size":1}]}`
      ),
    "MediaTypeUnsupported",
    "index.json manifests[0]"
  ],
  [
    "a missing manifest",
    () => withoutBlob(simple(), (image) => image.manifest.digest),
    "BlobMissing",
    "index.json manifests[0]"
  ],
  [
    "a missing configuration",
    () => withoutBlob(simple(), (image) => image.configuration.digest),
    "BlobMissing",
    "config"
  ],
  [
    "a missing layer",
    () => withoutBlob(simple(), (image) => image.layers[0]?.digest ?? ""),
    "BlobMissing",
    "layers[0]"
  ],
  [
    "a manifest with another digest",
    () =>
      withBlob(
        simple(),
        (image) => image.manifest.digest,
        (bytes) => Buffer.from(bytes.toString().replace("2", "3"))
      ),
    "BlobCorrupt",
    "its bytes have the digest"
  ],
  [
    "a manifest that is longer",
    () =>
      withBlob(
        simple(),
        (image) => image.manifest.digest,
        (bytes) => Buffer.concat([bytes, Buffer.alloc(10_000_000, " ")])
      ),
    "BlobCorrupt",
    "it has more bytes"
  ],
  [
    "a layer with another digest",
    () => withBlob(simple(), (image) => image.layers[0]?.digest ?? "", flip),
    "BlobCorrupt",
    "its bytes have the digest"
  ],
  [
    "a layer that is cut off",
    () =>
      withBlob(
        simple(),
        (image) => image.layers[0]?.digest ?? "",
        (bytes) => bytes.subarray(0, -1)
      ),
    "BlobCorrupt",
    "declared"
  ],
  [
    "a layer that is longer",
    () =>
      withBlob(
        simple(),
        (image) => image.layers[0]?.digest ?? "",
        (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])
      ),
    "BlobCorrupt",
    "more than the"
  ],
  [
    "a layer with another diff id",
    () =>
      image({
        changeConfiguration: (configuration) => ({
          ...configuration,
          rootfs: { type: "layers", diff_ids: [sha256(Buffer.from("x"))] }
        })
      }),
    "BlobCorrupt",
    "not the diff id"
  ],
  [
    "too few diff ids",
    () =>
      image({
        changeConfiguration: (configuration) => ({ ...configuration, rootfs: { type: "layers", diff_ids: [] } })
      }),
    "DocumentInvalid",
    "rootfs.diff_ids has 0 items, but the manifest has 1 layers"
  ],
  [
    "a configuration with wrong fields",
    () => image({ changeConfiguration: (configuration) => ({ ...configuration, os: 1, config: { Env: "A=b" } }) }),
    "DocumentInvalid",
    '["config"]["Env"]'
  ],
  [
    "too many layers",
    () => layoutFiles([{ image: buildImage({ layers: Array.from({ length: 128 }, () => [file("x")]) }), name: "a:1" }]),
    "DocumentInvalid",
    '["layers"]'
  ],
  [
    "a layer of an unknown type",
    () =>
      image({
        changeManifest: (manifest) => ({
          ...manifest,
          layers: [{ ...descriptor("application/x-squashfs", Buffer.from("x")) }]
        })
      }),
    "MediaTypeUnsupported",
    "application/x-squashfs"
  ],
  [
    "an encrypted layer",
    () =>
      image({
        changeManifest: (manifest) => ({
          ...manifest,
          layers: [{ ...descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", Buffer.from("x")) }]
        })
      }),
    "MediaTypeUnsupported",
    "layers[0]"
  ],
  [
    "a configuration of an unknown type",
    () =>
      image({
        changeManifest: (manifest) => ({
          ...manifest,
          config: { ...descriptor("application/vnd.cncf.helm.config.v1+json", Buffer.from("{}")) }
        })
      }),
    "MediaTypeUnsupported",
    "helm"
  ],
  ["a layer that is no gzip", () => badLayer(Buffer.from("no gzip at all")), "BlobCorrupt", "cannot be unpacked (gzip"],
  [
    "a layer whose gzip is cut off",
    () => badLayer(gzipSync(tar([file("a", "x".repeat(100_000))])).subarray(0, -12)),
    "BlobCorrupt",
    "cannot be unpacked (gzip"
  ],
  [
    "a layer that escapes",
    () =>
      layoutFiles([
        { image: buildImage({ layers: [[file("fine")], [file("ok"), symlink("e", "/"), file("e/pwn")]] }), name: "a:1" }
      ]),
    "LayerRefused",
    'entry "e/pwn" escapes'
  ],
  [
    "a Docker archive without its configuration",
    () => without(dockerFiles([{ image: simple(), name: "a:1" }]), ".json"),
    "BlobMissing",
    "manifest.json [0].Config"
  ],
  [
    "a Docker archive without its layer",
    () => without(dockerFiles([{ image: simple(), name: "a:1" }]), "layer.tar"),
    "BlobMissing",
    "manifest.json [0].Layers[0]"
  ],
  [
    "a Docker manifest with wrong fields",
    () => new Map([["manifest.json", Buffer.from('[{"Config":1}]')]]),
    "DocumentInvalid",
    '["Config"]'
  ],
  ["a name that is none", () => layoutFiles([{ image: simple(), name: "Bad Name:1" }]), "ReferenceInvalid", "Bad Name"]
]

const without = (files: Map<string, Uint8Array>, part: string): Map<string, Uint8Array> =>
  new Map([...files].filter(([name]) => name === "manifest.json" || !name.endsWith(part)))
const replaced = (name: string, text: string) =>
  layoutFiles([{ image: simple(), name: "a:1" }]).set(name, Buffer.from(text))
const withoutBlob = (built: BuiltImage, which: (built: BuiltImage) => string) => {
  const files = layoutFiles([{ image: built, name: "a:1" }])
  files.delete(blobPath(which(built)))
  return files
}
const withBlob = (built: BuiltImage, which: (built: BuiltImage) => string, change: (bytes: Buffer) => Buffer) => {
  const files = layoutFiles([{ image: built, name: "a:1" }])
  const path = blobPath(which(built))
  return files.set(path, change(Buffer.from(files.get(path) ?? "")))
}
const flip = (bytes: Buffer) => {
  const changed = Buffer.from(bytes)
  changed[20] = (changed[20] ?? 0) ^ 1
  return changed
}
const image = (changes: Pick<Parameters<typeof buildImage>[0], "changeConfiguration" | "changeManifest">) =>
  layoutFiles([{ image: buildImage({ layers: [[file("a")]], ...changes }), name: "a:1" }])
/** An image whose layer has the right digest and is not what its media type says. */
const badLayer = (bytes: Uint8Array) => {
  const layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", bytes)
  return image({ changeManifest: (manifest) => ({ ...manifest, layers: [layer] }) }).set(blobPath(layer.digest), bytes)
}
const nestedIndexes = (depth: number) => {
  const type = "application/vnd.oci.image.index.v1+json"
  const files = layoutFiles([])
  let inner = descriptor(type, Buffer.from("{}"))
  for (let level = 0; level < depth; level++) {
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [inner] }))
    inner = descriptor(type, bytes)
    files.set(blobPath(inner.digest), bytes)
  }
  return files.set("index.json", Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [inner] })))
}

describe("a wrong source is a typed error, and nothing of it stays:", () => {
  for (const [what, make, tag, message] of wrong) {
    test(
      what,
      Effect.gen(function* () {
        const input = make()
        const error = yield* Effect.flip(
          input instanceof Uint8Array ? fromBytes("source.tar", input) : fromFiles(input)
        )
        assert.strictEqual(error._tag, tag, error.message)
        assert.include(error.message, message)
        const content = yield* Content
        assert.deepStrictEqual(yield* content.list, [])
        yield* content.collect()
        assert.deepStrictEqual(yield* stored, [])
        assert.strictEqual((yield* (yield* Processes).status).processes, 0)
      })
    )
  }

  test(
    "no such file, and a file that is none",
    Effect.gen(function* () {
      const content = yield* Content
      assert.include((yield* Effect.flip(content.importFrom("/nowhere"))).message, "there is no such file or directory")
      assert.include(
        (yield* Effect.flip(content.importFrom("/dev/null"))).message,
        "neither a directory nor a regular file"
      )
    })
  )
})
