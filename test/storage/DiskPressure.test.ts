/**
 * A disk that images have filled, in earnest: a small file system of their own. What nobody uses goes, the longest unused first, no
 * more of it than it takes; what is in use stays, however full the disk is.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync, statfsSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Content } from "../../src/storage/Content.ts"
import * as StateJournal from "../../src/storage/StateJournal.ts"
import { storage } from "../../src/storage/Storage.ts"
import { buildImage, file, layoutFiles, writeFiles } from "../support/images.ts"
import * as Store from "../support/store.ts"
import * as Taproot from "../support/taproot.ts"

const MIB = 1024 ** 2

/** A file system of this many MiB, gone with the scope. */
const small = (mebibytes: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const path = mkdtempSync(join(tmpdir(), "ironwood-pressure-"))
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${mebibytes}m`, "none", path])
      return path
    }),
    (path) =>
      Effect.sync(() => {
        execFileSync("umount", ["--lazy", path])
        rmdirSync(path)
      })
  )

const usedPercent = (path: string): number => {
  const { bavail, blocks } = statfsSync(path)
  return (100 * (blocks - bavail)) / blocks
}

/** Of 4 MiB that nothing makes smaller: 8 MiB in the store, as a blob and unpacked. */
const image = (name: string) => ({
  image: buildImage({ layers: [[file(name, randomBytes(4 * MIB))]] }),
  name: `${name}:latest`
})

describe("a disk that images have filled", () => {
  it.live("is emptied of what nobody uses, the longest unused first, and of no more than it takes", () =>
    Effect.gen(function* () {
      const directory = yield* small(48)
      yield* Effect.gen(function* () {
        const content = yield* Content
        for (const name of ["oldest", "used", "newest"]) {
          const source = join(directory, "source", name)
          mkdirSync(source, { recursive: true })
          writeFiles(source, layoutFiles([image(name)]))
          yield* content.importFrom(source)
          execFileSync("rm", ["-r", source])
        }
        yield* content.registerUsers((digest) =>
          Effect.map(Effect.orDie(content.get("used")), (found) => (found.digest === digest ? ["container web"] : []))
        )
        const names = Effect.map(content.list, (images) => images.flatMap(({ references }) => references).toSorted())

        /** One life of the storage actors; their first look comes at once. */
        const looked = Effect.fnUntraced(function* (
          collection: { highPercent?: number; lowPercent?: number },
          until: number,
          isDone = () => true
        ) {
          const context = yield* Effect.context<Content>()
          const root = yield* Effect.acquireRelease(
            Root.start(
              Supervisor.make("init", {
                kind: "root",
                children: [storage({ directory: join(directory, "content"), collection: () => collection })]
              })
            ),
            (root) => root.end("stop")
          )
          assert.isTrue(Context.get(context, Content) === content)
          // its record goes before its bytes
          while ((yield* content.list).length > until || !isDone()) yield* Effect.sleep("10 millis")
          yield* root.end("stop")
        }, Effect.scoped)

        const before = usedPercent(directory)
        assert.isAbove(before, 45)
        // full enough, but nobody has said that it matters
        yield* looked({}, 3)
        assert.deepStrictEqual(yield* names, ["newest:latest", "oldest:latest", "used:latest"])
        yield* looked({ highPercent: 45, lowPercent: 40 }, 2, () => usedPercent(directory) < 40)
        assert.deepStrictEqual(yield* names, ["newest:latest", "used:latest"])
        assert.isBelow(usedPercent(directory), 40)

        // somebody else takes the disk: all that can go goes, and what is used stays
        writeFileSync(join(directory, "other"), randomBytes(24 * MIB))
        assert.isAbove(usedPercent(directory), 80)
        yield* looked({ highPercent: 60 }, 1, () => readdirSync(join(directory, "content/layers")).length < 4)
        assert.deepStrictEqual(yield* names, ["used:latest"])
        assert.isAbove(usedPercent(directory), 60)
        const { damages } = yield* content.verify()
        assert.deepStrictEqual(damages, [])
      }).pipe(
        Effect.scoped,
        Effect.provide(
          StateJournal.layer().pipe(
            Layer.provideMerge(Store.inDirectory(directory)),
            Layer.provideMerge(Taproot.layer())
          )
        )
      )
    }).pipe(Effect.scoped)
  )
})
