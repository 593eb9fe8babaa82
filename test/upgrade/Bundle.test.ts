/** What is taken as a brain, and what is refused with which words; signatures; the record and the copy of the state. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { generateKeyPairSync, sign } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Brains from "../../src/upgrade/Brains.ts"
import { digestOf, unpack } from "../../src/upgrade/Bundle.ts"
import * as Record from "../../src/upgrade/Record.ts"
import { signedText, signer } from "../../src/upgrade/Signature.ts"
import * as Snapshot from "../../src/upgrade/StateSnapshot.ts"
import { bundleOf } from "./bundles.ts"

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-upgrade-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const good = { version: "1.2.3", program: "console.log(1)" }

describe("a bundle", () => {
  it("is what was packed", () => {
    const { files, manifest } = Result.getOrThrow(unpack(bundleOf(good)))
    assert.deepInclude(manifest, { version: "1.2.3", stateLayout: 1 })
    assert.strictEqual(Buffer.from(files.get("brain.bundle.cjs") ?? []).toString(), "console.log(1)")
  })

  it("is refused with what is wrong with it", () => {
    const whole = bundleOf(good)
    const cases: ReadonlyArray<readonly [Uint8Array, RegExp]> = [
      [Buffer.from("no tar at all".repeat(100)), /checksum/],
      [whole.subarray(0, 700), /cut off|lacks/],
      [bundleOf({ ...good, files: { "more.txt": "" } }), /more\.txt is no part of a brain/],
      [bundleOf({ ...good, files: { "manifest.json": "{" } }), /manifest\.json/],
      [bundleOf({ ...good, version: "../../etc" }), /version/],
      [bundleOf({ ...good, manifest: { format: "ironwood-brain/2" } }), /format/],
      [bundleOf({ ...good, manifest: { protocol: { newest: -1, oldest: 0 } } }), /protocol/]
    ]
    for (const [bytes, problem] of cases) {
      const unpacked = unpack(bytes)
      assert.isTrue(Result.isFailure(unpacked), String(problem))
      if (Result.isFailure(unpacked)) assert.match(unpacked.failure, problem)
    }
  })
})

describe("a signature", () => {
  it("is one of the keys', over this digest and nothing else", () => {
    const { privateKey, publicKey } = generateKeyPairSync("ed25519")
    const key = publicKey.export({ type: "spki", format: "der" }).subarray(-32).toString("base64")
    const other = Buffer.alloc(32, 1).toString("base64")
    const digest = digestOf(Buffer.from("brain"))
    const signature = sign(null, Buffer.from(signedText(digest)), privateKey)
    assert.strictEqual(signer([other, key], digest, signature), key)
    assert.isUndefined(signer([other], digest, signature))
    assert.isUndefined(signer([key], digestOf(Buffer.from("another")), signature))
    assert.isUndefined(signer([key], digest, Buffer.alloc(64)))
    assert.isUndefined(signer([key], digest, sign(null, Buffer.from(digest), privateKey)))
  })
})

describe("on the disk", () => {
  it.live("a brain is there whole, and one that has changed is told", () =>
    Effect.gen(function* () {
      const brains = join(yield* directory, "brains")
      const bytes = bundleOf(good)
      const id = digestOf(bytes)
      yield* Brains.write(brains, id, Result.getOrThrow(unpack(bytes)))
      assert.deepStrictEqual(Brains.list(brains), [id])
      assert.isTrue(Result.isSuccess(Brains.inspect(brains, id)))
      writeFileSync(join(brains, id, "brain.bundle.cjs"), "console.log(2)")
      const found = Brains.inspect(brains, id)
      assert.isTrue(Result.isFailure(found))
      if (Result.isFailure(found)) assert.include(found.failure, "brain.bundle.cjs has changed")
      // installed again it is mended
      yield* Brains.write(brains, id, Result.getOrThrow(unpack(bytes)))
      assert.isTrue(Result.isSuccess(Brains.inspect(brains, id)))
      // what a kill in the middle of an upload leaves
      mkdirSync(join(brains, `${"f".repeat(64)}.new`))
      Brains.keepOnly(brains, new Set([id]))
      assert.deepStrictEqual(Brains.list(brains), [id])
      assert.isFalse(existsSync(join(brains, `${"f".repeat(64)}.new`)))
    }).pipe(Effect.scoped)
  )

  it.live("a record that is garbage is no record, and says why", () =>
    Effect.gen(function* () {
      const brains = yield* directory
      assert.isUndefined(Record.load(brains))
      const record = Record.initial({ digest: "d", version: "1", stateLayout: 1 })
      Record.save(brains, record)
      assert.deepStrictEqual(Record.load(brains), record)
      for (const text of ["", "{}", '{"format": 2}', JSON.stringify({ ...record, current: "../../bin/sh" })]) {
        writeFileSync(Record.fileOf(brains), text)
        assert.isString(Record.load(brains), text)
      }
    }).pipe(Effect.scoped)
  )

  it.live("the state that a trial has brought to a newer layout is put back, and what it wrote is set aside", () =>
    Effect.gen(function* () {
      const database = join(yield* directory, "state.db")
      const sql = (path: string, text: string): unknown => {
        const opened = new DatabaseSync(path)
        try {
          if (text.startsWith("SELECT")) return opened.prepare(text).get()?.["word"]
          return opened.exec(text)
        } finally {
          opened.close()
        }
      }
      const read = "SELECT word FROM kept"
      sql(database, "PRAGMA user_version = 1; CREATE TABLE kept (word TEXT); INSERT INTO kept VALUES ('before')")
      assert.strictEqual(Snapshot.layoutOf(database), 1)
      assert.isFalse(Snapshot.restore(database))
      Snapshot.take(database)
      sql(database, "PRAGMA user_version = 2; UPDATE kept SET word = 'after'")
      // the second brain of the same trial does not replace it
      Snapshot.take(database)
      assert.isTrue(Snapshot.restore(database))
      assert.strictEqual(Snapshot.layoutOf(database), 1)
      assert.strictEqual(sql(database, read), "before")
      assert.strictEqual(sql(join(database, "../state-given-up/state.db"), read), "after")
      assert.isFalse(Snapshot.restore(database), "once")
      // a trial that is won needs none
      Snapshot.take(database)
      Snapshot.drop(database)
      assert.isFalse(Snapshot.restore(database))
      assert.isAbove(readFileSync(database).length, 0)
    }).pipe(Effect.scoped)
  )
})
