/** Directories of the host that containers of a microVM write to, with a real guest and virtiofsd, over the death of all in between. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { decodeSandboxSpec } from "../../../src/runtime/ContainerSpec.ts"
import { Processes } from "../../../src/taproot/Processes.ts"
import * as Taproot from "../../support/taproot.ts"
import { brain, create, leftovers, logText, ownScope, shell, stateDirectory, until, writeImage } from "../world.ts"

const PATIENCE = "2 minutes"

const patiently = (condition: () => boolean) =>
  Effect.sync(condition).pipe(
    Effect.repeat({ until: (happened) => happened, schedule: Schedule.spaced("50 millis") }),
    Effect.timeout(PATIENCE)
  )

/** Says what it was told, as often as it is told something else. */
const echoing = shell(
  "echo $$ > /work/up; chown 7:8 /work/up; " +
    "while :; do read -r told < /work/told; echo heard $told > /work/.new; mv /work/.new /work/heard; sleep 0.2; done"
)

describe("a directory of the host in a microVM", () => {
  it.live(
    "is written to from both sides, over the death of the brain and of who serves it, and by a container that comes later",
    () =>
      Effect.gen(function* () {
        const state = yield* stateDirectory
        const allowance = { mounts: () => [{ path: tmpdir(), readOnly: false }] }
        const file = (name: string) => `${state}/work/${name}`
        const read = (name: string) => (existsSync(file(name)) ? readFileSync(file(name), "utf8").trim() : "")
        mkdirSync(`${state}/work`)
        mkdirSync(`${state}/more`)
        symlinkSync(`${state}/more`, `${state}/link`)
        writeFileSync(file("told"), "one\n")
        yield* Effect.gen(function* () {
          const first = yield* ownScope(brain(state, { allowance, ending: "release" }))
          yield* first.value.content.importFrom(writeImage(state, "busybox"))
          const spec = yield* decodeSandboxSpec({ name: "pod", isolation: "microvm" })
          yield* first.value.containers.createSandbox(spec)
          const mounts = [{ source: `${state}/work`, target: "/work" }]
          yield* create(first.value.containers, { name: "writer", sandbox: "pod", command: echoing, mounts })
          const before = yield* until(first.value.containers, "writer", ({ pid }) => pid !== undefined, PATIENCE)
          yield* patiently(() => read("heard") === "heard one")
          const { gid, uid } = statSync(file("up"))
          assert.deepStrictEqual([uid, gid], [7, 8])
          yield* Scope.close(first.scope, Exit.void)

          writeFileSync(file("told"), "two\n")
          yield* patiently(() => read("heard") === "heard two")
          const { scope, value } = yield* ownScope(brain(state, { allowance }))
          const { containers } = value
          const after = yield* until(containers, "writer", ({ pid }) => pid !== undefined, PATIENCE)
          assert.deepStrictEqual([after.pid, after.restarts], [before.pid, before.restarts])

          const [server, ...others] = yield* (yield* Processes).takeAll("share/pod/")
          assert.isDefined(server)
          assert.deepStrictEqual(others, [])
          // it waits for the one that serves, which is alone in a process namespace
          const [virtiofsd = 0, ...more] = readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, "utf8")
            .trim()
            .split(" ")
            .map(Number)
          assert.deepStrictEqual(more, [])
          const status = readFileSync(`/proc/${virtiofsd}/status`, "utf8")
          assert.match(status, /^CapEff:\t00000000000000db$/m)
          assert.match(status, /^NSpid:\t\d+\t1$/m)
          yield* server.signal("SIGKILL")
          yield* until(containers, "writer", ({ restarts }) => restarts === 1, PATIENCE)
          assert.isFalse(existsSync(`/proc/${virtiofsd}`), "it ends with who waits for it")
          writeFileSync(file("told"), "three\n")
          yield* patiently(() => read("heard") === "heard three")

          const wanting = (name: string, source: string) =>
            create(containers, {
              name,
              sandbox: "pod",
              command: shell("echo there > /more/mark; exec sleep 1000"),
              mounts: [{ source, target: "/more" }],
              restart: { restart: "temporary" }
            })
          for (const source of [`${state}/link`, file("told"), `${state}/none`]) {
            yield* wanting("refused", source)
            const { lastExit } = yield* until(containers, "refused", (one) => one.state === "failed", PATIENCE)
            assert.propertyVal(lastExit, "tag", "HostPathRefused")
            yield* containers.remove("refused")
          }
          assert.strictEqual((yield* containers.get("writer")).restarts, 1, "nobody else was disturbed")
          yield* wanting("later", `${state}/more`)
          yield* patiently(() => existsSync(`${state}/more/mark`))
          yield* until(containers, "later", (one) => one.state === "running", PATIENCE)
          writeFileSync(file("told"), "four\n")
          yield* patiently(() => read("heard") === "heard four")
          assert.notInclude(yield* logText(containers, "writer"), "/work")

          // another directory has taken its name
          renameSync(`${state}/work`, `${state}/old`)
          mkdirSync(`${state}/work`)
          writeFileSync(file("told"), "five\n")
          yield* containers.restart("writer")
          yield* patiently(() => read("heard") === "heard five")

          yield* value.root.end("stop")
          yield* Scope.close(scope, Exit.void)
          assert.deepStrictEqual(leftovers(state), [])
        }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
      }).pipe(Effect.scoped),
    300_000
  )
})
