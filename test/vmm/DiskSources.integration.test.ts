/** Disks that come from artifacts in a real registry, and volumes as disks: as real guests find them, and who is refused them. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { existsSync, readFileSync } from "node:fs"
import { gzipSync, zstdCompressSync } from "node:zlib"
import * as Refusals from "../../src/runtime/microvm/Refusals.ts"
import { Digest } from "../../src/storage/Digest.ts"
import { Content } from "../../src/storage/Content.ts"
import { Volumes, VolumeSpec } from "../../src/storage/Volumes.ts"
import { choose } from "../../src/vmm/ImageDisks.ts"
import { VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import type { Vms } from "../../src/vmm/Vms.ts"
import { DiskSpec, problemsOf, withFields } from "../../src/vmm/VmSpec.ts"
import { type BuiltImage, descriptor } from "../support/images.ts"
import { simple } from "../support/imports.ts"
import { debianRegistry, push } from "../support/registry.ts"
import { says, specOf, until, withVms } from "./world.ts"

const MIB = 1024 * 1024
const rootfs = "application/vnd.ironcore.image.rootfs.v1alpha1.rootfs"
const kernel = "application/vnd.ironcore.image.kernel.v1alpha1.vmlinuz"
const bytes = "application/octet-stream"

/** A raw disk whose first sector says so. */
const raw = (words: string, size = MIB): Buffer => {
  const disk = Buffer.alloc(size)
  disk.write(`${words}\n`)
  return disk
}

const qcow2 = (): Buffer => {
  const header = Buffer.alloc(512)
  header.writeUInt32BE(0x514649fb, 0)
  header.writeUInt32BE(3, 4)
  return header
}

const artifact = (...layers: ReadonlyArray<readonly [mediaType: string, content: Uint8Array]>): BuiltImage => {
  const configuration = descriptor("application/vnd.oci.empty.v1+json", Buffer.from("{}"))
  const described = layers.map(([mediaType, content]) => descriptor(mediaType, content))
  const mediaType = "application/vnd.oci.image.manifest.v1+json"
  const document = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType, config: configuration, layers: described })
  )
  const manifest = descriptor(mediaType, document)
  return {
    blobs: new Map<string, Uint8Array>([
      [configuration.digest, Buffer.from("{}")],
      ...layers.map(([, content], index) => [described[index]?.digest ?? "", content] as const),
      [manifest.digest, document]
    ]),
    manifest,
    configuration,
    layers: described,
    tars: []
  }
}

const type = (vms: Vms["Service"], name: string, line: string) =>
  Effect.flatMap(vms.attach(name), ({ write }) => write(Buffer.from(`${line}\n`)))

const volumeOf = Schema.decodeUnknownSync(VolumeSpec)
const diskOf = Schema.decodeUnknownSync(DiskSpec)

describe("Disks of images", () => {
  it.live("a machine has a copy of its own from its first start to its removal", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const host = yield* debianRegistry()
        const content = yield* Content
        yield* push(
          host,
          "disks/root",
          "1",
          artifact([kernel, Buffer.from("a kernel")], [rootfs, raw("from the registry")])
        )
        yield* push(host, "disks/more", "1", artifact([bytes, gzipSync(raw("more", 3 * MIB))]))
        const wanted = {
          commandLine: "console=ttyS0 panic=-1 guest.do=read",
          disks: [{ image: `${host}/disks/root:1` }, { image: `${host}/disks/more:1`, serial: "more" }]
        }
        const made = yield* vms.create(yield* specOf("web", wanted), { wait: true })
        yield* says(vms, "web", "guest: disk says from the registry")
        yield* says(vms, "web", "disk vdb serial=more ro=0 sectors=6144")
        const [first, second] = made.spec.disks.map(({ path }) => path)
        assert.include(first ?? "", "/machines/web/disks/disk-")
        assert.isTrue(readFileSync(second ?? "").equals(raw("more", 3 * MIB)))
        assert.strictEqual((yield* vms.create(yield* specOf("web", wanted))).uid, made.uid, "the same is the same")
        yield* type(vms, "web", "write:its own")
        yield* says(vms, "web", "guest: written")

        yield* vms.stop("web", Duration.zero)
        // what a name stands for now is of no matter to who has a disk, and who has one keeps its blobs
        yield* push(host, "disks/root", "1", artifact([rootfs, raw("another one")]))
        assert.strictEqual((yield* content.collect({ all: true })).blobs, 0)
        const whileKept = (yield* content.usage).blobs
        assert.deepStrictEqual([whileKept.count, whileKept.unusedBytes], [2, 0], "a machine has them")
        yield* vms.start("web")
        yield* says(vms, "web", "guest: disk says its own")

        // a clone's is its own, too
        yield* (yield* VmSnapshots).create("web", "good")
        const twin = yield* (yield* VmRestores).clone("web", "good", "twin", { cold: true })
        const theirs = twin.spec.disks[0]?.path ?? ""
        assert.include(theirs, "/machines/twin/disks/disk-")
        assert.strictEqual(readFileSync(theirs).subarray(0, 7).toString(), "its own")
        yield* vms.remove("twin", { force: true })

        yield* vms.remove("web", { force: true })
        assert.isFalse(existsSync(first ?? "") || existsSync(theirs))
        const { bytes: stored, unusedBytes } = (yield* content.usage).blobs
        assert.strictEqual(unusedBytes, stored)
        assert.strictEqual((yield* content.collect()).blobs, 2)
      })
    )
  )

  it.live("what is no disk, or is none that was asked for, is an end for the restart policy to judge", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const host = yield* debianRegistry()
        yield* push(host, "app", "1", simple())
        yield* push(host, "q", "1", artifact([`${bytes}`, zstdCompressSync(qcow2())]))
        yield* push(host, "odd", "1", artifact([rootfs, Buffer.from("seven")]))
        yield* push(host, "two", "1", artifact([bytes, raw("a")], [bytes, raw("b")]))
        const ends: ReadonlyArray<readonly [image: string, words: string]> = [
          ["app:1", "it holds no disk but the files of a container (application/vnd.oci.image.layer.v1.tar"],
          ["q:1", "it holds a qcow2 image, and the disk is to be raw: say format=qcow2"],
          ["odd:1", "a raw disk has a multiple of 512 bytes, and it has 5"],
          ["two:1", "it has 2 layers that could be the disk"],
          ["none:1", "none:1"]
        ]
        for (const [index, [image, words]] of ends.entries()) {
          const name = `bad${index}`
          yield* vms.create(
            yield* specOf(name, { disks: [{ image: `${host}/${image}` }], restart: { restart: "temporary" } }),
            { wait: true }
          )
          const { lastExit, spec } = yield* until(vms, name, "at its end", ({ lastExit }) => lastExit !== undefined)
          assert.include(JSON.stringify(lastExit), "DiskUnavailable")
          assert.include(JSON.stringify(lastExit), words)
          const file = spec.disks[0]?.path ?? ""
          assert.isFalse(existsSync(file) || existsSync(`${file}.new`), "nothing half made")
          yield* vms.remove(name, { force: true })
        }
      })
    )
  )

  it.effect("a layer is a disk by its media type", () =>
    Effect.gen(function* () {
      const layer = (mediaType: string) => diskLayer(mediaType)
      for (const mediaType of [bytes, `${rootfs}+zstd`, "application/x-qemu-disk", "application/vnd.acme.disk.raw"]) {
        assert.strictEqual((yield* choose([layer(mediaType)])).mediaType, mediaType)
      }
      assert.strictEqual((yield* choose([layer(kernel), layer(rootfs)])).mediaType, rootfs)
      for (const mediaType of [kernel, "application/json", "text/plain"]) {
        assert.strictEqual(yield* Effect.flip(choose([layer(mediaType)])), `it holds no disk but ${mediaType}`)
      }
      assert.include(yield* Effect.flip(choose([])), "no layers")
    })
  )
})

const diskLayer = (mediaType: string) => ({
  mediaType,
  size: 1,
  digest: Schema.decodeSync(Digest)(`sha256:${"0".repeat(64)}`)
})

describe("Volumes as disks", () => {
  it.live("a machine has one alone, also plugged in, and it goes back with a snapshot", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const volumes = yield* Volumes
        for (const name of ["data", "late"]) yield* volumes.create(volumeOf({ name, sizeBytes: 64 * MIB }))
        yield* volumes.create(volumeOf({ name: "directory" }))
        const pc = { chipset: "q35", disks: [{ volume: "data", serial: "data" }] }
        yield* vms.create(yield* specOf("db", pc), { wait: true })
        yield* says(vms, "db", "guest: ready")
        yield* says(vms, "db", "serial=data ro=0 sectors=131072")
        yield* type(vms, "db", "write:before")
        yield* says(vms, "db", "guest: written")

        yield* volumes.registerUsers((name) => Effect.succeed(name === "late" ? ["container app"] : []))
        const refusalOf = (disk: object) =>
          Effect.gen(function* () {
            const made = yield* Effect.flip(vms.create(yield* specOf("other", { disks: [disk] })))
            return made.message
          })
        assert.strictEqual(
          yield* refusalOf({ volume: "data" }),
          "disks[0].volume: volume data belongs to virtual machine db, and a disk has one owner"
        )
        assert.include(yield* refusalOf({ volume: "late" }), "volume late belongs to container app")
        assert.include(yield* refusalOf({ volume: "directory" }), "disks[0].volume: volume directory is a directory")
        assert.include(yield* refusalOf({ volume: "none" }), "disks[0].volume: there is no volume none")
        assert.include(yield* refusalOf({}), "disks[0].path: must be set, or else image or volume")
        assert.include(yield* refusalOf({ volume: "x", image: "y" }), "disks[0].volume: must not be set beside image")
        assert.include(yield* refusalOf({ volume: "x", path: "/y" }), "disks[0].path: must not be set beside volume")
        assert.include((yield* Effect.flip(volumes.remove("data"))).message, "virtual machine db")
        const late = diskOf({ volume: "late" })
        assert.include((yield* Effect.flip(vms.attachDisk("db", late))).message, "disk.volume: volume late belongs to")
        assert.include(
          (yield* Effect.flip(vms.attachDisk("db", diskOf({ image: "x" })))).message,
          "disk.image: is only"
        )

        yield* volumes.create(volumeOf({ name: "free", sizeBytes: 64 * MIB }))
        const more = yield* vms.attachDisk("db", diskOf({ volume: "free", serial: "free" }))
        assert.lengthOf(more.spec.disks, 2)
        yield* says(vms, "db", "[vdb] 131072 512-byte logical blocks")
        yield* type(vms, "db", "devices")
        yield* says(vms, "db", "serial=free ro=0 sectors=131072")

        yield* (yield* VmSnapshots).create("db", "good")
        yield* type(vms, "db", "write:after")
        yield* says(vms, "db", "guest: written", 2)
        const restores = yield* VmRestores
        assert.include((yield* Effect.flip(restores.clone("db", "good", "twin"))).message, "its disk is volume data")
        yield* restores.restore("db", "good")
        yield* type(vms, "db", "read")
        yield* says(vms, "db", "guest: disk says before")

        assert.lengthOf((yield* vms.detachDisk("db", "free")).spec.disks, 1)
        yield* volumes.remove("free")
        yield* vms.remove("db", { force: true })
        yield* volumes.remove("data")
      })
    )
  )

  it("what a volume's disk cannot be is told with its field, and a container is told whose it is", () => {
    const disks = [diskOf({ volume: "data", path: "/v/data/disk", format: "qcow2", sizeBytes: 64 * MIB })]
    const fields = Effect.map(specOf("db"), (spec) => problemsOf(withFields(spec, { disks })).map(({ field }) => field))
    assert.deepStrictEqual(Effect.runSync(fields), ["disks[0].sizeBytes", "disks[0].format"])
    const volume = { isDisk: true, isThere: true, machines: ["virtual machine db"] }
    assert.strictEqual(
      Refusals.volumeProblem("data", volume, true, []),
      "volume data is a disk of virtual machine db, and belongs to one alone"
    )
  })
})
