/** What a process finds when taproot has started it, and what is reported when it could not be. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { SpawnFrame } from "../../src/taproot/BrainFrame.ts"
import type { ExecStage } from "../../src/taproot/ProcessExit.ts"
import { temporaryCgroup } from "../support/cgroups.ts"
import { build, program, supervised, temporary } from "./Supervised.ts"

beforeAll(build)

const suite = (name: string): void => {
  const start = Effect.gen(function* () {
    const it = yield* supervised([program(name)], ["--heartbeat", "3600000"])
    const brain = yield* it.brain
    yield* brain.hello
    const says = (argv: ReadonlyArray<string>, more: Partial<SpawnFrame> = {}) =>
      Effect.flatMap(brain.spawn(argv, more), ({ id }) => brain.text(id))
    return { it, brain, says }
  })

  describe(`processes of ${name}`, () => {
    it.live(
      "find three descriptors, ordinary signals, a group of their own and the limits that taproot was given",
      () =>
        Effect.gen(function* () {
          const { brain, says } = yield* start
          assert.match(yield* says(["ls", "/proc/self/fd"], { stderr: { _tag: "Stream" } }), /^0\n1\n2\n3\n$/)
          const status = yield* says(["cat", "/proc/self/status"], { stdin: { _tag: "Stream" } })
          assert.match(status, /SigBlk:\t0+\nSigIgn:\t0+\n/)
          const limits = yield* says(["cat", "/proc/self/limits"])
          const files = /Max open files.*/
          assert.strictEqual(files.exec(limits)?.[0], files.exec(readFileSync("/proc/self/limits", "utf8"))?.[0])
          const { id, pid } = yield* brain.spawn(["sh", "-c", "ps -o pgid=,sid= -p $$"])
          const [group, session] = (yield* brain.text(id)).trim().split(/\s+/)
          assert.strictEqual(Number(group), pid)
          assert.notStrictEqual(Number(session), pid)
          const leader = yield* brain.spawn(["sh", "-c", "ps -o sid= -p $$"], { session: true })
          assert.strictEqual(Number(yield* brain.text(leader.id)), leader.pid)
        })
    )

    it.live("have exactly the rlimits, identity, directory and environment that were asked for", () =>
      Effect.gen(function* () {
        const { says } = yield* start
        const infinity = 0xffff_ffff_ffff_ffffn
        assert.strictEqual(
          yield* says(["sh", "-c", "id -u; id -g; id -G; pwd; ulimit -c; ulimit -n; env | sort"], {
            identity: { uid: 12, gid: 34, groups: [56, 78] },
            rlimits: [
              { resource: 4, soft: 0n, hard: infinity },
              { resource: 7, soft: 77n, hard: 99n }
            ],
            directory: "/usr",
            environment: ["PATH=/bin:/usr/bin", "A=1"]
          }),
          "12\n34\n34 56 78\n/usr\n0\n77\nA=1\nPATH=/bin:/usr/bin\nPWD=/usr\n"
        )
      })
    )

    it.live("each stage before exec is told apart, with its errno", () =>
      Effect.gen(function* () {
        const { brain } = yield* start
        const directory = yield* temporary
        writeFileSync(join(directory, "text"), "no program", { mode: 0o755 })
        writeFileSync(join(directory, "locked"), "", { mode: 0o600 })
        const nobody = { uid: 65_534, gid: 65_534, groups: [] }
        const cases: ReadonlyArray<readonly [ExecStage, number, ReadonlyArray<string>, Partial<SpawnFrame>]> = [
          ["cgroup", 2, ["true"], { cgroups: ["/no/such/cgroup"] }],
          ["rlimit", 22, ["true"], { rlimits: [{ resource: 200, soft: 0n, hard: 0n }] }],
          ["identity", 22, ["true"], { identity: { uid: 1, gid: 1, groups: [0xffff_ffff] } }],
          ["directory", 2, ["true"], { directory: "/no/such" }],
          ["directory", 13, ["true"], { directory: "/root", identity: nobody }],
          ["stdio", 2, ["true"], { stdin: { _tag: "File", path: "/no/such", flags: 0, mode: 0 } }],
          ["exec", 2, ["no-such-command"], {}],
          ["exec", 2, [""], {}],
          ["exec", 2, ["/no/such/command"], {}],
          ["exec", 8, [join(directory, "text")], {}],
          ["exec", 13, [join(directory, "locked")], {}],
          ["exec", 13, ["locked"], { environment: [`PATH=/no/such:${directory}:/bin`] }]
        ]
        for (const [stage, errno, argv, more] of cases) {
          const { id } = yield* brain.spawn(argv, more)
          assert.deepInclude((yield* brain.next("Exited", id)).exit, { _tag: "NotExecuted", stage, errno })
        }
        for (const more of [
          { identity: { uid: 0xffff_ffff, gid: 1, groups: [] } },
          { stdin: { _tag: "Pty", rows: 1, columns: 1 } },
          { stdout: { _tag: "Pty" } }
        ] as const) {
          assert.deepInclude(yield* brain.ask(["true"], more), { _tag: "Refused", reason: "invalid" })
        }
      })
    )

    it.live("killed before exec is killed, not unable to execute", () =>
      Effect.gen(function* () {
        const { brain } = yield* start
        const directory = yield* temporary
        const { id: made } = yield* brain.spawn(["mkfifo", join(directory, "fifo")])
        yield* brain.next("Exited", made)
        // Opening a FIFO that nobody writes waits; it must hold up nobody else.
        const stuck = yield* brain.spawn(["true"], {
          stdin: { _tag: "File", path: join(directory, "fifo"), flags: 0, mode: 0 }
        })
        const other = yield* brain.spawn(["cat"], { stdin: { _tag: "Stream" } })
        yield* brain.send({ _tag: "InputEnd", id: other.id })
        assert.deepInclude((yield* brain.next("Exited", other.id)).exit, { _tag: "Exited", code: 0 })
        yield* brain.send({ _tag: "Signal", request: 900, id: stuck.id, signal: "SIGKILL", group: true })
        yield* brain.next("Done", 900)
        assert.deepInclude((yield* brain.next("Exited", stuck.id)).exit, { _tag: "Signaled", number: 9 })
      })
    )

    const roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu"].filter(
      (root) => existsSync(join(root, "cgroup.procs"))
    )
    it.live.skipIf(roots.length === 0)("are in their cgroups, of both versions, before their first instruction", () =>
      Effect.gen(function* () {
        const { says } = yield* start
        const group = `taproot-test-${process.pid}-${name}`
        const cgroups = roots.map((root) => join(root, group))
        yield* Effect.forEach(cgroups, temporaryCgroup)
        const seen = (yield* says(["cat", "/proc/self/cgroup"], { cgroups })).split("\n")
        assert.strictEqual(seen.filter((line) => line.endsWith(`/${group}`)).length, cgroups.length)
        for (const directory of cgroups) {
          const alone = (yield* says(["cat", "/proc/self/cgroup"], { cgroups: [directory] })).split("\n")
          assert.strictEqual(alone.filter((line) => line.endsWith(`/${group}`)).length, 1)
        }
      })
    )
  })
}

suite("taproot")
suite("taproot-sanitized")
