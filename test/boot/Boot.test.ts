/**
 * A machine from the kernel to its end: boots straight into Ironwood, answers, runs a container, loses its brain in every
 * way without the container noticing, and goes down in order.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { execFileSync, spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import * as Qemu from "../../scripts/boot/Qemu.ts"
import { sampleDirectory } from "../../scripts/boot/Samples.ts"
import { file } from "../../scripts/image/Cpio.ts"
import { taprootFile } from "../../scripts/image.ts"
import { digestOf } from "../../src/config/Document.ts"
import { checkout, eventually } from "../support/ironwood.ts"
import { boot, type Machine, stopping } from "../support/machine.ts"

const Version = Schema.Struct({ taprootPid: Schema.Int, brainPid: Schema.Int, brainStarts: Schema.Int })

const Rescued = Schema.Struct({ brainStarts: Schema.Int, rescue: Schema.String })

const Containers = Schema.Struct({
  containers: Schema.Array(
    Schema.Struct({ status: Schema.Struct({ state: Schema.String, pid: Schema.optionalKey(Schema.Int) }) })
  )
})

const Tree = Schema.Struct({
  actors: Schema.Array(Schema.Struct({ path: Schema.String, state: Schema.String, incarnation: Schema.Int }))
})

const hello = `kind: Image
path: ${sampleDirectory}
---
kind: Container
name: hello
image: hello:latest
`

/** Ends at once, which is too much for its policy. */
const restless = `kind: Container
name: restless
image: hello:latest
entrypoint: [/bin/sh, -c]
command: ["exit 1"]
restart: { maxConsecutive: 1, whenSpent: WHEN_SPENT_REBOOT_HOST }
`

/** Of a disk with the state of a machine that is off. */
const debugfs = (image: string, command: string): string =>
  execFileSync("debugfs", ["-w", "-R", command, image], { stdio: "pipe", encoding: "utf8" })

/** The one reboot that is written down is as good as three. */
const thrice = (image: string): void => {
  const [reboot] = debugfs(image, "cat reboots.json")
    .split(/(?<=\})|(?=\{)/)
    .filter((piece) => piece.startsWith("{"))
  assert.include(reboot ?? "", "init/runtime/restless/restless")
  // What is changed now must not be undone by what is still in its journal; the exit code says that it had something to do.
  spawnSync("e2fsck", ["-fp", image])
  const path = join(dirname(image), "reboots.json")
  writeFileSync(path, `[${[reboot, reboot, reboot].join()}]`)
  debugfs(image, "rm reboots.json")
  debugfs(image, `write ${path} reboots.json`)
}

const containerPid = (machine: Machine) =>
  Effect.map(
    eventually(
      "the container to run",
      Effect.orElseSucceed(machine.json(Containers, "ps", "-a"), () => ({ containers: [] })),
      ({ containers }) =>
        containers[0]?.status.state === "CONTAINER_STATE_RUNNING" && containers[0].status.pid !== undefined,
      240
    ),
    ({ containers }) => containers[0]?.status.pid ?? -1
  )

/** A file for a disk of so many MiB (0: no larger than they are) that begins with these bytes; removed with the scope. */
const disk = (mebibytes: number, bytes: Uint8Array = new Uint8Array()) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const path = join(mkdtempSync(join(tmpdir(), "ironwood-disk-")), "disk")
      writeFileSync(path, bytes)
      if (mebibytes > 0) truncateSync(path, mebibytes * 1024 * 1024)
      return path
    }),
    (path) => Effect.sync(() => rmSync(dirname(path), { recursive: true }))
  )

const driveOf = (path: string): ReadonlyArray<string> => [
  "-drive",
  `file=${path},format=raw,if=none,id=disk,cache=unsafe`,
  "-device",
  "virtio-blk-pci,drive=disk"
]

/** The same disk behind a card of another hypervisor, whose driver is a module that nobody has named. */
const cardOf = (path: string): ReadonlyArray<string> => [
  "-drive",
  `file=${path},format=raw,if=none,id=disk,cache=unsafe`,
  "-device",
  "pvscsi",
  "-device",
  "scsi-hd,drive=disk"
]

/** A machine config that QEMU hands over. */
const handedOver = (text: string) =>
  Effect.map(disk(0, Buffer.from(text)), (path) => ["-fw_cfg", `name=opt/ironwood/config,file=${path}`])

/** The real brain, which ends as soon as the state of the machine is mounted: so far all must come before it can be replaced. */
const endsOnceMounted = (): string => `${readFileSync(join(checkout, "build/brain.bundle.cjs"), "utf8")}
setInterval(() => {
  if (!require("node:fs").readFileSync("/proc/self/mounts", "utf8").includes(" /var/lib/ironwood ")) return
  console.error("broken on purpose")
  process.exit(1)
}, 20)
`

const Config = Schema.Struct({
  source: Schema.optionalKey(Schema.Struct({ problems: Schema.Array(Schema.Struct({ field: Schema.String })) })),
  trial: Schema.optionalKey(Schema.Struct({ previousRevision: Schema.String }))
})

describe("a machine", () => {
  it.live(
    "boots from the kernel, survives the death of its brain, and goes down in order",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot({
          files: [taprootFile({ heartbeatMillis: 20_000 })],
          more: yield* handedOver(
            "version: ironwood/v1\nhostname: -wrong-\ntime: { servers: [nonsense] }\nkernel: { consoleLevel: 9 }\n"
          )
        })
        yield* machine.up
        const first = yield* machine.json(Version, "version")
        assert.deepInclude(first, { taprootPid: 1, brainStarts: 1 })
        const { actors } = yield* machine.json(Tree, "tree")
        assert.deepStrictEqual(
          actors.filter(({ state }) => state !== "ACTOR_STATE_RUNNING"),
          []
        )
        assert.includeMembers(
          actors.map(({ path }) => path),
          ["init/network/links/eth0", "init/gateway/grpc", "init/storage/state"]
        )
        const tcp = actors.filter(({ path }) => path.startsWith("init/gateway/tcp/"))
        assert.deepStrictEqual(
          tcp.map(({ incarnation }) => incarnation),
          [1],
          "it waited for the link to have its address"
        )
        // what is wrong with its config, all of it, each by its field
        const { source } = yield* machine.json(Config, "config", "get")
        assert.deepStrictEqual(
          source?.problems.map(({ field }) => field),
          ["hostname", "time.servers[0]", "kernel.consoleLevel"]
        )
        // a right one, tried, over the deaths of the brain
        const right = `
hostname: tried
kernel:
  sysctls: { vm.swappiness: 7, no.such.setting: 1 }
  modules: [{ name: dummy, parameters: { numdummies: 3 } }, { name: no-such-module }]
watchdog: { timeoutSeconds: 45 }
`
        const tried = yield* machine.run("config", "patch", right, "--try", "1h")
        assert.include(tried, "not done: kernel.sysctls: this kernel does not take no.such.setting")
        assert.include(tried, "not done: kernel.modules: the image carries no module no_such_module")
        assert.include(yield* machine.run("host"), "tried")
        assert.match(yield* machine.run("tree", "--all", "init/host"), /watchdog .* timeout=45 s/)

        const applied = yield* machine.apply(hello)
        assert.strictEqual(applied.code, 0, applied.stderr)
        const pid = yield* containerPid(machine)
        // a directory of the image is copied into a fresh volume by a program of the machine's own
        yield* machine.run("run", "--rm", "--volume", "filled:/bin", "hello", "true")
        // there is no hypervisor on it, and nothing that could be installed
        const refused = yield* machine.try("vm", "create", "web")
        assert.include(refused.stderr, "boot one that was made with `npm run image -- --hypervisor`")
        const { stderr } = yield* machine.try("run", "--isolation", "microvm", "hello", "true")
        assert.include(stderr, "boot one that was made with `npm run image -- --hypervisor`")

        for (const failure of ["KILL", "OUT_OF_MEMORY", "HANG"] as const) {
          const { brainStarts: before } = yield* machine.json(Version, "version")
          yield* machine.failBrain(failure)
          yield* eventually(
            `another brain after ${failure}`,
            Effect.orElseSucceed(machine.json(Version, "version"), () => first),
            ({ brainStarts }) => brainStarts > before,
            240
          )
          assert.strictEqual(yield* containerPid(machine), pid, `the container has not noticed ${failure}`)
        }
        // the kernel's own word for it: it was the limit of the brain's cgroup, and nobody else was killed
        assert.match(machine.console(), /oom-kill:constraint=CONSTRAINT_MEMCG.*oom_memcg=\/brain/)
        assert.notMatch(machine.console(), /oom-kill:(?!.*oom_memcg=\/brain)/)
        assert.include(machine.console(), "missed its heartbeat and was killed")
        const { trial } = yield* machine.json(Config, "config", "get")
        assert.strictEqual(trial?.previousRevision, "0")
        yield* machine.run("config", "revert")
        assert.notInclude(yield* machine.run("host"), "tried", "it has its name from before")

        const another = yield* machine.try("down", "--then", "kexec")
        assert.include(another.stderr, "no kernel is loaded for kexec, so nothing was stopped")
        const down = yield* machine.run("down")
        assert.strictEqual(down, stopping)
        assert.strictEqual(yield* machine.ended, 0)
        assert.include(machine.console(), "reboot: Power down")
        assert.notInclude(machine.console(), "Kernel panic")
      }).pipe(Effect.scoped),
    900_000
  )

  it.live(
    "whose brain cannot start answers through its rescue brain, which takes another one and can switch it off",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot({
          files: [file("usr/lib/ironwood/brain.bundle.cjs", endsOnceMounted())]
        })
        yield* machine.up
        const version = yield* machine.json(Rescued, "version")
        assert.strictEqual(version.brainStarts, 6)
        assert.include(version.rescue, "exit code 1")
        assert.include(yield* machine.run("tree"), "could not keep itself up")
        assert.include(machine.console(), "broken on purpose")
        // one that lives is sent to it, and the machine is whole
        const sent = yield* machine.run("upgrade", "install", join(checkout, "build/brain.tar"), "--deadline", "10m")
        assert.include(sent, "runs and has proved itself")
        assert.strictEqual((yield* machine.json(Rescued, "version")).rescue, "")
        assert.strictEqual(yield* machine.run("down"), stopping)
        assert.strictEqual(yield* machine.ended, 0)
      }).pipe(Effect.scoped),
    900_000
  )

  it.live(
    "without network, with a disk full of garbage, an empty clock and a wrong command line says so and serves",
    () =>
      Effect.gen(function* () {
        const bytes = randomBytes(64 * 1024)
        const garbage = yield* disk(8, bytes)
        const machine = yield* boot({
          network: false,
          parameters: ["quiet", "ironwood.state=mine", "ironwood.state_format=/dev/vda", "ironwood.colour=green"],
          more: [...driveOf(garbage), "-rtc", "base=1970-01-01T00:00:00"]
        })
        for (const line of [
          "init/host/kernel-parameters running degraded: ironwood.colour is unknown",
          /init\/host\/state-disk running device=memory degraded: nothing will last .* \/dev\/vda is not empty/,
          "init/host/clock running source=the image degraded: the real-time clock was before",
          "init/host/sysctls running written=",
          "init/gateway/grpc running"
        ]) {
          yield* machine.prints(line)
        }
        // the hypervisor reaches it all the same, again and again
        yield* machine.up
        assert.include(yield* machine.run("tree"), "org.ironwood.api")
        // by one after the other: who waits is let in the moment the one before has left
        const patiently = ["tree", "ps", "host"].map((command) => machine.run(command))
        for (let round = 0; round < 3; round++) yield* Effect.all(patiently, { concurrency: "unbounded" })
        // what has happened to the clock since its start is not how long it is up
        assert.match(yield* machine.run("version"), /brain +pid \d+, up (\d+m)?\d+s,/)
        // the power button
        yield* machine.monitor("system_powerdown")
        assert.strictEqual(yield* machine.ended, 0)
        assert.include(machine.console(), "stopping: the power button")
        assert.isTrue(readFileSync(garbage).subarray(0, bytes.length).equals(bytes), "the disk is as it was")
      }).pipe(Effect.scoped),
    900_000
  )

  it.live(
    "keeps its state and its config on a disk that was empty, has both again, and does not reboot itself for ever",
    () =>
      Effect.gen(function* () {
        const image = yield* disk(256)
        // all that makes it reachable is in its config
        const config = `version: ironwood/v1 # mine\nhostname: configured\nstate: { format: /dev/vda }\n${Qemu.networkConfig}`
        yield* Effect.scoped(
          Effect.gen(function* () {
            const machine = yield* boot({
              network: "config",
              more: [...driveOf(image), ...(yield* handedOver(config))]
            })
            yield* machine.up
            assert.include(yield* machine.run("tree", "--all", "init/host"), "device=/dev/vda")
            assert.include(yield* machine.run("host"), "configured")
            const applied = yield* machine.apply(hello)
            assert.strictEqual(applied.code, 0, applied.stderr)
            yield* containerPid(machine)
            // a policy that asks for a reboot: the machine goes down in order, on its own, perhaps before it can answer
            yield* Effect.forkScoped(machine.apply(restless))
            assert.strictEqual(yield* machine.ended, 0)
            assert.include(machine.console(), "the host reboots for init/runtime/restless/restless")
            assert.include(machine.console(), "reboot: Restarting system")
          })
        )
        thrice(image)
        // nobody hands the config over any more; another one, with the digest that was asked for, is on the network
        const next = `version: ironwood/v1\nhostname: downloaded\n${Qemu.networkConfig}`
        const machine = yield* boot({
          network: "config",
          more: cardOf(image),
          parameters: [
            `ironwood.config=http://${Qemu.served.address}/next`,
            `ironwood.config_digest=${digestOf(next)}`
          ],
          serves: next
        })
        yield* machine.up
        yield* eventually("the card's drivers", machine.run("tree", "--all", "init/host"), (text) =>
          /devices .*modules=.*\bsd_mod\b.*\bvmw_pvscsi\b/.test(text)
        )
        assert.include(yield* machine.run("config", "get", "--revision", "1"), "# mine")
        yield* eventually("the config from the network", machine.run("host"), (text) => text.includes("downloaded"), 60)
        yield* containerPid(machine)
        const refusal = "the host has rebooted for such a reason 3 times within 1h, and does so no more"
        yield* machine.prints(`init/runtime/restless/restless wants the host to reboot, but ${refusal}`)
        yield* machine.prints(/init\/host\/reboots running .*degraded: it has rebooted 3 times within 1h/)
        assert.include(yield* machine.run("why", "restless"), refusal)
        yield* machine.run("down", "--then", "restart")
        assert.strictEqual(yield* machine.ended, 0)
        assert.include(machine.console(), "EXT4-fs (sda): unmounting filesystem")
        assert.include(machine.console(), "reboot: Restarting system")
      }).pipe(Effect.scoped),
    900_000
  )

  // a rescue brain waits for minutes before it gives a machine up
  it.live.skipIf(process.env["IRONWOOD_BOOT"] !== "all")(
    "whose config asks for it reboots when no brain keeps itself up",
    () =>
      Effect.gen(function* () {
        const config = "version: ironwood/v1\nhostname: configured\nupgrade: { whenBrainFails: reboot }\n"
        const machine = yield* boot({
          parameters: ["ironwood.state_format=/dev/vda"],
          more: [...driveOf(yield* disk(64)), ...(yield* handedOver(config))]
        })
        yield* machine.up
        yield* eventually("the config", machine.run("host"), (text) => text.includes("configured"), 60)
        const rescue = Effect.orElseSucceed(machine.json(Rescued, "version"), () => ({ brainStarts: 0, rescue: "" }))
        const untilRescued = Effect.gen(function* () {
          for (let brains = 0; brains < 10 && (yield* rescue).rescue === ""; brains++) {
            const { brainStarts: before } = yield* rescue
            yield* machine.failBrain("KILL")
            yield* eventually("another brain", rescue, ({ brainStarts }) => brainStarts > before, 60)
          }
          assert.include(yield* machine.run("tree"), "could not keep itself up")
        })
        yield* untilRescued
        // it may be the config that no brain can live with: when it is another one, that is tried at once
        assert.include(yield* machine.run("config", "get"), "hostname: configured")
        yield* machine.run("config", "patch", "hostname: mended")
        yield* eventually("the ordinary brain", rescue, (now) => now.brainStarts > 0 && now.rescue === "", 60)
        yield* eventually("the config", machine.run("host"), (text) => text.includes("mended"), 60)
        assert.include((yield* machine.try("ps")).stdout, "NAME")

        yield* untilRescued
        yield* machine.prints("brain: the host reboots: the ordinary brain could not keep itself up", 600)
        assert.strictEqual(yield* machine.ended, 0)
        assert.include(machine.console(), "reboot: Restarting system")
      }).pipe(Effect.scoped),
    1_200_000
  )

  it.live(
    "on which no brain lives at all is reset by its watchdog",
    () =>
      Effect.gen(function* () {
        const broken = 'throw new Error("broken on purpose")\n'
        const machine = yield* boot({
          network: false,
          files: [
            file("usr/lib/ironwood/brain.bundle.cjs", broken),
            file("usr/lib/ironwood/rescue.bundle.cjs", broken),
            taprootFile({ heartbeatMillis: 30_000, watchdogPatienceMillis: 5_000 })
          ]
        })
        yield* machine.prints("the watchdog is not fed any more")
        yield* machine.ended
        assert.include(machine.console(), "softdog: Initiating system reboot")
      }).pipe(Effect.scoped),
    900_000
  )
})
