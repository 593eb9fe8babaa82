/** Users: Docker's rules on the files of the image, and no way out of the root file system. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { lookUp, parseGroup, parsePasswd, resolve } from "../../src/runtime/ContainerUser.ts"
import { readFileInRoot } from "../../src/runtime/RootedFile.ts"

const passwd =
  "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:1000:100::/srv:/bin/sh\nbroken:x:many:1\n42:x:7:8::/:/\n"
const group = "root:x:0:\nusers:x:100:\naudio:x:29:web,other\nvideo:x:44:web\nweb:x:100:web\n7:x:70:\n"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-rootfs-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

describe("ContainerUser", () => {
  const cells: ReadonlyArray<readonly [string, number, number, ReadonlyArray<number>]> = [
    ["", 0, 0, []],
    ["root", 0, 0, []],
    ["0", 0, 0, []],
    ["web", 1000, 100, [29, 44]],
    ["1000", 1000, 100, [29, 44]],
    ["2000", 2000, 0, []],
    ["web:audio", 1000, 29, []],
    ["web:5", 1000, 5, []],
    ["web:7", 1000, 70, []],
    ["2000:users", 2000, 100, []],
    ["2000:3000", 2000, 3000, []],
    [":users", 0, 100, []],
    ["web:", 1000, 100, [29, 44]],
    ["42", 7, 8, []]
  ]
  for (const [user, uid, gid, groups] of cells) {
    it.effect(`"${user}" is ${uid}:${gid}`, () =>
      Effect.map(resolve(user, passwd, group), (found) => assert.deepStrictEqual(found, { uid, gid, groups }))
    )
  }

  for (const user of ["nobody", "web:nobody", "-1", "4294967295", "web:99999999999", "a:b:c", "web:100:5"]) {
    it.effect(`"${user}" is refused`, () =>
      Effect.map(Effect.flip(resolve(user, passwd, group)), (error) => {
        assert.strictEqual(error._tag, "UserNotFound")
        assert.include(error.message, user)
      })
    )
  }

  it.effect.prop("no text breaks the parsers, and every id they give is one", { text: Schema.String }, ({ text }) =>
    Effect.sync(() => {
      for (const { gid, uid } of parsePasswd(text)) assert.isTrue(uid >= 0 && gid >= 0)
      for (const { gid } of parseGroup(text)) assert.isTrue(gid >= 0)
    })
  )

  it.live("reads the files of the root file system", () =>
    Effect.gen(function* () {
      const rootfs = yield* temporary
      assert.deepStrictEqual(yield* lookUp(rootfs, "5:6"), { uid: 5, gid: 6, groups: [] })
      assert.deepStrictEqual(yield* lookUp(rootfs, "5"), { uid: 5, gid: 0, groups: [] }, "without any file")
      mkdirSync(join(rootfs, "etc"))
      writeFileSync(join(rootfs, "etc/passwd"), passwd)
      writeFileSync(join(rootfs, "etc/group"), group)
      assert.deepStrictEqual(yield* lookUp(rootfs, "web"), { uid: 1000, gid: 100, groups: [29, 44] })
    })
  )
})

describe("RootedFile", () => {
  it.live("links are followed inside the root, and nowhere else", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const rootfs = join(directory, "rootfs")
      mkdirSync(join(rootfs, "real/etc"), { recursive: true })
      writeFileSync(join(directory, "secret"), "outside")
      writeFileSync(join(rootfs, "secret"), "inside")
      const read = (path: string) =>
        Effect.map(readFileInRoot(rootfs, path, 1_000), (bytes) =>
          Option.getOrUndefined(Option.map(bytes, (found) => Buffer.from(found).toString()))
        )
      symlinkSync("/real/etc", join(rootfs, "etc"))
      symlinkSync("../../../../../../../secret", join(rootfs, "real/etc/up"))
      symlinkSync(join(directory, "secret"), join(rootfs, "real/etc/absolute"))
      symlinkSync("/proc/self/root", join(rootfs, "real/etc/proc"))
      symlinkSync("loop", join(rootfs, "real/etc/loop"))
      writeFileSync(join(rootfs, "real/etc/passwd"), "here")
      assert.strictEqual(yield* read("/etc/passwd"), "here")
      assert.strictEqual(yield* read("/etc/up"), "inside")
      assert.strictEqual(yield* read("/etc/../../secret"), "inside")
      assert.isUndefined(yield* read("/etc/absolute"))
      assert.isUndefined(yield* read("/etc/proc/etc/passwd"))
      assert.isUndefined(yield* read("/etc/passwd/x"))
      assert.isUndefined(yield* read("/none"))
      assert.isUndefined(yield* read("/real"))
      assert.include((yield* Effect.flip(read("/etc/loop"))).message, "too many symbolic links")
    })
  )

  it.live("what is no regular file, or too large, is refused without being opened", () =>
    Effect.gen(function* () {
      const rootfs = yield* temporary
      execFileSync("mkfifo", [join(rootfs, "fifo")])
      execFileSync("mknod", [join(rootfs, "device"), "c", "1", "5"])
      writeFileSync(join(rootfs, "large"), "")
      truncateSync(join(rootfs, "large"), 5_000_000)
      for (const name of ["fifo", "device"]) {
        const error = yield* Effect.flip(readFileInRoot(rootfs, name, 1_000))
        assert.include(error.message, "no regular file")
      }
      assert.include((yield* Effect.flip(readFileInRoot(rootfs, "large", 1_000))).message, "5000000 bytes")
    })
  )
})
