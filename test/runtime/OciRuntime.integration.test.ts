/** The real runtimes under the real taproot: what is asked for is what runs, and nothing stays, however it ends. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { execFileSync } from "node:child_process"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Capabilities from "../../src/runtime/Capabilities.ts"
import { Cgroups } from "../../src/host/Cgroups.ts"
import { decodeContainerSpec } from "../../src/runtime/ContainerSpec.ts"
import { lookUp } from "../../src/runtime/ContainerUser.ts"
import * as Isolation from "../../src/runtime/Isolation.ts"
import { OciRuntime, type RunRequest } from "../../src/runtime/OciRuntime.ts"
import * as OciRuntimeLive from "../../src/runtime/OciRuntimeLive.ts"
import * as RuntimePaths from "../../src/runtime/RuntimePaths.ts"
import * as RuntimeSpec from "../../src/runtime/RuntimeSpec.ts"
import { type Process, Processes } from "../../src/taproot/Processes.ts"
import { eventually } from "../support/eventually.ts"
import { processesWith } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"

const noImage = {
  entrypoint: [],
  cmd: [],
  env: ["FROM_IMAGE=yes"],
  user: "",
  workingDir: "",
  stopSignal: "",
  volumes: [],
  exposedPorts: [],
  labels: {}
}

/** A state directory with one root file system that has busybox and users. */
const stateDirectory = Effect.acquireRelease(
  Effect.sync(() => {
    const state = realpathSync(mkdtempSync(join(tmpdir(), "ironwood-oci-")))
    const rootfs = join(state, "rootfs")
    for (const directory of ["bin", "etc", "tmp", "proc", "sys", "dev", "srv"]) {
      mkdirSync(join(rootfs, directory), { recursive: true })
    }
    copyFileSync("/usr/bin/busybox", join(rootfs, "bin/busybox"))
    chmodSync(join(rootfs, "bin/busybox"), 0o755)
    for (const applet of ["sh", "id", "sleep", "cat", "hostname", "tail", "true"]) {
      symlinkSync("busybox", join(rootfs, "bin", applet))
    }
    writeFileSync(join(rootfs, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:100::/srv:/bin/sh\n")
    writeFileSync(join(rootfs, "etc/group"), "users:x:100:\naudio:x:29:web\n")
    return state
  }),
  (state) => Effect.sync(() => rmSync(state, { recursive: true, force: true }))
)

/** Makes the bundle of a run. */
const prepare = (state: string, id: string, fields: object, network: RuntimeSpec.Input["network"] = "new") =>
  Effect.gen(function* () {
    const paths = RuntimePaths.make(join(state, "runtime"), join(state, "logs"))
    const rootfs = join(state, "rootfs")
    const spec = yield* decodeContainerSpec({ name: "test", image: "none", ...fields })
    const request: RunRequest = {
      id,
      bundle: join(paths.bundles, id),
      cgroup: `${paths.cgroup}/test/${id}`,
      label: `container/${id}#1`,
      terminal: false,
      stdin: false
    }
    const oci = yield* RuntimeSpec.make({
      spec,
      image: noImage,
      rootfs,
      user: yield* lookUp(rootfs, spec.user ?? ""),
      cgroupsPath: request.cgroup,
      hostname: "inside",
      network,
      ipc: "new",
      pid: "new",
      users: undefined,
      sharedMemory: undefined,
      binds: [],
      devices: [],
      hostFiles: [],
      limitSwap: false,
      isolation: Isolation.of(spec.security, yield* Capabilities.held),
      seccompFilter: undefined,
      processLimit: 1024,
      init: ""
    })
    mkdirSync(request.bundle, { recursive: true })
    writeFileSync(join(request.bundle, "config.json"), JSON.stringify(oci))
    return request
  })

const textOf = (process: Process, stream: "stdout" | "stderr" = "stdout") =>
  Stream.runFold(
    process.output(stream),
    () => "",
    (text, { bytes }) => text + Buffer.from(bytes).toString()
  )

/** Runs to the end: what it printed and how it ended. */
const runToEnd = (request: RunRequest) =>
  Effect.gen(function* () {
    const runtime = yield* OciRuntime
    const process = yield* runtime.run(request)
    const output = yield* textOf(process)
    const errors = yield* textOf(process, "stderr")
    const exit = yield* process.exit
    const kills = yield* (yield* Cgroups).outOfMemoryKills(request.cgroup)
    yield* runtime.remove(request)
    yield* process.acknowledge
    return { exit, output, errors, kills }
  })

/** Nothing of the state directory's runs is left. */
const nothingLeft = (state: string) =>
  Effect.gen(function* () {
    const cgroups = yield* Cgroups
    const root = RuntimePaths.cgroupOf(state)
    assert.deepStrictEqual(yield* cgroups.processes(root), [])
    assert.deepStrictEqual(yield* (yield* OciRuntime).list, [])
    for (const sandbox of yield* cgroups.children(root)) {
      assert.deepStrictEqual(yield* cgroups.children(`${root}/${sandbox}`), [], `cgroups in ${sandbox}`)
    }
    assert.strictEqual((yield* (yield* Processes).status).processes, 0, "no entry in taproot")
    yield* cgroups.remove(root)
  })

const withRuntime = <A, E>(
  candidates: ReadonlyArray<string>,
  test: (state: string) => Effect.Effect<A, E, OciRuntime | Cgroups | Processes>
) =>
  Effect.gen(function* () {
    const state = yield* stateDirectory
    const layer = OciRuntimeLive.layer({ directory: join(state, "runtime"), candidates }).pipe(
      Layer.merge(Cgroups.layer),
      Layer.provideMerge(Taproot.layer())
    )
    return yield* Effect.andThen(test(state), nothingLeft(state)).pipe(Effect.provide(layer))
  }).pipe(Effect.scoped)

describe("crun", () => {
  it.live("is called from a mount that nobody can write to; another one at its path is called from then on", () =>
    Effect.gen(function* () {
      const own = yield* stateDirectory
      const path = join(own, "crun")
      copyFileSync("/usr/bin/crun", path)
      yield* withRuntime([path], (state) =>
        Effect.gen(function* () {
          const { taprootPid } = (yield* Processes).hello
          const { program } = RuntimePaths.make(join(state, "runtime"), "")
          const target = (place: string) => join(program, place, "crun")
          const mounted = (place: string) => `/proc/${taprootPid}/root${target(place)}`
          let runs = 0
          const run = Effect.gen(function* () {
            const said = yield* runToEnd(yield* prepare(state, `again-${++runs}`, { command: ["/bin/hostname"] }))
            assert.strictEqual(said.output, "inside\n", said.errors)
          })
          yield* run
          assert.strictEqual(statSync(mounted("1")).ino, statSync(path).ino)
          assert.throws(() => writeFileSync(mounted("1"), "something else"), /EROFS|ETXTBSY/)
          const line = readFileSync(`/proc/${taprootPid}/mountinfo`, "utf8")
            .split("\n")
            .find((mount) => mount.includes(` ${target("1")} `))
          assert.match(line?.split(" ")[5] ?? "", /^ro/)
          copyFileSync("/usr/bin/crun", `${path}.new`)
          renameSync(`${path}.new`, path)
          const isTheNew = Effect.andThen(
            run,
            Effect.sync(() => existsSync(mounted("2")) && statSync(mounted("2")).ino === statSync(path).ino)
          )
          yield* eventually("the new one is called", isTheNew)
        })
      )
    }).pipe(Effect.scoped)
  )
})

for (const name of ["crun", "runc"]) {
  describe(name, () => {
    it.live("is found by trying, and runs what the spec says", () =>
      withRuntime([name], (state) =>
        Effect.gen(function* () {
          const facts = yield* (yield* OciRuntime).facts
          assert.strictEqual(facts.name, name)
          assert.match(facts.version, /^\d+\.\d+/)
          const script =
            "id; pwd; hostname; echo $FROM_IMAGE $OURS; cat /proc/self/cgroup | grep -c ironwood; echo oops >&2"
          const fields = {
            command: ["/bin/sh", "-c", script],
            user: "web",
            workingDirectory: "/srv",
            environment: { OURS: "too" }
          }
          const ended = yield* runToEnd(yield* prepare(state, "first-1", fields))
          assert.deepStrictEqual(ended.output.split("\n"), [
            "uid=1000(web) gid=100(users) groups=29(audio)",
            "/srv",
            "inside",
            "yes too",
            "0",
            ""
          ])
          assert.strictEqual(ended.errors, "oops\n")
          assert.deepStrictEqual([ended.exit._tag, "code" in ended.exit && ended.exit.code], ["Exited", 0])
        })
      )
    )

    it.live("exit codes and signals are the process's own", () =>
      withRuntime([name], (state) =>
        Effect.gen(function* () {
          const code = yield* runToEnd(yield* prepare(state, "code-1", { command: ["/bin/sh", "-c", "exit 7"] }))
          assert.deepStrictEqual([code.exit._tag, "code" in code.exit && code.exit.code], ["Exited", 7])
          const runtime = yield* OciRuntime
          const request = yield* prepare(state, "signal-1", { command: ["/bin/sleep", "1000"] })
          const process = yield* runtime.run(request)
          assert.strictEqual(process.label, "container/signal-1#1")
          assert.deepStrictEqual(yield* (yield* Cgroups).processes(request.cgroup), [process.pid])
          yield* process.signal("SIGKILL")
          const exit = yield* process.exit
          assert.deepStrictEqual([exit._tag, "signal" in exit && exit.signal], ["Signaled", "SIGKILL"])
          yield* runtime.remove(request)
          yield* process.acknowledge
        })
      )
    )

    it.live("limits of memory, processes and processor time hold", () =>
      withRuntime([name], (state) =>
        Effect.gen(function* () {
          const memory = { command: ["/bin/tail", "/dev/zero"], resources: { memoryBytes: 32 * 1024 * 1024 } }
          const eaten = yield* runToEnd(yield* prepare(state, "memory-1", memory))
          assert.deepStrictEqual(
            [eaten.exit._tag, "signal" in eaten.exit && eaten.exit.signal],
            ["Signaled", "SIGKILL"]
          )
          assert.isAbove(eaten.kills, 0, "the kernel counted it")

          const script = "for i in $(busybox seq 20); do /bin/sleep 3 & done; wait"
          const forks = { command: ["/bin/sh", "-c", script], resources: { pids: 16 } }
          const stopped = yield* runToEnd(yield* prepare(state, "pids-1", forks))
          assert.match(stopped.errors, /can't fork/)
          assert.strictEqual(stopped.kills, 0)

          // The quota must have throttled a loop that would take all of one processor.
          const throttled =
            "cat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu.stat; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; cat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu.stat"
          const cpu = { command: ["/bin/sh", "-c", throttled], resources: { cpus: 0.1 } }
          const slowed = yield* runToEnd(yield* prepare(state, "cpu-1", cpu))
          const counts = [...slowed.output.matchAll(/nr_throttled (\d+)/g)].map(([, count]) => Number(count))
          assert.isAbove(counts.at(-1) ?? 0, counts[0] ?? 0, slowed.output)
        })
      )
    )

    it.live("devices are out of reach, and nothing is gained by set-uid", () =>
      withRuntime([name], (state) =>
        Effect.gen(function* () {
          const script = [
            "echo fine > /dev/null && echo null",
            "busybox mknod /tmp/disk b 8 0; busybox head -c 1 /tmp/disk 2>&1",
            "busybox mknod /tmp/mem c 1 1; busybox head -c 1 /tmp/mem 2>&1",
            "busybox grep NoNewPrivs /proc/self/status"
          ].join("\n")
          const { output } = yield* runToEnd(yield* prepare(state, "devices-1", { command: ["/bin/sh", "-c", script] }))
          assert.match(
            output,
            /null\n.*disk: Operation not permitted\n.*mem: Operation not permitted\nNoNewPrivs:\s1\n/
          )
        })
      )
    )

    it.live("a container makes only the system calls, and sees only the files, that it needs", () =>
      withRuntime([name], (state) =>
        Effect.gen(function* () {
          const program = join(state, "rootfs/bin/syscalls")
          execFileSync("musl-gcc", [
            "-static",
            "-no-pie",
            "-o",
            program,
            fileURLToPath(new URL("syscalls.c", import.meta.url))
          ])
          // Kernels have the door for calls of 32 bits, or they do not.
          const has32 = execFileSync(program, { encoding: "utf8" }).includes("socket-inet-32 ok")
          const by32 = [
            ["socket-inet-32", "ok"],
            ["socket-alg-32", "Function not implemented"],
            ["socketcall-alg-32", "Operation not permitted"],
            ["unshare-user-32", "Operation not permitted"]
          ] as const
          const script = [
            "/bin/syscalls",
            "busybox grep -E '^(Seccomp|CapBnd|CapEff|NoNewPrivs):' /proc/self/status | busybox tr -s '\\t ' ' '",
            "busybox head -c 1 /proc/kcore | busybox wc -c",
            "busybox sh -c 'echo x > /proc/sys/kernel/hostname' 2>&1"
          ].join("\n")
          const { output } = yield* runToEnd(yield* prepare(state, "held-1", { command: ["/bin/sh", "-c", script] }))
          assert.deepStrictEqual(output.split("\n").slice(0, 26), [
            "getpid ok",
            "personality ok",
            "socket-inet ok",
            "socket-unix ok",
            "socket-netlink ok",
            "socket-alg Function not implemented",
            "socket-vsock Function not implemented",
            "unshare-user Operation not permitted",
            "clone-user Function not implemented",
            "clone3 Function not implemented",
            "mount Operation not permitted",
            "keyctl Operation not permitted",
            "bpf Operation not permitted",
            "perf Operation not permitted",
            "userfaultfd Operation not permitted",
            "io_uring Operation not permitted",
            "unknown Function not implemented",
            ...by32.map(([call, refused]) => `${call} ${has32 ? refused : "no calls of 32 bits"}`),
            "CapEff: 00000000a80425fb",
            "CapBnd: 00000000a80425fb",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "0"
          ])
          assert.match(output, /hostname: Read-only file system\n$/)
        })
      )
    )

    it.live("what a spec adds, drops and opens is so", () =>
      withRuntime([name], (state) =>
        Effect.gen(function* () {
          const look = (id: string, security: object) => {
            const command = ["/bin/sh", "-c", "busybox grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status"]
            return Effect.flatMap(prepare(state, id, { command, security }), (request) =>
              Effect.map(runToEnd(request), ({ errors, output }) => output.replaceAll(/\s+/gu, " ") + errors)
            )
          }
          const none = { dropCapabilities: ["all"] }
          assert.strictEqual(yield* look("none-1", none), "CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 ")
          const one = { dropCapabilities: ["ALL"], addCapabilities: ["chown"] }
          assert.strictEqual(yield* look("one-1", one), "CapEff: 0000000000000001 NoNewPrivs: 1 Seccomp: 2 ")
          const open = { seccompUnconfined: true, dropCapabilities: ["ALL"] }
          assert.strictEqual(yield* look("open-1", open), "CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 0 ")
          const held = yield* Capabilities.held
          const bits = held.reduce(
            (sum, capability) => sum | (1n << BigInt(Capabilities.names.indexOf(capability))),
            0n
          )
          const all = `CapEff: ${bits.toString(16).padStart(16, "0")} NoNewPrivs: 0 Seccomp: 0 `
          assert.strictEqual(yield* look("all-1", { privileged: true }), all)
        })
      )
    )

    it.live("what cannot be executed is an error that says why, and leaves nothing", () =>
      withRuntime([name], (state) =>
        Effect.gen(function* () {
          const runtime = yield* OciRuntime
          const request = yield* prepare(state, "missing-1", { command: ["/bin/nothing-here"] })
          const error = yield* Effect.flip(runtime.run(request))
          assert.strictEqual(error._tag, "RuntimeFailed")
          assert.match(error.message, /nothing-here/)
          assert.match(error.message, /no such file/i)
        })
      )
    )

    it.live("twenty at once, each with its own output", () =>
      withRuntime([name], (state) =>
        Effect.gen(function* () {
          const ended = yield* Effect.forEach(
            Array.from({ length: 20 }, (_, index) => index),
            (index) =>
              Effect.flatMap(
                prepare(state, `many${index}-1`, { command: ["/bin/sh", "-c", `echo ${index}`] }),
                runToEnd
              ),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(
            ended.map(({ output }) => output),
            Array.from({ length: 20 }, (_, index) => `${index}\n`)
          )
        })
      )
    )
  })
}

describe("OciRuntime", () => {
  it.live("falls back to the next candidate, and says why none serves", () =>
    Effect.gen(function* () {
      yield* withRuntime(["/nowhere/crun", "runc"], () =>
        Effect.gen(function* () {
          const runtime = yield* OciRuntime
          assert.strictEqual((yield* runtime.facts).name, "runc")
          const told = (yield* runtime.candidates).map(({ inUse, name, problem }) => [name, inUse, problem])
          assert.deepStrictEqual(told, [
            ["runc", true, undefined],
            ["/nowhere/crun", false, "not installed"]
          ])
        })
      )
      yield* withRuntime(["/nowhere/crun", "/bin/false"], (state) =>
        Effect.gen(function* () {
          const runtime = yield* OciRuntime
          const error = yield* Effect.flip(runtime.run(yield* prepare(state, "none-1", { command: ["/bin/true"] })))
          assert.strictEqual(error._tag, "RuntimeMissing")
          assert.match(error.message, /crun: not installed; .*false: exited with code 1/)
          assert.deepStrictEqual(
            (yield* runtime.candidates).map(({ inUse, path, problem }) => [path, inUse, problem]),
            [
              ["", false, "not installed"],
              ["/bin/false", false, "exited with code 1"]
            ]
          )
        })
      )
    })
  )

  /** A runtime that behaves until its `run` command is reached, and then dies as the shell text says. */
  const broken = (state: string, then: string): string => {
    const path = join(state, "broken-runtime")
    // The trial container runs in the foreground; only a detached run is broken.
    const script = `#!/bin/sh\ncase " $* " in *" --detach "*) ;; *) exec runc "$@";; esac\n${then}\n`
    writeFileSync(path, script, { mode: 0o755 })
    return path
  }

  for (const [title, then] of [
    ["at once", "kill -KILL $$"],
    ["with a child left behind", "(exec 1>&- 2>&-; sleep 1000) & kill -KILL $$"],
    ["with the container made but nothing said", `runc "$@"; kill -KILL $$`],
    ["with a wrong pid", `runc "$@"; until [ "$1" = --pid-file ]; do shift; done; echo 1 > "$2"; exit 0`],
    ["with a worker of its own in another session", `setsid sh -c 'sleep 1; exec runc "$@"' worker "$@" & exit 1`],
    ["in words", "echo 'disk is on fire' >&2; exit 3"]
  ] as const) {
    it.live(`a runtime that dies half-way (${title}) is an error, and leaves nothing`, () =>
      Effect.gen(function* () {
        const outer = yield* stateDirectory
        yield* withRuntime([broken(outer, then)], (state) =>
          Effect.gen(function* () {
            const runtime = yield* OciRuntime
            const request = yield* prepare(state, "broken-1", { command: ["/bin/sleep", "1000"] })
            const error = yield* Effect.flip(runtime.run(request))
            assert.strictEqual(error._tag, "RuntimeFailed", error.message)
            assert.deepStrictEqual(processesWith(request.bundle), [])
            if (title === "in words") assert.match(error.message, /exited with code 3: disk is on fire/)
          })
        )
      })
    )
  }

  it.live("an interrupted start leaves nothing", () =>
    Effect.gen(function* () {
      const outer = yield* stateDirectory
      yield* withRuntime([broken(outer, `runc "$@"; sleep 1000`)], (state) =>
        Effect.gen(function* () {
          const runtime = yield* OciRuntime
          const request = yield* prepare(state, "slow-1", { command: ["/bin/sleep", "1000"] })
          const run = Effect.timeoutOption(runtime.run(request), "30 seconds")
          const made = eventually("the container is up", () => existsSync(join(request.bundle, "pid")))
          yield* Effect.raceFirst(Effect.asVoid(run), made)
        })
      )
    })
  )

  it.live("what a dead brain left in the middle of a start is taken over, or cleaned up", () =>
    withRuntime(["runc"], (state) =>
      Effect.gen(function* () {
        const runtime = yield* OciRuntime
        const processes = yield* Processes
        const { path } = yield* runtime.facts
        const paths = RuntimePaths.make(join(state, "runtime"), join(state, "logs"))
        const request = yield* prepare(state, "half-1", { command: ["/bin/sh", "-c", "echo up; exec sleep 1000"] })
        const spawnOnly = (argv: readonly [string, ...Array<string>]) =>
          processes.spawn({
            label: `run:${request.label}`,
            argv,
            stdout: { _tag: "Stream" },
            stderr: { _tag: "Stream" }
          })
        const flags = ["--root", paths.oci, "run", "--detach", "--bundle", request.bundle, "--pid-file"] as const
        yield* spawnOnly([path, ...flags, join(request.bundle, "pid"), request.id])
        const process = Option.getOrThrow(yield* runtime.recover(request))
        const first = yield* Stream.runHead(process.output("stdout"))
        assert.strictEqual(Buffer.from(Option.getOrThrow(first).bytes).toString(), "up\n")
        yield* process.signal("SIGKILL")
        yield* process.exit
        yield* runtime.remove(request)
        yield* process.acknowledge

        yield* spawnOnly(["/bin/sh", "-c", "exit 4"])
        assert.isTrue(Option.isNone(yield* runtime.recover(request)))
        assert.isTrue(Option.isNone(yield* runtime.recover(request)), "nothing to find is fine")
      })
    )
  )

  it.live("the host's own view is as before: nothing is unmounted outside", () =>
    withRuntime(["crun"], () =>
      Effect.gen(function* () {
        yield* (yield* OciRuntime).facts
        assert.isAbove(readdirSync("/sys/fs/cgroup").length, 0)
        if (existsSync("/sys/fs/cgroup/unified")) {
          assert.isTrue(existsSync("/sys/fs/cgroup/unified/cgroup.procs"), "still mounted")
        }
      })
    )
  )
})
