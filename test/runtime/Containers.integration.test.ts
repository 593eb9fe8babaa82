/** Containers from request to end on the real parts: every field of a spec, every way to end, every command. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { State } from "../../src/storage/State.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import { decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import { create, isAlive, logText, shell, until, withContainers, writeImage } from "./world.ts"

const once = { restart: "temporary" }
const fast = { restart: "permanent", backoff: { initial: 1, max: 10, jitter: 0 } }

describe("Containers", () => {
  it.live("a container runs, is told of, is stopped and stays stopped, and is removed", () =>
    withContainers(({ containers, state }) =>
      Effect.gen(function* () {
        const made = yield* create(containers, { name: "web" })
        assert.strictEqual(made.state, "running")
        assert.isTrue(isAlive(made.pid))
        assert.strictEqual(made.path, "init/runtime/web/web")
        assert.strictEqual(made.desired, "running")
        assert.deepStrictEqual(
          (yield* containers.list).map(({ name }) => name),
          ["web"]
        )
        assert.deepStrictEqual(
          (yield* containers.listSandboxes).map(({ containers, implicit }) => [containers, implicit]),
          [[["web"], true]]
        )
        // `sleep` as pid 1 has no handler, so TERM does nothing; a signal that cannot be ignored stops it at once.
        const stopped = yield* containers.kill("web", "SIGKILL").pipe(Effect.andThen(containers.stop("web")))
        assert.deepStrictEqual([stopped.state, stopped.desired, stopped.pid], ["stopped", "stopped", undefined])
        assert.isFalse(isAlive(made.pid))
        const started = yield* containers.start("web")
        assert.deepStrictEqual([started.state, started.desired], ["running", "running"])
        assert.strictEqual((yield* containers.start("web")).pid, started.pid, "starting what runs changes nothing")
        assert.match(
          (yield* Effect.flip(containers.remove("web"))).message,
          /cannot remove container web while it is running/
        )
        yield* containers.remove("web", { force: true })
        assert.isFalse(isAlive(started.pid))
        assert.deepStrictEqual(yield* containers.list, [])
        assert.deepStrictEqual(yield* containers.listSandboxes, [])
        assert.strictEqual((yield* Effect.flip(containers.get("web")))._tag, "ContainerNotFound")
        assert.isFalse(existsSync(join(state, "logs/web")))
        assert.isFalse(existsSync(join(state, "runtime/rootfs/web")))
      })
    )
  )

  it.live("every container has the usual filter of system calls, which is compiled once", () =>
    withContainers(({ containers, state }) =>
      Effect.gen(function* () {
        const config = (name: string) =>
          JSON.parse(readFileSync(join(state, `runtime/bundles/${name}-1/config.json`), "utf8"))
        const filters: Array<unknown> = []
        for (const name of ["one", "two", "three"]) {
          const security = name === "three" ? { dropCapabilities: ["ALL"] } : {}
          yield* create(containers, { name, security, command: shell("cat /proc/self/status; exec sleep 1000") })
          filters.push(config(name).annotations?.["run.oci.seccomp_bpf_data"])
          const seen = yield* Effect.repeat(logText(containers, name), {
            until: (text) => text.includes("Seccomp_filters")
          })
          assert.match(seen, /^Seccomp:\t2$/mu, name)
          assert.match(seen, /^Seccomp_filters:\t1$/mu, name)
          assert.strictEqual(config(name).linux.seccomp.defaultAction, "SCMP_ACT_ERRNO")
        }
        const [first, second, third] = filters
        assert.isUndefined(first, "nobody has compiled it yet")
        assert.match(String(second), /^[A-Za-z0-9+/]{1000,}=*$/u)
        assert.isUndefined(third, "another profile")
      })
    )
  )

  it.live("spec over image: entrypoint, command, environment, user, directory", () =>
    withContainers(({ containers, content, state }) =>
      Effect.gen(function* () {
        const config = {
          Entrypoint: ["/bin/sh", "-c"],
          Cmd: ["echo from image; id; pwd; echo $WHO; hostname"],
          Env: ["WHO=image"],
          User: "web",
          WorkingDir: "/srv"
        }
        yield* content.importFrom(writeImage(state, "talker", config))
        yield* create(containers, { name: "image", image: "talker", restart: once })
        yield* until(containers, "image", ({ state }) => state === "finished")
        assert.strictEqual(
          yield* logText(containers, "image"),
          "from image\nuid=1000(web) gid=100(users) groups=29(audio)\n/srv\nimage\nimage\n"
        )
        yield* create(containers, {
          name: "spec",
          image: "talker",
          restart: once,
          command: ["id; pwd; echo $WHO"],
          environment: { WHO: "spec" },
          user: "7:8",
          workingDirectory: "/tmp/made"
        })
        yield* until(containers, "spec", ({ state }) => state === "finished")
        assert.strictEqual(yield* logText(containers, "spec"), "uid=7 gid=8\n/tmp/made\nspec\n")
        yield* create(containers, { name: "nobody", image: "talker", user: "ghost" })
        const failed = yield* until(containers, "nobody", ({ lastExit }) => lastExit !== undefined)
        assert.strictEqual(failed.lastExit?.tag, "UserUnknown")
        assert.match(failed.lastExit?.message ?? "", /"ghost": not in the image's \/etc\/passwd/)
      })
    )
  )

  it.live("ends are typed: code, signal, memory, and nothing to run", () =>
    withContainers(({ containers, content, state }) =>
      Effect.gen(function* () {
        const exitOf = (name: string) =>
          Effect.map(
            until(containers, name, ({ state }) => state === "failed" || state === "finished"),
            ({ lastExit, state }) => [state, lastExit?.tag, lastExit?.message]
          )
        yield* create(containers, { name: "fine", command: ["/bin/true"], restart: once })
        assert.deepStrictEqual((yield* exitOf("fine")).slice(0, 2), ["finished", "Normal"])
        yield* create(containers, { name: "code", command: shell("exit 7"), restart: once })
        assert.deepStrictEqual(yield* exitOf("code"), ["failed", "ContainerExited", "exited with code 7"])
        yield* create(containers, { name: "signal", command: shell("exec sleep 1000"), restart: once })
        yield* containers.kill("signal", "SIGKILL")
        assert.deepStrictEqual(yield* exitOf("signal"), ["failed", "ContainerSignaled", "killed by SIGKILL"])
        const greedy = { command: ["/bin/tail", "/dev/zero"], resources: { memoryBytes: 33_554_432 } }
        yield* create(containers, { name: "memory", ...greedy, restart: once })
        assert.deepStrictEqual(yield* exitOf("memory"), [
          "failed",
          "ContainerOomKilled",
          "killed because it used more than its 32 MiB of memory"
        ])
        for (const [name, program] of [
          ["path", "/bin/nothing"],
          ["typo", "nothing"],
          ["deep", "/no/such/directory/program"]
        ] as const) {
          yield* create(containers, { name, command: [program], restart: once })
          const words = `its program "${program}" is not in its image`
          assert.deepStrictEqual(yield* exitOf(name), ["failed", "ProgramNotFound", words])
        }
        for (const [name, program] of [
          ["data", "/etc/passwd"],
          ["folder", "/bin"]
        ] as const) {
          yield* create(containers, { name, command: [program], restart: once })
          const exit = yield* exitOf(name)
          assert.deepStrictEqual(exit.slice(0, 2), ["failed", "ProgramNotExecutable"])
          assert.match(exit[2] ?? "", /cannot be executed: .*(permi|directory)/i)
        }
        yield* content.importFrom(writeImage(state, "empty", { Cmd: [] }))
        yield* create(containers, { name: "empty", image: "empty", restart: once })
        assert.strictEqual((yield* exitOf("empty"))[1], "NothingToRun")
      })
    )
  )

  it.live("a crash is followed by a restart, by policy, with the rest of the container as it was", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const script = "echo run >> /tmp/runs; cat /tmp/runs | wc -l; exec sleep 1000"
        const command = shell(script.replace("wc -l", "busybox wc -l"))
        const first = yield* create(containers, { name: "web", command, restart: fast })
        while ((yield* logText(containers, "web")) !== "1\n") yield* Effect.sleep("5 millis")
        yield* containers.kill("web", "SIGKILL")
        const second = yield* until(containers, "web", ({ restarts, state }) => restarts === 1 && state === "running")
        while (!(yield* logText(containers, "web")).includes("2")) yield* Effect.sleep("5 millis")
        assert.notStrictEqual(second.pid, first.pid)
        assert.strictEqual(second.incarnation, first.incarnation + 1)
        assert.strictEqual(second.lastExit?.tag, "ContainerSignaled")
        yield* containers.restart("web")
        yield* until(containers, "web", ({ incarnation, state }) => incarnation === 3 && state === "running")
        while (!(yield* logText(containers, "web")).includes("3")) yield* Effect.sleep("5 millis")
        assert.strictEqual(yield* logText(containers, "web"), "1\n2\n3\n", "the writable layer lives on")
      })
    )
  )

  it.live("a budget parks the container; a person starts it again; the policy changes while it lives", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const restart = { ...fast, budget: { restarts: 2, within: 60_000 }, whenSpent: "park" }
        yield* create(containers, { name: "crash", command: shell("exit 1"), restart }, false)
        const parked = yield* until(containers, "crash", ({ state }) => state === "parked")
        assert.strictEqual(parked.restarts, 2)
        yield* containers.start("crash")
        yield* until(containers, "crash", ({ incarnation, state }) => state === "parked" && incarnation > 3)
        const changed = yield* containers.setPolicy("crash", RestartPolicy.make({ restart: "temporary" }))
        assert.strictEqual(changed.spec.restart.restart, "temporary")
        yield* containers.start("crash")
        yield* until(containers, "crash", ({ incarnation, state }) => state === "failed" && incarnation === 7)
      })
    )
  )

  it.live("a transient container that ends well is finished, and is not started again by anybody but a person", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const script = "echo here; test -e /tmp/mark && exit 0; echo x > /tmp/mark; exit 1"
        const restart = { ...fast, restart: "transient" }
        yield* create(
          containers,
          { name: "job", command: shell(script.replace("test", "busybox test")), restart },
          false
        )
        const finished = yield* until(containers, "job", ({ state }) => state === "finished")
        assert.strictEqual(finished.restarts, 1)
        assert.strictEqual(finished.desired, "running")
        yield* containers.start("job")
        yield* until(containers, "job", ({ incarnation, state }) => state === "finished" && incarnation === 3)
        assert.strictEqual(yield* logText(containers, "job"), "here\nhere\nhere\n")
      })
    )
  )

  it.live("stop: its signal first, then its grace, then KILL", () =>
    withContainers(({ containers, content, state }) =>
      Effect.gen(function* () {
        const handler = (signal: string) =>
          shell(`trap 'echo got ${signal}; exit 0' ${signal}; echo ready; while :; do sleep 0.05; done`)
        const ready = (name: string) =>
          Effect.gen(function* () {
            while ((yield* logText(containers, name)) === "") yield* Effect.sleep("5 millis")
          })
        yield* create(containers, { name: "polite", command: handler("TERM") })
        yield* create(containers, { name: "usr1", command: handler("USR1"), stopSignal: "usr1" })
        yield* content.importFrom(writeImage(state, "inter", { StopSignal: "SIGINT" }))
        yield* create(containers, { name: "image", image: "inter", command: handler("INT") })
        const stubborn = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")
        yield* create(containers, { name: "stubborn", command: stubborn, stopGracePeriod: 300 })
        for (const name of ["polite", "usr1", "image", "stubborn"]) yield* ready(name)
        yield* Effect.forEach(["polite", "usr1", "image", "stubborn"], (name) => containers.stop(name), {
          concurrency: "unbounded"
        })
        assert.strictEqual(yield* logText(containers, "polite"), "ready\ngot TERM\n")
        assert.strictEqual(yield* logText(containers, "usr1"), "ready\ngot USR1\n")
        assert.strictEqual(yield* logText(containers, "image"), "ready\ngot INT\n")
        assert.strictEqual(yield* logText(containers, "stubborn"), "ready\n")
        for (const container of yield* containers.list) assert.strictEqual(container.state, "stopped")
      })
    )
  )

  it.live("stop: this once with another signal and another grace, also when a patient stop is under way", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const ready = (name: string) =>
          Effect.gen(function* () {
            while ((yield* logText(containers, name)) === "") yield* Effect.sleep("5 millis")
          })
        const command = shell(
          "trap '' TERM; trap 'echo got USR2; exit 0' USR2; echo ready; while :; do sleep 0.05; done"
        )
        const patient = { command, stopGracePeriod: 3_600_000 }
        for (const name of ["signal", "grace", "hasty"]) yield* create(containers, { name, ...patient })
        for (const name of ["signal", "grace", "hasty"]) yield* ready(name)
        yield* containers.stop("signal", { signal: "USR2" })
        assert.strictEqual(yield* logText(containers, "signal"), "ready\ngot USR2\n")
        yield* containers.stop("grace", { gracePeriod: Duration.zero })
        yield* Effect.forkChild(containers.stop("hasty"))
        yield* until(containers, "hasty", ({ state }) => state === "stopping")
        yield* containers.stop("hasty", { gracePeriod: Duration.millis(50) })
        for (const container of yield* containers.list) assert.strictEqual(container.state, "stopped")
        // That was for this once.
        yield* containers.start("signal")
        yield* Effect.forkChild(containers.restart("signal"))
        yield* until(containers, "signal", ({ state }) => state === "stopping")
        yield* containers.stop("signal", { gracePeriod: Duration.zero })
      })
    )
  )

  it.live("stop: a longer grace than the spec's is given in full", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const command = shell("trap 'sleep 1; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
        yield* create(containers, { name: "saves", command, stopGracePeriod: 0 })
        while ((yield* logText(containers, "saves")) === "") yield* Effect.sleep("5 millis")
        yield* containers.stop("saves", { gracePeriod: Duration.minutes(5) })
        assert.strictEqual(yield* logText(containers, "saves"), "ready\nsaved\n")
      })
    )
  )

  it.live("a forced removal does not wait for anybody's grace, not even a stop's that has begun", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const made = yield* create(containers, { name: "slow", stopGracePeriod: 3_600_000 })
        yield* Effect.forkChild(containers.stop("slow"))
        yield* until(containers, "slow", ({ state }) => state === "stopping")
        yield* containers.remove("slow", { force: true })
        assert.isFalse(isAlive(made.pid))
        yield* create(containers, { name: "slow" })
        yield* containers.remove("slow", { force: true })
      })
    )
  )

  it.live(
    "creating is idempotent by name; other specs, unknown images and sandboxes are refused and leave nothing",
    () =>
      withContainers(({ containers, state }) =>
        Effect.gen(function* () {
          const first = yield* create(containers, { name: "web", labels: { a: "1" } })
          const again = yield* create(containers, { name: "web", labels: { a: "1" } })
          assert.deepStrictEqual([again.uid, again.generation, again.pid], [first.uid, first.generation, first.pid])
          const other = yield* Effect.flip(create(containers, { name: "web", labels: { a: "2" }, user: "web" }))
          assert.deepStrictEqual(other._tag === "ContainerAlreadyExists" ? [...other.fields].sort() : other._tag, [
            "labels",
            "user"
          ])
          const image = yield* Effect.flip(create(containers, { name: "ghost", image: "nothing:here" }))
          assert.strictEqual(image._tag, "ImageNotFound")
          const sandbox = yield* Effect.flip(create(containers, { name: "ghost", sandbox: "nowhere" }))
          assert.strictEqual(sandbox._tag, "SandboxNotFound")
          const taken = yield* Effect.flip(create(containers, { name: "ghost", sandbox: "web" }))
          assert.strictEqual(taken._tag, "SandboxNotFound", "another container's own sandbox is not to be shared")
          assert.strictEqual((yield* containers.list).length, 1)
          assert.isFalse(existsSync(join(state, "logs/ghost")))
          const many = yield* Effect.forEach([1, 2, 3, 4, 5], () => create(containers, { name: "same" }), {
            concurrency: "unbounded"
          })
          assert.strictEqual(new Set(many.map(({ uid, pid }) => `${uid} ${pid}`)).size, 1)
          for (const name of ["web", "same"]) yield* containers.remove(name, { force: true })
        })
      )
  )

  it.live("sandboxes: one network for all in them, none outside; kept over a restart", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const pod = yield* decodeSandboxSpec({ name: "pod" })
        const made = yield* containers.createSandbox(pod)
        assert.strictEqual((yield* containers.createSandbox(pod)).uid, made.uid)
        const command = shell("busybox readlink /proc/self/ns/net; ip -o link | busybox wc -l; exec sleep 1000")
        yield* Effect.forEach(
          ["one", "two", "three"],
          (name) => create(containers, { name, sandbox: "pod", command, restart: fast }),
          { concurrency: "unbounded" }
        )
        yield* create(containers, { name: "alone", command })
        const outputs = (names: ReadonlyArray<string>) =>
          Effect.forEach(names, (name) =>
            Effect.gen(function* () {
              while ((yield* logText(containers, name)).split("\n").length < 3) yield* Effect.sleep("5 millis")
              return (yield* logText(containers, name)).split("\n")[0]
            })
          )
        const [one, two, three, alone] = yield* outputs(["one", "two", "three", "alone"])
        assert.deepStrictEqual([two, three], [one, one])
        assert.notStrictEqual(alone, one)
        yield* containers.restart("one")
        while ((yield* logText(containers, "one")).split("\n").length < 5) yield* Effect.sleep("5 millis")
        assert.strictEqual((yield* logText(containers, "one")).split("\n")[2], one, "the same network after a restart")
        const host = yield* containers.createSandbox(yield* decodeSandboxSpec({ name: "open", network: "host" }))
        assert.deepStrictEqual(host.containers, [])
        yield* create(containers, { name: "hosted", sandbox: "open", command })
        assert.notInclude([one, alone], (yield* outputs(["hosted"]))[0])

        const inUse = yield* Effect.flip(containers.removeSandbox("pod"))
        assert.strictEqual(inUse._tag, "SandboxInUse")
        yield* containers.removeSandbox("pod", { force: true })
        assert.deepStrictEqual(
          (yield* containers.list).map(({ name }) => name),
          ["alone", "hosted"]
        )
        yield* containers.remove("hosted", { force: true })
        yield* containers.removeSandbox("open")
        yield* containers.remove("alone", { force: true })
      })
    )
  )

  it.live("logs: by stream, followed over restarts, and one that nobody reads holds nobody up", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const command = shell("echo out; echo err >&2; printf partial; sleep 0.05; echo ' line'; exec sleep 1000")
        yield* create(containers, { name: "talk", command, restart: fast })
        while (!(yield* logText(containers, "talk", { streams: ["stdout"] })).includes(" line"))
          yield* Effect.sleep("5 millis")
        assert.strictEqual(yield* logText(containers, "talk", { streams: ["stdout"] }), "out\npartial line\n")
        assert.strictEqual(yield* logText(containers, "talk", { streams: ["stderr"] }), "err\n")

        const noisy = shell(
          "yes 'a line that nobody will ever read' | busybox head -n 200000; echo end; exec sleep 1000"
        )
        const log = { maxBytes: 1_000_000, maxFiles: 2 }
        yield* create(containers, { name: "noisy", command: noisy, log })
        while (!(yield* logText(containers, "noisy", { tail: 1 })).includes("end")) yield* Effect.sleep("20 millis")
        const followed = yield* Effect.forkChild(logText(containers, "talk", { follow: true, streams: ["stderr"] }))
        yield* containers.restart("talk")
        while ((yield* logText(containers, "talk", { streams: ["stderr"] })) !== "err\nerr\n")
          yield* Effect.sleep("5 millis")
        yield* containers.remove("talk", { force: true })
        assert.strictEqual(yield* Fiber.join(followed), "err\nerr\n", "followed to the end, which is the removal")
      })
    )
  )

  it.live("a runtime that is missing is said so, and everything else works", () =>
    withContainers(
      ({ containers }) =>
        Effect.gen(function* () {
          yield* create(containers, { name: "web", restart: { ...fast, backoff: { initial: 50 } } }, false)
          const failed = yield* until(containers, "web", ({ restarts }) => restarts > 0)
          assert.strictEqual(failed.lastExit?.tag, "RuntimeMissing")
          assert.match(
            failed.lastExit?.message ?? "",
            /no OCI runtime works on this host .*not installed.*install crun or runc/
          )
          yield* containers.stop("web")
          yield* containers.remove("web")
        }),
      { candidates: ["/nowhere/crun"] }
    )
  )

  it.live("an image that a container needs cannot be removed; one that vanished all the same is told as such", () =>
    withContainers(({ containers, content }) =>
      Effect.gen(function* () {
        yield* create(containers, { name: "web", restart: { ...fast, backoff: { initial: 50 } } })
        const error = yield* Effect.flip(content.remove("busybox"))
        assert.strictEqual(error._tag, "ImageInUse")
        assert.strictEqual(error.message, "image busybox is in use by container web; remove those first")
        // As if the disk had lost it: the record of the image goes, behind everybody's back.
        const images = yield* (yield* State).collection("image", Schema.Unknown)
        for (const { name } of yield* images.list) yield* images.remove(name)
        yield* containers.kill("web", "SIGKILL")
        const failed = yield* until(containers, "web", ({ lastExit }) => lastExit?.tag === "ImageMissing")
        assert.match(failed.lastExit?.message ?? "", /its image busybox is not on this host; pull or import it again/)
        yield* containers.remove("web", { force: true })
      })
    )
  )

  it.live("a hundred containers start, and are gone again", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const names = Array.from({ length: 100 }, (_, index) => `many-${index}`)
        const made = yield* Effect.forEach(names, (name) => create(containers, { name }), { concurrency: "unbounded" })
        assert.deepStrictEqual(
          made.flatMap(({ lastExit, name, state }) => (state === "running" ? [] : [{ name, state, lastExit }])),
          []
        )
        assert.strictEqual(new Set(made.map(({ pid }) => pid)).size, 100)
        yield* Effect.forEach(names, (name) => containers.remove(name, { force: true }), { concurrency: "unbounded" })
        assert.deepStrictEqual(yield* containers.list, [])
      })
    )
  )
})
