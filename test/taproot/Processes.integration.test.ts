/** `Processes` against the real taproot: what starts, what it says, how it ends, and that nothing stays. */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import {
  type OutputChunk,
  type OutputStream,
  type Process,
  Processes,
  type SpawnRequest
} from "../../src/taproot/Processes.ts"
import * as Taproot from "../support/taproot.ts"
import { eventually } from "../support/eventually.ts"

const stream = { _tag: "Stream" } as const
const out = { stdout: stream }

const spawn = (argv: SpawnRequest["argv"], more: Partial<SpawnRequest> = {}) =>
  Effect.flatMap(Processes, (processes) => processes.spawn({ label: "test", argv, ...more }))

const text = (process: Process, from: OutputStream = "stdout") =>
  process.output(from).pipe(
    Stream.map(({ bytes }) => Buffer.from(bytes).toString("utf8")),
    Stream.mkString
  )

const says = (argv: SpawnRequest["argv"], more: Partial<SpawnRequest> = {}) =>
  Effect.gen(function* () {
    const process = yield* spawn(argv, { ...out, ...more })
    const said = yield* text(process)
    yield* process.exit
    yield* process.acknowledge
    return said
  })

const exists = (pid: number): boolean => existsSync(`/proc/${pid}`)

const firstLine = Option.match({
  onNone: () => "",
  onSome: ({ bytes }: OutputChunk) => Buffer.from(bytes).toString("utf8")
})

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-processes-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

const suite = (name: string, program: string): void => {
  const real = Effect.provide(Taproot.layer({ program }))

  describe(name, () => {
    describe("run", () => {
      it.live("hands over exit, output and errors, and frees the entry", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const { exit, stderr, stdout, truncated } = yield* processes.run({
            label: "run",
            argv: ["sh", "-c", "cat; echo problem >&2; exit 3"],
            stdin: Buffer.from("from stdin")
          })
          assert.deepInclude(exit, { _tag: "Exited", code: 3 })
          assert.strictEqual(Buffer.from(stdout).toString(), "from stdin")
          assert.strictEqual(Buffer.from(stderr).toString(), "problem\n")
          assert.isFalse(truncated)
          assert.strictEqual((yield* processes.status).processes, 0)
        }).pipe(real)
      )

      it.live("keeps no more output than it was told and lets the command finish", () =>
        Effect.gen(function* () {
          const { exit, stdout, truncated } = yield* (yield* Processes).run({
            label: "run",
            argv: ["sh", "-c", "head -c 300000 /dev/zero"],
            maxOutputBytes: 1_000
          })
          assert.deepInclude(exit, { _tag: "Exited", code: 0 })
          assert.strictEqual(stdout.length, 1_000)
          assert.isTrue(truncated)
        }).pipe(real)
      )

      it.live("does not mind a command that never reads its input", () =>
        Effect.gen(function* () {
          const { exit } = yield* (yield* Processes).run({
            label: "run",
            argv: ["true"],
            stdin: new Uint8Array(1_000_000)
          })
          assert.deepInclude(exit, { _tag: "Exited", code: 0 })
        }).pipe(real)
      )

      it.live("interrupted, kills the whole group and leaves no entry", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const directory = yield* temporary
          const pidFile = join(directory, "pid")
          const fiber = yield* Effect.forkChild(
            processes.run({
              label: "run",
              argv: ["sh", "-c", `sleep 1000 & echo $! > ${pidFile}.new; mv ${pidFile}.new ${pidFile}; wait`]
            })
          )
          yield* eventually("the grandchild runs", () => existsSync(pidFile))
          const grandchild = Number(readFileSync(pidFile, "utf8"))
          assert.isTrue(exists(grandchild))
          yield* Fiber.interrupt(fiber)
          yield* eventually("the grandchild is gone", () => !exists(grandchild))
          yield* eventually(
            "the entry is freed",
            Effect.map(processes.status, (status) => status.processes === 0)
          )
        }).pipe(real)
      )
    })

    describe("exits", () => {
      it.live("by code, by signal, before exec", () =>
        Effect.gen(function* () {
          const code = yield* spawn(["sh", "-c", "exit 42"])
          assert.deepInclude(yield* code.exit, { _tag: "Exited", code: 42 })
          const signal = yield* spawn(["sh", "-c", "kill -USR1 $$"])
          assert.deepInclude(yield* signal.exit, { _tag: "Signaled", signal: "SIGUSR1", number: 10 })
          const unknown = yield* spawn(["/no/such/program"])
          assert.deepInclude(yield* unknown.exit, { _tag: "NotExecuted", stage: "exec", errno: 2 })
          const nowhere = yield* spawn(["true"], { directory: "/no/such/directory" })
          assert.deepInclude(yield* nowhere.exit, { _tag: "NotExecuted", stage: "directory", errno: 2 })
          const file = yield* spawn(["true"], { stdin: { _tag: "File", path: "/no/such/file" } })
          assert.deepInclude(yield* file.exit, { _tag: "NotExecuted", stage: "stdio", errno: 2 })
          const cgroup = yield* spawn(["true"], { cgroups: ["/no/such/cgroup"] })
          assert.deepInclude(yield* cgroup.exit, { _tag: "NotExecuted", stage: "cgroup" })
        }).pipe(real)
      )

      it.live("many may wait, before and after, until it is acknowledged", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const process = yield* spawn(["cat"], { stdin: stream })
          assert.deepStrictEqual(yield* process.exitNow, Option.none())
          const waiting = yield* Effect.forkChild(
            Effect.all([process.exit, process.exit], { concurrency: "unbounded" })
          )
          yield* process.closeStdin
          const [one, other] = yield* Fiber.join(waiting)
          assert.strictEqual(one, other)
          assert.strictEqual(yield* process.exit, one)
          const usage = yield* process.exit
          assert.isAbove(usage.maxRssKib, 0)
          assert.isAbove(Number(usage.time), 1e18)
          assert.deepStrictEqual(yield* process.exitNow, Option.some(one))
          assert.strictEqual((yield* processes.status).exited, 1)
          yield* process.acknowledge
          yield* process.acknowledge
          assert.strictEqual((yield* processes.status).processes, 0)
          assert.strictEqual(yield* process.exit, one)
        }).pipe(real)
      )

      it.live("acknowledged while it runs, the entry goes with the process", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const process = yield* spawn(["sleep", "1000"])
          yield* process.acknowledge
          assert.strictEqual((yield* processes.status).processes, 1)
          yield* process.signal("SIGKILL")
          assert.deepInclude(yield* process.exit, { _tag: "Signaled", signal: "SIGKILL" })
          yield* eventually(
            "the entry is freed",
            Effect.map(processes.status, (status) => status.processes === 0)
          )
        }).pipe(real)
      )
    })

    describe("spawn", () => {
      it.live("gives exactly the environment, directory, identity and limits that were asked for", () =>
        Effect.gen(function* () {
          assert.strictEqual(
            yield* says(["env"], { environment: { PATH: "/usr/bin:/bin", A: "b=c", Ü: "ü" } }),
            "PATH=/usr/bin:/bin\nA=b=c\nÜ=ü\n"
          )
          assert.strictEqual(yield* says(["pwd"], { directory: "/usr" }), "/usr\n")
          assert.strictEqual(yield* says(["pwd"]), "/\n")
          assert.strictEqual(
            yield* says(["sh", "-c", "id -u; id -g; id -G"], {
              identity: { uid: 1234, gid: 2345, groups: [3456, 4567] }
            }),
            "1234\n2345\n2345 3456 4567\n"
          )
          assert.strictEqual(
            yield* says(["sh", "-c", "ulimit -n; ulimit -c"], {
              rlimits: { nofile: { soft: 123n, hard: 200n }, core: { soft: 0n, hard: 0n } }
            }),
            "123\n0\n"
          )
        }).pipe(real)
      )

      it.live("writes to files, appending, and reads from them", () =>
        Effect.gen(function* () {
          const path = join(yield* temporary, "log")
          for (const line of ["one", "two"]) {
            yield* says(["sh", "-c", `echo ${line}; echo ${line} >&2`], {
              stdout: { _tag: "File", path },
              stderr: { _tag: "Stdout" }
            })
          }
          assert.strictEqual(readFileSync(path, "utf8"), "one\none\ntwo\ntwo\n")
          assert.strictEqual(statSync(path).mode & 0o777, 0o600)
          assert.strictEqual(yield* says(["cat"], { stdin: { _tag: "File", path } }), "one\none\ntwo\ntwo\n")
        }).pipe(real)
      )

      it.live("refuses, by name, what no process can be made of, and goes on", () =>
        Effect.gen(function* () {
          const refused = (more: Partial<SpawnRequest>) => Effect.flip(spawn(["true"], more))
          assert.deepInclude(yield* refused({ label: "x".repeat(129) }), { _tag: "SpawnRefused", reason: "invalid" })
          assert.deepInclude(yield* refused({ argv: ["a\0b"] }), { _tag: "SpawnRefused", reason: "invalid" })
          assert.deepInclude(yield* refused({ environment: { BIG: "x".repeat(300_000) } }), { reason: "invalid" })
          assert.deepInclude(yield* refused({ stdin: { _tag: "Pty", rows: 1, columns: 1 } }), { reason: "invalid" })
          assert.strictEqual(yield* says(["echo", "still here"]), "still here\n")
        }).pipe(real)
      )

      it.live("a hundred at once", () =>
        Effect.gen(function* () {
          const numbers = Array.from({ length: 100 }, (_, index) => `${index}`)
          const said = yield* Effect.forEach(numbers, (number) => says(["echo", number]), { concurrency: "unbounded" })
          assert.deepStrictEqual(
            said,
            numbers.map((number) => `${number}\n`)
          )
          assert.strictEqual((yield* (yield* Processes).status).processes, 0)
        }).pipe(real)
      )
    })

    describe("signal", () => {
      it.live("reaches the process, real-time signals too, and says when nobody is there", () =>
        Effect.gen(function* () {
          const process = yield* spawn(
            ["bash", "-c", "trap 'echo caught; exit 0' RTMIN+3; echo ready; while :; do sleep 0.01; done"],
            out
          )
          const heard = yield* process.output("stdout").pipe(
            Stream.map(({ bytes }) => Buffer.from(bytes).toString("utf8")),
            Stream.tap((said) => (said.startsWith("ready") ? process.signal("SIGRTMIN+3") : Effect.void)),
            Stream.mkString
          )
          assert.strictEqual(heard, "ready\ncaught\n")
          assert.deepInclude(yield* process.exit, { _tag: "Exited", code: 0 })
          assert.deepInclude(yield* Effect.flip(process.signal("SIGTERM")), { _tag: "ProcessGone", pid: process.pid })
        }).pipe(real)
      )

      it.live("reaches the whole group, also after its leader has ended", () =>
        Effect.gen(function* () {
          const process = yield* spawn(["sh", "-c", "sleep 1000 & echo $!"], out)
          const child = Number(yield* Effect.map(Stream.runHead(process.output("stdout")), firstLine))
          yield* process.exit
          assert.isTrue(exists(child))
          yield* process.signal("SIGKILL", { group: true })
          yield* eventually("the child is gone", () => !exists(child))
          assert.deepInclude(yield* Effect.flip(process.signal("SIGKILL", { group: true })), { _tag: "ProcessGone" })
          yield* process.acknowledge
          assert.deepInclude(yield* Effect.flip(process.signal("SIGKILL", { group: true })), { _tag: "ProcessGone" })
        }).pipe(real)
      )
    })

    describe("mount", () => {
      it.live("mounts where only taproot's children see it, and says what went wrong", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const target = yield* temporary
          yield* processes.mount({ source: "none", target, type: "tmpfs", data: "size=64k,mode=0700" })
          assert.match(yield* says(["grep", target, "/proc/self/mountinfo"]), /tmpfs .*size=64k/)
          assert.notInclude(readFileSync("/proc/self/mountinfo", "utf8"), target)
          yield* processes.unmount(target)
          assert.strictEqual(yield* says(["grep", target, "/proc/self/mountinfo"]), "")
          assert.deepInclude(yield* Effect.flip(processes.unmount(target)), {
            _tag: "UnmountFailed",
            reason: "system-call",
            errno: 22
          })
          const failed = yield* Effect.flip(processes.mount({ source: "none", target, type: "nonesuch" }))
          assert.deepInclude(failed, { _tag: "MountFailed", errno: 19 })
          assert.include(failed.message, "ENODEV")
        }).pipe(real)
      )
    })

    describe("labels", () => {
      it.live("find a process again, the newest first, until it is acknowledged", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const one = yield* spawn(["true"], { label: "job/a#1" })
          const two = yield* spawn(["true"], { label: "job/a#1" })
          const other = yield* spawn(["true"], { label: "job/b#1" })
          assert.deepStrictEqual(yield* processes.take("job/a#1"), Option.some(two))
          assert.deepStrictEqual(yield* processes.takeAll("job/"), [one, two, other])
          assert.deepStrictEqual(yield* processes.adoptable, [])
          yield* two.exit
          yield* two.acknowledge
          assert.deepStrictEqual(yield* processes.take("job/a#1"), Option.some(one))
          assert.deepStrictEqual(yield* processes.take("job/"), Option.none())
        }).pipe(real)
      )
    })

    describe("the end", () => {
      it.live("a lost channel ends `lost` first and then everything that waits", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const taproot = yield* Taproot.Taproot
          const process = yield* spawn(["sleep", "1000"], out)
          const waiting = yield* Effect.forkChild(
            Effect.all([Effect.exit(process.exit), Effect.exit(text(process))], { concurrency: "unbounded" })
          )
          yield* Effect.sync(() => globalThis.process.kill(taproot.pid, "SIGKILL"))
          assert.deepInclude(yield* processes.lost, { _tag: "ChannelLost", reason: "closed" })
          const [exit, output] = yield* Fiber.join(waiting)
          assert.isTrue(Exit.hasDies(exit))
          assert.isTrue(Exit.hasDies(output))
          assert.isTrue(Exit.hasDies(yield* Effect.exit(spawn(["true"]))))
          assert.isTrue(Exit.hasDies(yield* Effect.exit(process.signal("SIGTERM"))))
          // Its taproot is gone, so nobody else ends it.
          yield* Effect.sync(() => globalThis.process.kill(process.pid, "SIGKILL"))
        }).pipe(real)
      )

      it.live("taproot told to stop asks the brain, and stops when the brain is done", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const taproot = yield* Taproot.Taproot
          const process = yield* spawn(["sleep", "1000"])
          yield* Effect.sync(() => globalThis.process.kill(taproot.pid, "SIGTERM"))
          assert.deepInclude(yield* processes.stopRequested, { why: "signal", action: "end" })
          yield* processes.finish("end")
          assert.deepInclude(yield* processes.lost, { _tag: "ChannelLost" })
          assert.strictEqual(yield* taproot.ended, 0)
          assert.isFalse(exists(process.pid))
        }).pipe(real)
      )
    })
  })
}

suite("Processes on taproot", Taproot.binary)
if (Taproot.sanitized !== undefined) suite("Processes on the sanitized taproot", Taproot.sanitized)
