/** What a hostile container may hand out: nothing of it is written beside the directory that it is unpacked in. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as LocalTar from "../../src/cli/LocalTar.ts"
import { file, hardlink, type LayerEntry, symlink, tar } from "../support/images.ts"

const place = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "ironwood-cp-"))
    mkdirSync(join(path, "here"))
    mkdirSync(join(path, "outside"))
    writeFileSync(join(path, "outside/secret"), "secret")
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const unpack = (path: string, entries: ReadonlyArray<LayerEntry>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { end, write } = yield* LocalTar.unpack(["--directory", join(path, "here")])
      yield* write(tar(entries))
      return yield* Effect.exit(end)
    })
  )

describe("LocalTar", () => {
  it.live("packs and unpacks", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bytes = yield* Stream.runCollect(LocalTar.pack(["--directory", path, "--", "outside"]))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { end, write } = yield* LocalTar.unpack(["--directory", join(path, "here")])
          for (const piece of bytes) yield* write(piece)
          yield* end
        })
      )
      assert.strictEqual(readFileSync(join(path, "here/outside/secret"), "utf8"), "secret")
      const missing = yield* Effect.flip(Stream.runDrain(LocalTar.pack(["--directory", path, "--", "none"])))
      assert.include(missing.message, "none")
    })
  )

  it.live("writes nothing outside, by any path or link", () =>
    Effect.gen(function* () {
      const path = yield* place
      const outside = join(path, "outside")
      for (const entries of [
        [file("../outside/new", "x")],
        [file("a/../../outside/new", "x")],
        [file(`${outside}/new`, "x")],
        [symlink("link", outside), file("link/new", "x")],
        [symlink("link", "../outside"), file("link/new", "x")],
        [symlink("one", ".."), symlink("two", "one/outside"), file("two/new", "x")],
        [symlink("link", `${outside}/secret`), file("link", "x")],
        [hardlink("hard", "../outside/secret"), file("hard", "x")],
        [hardlink("hard", `${outside}/secret`), file("hard", "x")]
      ]) {
        yield* unpack(path, entries)
        assert.deepStrictEqual(readdirSync(outside), ["secret"])
        assert.strictEqual(readFileSync(join(outside, "secret"), "utf8"), "secret")
        assert.isFalse(existsSync(join(path, "new")))
      }
    })
  )
})
