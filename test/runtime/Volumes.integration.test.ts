/** Volumes on a real OCI runtime: filled by the image, kept over everything but their own removal, and never half-filled. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import type { Containers } from "../../src/runtime/Containers.ts"
import { Volumes } from "../../src/storage/Volumes.ts"
import { buildImage, directory, file, symlink, writeLayout } from "../support/images.ts"
import * as Taproot from "../support/taproot.ts"
import { brain, create, logText, shell, stateDirectory, until, withContainers, writeImage } from "./world.ts"

const ended = (
  containers: Containers["Service"],
  fields: { readonly name: string; readonly [field: string]: unknown }
) =>
  Effect.gen(function* () {
    yield* create(containers, { restart: { restart: "temporary" }, ...fields })
    yield* until(containers, fields.name, ({ state }) => state === "finished" || state === "failed")
    return (yield* logText(containers, fields.name)).trim().split("\n")
  })

/** An image with something at /var/lib/db, and a way to it that leads out for whoever does not walk it as its root does. */
const database = (state: string) => {
  const path = join(state, "images/db")
  mkdirSync(path, { recursive: true })
  const image = buildImage({
    layers: [
      [
        directory("bin"),
        directory("etc"),
        file("bin/busybox", readFileSync("/usr/bin/busybox"), { mode: 0o755 }),
        ...["sh", "cat", "ls", "sleep"].map((applet) => symlink(`bin/${applet}`, "busybox")),
        directory("var/lib/db", { mode: 0o750, uid: 70, gid: 71 }),
        file("var/lib/db/first", "one\n", { mode: 0o640, uid: 70, gid: 71 }),
        symlink("var/lib/db/secrets", "/etc/shadow"),
        symlink("out", "/../../../etc")
      ]
    ],
    config: { Cmd: ["/bin/sleep", "100000"] }
  })
  writeLayout(path, [{ image, name: "db:latest" }])
  return path
}

describe("volumes", () => {
  it.live("get what the image has there, with owners and modes, and keep what is written", () =>
    withContainers(({ containers, content, state }) =>
      Effect.gen(function* () {
        const volumes = yield* Volumes
        yield* content.importFrom(database(state))
        const db = { image: "db", volumes: [{ name: "data", target: "/var/lib/db" }] }
        assert.deepStrictEqual(
          yield* ended(containers, {
            ...db,
            name: "a",
            command: shell("cat /var/lib/db/first; echo two > /var/lib/db/second")
          }),
          ["one"]
        )
        const { path } = yield* volumes.get("data")
        const { gid, mode, uid } = lstatSync(path)
        assert.deepStrictEqual([uid, gid, mode & 0o7777], [70, 71, 0o750])
        assert.deepStrictEqual(readdirSync(path).toSorted(), ["first", "second", "secrets"])
        assert.strictEqual(lstatSync(join(path, "first")).uid, 70)
        assert.strictEqual(readlinkSync(join(path, "secrets")), "/etc/shadow")
        yield* containers.remove("a")

        // with one that had it before nothing is copied any more; read-only is read-only
        const readOnly = [{ name: "data", target: "/mnt/it", readOnly: true }]
        const script = "ls /mnt/it; cat /mnt/it/second; echo x 2>/dev/null > /mnt/it/third || echo refused"
        assert.deepStrictEqual(yield* ended(containers, { name: "b", volumes: readOnly, command: shell(script) }), [
          "first",
          "second",
          "secrets",
          "two",
          "refused"
        ])

        // the way to it is walked as in the image: /out is the image's own /etc, not ours
        yield* ended(containers, { ...db, name: "c", volumes: [{ name: "etc", target: "/out" }], command: ["/bin/ls"] })
        assert.deepStrictEqual(readdirSync((yield* volumes.get("etc")).path), [])
      })
    )
  )

  it.live("are made with the first container that names them, and not removed while any has them", () =>
    withContainers(({ containers, state }) =>
      Effect.gen(function* () {
        const volumes = yield* Volumes
        const made = yield* volumes.create({ name: "pg_data", labels: { owner: "me" } })
        assert.deepStrictEqual([made.filled, made.users], [false, []])
        assert.strictEqual((yield* volumes.create({ name: "pg_data", labels: { owner: "me" } })).uid, made.uid)
        const other = yield* Effect.flip(volumes.create({ name: "pg_data", labels: {} }))
        assert.include(other.message, "differs in: labels")

        const both = [
          { name: "pg_data", target: "/one" },
          { name: "new", target: "/two" }
        ]
        yield* create(containers, { name: "a", volumes: both })
        yield* create(containers, { name: "b", volumes: [{ name: "new", target: "/two" }] })
        const users = (yield* volumes.list).map((volume) => [volume.spec.name, volume.users])
        assert.deepStrictEqual(users, [
          ["new", ["container a", "container b"]],
          ["pg_data", ["container a"]]
        ])
        const refused = yield* Effect.flip(volumes.remove("new"))
        assert.strictEqual(refused.message, "volume new belongs to container a, container b. Remove those first.")
        yield* containers.stop("a")
        assert.strictEqual((yield* Effect.flip(volumes.remove("pg_data")))._tag, "VolumeInUse")
        yield* containers.remove("a")
        yield* containers.remove("b", { force: true })
        yield* volumes.remove("pg_data")
        yield* volumes.remove("new")
        assert.deepStrictEqual(readdirSync(join(state, "volumes")), [])
        assert.strictEqual((yield* Effect.flip(volumes.remove("new")))._tag, "VolumeNotFound")

        const wrong = yield* Effect.flip(create(containers, { name: "c", volumes: [{ name: "../x", target: "/x" }] }))
        assert.include(wrong.message, "volumes[0].name")
      })
    )
  )

  it.live("outlive the brain and a removed container; one that was left half-filled is filled anew", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      const data = join(state, "volumes/data")
      yield* Effect.gen(function* () {
        const command = shell("[ -e /data/word ] && cat /data/word; echo kept > /data/word; sleep 100000")
        const wanted = { name: "a", volumes: [{ name: "data", target: "/data" }], command }
        const pid = yield* Effect.gen(function* () {
          const { containers, content, context } = yield* brain(state, { ending: "release" })
          yield* content.importFrom(writeImage(state, "busybox"))
          // as a kill while it was being filled leaves it, and a volume that nobody knows any more
          yield* Context.get(context, Volumes).create({ name: "data", labels: {} })
          mkdirSync(`${data}/data.new/rest`, { recursive: true })
          mkdirSync(join(state, "volumes/stranger/data"), { recursive: true })
          yield* create(containers, wanted)
          while (!existsSync(`${data}/data/word`)) yield* Effect.sleep("5 millis")
          assert.deepStrictEqual([readdirSync(data), readdirSync(`${data}/data`)], [["data"], ["word"]])
          return (yield* containers.get("a")).pid
        }).pipe(Effect.scoped)
        yield* Effect.gen(function* () {
          const { containers } = yield* brain(state)
          assert.deepStrictEqual(readdirSync(join(state, "volumes")), ["data"])
          assert.strictEqual((yield* until(containers, "a", ({ state }) => state === "running")).pid, pid)
          yield* containers.remove("a", { force: true })
          yield* create(containers, wanted)
          while ((yield* logText(containers, "a")) !== "kept\n") yield* Effect.sleep("5 millis")
        }).pipe(Effect.scoped)
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )
})
