/** Where a machine has its config from, as far as it can be looked at without one: tables, disks, servers, digests. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { digestOf, mostBytes } from "../../src/config/Document.ts"
import { judge, later, local } from "../../src/config/Sources.ts"
import { oemStringsOf, withoutPadding } from "../../src/config/sources/Blobs.ts"
import { configDisk, fatLabelIn } from "../../src/config/sources/ConfigDisk.ts"
import { freePort } from "../../scripts/boot/Qemu.ts"
import { parseConfigSource } from "../../src/host/ConfigSource.ts"
import * as ProcessesRecording from "../../src/taproot/ProcessesRecording.ts"

const structure = (type: number, body: ReadonlyArray<number>, strings: ReadonlyArray<string>): Buffer =>
  Buffer.concat([
    Buffer.from([type, 4 + body.length, 0, 0, ...body]),
    Buffer.from(strings.length === 0 ? "\0\0" : `${strings.join("\0")}\0\0`)
  ])

describe("SMBIOS tables", () => {
  const table = Buffer.concat([
    structure(0, [1, 2], ["SeaBIOS", "1.16"]),
    structure(1, [0, 0], []),
    structure(11, [2], ["something=else", "ironwood.config=dmVyc2lvbg=="]),
    structure(127, [], [])
  ])

  it("hold OEM strings", () => {
    assert.deepStrictEqual(oemStringsOf(table), ["something=else", "ironwood.config=dmVyc2lvbg=="])
  })

  it("that are cut off anywhere end where they are cut", () => {
    for (let length = 0; length < table.length; length++) {
      const strings = oemStringsOf(table.subarray(0, length))
      assert.isTrue(strings.every((text) => text === "something=else" || text.startsWith("ironwood.config=")))
    }
    assert.deepStrictEqual(oemStringsOf(Buffer.from([11, 0, 0, 0, 0, 0])), [])
  })
})

describe("a disk", () => {
  const sector = (at: number, kind: string) => {
    const bytes = Buffer.alloc(512)
    bytes.write("IRONWOODCFG", at)
    bytes.write(kind, at + 11)
    bytes.writeUInt16LE(0xaa55, 510)
    return bytes
  }

  it("has its FAT label in one of two places", () => {
    assert.strictEqual(fatLabelIn(sector(43, "FAT16   ")), "IRONWOODCFG")
    assert.strictEqual(fatLabelIn(sector(71, "FAT32   ")), "IRONWOODCFG")
    assert.isUndefined(fatLabelIn(Buffer.alloc(512)))
    assert.isUndefined(fatLabelIn(sector(43, "NTFS")))
    assert.isUndefined(fatLabelIn(new Uint8Array()))
  })

  it("that is the document ends with zeros", () => {
    assert.deepStrictEqual(withoutPadding(Buffer.from("text\0\0\0")), Buffer.from("text"))
    const inTheMiddle = Buffer.from("te\0xt")
    assert.strictEqual(withoutPadding(inTheMiddle), inTheMiddle)
  })
})

describe("a disk that hangs", () => {
  it.live("does not hold up the start: what is told is that it could not be read", () =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-config-disk-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const found = yield* local(
        { config: { _tag: "Disk", label: "mine" }, configDigest: undefined },
        {
          disk: (label) => configDisk(label, () => Promise.resolve([{ device: "/dev/vda", type: "ext4" }]), directory),
          patience: "100 millis"
        }
      )
      assert.strictEqual(found._tag, "Wrong")
      assert.include(JSON.stringify(found), "could not be read within 100ms")
      const { frames } = yield* ProcessesRecording.SimulatedTaproot
      assert.include(
        frames.map(({ _tag }) => _tag),
        "Mount"
      )
    }).pipe(Effect.provide(ProcessesRecording.layer({ answerOther: () => ({ _tag: "Silence" }) })))
  )
})

const text = Buffer.from("version: ironwood/v1\nhostname: a\n")

describe("what a source says", () => {
  it("must have the digest that was asked for", () => {
    const source = { _tag: "FirmwareConfig" } as const
    assert.deepInclude(judge(source, text, undefined), { _tag: "Document", digest: digestOf(text) })
    assert.strictEqual(judge(source, text, digestOf(text))._tag, "Document")
    const wrong = judge(source, text, digestOf("other"))
    assert.strictEqual(wrong._tag, "Wrong")
    assert.include(JSON.stringify(wrong), digestOf(text))
  })

  it("is named on the command line", () => {
    assert.deepInclude(parseConfigSource("base64:dmVyc2lvbg=="), { _tag: "Inline", bytes: Buffer.from("version") })
    assert.deepStrictEqual(parseConfigSource("disk:mine"), { _tag: "Disk", label: "mine" })
    assert.deepStrictEqual(parseConfigSource("http://192.0.2.1/a"), { _tag: "Url", url: "http://192.0.2.1/a" })
    for (const wrong of ["base64:*", "disk:", "disk:a-label-that-is-too-long", "ftp://a/b", "https://", ""]) {
      assert.isString(parseConfigSource(wrong), wrong)
    }
  })
})

/** Answers requests by their paths until the scope closes. */
const server = (answers: Readonly<Record<string, readonly [status: number, body: Uint8Array]>>) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly close: () => void }>((resume) => {
      const http = createServer((request, response) => {
        const [status, body] = answers[request.url ?? ""] ?? [404, Buffer.from("no")]
        response.writeHead(status).end(body)
      })
      http.listen(0, "127.0.0.1", () => {
        const address = http.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, close: () => http.close() }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

describe("a URL", () => {
  it.live("gives the document, or a reason", () =>
    Effect.gen(function* () {
      const { url } = yield* server({
        "/good": [200, text],
        "/long": [200, Buffer.alloc(mostBytes + 1, "#")],
        "/moved": [500, Buffer.from("broken")]
      })
      const found = yield* later(`${url}/good`, digestOf(text))
      assert.deepInclude(found, { _tag: "Document", name: `${url}/good` })
      assert.strictEqual((yield* later(`${url}/good`, digestOf("other")))._tag, "Wrong")
      assert.include((yield* Effect.flip(later(`${url}/none`, undefined))).problem, "404")
      assert.include((yield* Effect.flip(later(`${url}/moved`, undefined))).problem, "500")
      assert.include((yield* Effect.flip(later(`${url}/long`, undefined))).problem, `more than ${mostBytes}`)
      assert.include(
        (yield* Effect.flip(later(`http://127.0.0.1:${yield* Effect.promise(freePort)}/`, undefined))).problem,
        "ECONNREFUSED"
      )
    })
  )
})
