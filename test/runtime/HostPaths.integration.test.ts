/** What containers have of the host, on a real OCI runtime: only what is allowed, and never by a link; secrets. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Containers } from "../../src/runtime/Containers.ts"
import { create, logText, shell, until, withContainers } from "./world.ts"

/** A directory of the host with a file, a directory with another, and links that lead out. */
const shared = Effect.acquireRelease(
  Effect.sync(() => {
    const root = realpathSync(mkdtempSync(join(tmpdir(), "ironwood-host-")))
    chmodSync(root, 0o755)
    mkdirSync(join(root, "allowed/data"), { recursive: true })
    writeFileSync(join(root, "allowed/data/word"), "hello\n")
    writeFileSync(join(root, "allowed/file"), "a file\n")
    mkdirSync(join(root, "secret"))
    writeFileSync(join(root, "secret/word"), "not for you\n")
    symlinkSync(join(root, "secret"), join(root, "allowed/out"))
    symlinkSync("../../secret", join(root, "allowed/data/up"))
    return root
  }),
  (root) => Effect.sync(() => rmSync(root, { recursive: true, force: true }))
)

const ended = (
  containers: Containers["Service"],
  fields: { readonly name: string; readonly [field: string]: unknown }
) =>
  Effect.gen(function* () {
    yield* create(containers, { restart: { restart: "temporary" }, ...fields })
    yield* until(containers, fields.name, ({ state }) => state === "finished" || state === "failed")
    return (yield* logText(containers, fields.name)).trim().split("\n")
  })

describe("paths of the host", () => {
  for (const runtime of ["crun", "runc"]) {
    it.live(`are seen as far as they are allowed, also read-only; nothing is left (${runtime})`, () =>
      Effect.gen(function* () {
        const root = yield* shared
        const allowed = { path: join(root, "allowed"), readOnly: false }
        yield* withContainers(
          ({ containers, state }) =>
            Effect.gen(function* () {
              const mounts = [
                { source: `${allowed.path}/data`, target: "/data" },
                { source: `${allowed.path}/data`, target: "/looked/at", readOnly: true },
                { source: `${allowed.path}/file`, target: "/etc/file", readOnly: true }
              ]
              const script = [
                "cat /data/word /etc/file",
                "echo changed > /data/word; cat /looked/at/word",
                "echo x 2>/dev/null > /looked/at/word || echo refused",
                "cat /data/up/word 2>/dev/null || echo nothing there"
              ]
              assert.deepStrictEqual(
                yield* ended(containers, { name: "a", mounts, command: shell(script.join("; ")) }),
                ["hello", "a file", "changed", "refused", "nothing there"]
              )
              assert.deepStrictEqual(readdirSync(join(state, "runtime/stages")), [])
            }),
          { candidates: [runtime], allowance: { mounts: () => [allowed] } }
        )
        assert.strictEqual(readFileSync(join(root, "allowed/data/word"), "utf8"), "changed\n")
      }).pipe(Effect.scoped)
    )
  }

  it.live("are refused plainly when they are not allowed, and no link leads out of what is", () =>
    Effect.gen(function* () {
      const root = yield* shared
      const mounts = () => [
        { path: join(root, "allowed"), readOnly: false },
        { path: join(root, "allowed/data"), readOnly: true }
      ]
      yield* withContainers(
        ({ containers }) =>
          Effect.gen(function* () {
            const refusal = (source: string, readOnly = false) =>
              Effect.map(
                Effect.flip(create(containers, { name: "a", mounts: [{ source, target: "/data", readOnly }] })),
                ({ message }) => message
              )
            assert.include(yield* refusal(join(root, "secret")), "mounts[0].source: this host does not allow")
            assert.include(yield* refusal(`${root}/allowedness`), "does not allow containers to have")
            assert.include(yield* refusal(`${root}/allowed/../secret`), "without . and ..")
            assert.include(yield* refusal(join(root, "allowed/data")), "only to read")
            for (const [name, source, why] of [
              ["out", "allowed/out", "symbolic link"],
              ["up", "allowed/data/up", "symbolic link"],
              ["none", "allowed/none", "it is not there"]
            ] as const) {
              const mounts = [{ source: join(root, source), target: "/data", readOnly: true }]
              yield* ended(containers, { name, mounts })
              const { lastExit } = yield* containers.get(name)
              assert.strictEqual(lastExit?.tag, "HostPathRefused")
              assert.include(lastExit?.message, why)
            }
          }),
        { allowance: { mounts } }
      )
    }).pipe(Effect.scoped)
  )

  it.live("that are devices can be used as far as they are allowed", () =>
    withContainers(
      ({ containers }) =>
        Effect.gen(function* () {
          const refused = yield* Effect.flip(create(containers, { name: "a", devices: [{ path: "/dev/mem" }] }))
          assert.include(refused.message, "devices[0].path: this host does not allow containers to have /dev/mem")
          const devices = [{ path: "/dev/loop-control", access: "r" }]
          const script =
            "[ -c /dev/loop-control ] && echo there; cat /dev/loop-control 2>&1; echo 2>/dev/null > /dev/loop-control || echo closed"
          const words = yield* ended(containers, { name: "b", devices, command: shell(script) })
          assert.deepStrictEqual([words[0], words.at(-1)], ["there", "closed"])
          assert.notInclude(words.join(), "not permitted")
        }),
      { allowance: { devices: () => ["/dev/loop-control"] } }
    )
  )
})

describe("secrets", () => {
  it.live("are files for the container's user alone, in no file of ours, and gone with the run", () =>
    withContainers(({ containers, state }) =>
      Effect.gen(function* () {
        const value = "correct-horse-battery-staple"
        const wanted = { name: "a", user: "web", secrets: [{ name: "token" }, { name: "key", target: "/etc/key" }] }
        const early = yield* Effect.flip(create(containers, wanted))
        assert.include(early.message, 'there is no secret "token"')
        yield* containers.putSecret("token", Buffer.from(value))
        yield* containers.putSecret("key", Buffer.from("k"))
        const script =
          "ls -ln /run/secrets/token; cat /run/secrets/token /etc/key; echo; echo x 2>/dev/null > /etc/key || echo refused; sleep 100000"
        yield* create(containers, { ...wanted, command: shell(script) })
        while (!(yield* logText(containers, "a")).includes("refused")) yield* Effect.sleep("5 millis")
        const [listed = "", ...rest] = (yield* logText(containers, "a")).trim().split("\n")
        assert.match(listed, /^-r-------- +1 1000 +100 +28 /)
        assert.deepStrictEqual(rest, [`${value}k`, "refused"])
        assert.deepStrictEqual(
          (yield* containers.listSecrets).map(({ bytes, name }) => [name, bytes]),
          [
            ["key", 1],
            ["token", value.length]
          ]
        )
        assert.include((yield* Effect.flip(containers.removeSecret("token"))).message, "container a")

        // nothing that is on a disk has it; its memory is seen only from taproot's mounts
        const files = (directory: string): ReadonlyArray<string> =>
          readdirSync(directory, { withFileTypes: true }).flatMap((entry) =>
            entry.isDirectory()
              ? files(join(directory, entry.name))
              : entry.isFile()
                ? [join(directory, entry.name)]
                : []
          )
        const withIt = files(state).filter((path) => !path.includes("/logs/") && readFileSync(path).includes(value))
        assert.deepStrictEqual(withIt, [])

        // a new value is what the next run finds
        yield* containers.putSecret("token", Buffer.from("other"))
        yield* containers.restart("a")
        while (!(yield* logText(containers, "a")).includes("otherk")) yield* Effect.sleep("5 millis")
        yield* containers.remove("a", { force: true })
        yield* containers.removeSecret("token")
        assert.strictEqual((yield* Effect.flip(containers.removeSecret("token")))._tag, "SecretNotFound")
      })
    )
  )
})

describe("/dev/shm", () => {
  it.live("has the size that is asked for", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const tmpfs = { "/dev/shm": { sizeBytes: 65_536 } }
        const command = shell("dd if=/dev/zero of=/dev/shm/a bs=64k count=2 2>/dev/null || echo full")
        assert.deepStrictEqual(yield* ended(containers, { name: "a", tmpfs, command }), ["full"])
      })
    )
  )
})
