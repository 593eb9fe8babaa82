/** How taproot starts and ends: the lock, private mounts, the order of stopping, and that nothing stays behind. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync, spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { eventually } from "../support/eventually.ts"
import { build, kill, program, supervised, temporary } from "./Supervised.ts"

beforeAll(build)

const lines = (path: string): ReadonlyArray<string> =>
  existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n") : []

const suite = (name: string): void => {
  const taproot = [program(name)]

  describe(`start and stop of ${name}`, () => {
    it.live("stops in order: the brain is asked, then ended, then what is left is told, then killed", () =>
      Effect.gen(function* () {
        const diary = join(yield* temporary, "diary")
        const it = yield* supervised(taproot)
        const brain = yield* it.brain
        yield* brain.hello
        // One that goes when it is told, with a child that left its group; one that does not.
        const polite = yield* brain.spawn([
          "bash",
          "-c",
          `setsid sleep 1001 & trap "kill -0 ${brain.pid} 2>/dev/null || echo polite >> ${diary}; exit" TERM; echo; while :; do sleep 0.01; done`
        ])
        const stubborn = yield* brain.spawn(["bash", "-c", "trap '' TERM; echo; while :; do sleep 0.01; done"])
        yield* brain.read(polite.id, 0n)
        yield* brain.read(stubborn.id, 0n)
        yield* kill(it.pid, "SIGTERM")
        assert.deepInclude(yield* brain.next("Stopping"), { why: "signal", action: "end", deadlineMillis: 60_000 })
        yield* kill(it.pid, "SIGINT")
        // While the brain stops the tree it can do all that it could, and then no more.
        yield* brain.spawn(["true"])
        yield* brain.send({ _tag: "Shutdown", action: "end" })
        assert.strictEqual(yield* it.ended, 0)
        assert.deepStrictEqual(lines(diary), ["polite"])
        for (const pid of [brain.pid, polite.pid, stubborn.pid]) assert.isFalse(existsSync(`/proc/${pid}`))
        assert.throws(() => execFileSync("pgrep", ["-fx", "sleep 1001"]))
        assert.match(yield* it.log, /^taproot: stopping: a signal\n/)
      })
    )

    it.live("a brain that does not stop the tree in time is ended, even if it ignores TERM", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--stop-deadline", "100"])
        const brain = yield* it.brain
        yield* brain.hello
        yield* kill(brain.pid, "SIGSTOP")
        yield* kill(it.pid, "SIGTERM")
        assert.strictEqual(yield* it.ended, 0)
        assert.include(yield* it.log, "has not stopped everything in 100 ms")
        assert.isFalse(existsSync(`/proc/${brain.pid}`))
      })
    )

    it.live("the end of the lifeline stops it, and a brain that says hello late is told", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        const brain = yield* it.brain
        yield* it.cutLifeline
        yield* eventually(
          "the end is seen",
          Effect.map(it.log, (log) => log.includes("end of the lifeline"))
        )
        yield* brain.hello
        assert.deepInclude(yield* brain.next("Stopping"), { why: "lifeline", action: "end" })
        yield* brain.send({ _tag: "Shutdown", action: "end" })
        assert.strictEqual(yield* it.ended, 0)
      })
    )

    it.live("a brain that dies while stopping is started again, and told how much of the time is left", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        const brain = yield* it.brain
        yield* brain.hello
        const { id, pid } = yield* brain.spawn(["sleep", "1000"])
        // a request that came over the API, passed on
        yield* brain.send({ _tag: "Stop", action: "end" })
        assert.deepInclude(yield* brain.next("Stopping"), { why: "request", action: "end", deadlineMillis: 60_000 })
        yield* kill(brain.pid, "SIGKILL")
        const second = yield* it.brain
        const { processes } = yield* second.hello
        assert.deepStrictEqual(
          processes.map((process) => process.id),
          [id]
        )
        const asked = yield* second.next("Stopping")
        assert.deepInclude(asked, { why: "request", action: "end" })
        assert.isBelow(asked.deadlineMillis, 60_000)
        assert.isTrue(existsSync(`/proc/${pid}`), "it is the brain's to stop it")
        yield* second.send({ _tag: "Shutdown", action: "end" })
        assert.strictEqual(yield* it.ended, 0)
        assert.isFalse(existsSync(`/proc/${pid}`))
      })
    )

    it.live("a brain that dies while stopping is not started again when nothing is left to stop", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        const brain = yield* it.brain
        yield* brain.hello
        yield* kill(it.pid, "SIGTERM")
        yield* brain.next("Stopping")
        yield* kill(brain.pid, "SIGKILL")
        assert.strictEqual(yield* it.ended, 0)
        assert.notInclude(yield* it.log, "starting it again")
      })
    )

    it.live("stops without a brain", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--brain-failures", "0"], () => ["false"])
        yield* eventually(
          "it waits",
          Effect.map(it.log, (log) => log.includes("again in 400 ms"))
        )
        yield* kill(it.pid, "SIGTERM")
        assert.strictEqual(yield* it.ended, 0)
      })
    )

    it.live("a SHUTDOWN that nobody asked for, said with the last breath, is heard", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        const brain = yield* it.brain
        yield* brain.hello
        yield* brain.send({ _tag: "Shutdown", action: "end" })
        assert.strictEqual(yield* it.ended, 0)
        assert.strictEqual(yield* it.log, "")
      })
    )

    it.live("a lock is held by one, named to the other, and free afterwards", () =>
      Effect.gen(function* () {
        const lock = join(yield* temporary, "lock")
        const again = () => spawnSync(taproot[0] ?? "", ["--lock", lock, "--", "true"], { encoding: "utf8" })
        const it = yield* supervised(taproot, ["--lock", lock])
        const brain = yield* it.brain
        const refused = again()
        assert.strictEqual(refused.status, 73)
        assert.include(refused.stderr, `pid ${it.pid} holds ${lock}`)
        // Not by what it has started either.
        yield* brain.hello
        yield* brain.spawn(["sh", "-c", "trap '' TERM; sleep 1000"])
        yield* brain.send({ _tag: "Shutdown", action: "end" })
        assert.strictEqual(yield* it.ended, 0)
        yield* Effect.scoped(Effect.flatMap(supervised(taproot, ["--lock", lock]), ({ brain }) => brain))
      })
    )

    it.live("mounts are its own and its children's, and vanish with them", () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        for (const part of ["lower", "upper", "work", "merged"]) mkdirSync(join(directory, part))
        const it = yield* supervised(taproot, ["--private-mounts"])
        const brain = yield* it.brain
        yield* brain.hello
        const mount = { _tag: "Mount", source: "none", flags: 0n, data: "", directory } as const
        yield* brain.send({ ...mount, request: 1, target: "lower", type: "tmpfs", data: "size=4k" })
        yield* brain.next("Done", 1)
        // Options relative to the directory.
        const data = "lowerdir=lower,upperdir=upper,workdir=work"
        yield* brain.send({ ...mount, request: 2, target: "merged", type: "overlay", data })
        yield* brain.next("Done", 2)
        const { id } = yield* brain.spawn(["grep", "-c", directory, "/proc/self/mountinfo"])
        assert.strictEqual(yield* brain.text(id), "2\n")
        assert.notInclude(readFileSync("/proc/self/mountinfo", "utf8"), directory)
        yield* brain.send({ ...mount, request: 3, target: "x", type: "tmpfs", directory: "/no/such" })
        assert.deepInclude(yield* brain.next("Refused", 3), { reason: "system-call", errno: 2, text: "the directory" })
        yield* brain.send({ _tag: "Unmount", request: 4, target: join(directory, "work"), flags: 0 })
        assert.deepInclude(yield* brain.next("Refused", 4), { reason: "system-call", errno: 22 })
        yield* brain.send({ _tag: "Unmount", request: 5, target: join(directory, "merged"), flags: 0 })
        yield* brain.next("Done", 5)
      })
    )

    it.live("as PID 1 it stops everything and then asks the kernel, which ends the namespace", () =>
      Effect.gen(function* () {
        const unshare = ["unshare", "--pid", "--fork", "--mount-proc", ...taproot]
        const it = yield* supervised(unshare)
        const brain = yield* it.brain
        const { welcome } = yield* brain.hello
        assert.deepInclude(welcome, { role: "init", taprootPid: 1 })
        const orphans = yield* brain.spawn([
          "sh",
          "-c",
          "(sleep 0.05; exit 5) & (sleep 1002 >/dev/null &) ; wait; echo"
        ])
        yield* brain.text(orphans.id)
        yield* brain.send({ _tag: "Shutdown", action: "restart" })
        // reboot(2) in a PID namespace ends its init with SIGHUP for a restart and SIGINT for a power-off.
        assert.include(["SIGHUP", 129], yield* it.ended)
        assert.throws(() => execFileSync("pgrep", ["-fx", "sleep 1002"]))
      })
    )

    it("names a mistake on the command line", () => {
      const said = (...words: ReadonlyArray<string>) => {
        const { status, stderr, stdout } = spawnSync(taproot[0] ?? "", words, { encoding: "utf8" })
        return { status, said: stderr + stdout }
      }
      assert.deepInclude(said("--version"), { status: 0, said: "taproot 0.1.0 (protocol 2)\n" })
      assert.match(said("--help").said, /^usage: taproot [^]*--lifeline FD/)
      for (const [words, sentence] of [
        [[], "say which brain to start"],
        [["--"], "say which brain to start"],
        [["--nonsense"], "unknown option: --nonsense"],
        [["--heartbeat", "soon"], "--heartbeat takes a number from 1 to 2147483647: soon"],
        [["--channel", "3", "--", "true"], "a brain, --channel and --guest exclude each other"],
        [["--lock", "/no/such/lock", "--", "true"], "cannot open the lock file /no/such/lock"],
        [["--lifeline", "77", "--", "true"], "--lifeline takes a pipe"]
      ] as const) {
        const { said: text, status } = said(...words)
        assert.include(text, sentence)
        assert.isTrue(status === 64 || status === 73)
      }
    })
  })
}

suite("taproot")
suite("taproot-sanitized")
