/** Further programs in containers: real taproot, real OCI runtime; seen from inside and from outside. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import type { Containers } from "../../src/runtime/Containers.ts"
import type { ExecSpec } from "../../src/runtime/ExecSpec.ts"
import { codeOf, type Execution } from "../../src/runtime/Executions.ts"
import type { OutputStream } from "../../src/taproot/Processes.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import {
  brain,
  create,
  isAlive,
  leftovers,
  logText,
  ownScope,
  shell,
  stateDirectory,
  until,
  withContainers,
  writeImage
} from "./world.ts"
import * as Taproot from "../support/taproot.ts"

type Run = Containers["Service"]

const spec = (command: ReadonlyArray<string>, fields: Partial<ExecSpec> = {}): ExecSpec => ({
  command,
  environment: {},
  stdin: false,
  detach: false,
  ...fields
})

const text = ({ output }: Execution, stream: OutputStream = "stdout") =>
  Stream.runFold(
    output(stream),
    () => "",
    (all, bytes) => all + Buffer.from(bytes).toString()
  )

/** Runs to the end; code and both outputs. */
const run = (containers: Run, name: string, command: ReadonlyArray<string>, fields: Partial<ExecSpec> = {}) =>
  Effect.scoped(
    Effect.gen(function* () {
      const execution = yield* containers.exec(name, spec(command, fields))
      const [out, err] = yield* Effect.all([text(execution), text(execution, "stderr")], { concurrency: 2 })
      return { code: codeOf(yield* execution.process.exit), out, err }
    })
  )

/** Waits until it has written that. */
const seen = (containers: Run, name: string, words: string) =>
  Effect.gen(function* () {
    while (!(yield* logText(containers, name)).includes(words)) yield* Effect.sleep("5 millis")
  })

const sleeper = ["/bin/sleep", "100000"]

describe("exec", () => {
  it.live("runs programs: output, code, signal, user, directory, environment, rights", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* create(containers, { name: "web", command: sleeper, environment: { A: "1", B: "2" } })
        const go = (script: string, fields: Partial<ExecSpec> = {}) => run(containers, "web", shell(script), fields)

        assert.deepStrictEqual(yield* go("echo out; echo err >&2; exit 7"), { code: 7, out: "out\n", err: "err\n" })
        assert.strictEqual((yield* go("kill -9 $$")).code, 137)
        assert.strictEqual((yield* go("kill -USR1 $$")).code, 138)
        const asked = yield* go('id; echo "$PWD $A $B $C"', {
          user: "web",
          workingDirectory: "/srv",
          environment: { B: "3", C: "4" }
        })
        assert.strictEqual(asked.out, "uid=1000(web) gid=100(users) groups=29(audio)\n/srv 1 3 4\n")
        // no more rights than the first process has
        const rights =
          "cat /proc/self/status | while read a b; do case $a in Cap*|NoNewPrivs:|Seccomp:) echo $a $b;; esac; done"
        const own = (yield* go(rights)).out
        assert.include(own, "NoNewPrivs: 1")
        assert.strictEqual(own, (yield* go(`cat /proc/1/status ${rights.slice(rights.indexOf("|"))}`)).out)
        assert.include((yield* go(rights, { user: "web" })).out, "CapEff: 0000000000000000")

        const fails = (command: ReadonlyArray<string>, fields: Partial<ExecSpec> = {}) =>
          Effect.flip(run(containers, "web", command, fields))
        assert.strictEqual((yield* fails(["nothing"]))._tag, "ExecProgramMissing")
        assert.strictEqual((yield* fails(["/etc/passwd"]))._tag, "ExecProgramRefused")
        assert.strictEqual((yield* fails(sleeper, { user: "nobody" }))._tag, "UserNotFound")
        assert.strictEqual((yield* fails(sleeper, { workingDirectory: "/none" }))._tag, "ExecFailed")
        yield* containers.stop("web")
        assert.propertyVal(yield* fails(sleeper), "hint", "start it first")
      })
    )
  )

  it.live("feeds standard input, holds back both ways, many at once", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* create(containers, { name: "web", command: sleeper })
        const chunk = new Uint8Array(60_000).fill(65)
        const echo = (times: number) =>
          Effect.scoped(
            Effect.gen(function* () {
              const execution = yield* containers.exec("web", spec(["/bin/cat"], { stdin: true }))
              const { process } = execution
              const feed = Effect.andThen(Effect.repeat(process.write(chunk), { times: times - 1 }), process.closeStdin)
              const length = Stream.runFold(
                execution.output("stdout"),
                () => 0,
                (sum, bytes) => sum + bytes.length
              )
              const [, received] = yield* Effect.all([feed, length], { concurrency: 2 })
              return [codeOf(yield* process.exit), received]
            })
          )
        const all = yield* Effect.all(
          Array.from({ length: 12 }, () => echo(20)),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          all,
          Array.from({ length: 12 }, () => [0, 1_200_000])
        )

        // one that nobody reads stands still, and what it left behind does not keep the others waiting
        yield* Effect.scoped(
          Effect.gen(function* () {
            const silent = yield* containers.exec("web", spec(["/bin/yes"]))
            assert.strictEqual((yield* run(containers, "web", shell("sleep 1000 & echo done"))).out, "done\n")
            assert.isTrue(isAlive(silent.process.pid))
          })
        )
      })
    )
  )

  it.live("ends with its scope, with all that it has started, but for what is detached", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const { pid } = yield* create(containers, { name: "web", command: sleeper })
        const inside = () => readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1")
        const script = "trap '' TERM HUP; (sleep 3000 & ) ; sleep 3001 & sleep 3002 & echo up; wait"
        const { scope, value } = yield* ownScope(containers.exec("web", spec(shell(script))))
        const up = yield* Stream.runHead(value.output("stdout"))
        assert.strictEqual(up._tag, "Some")
        yield* Scope.close(scope, Exit.void)
        assert.isFalse(isAlive(value.process.pid))
        // the first process here reaps nobody
        const alive = () =>
          inside()
            .split(" ")
            .filter((child) => child !== "" && isAlive(Number(child)))
        while (alive().length > 0) yield* Effect.sleep("5 millis")

        const detached = yield* Effect.scoped(containers.exec("web", spec(sleeper, { detach: true })))
        assert.isTrue(isAlive(detached.process.pid))
        // one that its caller leaves alone is one of these
        const left = yield* Effect.scoped(Effect.tap(containers.exec("web", spec(sleeper)), ({ detach }) => detach))
        assert.isTrue(isAlive(left.process.pid))
        yield* detached.process.signal("SIGTERM")
        yield* detached.process.exit

        // it ends with its container
        const last = yield* ownScope(containers.exec("web", spec(sleeper)))
        yield* containers.stop("web")
        assert.strictEqual(codeOf(yield* last.value.process.exit), 137)
        yield* Scope.close(last.scope, Exit.void)
      })
    )
  )

  it.live("has a terminal with a size, signals by keys, and an exact end", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* create(containers, { name: "web", command: sleeper })
        const terminal = { rows: 11, columns: 77 }
        const script = "test -t 0 && test -t 2 && stty size; read a; echo got $a; stty size; cat; exit 3"
        yield* Effect.scoped(
          Effect.gen(function* () {
            const execution = yield* containers.exec("web", spec(shell(script), { terminal, stdin: true }))
            const { process } = execution
            let seen = ""
            yield* Effect.forkScoped(
              Stream.runForEach(execution.output("stdout"), (bytes) =>
                Effect.sync(() => void (seen += Buffer.from(bytes).toString()))
              )
            )
            const wrote = (words: string) =>
              Effect.gen(function* () {
                while (!seen.includes(words)) yield* Effect.sleep("5 millis")
              }).pipe(
                Effect.timeout("10 seconds"),
                Effect.mapError(() => seen)
              )
            yield* wrote("11 77")
            yield* process.resize(30, 90)
            yield* process.write(Buffer.from("hello\r"))
            yield* wrote("got hello\r\n30 90")
            yield* process.write(Buffer.from([3]))
            assert.deepInclude(yield* process.exit, { _tag: "Signaled", signal: "SIGINT" })
          })
        )
        assert.include(
          yield* Effect.map(run(containers, "web", shell("echo $TERM; tty"), { terminal }), ({ out }) => out),
          "xterm"
        )
      })
    )
  )

  it.live("talks to a first process with a terminal, over a death of the brain, and to one with a pipe", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      yield* Effect.gen(function* () {
        const first = yield* ownScope(brain(state, { ending: "release" }))
        const { containers, content } = first.value
        yield* content.importFrom(writeImage(state, "busybox"))
        const command = shell("while read a; do echo got $a; stty size; done; exit 5")
        yield* create(containers, {
          name: "shell",
          command,
          terminal: true,
          stdin: true,
          restart: { restart: "temporary" }
        })
        const before = yield* containers.attach("shell")
        assert.isTrue(before.process.streams.pty)
        yield* before.process.write(Buffer.from("one\r"))
        yield* seen(containers, "shell", "got one")
        yield* create(containers, {
          name: "pipe",
          command: ["/bin/cat"],
          stdin: true,
          restart: { restart: "temporary" }
        })
        yield* (yield* containers.attach("pipe")).process.write(Buffer.from("half "))
        yield* seen(containers, "pipe", "half")
        yield* Scope.close(first.scope, Exit.void)

        const second = yield* ownScope(brain(state))
        const again = second.value.containers
        yield* until(again, "shell", ({ pid }) => pid !== undefined)
        const { process } = yield* again.attach("shell")
        yield* process.resize(33, 44)
        yield* process.write(Buffer.from("two\r"))
        yield* seen(again, "shell", "33 44")
        yield* process.write(Buffer.from([4]))
        assert.propertyVal(
          (yield* until(again, "shell", ({ state }) => state === "failed")).lastExit,
          "tag",
          "ContainerExited"
        )
        assert.strictEqual((yield* Effect.flip(again.attach("shell")))._tag, "WrongState")
        const pipe = yield* again.attach("pipe")
        yield* pipe.process.write(Buffer.from("whole"))
        yield* pipe.process.closeStdin
        yield* until(again, "pipe", ({ state }) => state === "finished")
        assert.strictEqual(yield* logText(again, "pipe"), "half whole")
        yield* second.value.root.end("stop")
        yield* Scope.close(second.scope, Exit.void)
        assert.deepStrictEqual(leftovers(state), [])
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )

  it.live("is cleared away by the next brain, but for what is detached", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      yield* Effect.gen(function* () {
        const first = yield* ownScope(brain(state, { ending: "release" }))
        const { containers, content } = first.value
        yield* content.importFrom(writeImage(state, "busybox"))
        yield* create(containers, { name: "web", command: sleeper })
        // as a dead brain leaves them: nobody closes their scopes
        const never = yield* Scope.make()
        const open = (fields: Partial<ExecSpec>) => Scope.provide(containers.exec("web", spec(sleeper, fields)), never)
        const attached = yield* open({})
        const detached = yield* open({ detach: true })
        const left = yield* open({ terminal: { rows: 24, columns: 80 } })
        yield* left.detach
        yield* Scope.close(first.scope, Exit.void)

        const second = yield* ownScope(brain(state))
        while (isAlive(attached.process.pid)) yield* Effect.sleep("5 millis")
        assert.isTrue(isAlive(detached.process.pid))
        yield* until(second.value.containers, "web", ({ pid }) => pid !== undefined)
        assert.strictEqual((yield* run(second.value.containers, "web", shell("echo again"))).out, "again\n")
        yield* second.value.root.end("stop")
        const { processes } = yield* Effect.gen(function* () {
          while ((yield* (yield* Processes).status).processes > 0) yield* Effect.sleep("5 millis")
          return yield* (yield* Processes).status
        })
        assert.strictEqual(processes, 0)
        yield* Scope.close(second.scope, Exit.void)
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )
})
