/**
 * Sandboxes with users of their own, on real OCI runtimes: root inside is nobody on the host and has what is its own all the
 * same; every way into such a container; nothing of it is left.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Containers } from "../../src/runtime/Containers.ts"
import { decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import { Volumes } from "../../src/storage/Volumes.ts"
import { COUNT } from "../../src/taproot/IdMap.ts"
import * as Taproot from "../support/taproot.ts"
import { brain, create, leftovers, logText, shell, stateDirectory, until, withContainers, writeImage } from "./world.ts"

const makeSandbox = (containers: Containers["Service"], fields: object = {}) =>
  Effect.flatMap(decodeSandboxSpec({ name: "pod", userNamespace: "private", ...fields }), containers.createSandbox)

/** Waits until the container has said it. */
const said = (containers: Containers["Service"], name: string, words: string) =>
  Effect.gen(function* () {
    while (true) {
      const text = yield* logText(containers, name)
      if (text.includes(words)) return text.split("\n")
      const { lastExit, state } = yield* containers.get(name)
      assert.notInclude(["failed", "finished", "parked"], state, `${lastExit?.message}; it said: ${text}`)
      yield* Effect.sleep("5 millis")
    }
  })

const run = (containers: Containers["Service"], name: string, script: string, user?: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const asked = { command: shell(script), environment: {}, stdin: false, detach: false }
      const { output } = yield* containers.exec(name, user === undefined ? asked : { ...asked, user })
      const text = yield* Stream.runFold(
        output("stdout"),
        () => "",
        (all, bytes) => all + Buffer.from(bytes).toString()
      )
      return text.trim()
    })
  )

/** The users that a process of the host has. */
const usersOf = (pid: number | undefined): ReadonlyArray<number> => {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  return (/^Uid:(.*)$/m.exec(status)?.[1] ?? "").trim().split(/\s+/).map(Number)
}

/** A directory of the host with a file that only root may touch. */
const shared = Effect.acquireRelease(
  Effect.sync(() => {
    const root = realpathSync(mkdtempSync(join(tmpdir(), "ironwood-users-")))
    mkdirSync(join(root, "data"))
    writeFileSync(join(root, "data/word"), "root's\n")
    chmodSync(join(root, "data/word"), 0o600)
    return root
  }),
  (root) => Effect.sync(() => rmSync(root, { recursive: true, force: true }))
)

describe("a private user namespace", () => {
  for (const runtime of ["crun", "runc"]) {
    it.live(`makes root a nobody of the host, who has its image, volumes, secrets and memory (${runtime})`, () =>
      Effect.gen(function* () {
        const root = yield* shared
        yield* withContainers(
          ({ containers, state }) =>
            Effect.gen(function* () {
              const { firstUser = 0 } = yield* makeSandbox(containers)
              assert.isAtLeast(firstUser, 1_900_000_000)
              assert.strictEqual(firstUser % COUNT, 0)
              yield* containers.putSecret("token", Buffer.from("s3cret"))
              const source = join(root, "data")
              const command = shell(
                [
                  "id -u; cat /proc/self/uid_map",
                  // what is its own: the image's files, memory, the volume, the secret
                  "echo more:x:5:5::/:/bin/sh >> /etc/passwd && touch /made /memory/it && mkdir /etc/new && busybox rm /etc/group && echo own",
                  "echo x > /volume/root; echo x > /volume/web && busybox chown 1000 /volume/web && cat /run/secrets/token; echo",
                  // what is not
                  "cat /plain/word 2>/dev/null || echo not read; (echo x > /plain/word) 2>/dev/null || echo not written",
                  "busybox chown 0 /plain/word 2>/dev/null || echo not taken; touch /plain/new 2>/dev/null || echo not made",
                  // what is its own because it is mapped
                  "cat /mapped/word; echo changed > /mapped/word; touch /mapped/made",
                  "busybox mount | busybox grep -c -E ' on /(volume|plain|mapped) .*nosuid,nodev'",
                  "ls -ld /sys/kernel /dev/mqueue > /dev/null && busybox mount -t tmpfs t /srv 2>/dev/null || echo no mount",
                  "echo ready; sleep 100000"
                ].join("\n")
              )
              yield* create(containers, {
                name: "a",
                sandbox: "pod",
                command,
                tmpfs: { "/memory": {} },
                volumes: [{ name: "data", target: "/volume" }],
                secrets: [{ name: "token" }],
                mounts: [
                  { source, target: "/plain" },
                  { source, target: "/mapped", mapIds: true }
                ]
              })
              const [user, map = "", ...rest] = yield* said(containers, "a", "ready\n")
              assert.strictEqual(user, "0")
              assert.deepStrictEqual(map.trim().split(/\s+/).map(Number), [0, firstUser, COUNT])
              assert.deepStrictEqual(rest.slice(0, -2), [
                "own",
                "s3cret",
                "not read",
                "not written",
                "not taken",
                "not made",
                "root's",
                "3",
                "no mount"
              ])
              const { pid } = yield* containers.get("a")
              assert.deepStrictEqual(usersOf(pid), [firstUser, firstUser, firstUser, firstUser])
              const owner = (...path: ReadonlyArray<string>) => lstatSync(join(...path)).uid
              assert.strictEqual(readFileSync(join(source, "word"), "utf8"), "changed\n")
              assert.deepStrictEqual([owner(source, "word"), owner(source, "made")], [0, 0])
              const { path } = yield* (yield* Volumes).get("data")
              assert.deepStrictEqual([owner(path, "root"), owner(path, "web")], [0, 1000])
              const upper = join(state, "runtime/rootfs/a/upper")
              assert.deepStrictEqual([owner(upper, "made"), owner(upper, "etc/passwd")], [firstUser, firstUser])
              assert.deepStrictEqual(readdirSync(join(state, "runtime/rootfs.layers")), [])

              // every other way into it
              assert.strictEqual(
                yield* run(containers, "a", "id -u; touch /by-exec; ls -n /by-exec | busybox cut -c1-10"),
                "0\n-rw-r--r--"
              )
              assert.match(yield* run(containers, "a", "id; echo x > /volume/web", "1000"), /^uid=1000/)
              assert.deepStrictEqual(
                (yield* containers.top("a")).map(({ innerPid, uid }) => [innerPid > 0, uid]),
                [[true, 0]]
              )
              const [stats] = yield* containers.stats(["a"])
              assert.isAbove(stats?.memoryBytes ?? 0, 0)
              yield* containers.remove("a", { force: true })
              yield* containers.removeSandbox("pod")
              assert.deepStrictEqual(readdirSync(join(state, "runtime/users")), [])
            }),
          {
            candidates: [runtime],
            allowance: { mounts: () => [{ path: root, readOnly: false }] }
          }
        )
      }).pipe(Effect.scoped)
    )
  }

  it.live(
    "is shared by a pod: network, IPC, processes and terminals belong to it; no two pods have the same users",
    () =>
      withContainers(({ containers }) =>
        Effect.gen(function* () {
          const pod = yield* makeSandbox(containers, { processes: "shared" })
          const other = yield* makeSandbox(containers, { name: "other", network: "host" })
          assert.strictEqual(other.firstUser, (pod.firstUser ?? 0) + COUNT)
          yield* create(containers, {
            name: "one",
            sandbox: "pod",
            user: "web",
            terminal: true,
            command: shell(
              "tty; echo x > /dev/shm/word; busybox nc -l -p 7000 -e /bin/echo hello & echo up; sleep 100000"
            )
          })
          yield* said(containers, "one", "up")
          yield* create(containers, {
            name: "two",
            sandbox: "pod",
            command: shell("cat /dev/shm/word; busybox nc 127.0.0.1 7000; busybox ps; echo up; sleep 100000")
          })
          const text = (yield* said(containers, "two", "up")).join("\n")
          assert.include(text, "x\nhello\n")
          // the other container's processes, and who they are: a user of the same namespace
          assert.match(text, /web +.*sleep 100000/)
          yield* create(containers, {
            name: "three",
            sandbox: "other",
            command: shell("ls /sys/class/net; id -u; sleep 100000")
          })
          assert.include((yield* said(containers, "three", "0\n")).join(" "), "lo")
          assert.strictEqual(usersOf((yield* containers.get("three")).pid)[0], other.firstUser)

          // a range is given away again when its pod is gone, and the lowest first
          yield* containers.removeSandbox("pod", { force: true })
          const again = yield* makeSandbox(containers, { name: "again" })
          assert.strictEqual(again.firstUser, pod.firstUser)
          yield* containers.removeSandbox("again")
          yield* containers.removeSandbox("other", { force: true })
        })
      )
  )

  it.live("is refused where it cannot be, plainly and before anything is made", () =>
    withContainers(
      ({ containers }) =>
        Effect.gen(function* () {
          yield* makeSandbox(containers)
          const refusal = (fields: object) =>
            Effect.map(Effect.flip(create(containers, { name: "a", ...fields })), ({ message }) => message)
          const privileged = { security: { privileged: true } }
          assert.include(
            yield* refusal({ sandbox: "pod", ...privileged }),
            "security.privileged: it would be root of the host"
          )
          assert.include(
            yield* refusal({ mounts: [{ source: "/srv", target: "/data", mapIds: true }] }),
            "mounts[0].mapIds: the users of its sandbox are those of the host already"
          )
          const machine = yield* Effect.flip(makeSandbox(containers, { name: "vm", isolation: "microvm" }))
          assert.include(machine.message, "userNamespace: users of a microVM are nobody on the host anyway")
          yield* create(containers, { name: "far", sandbox: "pod", user: "70000:0", restart: { restart: "temporary" } })
          const { lastExit } = yield* until(containers, "far", ({ state }) => state === "failed")
          assert.include(lastExit?.message, "users and groups 0 to 65535 alone")
          // a file system that maps no ids: the container says which one
          const mounts = [{ source: "/proc", target: "/host", mapIds: true }]
          yield* create(containers, { name: "proc", sandbox: "pod", mounts, restart: { restart: "temporary" } })
          const { lastExit: exit } = yield* until(containers, "proc", ({ state }) => state === "failed")
          assert.strictEqual(exit?.tag, "HostPathRefused")
          assert.include(exit?.message, "maps no user ids")
          yield* containers.removeSandbox("pod", { force: true })
        }),
      { allowance: { privileged: () => true, mounts: () => [{ path: "/", readOnly: false }] } }
    )
  )

  it.live("is refused by a host whose runtime cannot do it, with what it said", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      const path = join(state, "old-runtime")
      // a runtime of before user namespaces: real crun for all but containers that ask for one
      writeFileSync(
        path,
        `#!/bin/sh\nfor word; do [ -f "$word/config.json" ] && grep -q '"type":"user"' "$word/config.json" && { echo 'user namespaces are not supported' >&2; exit 1; }; done\nexec crun "$@"\n`,
        { mode: 0o755 }
      )
      yield* Effect.gen(function* () {
        const { containers } = yield* brain(state, { candidates: [path] })
        const refused = yield* Effect.flip(makeSandbox(containers))
        assert.include(refused.message, "userNamespace: this host cannot do it: ")
        assert.include(refused.message, "user namespaces are not supported; leave it out")
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
      assert.deepStrictEqual(leftovers(state), [])
    }).pipe(Effect.scoped)
  )

  it.live("outlives the brain, and a dead taproot makes it again with the same users", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      const command = shell("[ -e /word ] && cat /word; echo kept > /word; sleep 100000")
      const first = yield* Effect.gen(function* () {
        const before = yield* Effect.gen(function* () {
          const { containers, content } = yield* brain(state, { ending: "release" })
          yield* content.importFrom(writeImage(state, "busybox"))
          const { firstUser } = yield* makeSandbox(containers)
          yield* create(containers, { name: "a", sandbox: "pod", command })
          return { pid: (yield* containers.get("a")).pid, firstUser }
        }).pipe(Effect.scoped)
        const { containers } = yield* brain(state)
        const after = yield* until(containers, "a", ({ state }) => state === "running")
        assert.strictEqual(after.pid, before.pid)
        assert.strictEqual(yield* run(containers, "a", "id -u"), "0")
        return before.firstUser
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
      yield* Effect.gen(function* () {
        const { containers } = yield* brain(state)
        yield* said(containers, "a", "kept\n")
        assert.strictEqual(usersOf((yield* containers.get("a")).pid)[0], first)
        assert.strictEqual((yield* containers.getSandbox("pod")).firstUser, first)
        yield* containers.removeSandbox("pod", { force: true })
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
      assert.deepStrictEqual(leftovers(state), [])
    }).pipe(Effect.scoped)
  )
})
