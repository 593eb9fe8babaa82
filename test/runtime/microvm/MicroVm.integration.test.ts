/**
 * Containers in microVMs, with real guests: QEMU, the guest's kernel, taproot and the OCI runtime in it. Emulated where there is no
 * KVM, so a start takes seconds; what can be tried in one guest is tried in one.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { release, tmpdir } from "node:os"
import * as ActorPath from "../../../src/actor/ActorPath.ts"
import { decodeSandboxSpec } from "../../../src/runtime/ContainerSpec.ts"
import type { Container, Containers } from "../../../src/runtime/Containers.ts"
import * as ReadOnlyProgram from "../../../src/runtime/ReadOnlyProgram.ts"
import { Systems } from "../../../src/runtime/System.ts"
import { Volumes } from "../../../src/storage/Volumes.ts"
import * as Taproot from "../../support/taproot.ts"
import {
  brain,
  create,
  leftovers,
  logText,
  ownScope,
  shell,
  stateDirectory,
  until,
  withContainers,
  writeImage
} from "../world.ts"

/** A busy host that emulates is slow. */
const PATIENCE = "2 minutes"
const TIMEOUT = 300_000

const waitFor = (containers: Containers["Service"], name: string, wanted: (container: Container) => boolean) =>
  until(containers, name, wanted, PATIENCE)

const patiently = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  condition.pipe(
    Effect.repeat({ until: (happened) => happened, schedule: Schedule.spaced("50 millis") }),
    Effect.timeout(PATIENCE)
  )

const sandbox = (containers: Containers["Service"], name: string, fields: Readonly<Record<string, unknown>> = {}) =>
  Effect.flatMap(decodeSandboxSpec({ name, isolation: "microvm", ...fields }), containers.createSandbox)

const ticking = shell("i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done")

/** The VMMs of this Ironwood, by the names of their sandboxes. */
const machines = (name: string): ReadonlyArray<number> =>
  readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid))
    .flatMap((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`\0guest=${name},`) ? [Number(pid)] : []
      } catch {
        return []
      }
    })

/** What a server of grpc.health.v1 over HTTP/2 says to the first request of a connection: SERVING. */
const healthAnswer = Buffer.concat(
  [
    [4, 0, 0, ""],
    [4, 1, 0, ""],
    [1, 4, 1, `\u0088\u000f\u0010\u0010application/grpc`],
    [0, 0, 1, "\0\0\0\0\u0002\u0008\u0001"],
    [1, 5, 1, "\0\u000bgrpc-status\u00010"]
  ].map(([type = 0, flags = 0, stream = 0, payload = ""]) => {
    const bytes = Buffer.from(String(payload), "latin1")
    return Buffer.concat([
      Buffer.from([0, 0, bytes.length, Number(type), Number(flags), 0, 0, 0, Number(stream)]),
      bytes
    ])
  })
)

describe("a microVM", () => {
  it.live(
    "runs containers on a kernel of its own, as the host does: output, code, user, environment, limits, signals, programs",
    () =>
      withContainers(({ containers }) =>
        Effect.gen(function* () {
          yield* sandbox(containers, "all-one", { hostname: "inside" })
          const job = { sandbox: "all-one", restart: { restart: "temporary" } }
          yield* create(containers, {
            ...job,
            name: "job",
            command: shell("uname -r; id -u; id -g; hostname; echo $COLOUR; pwd; echo loud >&2; exit 7"),
            user: "12:34",
            environment: { COLOUR: "blue" },
            workingDirectory: "/tmp"
          })
          const ended = yield* waitFor(containers, "job", ({ state }) => state === "failed")
          assert.deepInclude(ended.lastExit, { tag: "ContainerExited", facts: { exitCode: 7 } })
          const [kernel, ...said] = (yield* logText(containers, "job", { streams: ["stdout"] })).trim().split("\n")
          assert.match(kernel ?? "", /^6\./)
          assert.notStrictEqual(kernel, release())
          assert.deepStrictEqual(said, ["12", "34", "inside", "blue", "/tmp"])
          assert.strictEqual(yield* logText(containers, "job", { streams: ["stderr"] }), "loud\n")

          yield* create(containers, {
            ...job,
            name: "greedy",
            command: shell("tail /dev/zero"),
            resources: { memoryBytes: 16 * 1024 * 1024 }
          })
          const greedy = yield* waitFor(containers, "greedy", ({ state }) => state === "failed")
          assert.propertyVal(greedy.lastExit, "tag", "ContainerOomKilled")

          yield* create(containers, { ...job, name: "none", command: ["/no/such/program"] })
          const none = yield* waitFor(containers, "none", ({ state }) => state === "failed")
          assert.propertyVal(none.lastExit, "tag", "ProgramNotFound")

          yield* create(containers, {
            name: "web",
            sandbox: "all-one",
            command: shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"),
            stopGracePeriod: 20_000,
            resources: { memoryBytes: 64 * 1024 * 1024 }
          })
          const web = yield* waitFor(containers, "web", ({ pid }) => pid !== undefined)
          assert.strictEqual(machines("all-one").length, 1, "one guest for all of them")
          const guest = Option.getOrThrow(yield* (yield* Systems).present("all-one"))
          const written = yield* Effect.flip(guest.files.write("/usr/bin/crun", ""))
          assert.strictEqual(written.code, "EROFS", "nobody writes to its programs")
          const crun = ReadOnlyProgram.whereItIs({ name: "crun", path: "/usr/bin/crun" })
          const executed = yield* guest.processes.run({
            label: "crun",
            argv: [crun.path, "--version"],
            environment: { ...crun.environment, LD_DEBUG: "statistics" }
          })
          const linked = Buffer.from(executed.stderr)
            .toString()
            .match(/total startup time/g)
          assert.lengthOf(linked ?? [], 1, "crun does not execute itself anew")
          const run = yield* containers
            .exec("web", {
              command: shell("tty; echo $0; exit 3"),
              environment: {},
              stdin: false,
              detach: false,
              terminal: { rows: 24, columns: 80 }
            })
            .pipe(
              Effect.flatMap(({ output, process }) =>
                Effect.all([
                  Stream.runFold(
                    output("stdout"),
                    () => "",
                    (text, bytes) => text + Buffer.from(bytes).toString()
                  ),
                  process.exit
                ])
              ),
              Effect.scoped
            )
          assert.deepInclude(run[1], { _tag: "Exited", code: 3 })
          assert.include(run[0], "/dev/pts/")
          const [listed] = yield* containers.top("web")
          assert.deepInclude(listed, { pid: web.pid ?? 0, innerPid: 1, uid: 0 })
          const above = ActorPath.child(ActorPath.child(ActorPath.root("init"), "runtime"), "all-one")
          const inWeb = { kind: "container", path: ActorPath.child(above, "web") }
          const inGuest = { kind: "microvm", path: ActorPath.child(above, "microVM") }
          const told = yield* Effect.repeat(containers.processes([inWeb, inGuest], "guests"), {
            until: (found) => [...found.values()].every(({ problem }) => problem === undefined),
            schedule: Schedule.spaced("200 millis")
          }).pipe(Effect.timeout(PATIENCE))
          const [shellOfWeb] = told.get(inWeb.path)?.processes ?? []
          assert.deepInclude(shellOfWeb, { pid: web.pid ?? 0, innerPid: 1 })
          assert.include(shellOfWeb?.command, "echo bye")
          const ofGuest = told.get(inGuest.path)?.processes.map(({ command }) => command) ?? []
          assert.strictEqual(ofGuest[0], "/init")
          assert.include(ofGuest, "/usr/lib/ironwood/files")
          assert.isFalse(ofGuest.some((command) => command.includes("echo bye") || command.startsWith("[")))
          const [stats] = yield* containers.stats(["web"])
          assert.strictEqual(stats?.memoryLimitBytes, 64 * 1024 * 1024)
          yield* containers.pause("web")
          assert.propertyVal(yield* containers.get("web"), "state", "paused")
          yield* containers.resume("web")
          yield* containers.stop("web")
          assert.include(yield* logText(containers, "web"), "bye")
          // with nobody in it that is wanted, it goes, and comes again with the next
          yield* patiently(Effect.sync(() => machines("all-one").length === 0))
          yield* containers.start("web")
          yield* waitFor(containers, "web", ({ pid }) => pid !== undefined)
          assert.strictEqual(machines("all-one").length, 1)

          yield* containers.removeSandbox("all-one", { force: true })
          assert.deepStrictEqual(machines("all-one"), [])

          yield* Effect.flatMap(decodeSandboxSpec({ name: "all-one" }), containers.createSandbox)
          yield* create(containers, { ...job, name: "after", command: shell("uname -r") })
          yield* waitFor(containers, "after", ({ state }) => state === "finished")
          assert.strictEqual(
            (yield* logText(containers, "after")).trim(),
            release(),
            "the name is free for another kind"
          )
        })
      ),
    TIMEOUT
  )

  it.live(
    "asks its containers by every kind of probe, over its own loopback; they are attached to, updated and copied to as elsewhere",
    () =>
      withContainers(
        ({ containers, state }) =>
          Effect.gen(function* () {
            yield* sandbox(containers, "asked")
            const probes = {
              exec: { exec: { command: shell("test -e /tmp/up") } },
              http: { http: { port: 80, path: "/tmp/up" } },
              tcp: { tcp: { port: 81 } },
              grpc: { grpc: { port: 82, service: "" } }
            }
            const serve = `
            echo '${Buffer.from(healthAnswer).toString("base64")}' | busybox base64 -d > /srv/answer
            printf '#!/bin/sh\nhead -c 100 > /dev/null; cat /srv/answer\n' > /srv/health
            busybox chmod 755 /srv/health
            httpd -p 127.0.0.1:80 -h /
            nc -ll -p 81 -e true &
            nc -ll -p 82 -e /srv/health &
            while read -r line; do echo "heard $line"; done; sleep 1000`
            yield* create(containers, { name: "server", sandbox: "asked", command: shell(serve), stdin: true })
            yield* Effect.forEach(
              Object.entries(probes),
              ([name, probe]) =>
                create(containers, {
                  name,
                  sandbox: "asked",
                  command: shell("touch /tmp/up; exec sleep 1000"),
                  probes: { readiness: { ...probe, period: 200, timeout: 20_000, failureThreshold: 2 } }
                }),
              { concurrency: "unbounded" }
            )
            for (const name of ["exec", "tcp", "grpc"]) yield* waitFor(containers, name, ({ ready }) => ready === "yes")
            yield* waitFor(containers, "http", ({ ready }) => ready === "no: HTTP status 404")
            yield* containers.putSecret("key", Buffer.from("s3cret"))
            mkdirSync(`${state}/conf`)
            writeFileSync(`${state}/conf/app`, "port=1")
            chmodSync(`${state}/conf/app`, 0o640)
            chownSync(`${state}/conf/app`, 7, 1000)
            yield* create(containers, {
              name: "given",
              sandbox: "asked",
              user: "1000:1000",
              command: shell(
                "cat /run/secrets/key /conf/app; ls -ln /run/secrets/key /conf/app; echo > /conf/app; exec sleep 1000"
              ),
              secrets: [{ name: "key" }],
              mounts: [{ source: `${state}/conf`, target: "/conf", readOnly: true }]
            })
            yield* patiently(Effect.map(logText(containers, "given"), (text) => text.includes("Read-only")))
            const given = yield* logText(containers, "given")
            assert.match(given, /^s3cretport=1-rw-r----- +1 7 +1000 .*\n-r-------- +1 1000 +1000 /)
            yield* containers.remove("given", { force: true })
            const inside = (command: ReadonlyArray<string>, input?: string) =>
              containers.exec("server", { command, environment: {}, stdin: input !== undefined, detach: false }).pipe(
                Effect.tap(({ process }) =>
                  input === undefined
                    ? Effect.void
                    : Effect.andThen(Effect.ignore(process.write(Buffer.from(input))), process.closeStdin)
                ),
                Effect.flatMap(({ process }) => process.exit),
                Effect.scoped
              )
            assert.deepInclude(yield* inside(shell("cat > /tmp/up"), "copied"), { code: 0 })
            yield* waitFor(containers, "http", ({ ready }) => ready === "yes")
            assert.deepInclude(yield* inside(shell("test $(cat /tmp/up) = copied")), { code: 0 })

            const { process: server } = yield* containers.attach("server")
            yield* server.write(Buffer.from("a word\n"))
            yield* patiently(Effect.map(logText(containers, "server"), (text) => text.includes("heard a word")))

            yield* containers.update("server", { memoryBytes: 48 * 1024 * 1024 })
            const [stats] = yield* containers.stats(["server"])
            assert.strictEqual(stats?.memoryLimitBytes, 48 * 1024 * 1024)
            yield* containers.kill("exec", "SIGKILL")
            yield* waitFor(containers, "exec", ({ ready, restarts }) => restarts === 1 && ready === "yes")
            assert.strictEqual(machines("asked").length, 1, "all of it in one guest")
          }),
        { allowance: { mounts: () => [{ path: tmpdir(), readOnly: true }] } }
      ),
    TIMEOUT
  )

  it.live(
    "takes containers with other images as it runs; when it dies each goes on as its policy says",
    () =>
      withContainers(({ containers, content, state }) =>
        Effect.gen(function* () {
          yield* sandbox(containers, "mortal")
          yield* create(containers, { name: "always", sandbox: "mortal", command: ticking })
          yield* create(containers, {
            name: "once",
            sandbox: "mortal",
            command: ticking,
            restart: { restart: "temporary" }
          })
          yield* waitFor(containers, "once", ({ pid }) => pid !== undefined)
          yield* waitFor(containers, "always", ({ pid }) => pid !== undefined)
          const [machine] = machines("mortal")
          if (machine === undefined) return assert.fail("there is no machine")
          yield* content.importFrom(writeImage(state, "other", {}, "of another image"))
          const late = shell("cat /etc/note; exec sleep 1000")
          yield* create(containers, { name: "late", image: "other", sandbox: "mortal", command: late })
          yield* patiently(Effect.map(logText(containers, "late"), (text) => text.startsWith("of another image")))
          assert.deepStrictEqual(machines("mortal"), [machine])
          assert.strictEqual((yield* containers.get("once")).restarts, 0)
          process.kill(machine, "SIGKILL")
          const once = yield* waitFor(containers, "once", ({ state }) => state === "failed")
          assert.deepInclude(once.lastExit, {
            tag: "MicroVmEnded",
            message: "ended with its microVM: its virtual machine monitor killed by SIGKILL"
          })
          const always = yield* waitFor(containers, "always", ({ pid, restarts }) => pid !== undefined && restarts > 0)
          assert.propertyVal(always.lastExit, "tag", "MicroVmEnded")
          yield* waitFor(containers, "late", ({ pid, restarts }) => pid !== undefined && restarts > 0)
          assert.strictEqual(machines("mortal").length, 1)
          assert.notInclude(machines("mortal"), machine)
        })
      ),
    TIMEOUT
  )

  it.live(
    "does not notice that the brain has died, and is found by the next with its containers",
    () =>
      Effect.gen(function* () {
        const state = yield* stateDirectory
        yield* Effect.gen(function* () {
          const first = yield* ownScope(brain(state, { ending: "release" }))
          yield* first.value.content.importFrom(writeImage(state, "busybox"))
          yield* sandbox(first.value.containers, "steady")
          yield* create(first.value.containers, { name: "clock", sandbox: "steady", command: ticking })
          yield* create(first.value.containers, {
            name: "short",
            sandbox: "steady",
            command: shell("echo begun; sleep 1; exit 5"),
            restart: { restart: "temporary" }
          })
          const before = yield* waitFor(first.value.containers, "clock", ({ pid }) => pid !== undefined)
          yield* waitFor(first.value.containers, "short", ({ pid }) => pid !== undefined)
          const machine = machines("steady")
          yield* Scope.close(first.scope, Exit.void)
          // what ends while nobody is there is kept until somebody has heard of it
          yield* Effect.sleep("2 seconds")

          const second = yield* ownScope(brain(state))
          const { containers } = second.value
          const after = yield* waitFor(containers, "clock", ({ pid }) => pid !== undefined)
          assert.strictEqual(after.pid, before.pid)
          assert.strictEqual(after.restarts, before.restarts)
          assert.deepStrictEqual(machines("steady"), machine)
          const short = yield* waitFor(containers, "short", ({ state }) => state === "failed")
          assert.deepInclude(short.lastExit, { tag: "ContainerExited", facts: { exitCode: 5 } })
          const read = Effect.map(logText(containers, "clock"), (text) => text.trim().split("\n"))
          const { length } = yield* read
          yield* patiently(Effect.map(read, (lines) => lines.length > length))
          const lines = yield* read
          assert.deepStrictEqual(
            lines,
            lines.map((_, index) => `tick ${index + 1}`),
            "each line once"
          )
          yield* second.value.root.end("stop")
          yield* Scope.close(second.scope, Exit.void)
          assert.deepStrictEqual(leftovers(state), [])
          assert.deepStrictEqual(machines("steady"), [])
        }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
      }).pipe(Effect.scoped),
    TIMEOUT
  )

  it.live(
    "with a disk keeps what its containers write, each for as long as it is there",
    () =>
      withContainers(({ containers, state }) =>
        Effect.gen(function* () {
          const disk = () => statSync(`${state}/runtime/microvms/kept.disk`)
          yield* sandbox(containers, "kept", { microvm: { diskBytes: 4 * 1024 ** 3 } })
          const volumes = yield* Volumes
          yield* volumes.create({ name: "data", labels: {}, sizeBytes: 64 * 1024 ** 2 })
          yield* volumes.create({ name: "plain", labels: {} })
          const attempts = { plain: "directory of the host", nosuch: "there is no volume" }
          for (const [name, words] of Object.entries(attempts)) {
            const has = { sandbox: "kept", volumes: [{ name, target: "/data" }] }
            const refused = yield* Effect.flip(create(containers, { name: "wrong", ...has }))
            assert.include(refused.message, words)
          }
          const has = { volumes: [{ name: "data", target: "/data" }] }
          assert.include((yield* Effect.flip(create(containers, { name: "wrong", ...has }))).message, "is a disk")
          const volume = { ...has, restart: { restart: "temporary" }, sandbox: "kept" }
          yield* create(containers, { name: "writer", ...volume, command: shell("echo kept > /data/file; ls /data") })
          const notes = { sandbox: "kept", command: shell("echo run >> /srv/notes; cat /srv/notes; exec sleep 1000") }
          const said = (name: string, text: string) =>
            patiently(Effect.map(logText(containers, name), (log) => log === text))
          yield* create(containers, { name: "one", ...notes })
          yield* create(containers, { name: "two", ...notes })
          yield* said("one", "run\n")
          yield* said("two", "run\n")
          assert.strictEqual(disk().size, 4 * 1024 ** 3)
          assert.isBelow(disk().blocks * 512, 64 * 1024 ** 2, "it takes what is written")
          yield* waitFor(containers, "writer", ({ state }) => state === "finished")
          yield* said("writer", "file\n")
          yield* containers.restart("one")
          yield* said("one", "run\nrun\nrun\n")
          yield* containers.stop("one")
          yield* containers.stop("two")
          yield* patiently(Effect.sync(() => machines("kept").length === 0))
          // another one of its name has none of it
          yield* containers.remove("two", { force: true })
          yield* create(containers, { name: "two", ...notes })
          yield* containers.start("one")
          yield* said("one", "run\nrun\nrun\nrun\nrun\nrun\n")
          yield* said("two", "run\n")
          yield* containers.remove("writer")
          yield* create(containers, { name: "reader", ...volume, command: shell("cat /data/file") })
          yield* said("reader", "kept\n")
          yield* containers.removeSandbox("kept", { force: true })
          assert.deepStrictEqual(readdirSync(`${state}/runtime/microvms`), [])
          assert.strictEqual(statSync(`${state}/volumes/data/disk`).size, 64 * 1024 ** 2)
        })
      ),
    TIMEOUT
  )

  it.live("that cannot be is refused before anything is made", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const refused = yield* Effect.flip(sandbox(containers, "wrong", { network: "host", userNamespace: "private" }))
        assert.deepInclude(refused, { _tag: "SpecInvalid", what: "sandbox" })
        assert.deepStrictEqual(refused._tag === "SpecInvalid" ? refused.problems.map(({ field }) => field) : [], [
          "network",
          "userNamespace"
        ])
        const sized = yield* Effect.flip(
          Effect.flatMap(decodeSandboxSpec({ name: "sized", microvm: { cpus: 2 } }), containers.createSandbox)
        )
        assert.propertyVal(sized, "_tag", "SpecInvalid")
        const microvm = { diskBytes: 2 ** 44, kernel: "/etc/passwd" }
        const large = yield* Effect.flip(sandbox(containers, "large", { microvm }))
        assert.deepStrictEqual(large._tag === "SpecInvalid" ? large.problems.map(({ field }) => field) : [], [
          "microvm.diskBytes",
          "microvm.kernel"
        ])
        assert.deepStrictEqual(yield* containers.listSandboxes, [])
        yield* sandbox(containers, "box")
        const mount = { source: "/etc", target: "/host" }
        const denied = yield* Effect.flip(create(containers, { name: "web", sandbox: "box", mounts: [mount] }))
        assert.deepInclude(denied, { _tag: "SpecInvalid", what: "container" })
        assert.deepStrictEqual(yield* containers.list, [])
        assert.deepStrictEqual(machines("box"), [], "nobody has wanted it yet")
      })
    )
  )
})
