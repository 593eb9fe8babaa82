/**
 * An upgrade of a machine that booted into Ironwood: the brain is sent to it and proves itself, and a brain that cannot live is
 * left; with IRONWOOD_SOAK it runs out of memory, too, and is what runs again after the power was cut in the middle of the next
 * upgrade. The container is the same process all the while, as long as the machine has power.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { sampleDirectory } from "../../scripts/boot/Samples.ts"
import { checkout, eventually } from "../support/ironwood.ts"
import { boot, type Machine, stopping } from "../support/machine.ts"
import { bundleOf } from "../upgrade/bundles.ts"

const Upgrade = Schema.Struct({
  lasting: Schema.Boolean,
  brains: Schema.Array(Schema.Struct({ id: Schema.String, running: Schema.Boolean, proving: Schema.Boolean })),
  last: Schema.optionalKey(
    Schema.Struct({
      version: Schema.String,
      fate: Schema.String,
      fallBack: Schema.optionalKey(Schema.Struct({ reason: Schema.String }))
    })
  )
})
const nothing: typeof Upgrade.Type = { lasting: false, brains: [] }

const Version = Schema.Struct({ brainStarts: Schema.Int })

const Containers = Schema.Struct({
  containers: Schema.Array(Schema.Struct({ status: Schema.Struct({ pid: Schema.optionalKey(Schema.Int) }) }))
})

const hello = `kind: Image
path: ${sampleDirectory}
---
kind: Container
name: hello
image: hello:latest
`

const containerPid = (machine: Machine) =>
  Effect.map(
    eventually(
      "the container to run",
      Effect.orElseSucceed(machine.json(Containers, "ps", "-a"), () => ({ containers: [] })),
      ({ containers }) => containers[0]?.status.pid !== undefined,
      600
    ),
    ({ containers }) => containers[0]?.status.pid
  )

/** Waits until the machine says something of its brains that is right. */
const upgradeOf = (machine: Machine, waitingFor: string, right: (upgrade: typeof Upgrade.Type) => boolean) =>
  eventually(
    waitingFor,
    Effect.orElseSucceed(machine.json(Upgrade, "upgrade", "status"), () => nothing),
    right,
    600
  )

const running = ({ brains }: typeof Upgrade.Type): string | undefined => brains.find((brain) => brain.running)?.id

/** One that runs and has nothing left to prove. */
const isSettled = ({ brains }: typeof Upgrade.Type): boolean => brains.some((brain) => brain.running && !brain.proving)

/** A second boot, and seven seconds of a full heap: a machine without KVM takes minutes for that. */
const long = process.env["IRONWOOD_SOAK"] !== undefined

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-upgrade-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** More boots than CI has time for; `test/integration/upgrade.test.ts` shows the same without a machine. */
describe.skipIf(process.env["IRONWOOD_BOOT"] !== "all" && !long)("the brain of a machine", () => {
  for (const hypervisor of [false, true]) {
    it.live(
      `${hypervisor ? "that has a hypervisor " : ""}is upgraded while a container runs, and falls back from one that cannot live`,
      () =>
        Effect.gen(function* () {
          const work = yield* directory
          const disk = join(work, "disk")
          writeFileSync(disk, "")
          truncateSync(disk, 256 * 1024 * 1024)
          const machineWithDisk = boot({
            ...(hypervisor ? { hypervisor } : {}),
            parameters: ["ironwood.state_format=/dev/vda"],
            more: [
              "-drive",
              `file=${disk},format=raw,if=none,id=disk,cache=unsafe`,
              "-device",
              "virtio-blk-pci,drive=disk"
            ]
          })
          const brain = (version: string, program: string): string => {
            const file = join(work, `${version}.tar`)
            writeFileSync(file, bundleOf({ version, program }))
            return file
          }
          const upgraded = yield* Effect.scoped(
            Effect.gen(function* () {
              const machine = yield* machineWithDisk
              yield* machine.up
              const applied = yield* machine.apply(hello)
              assert.strictEqual(applied.code, 0, applied.stderr)
              const pid = yield* containerPid(machine)

              const installed = yield* machine.run(
                "upgrade",
                "install",
                join(checkout, "build/brain.tar"),
                "--deadline",
                "10m"
              )
              assert.include(installed, "runs and has proved itself")
              const after = yield* upgradeOf(machine, "the upgraded brain", isSettled)
              assert.isTrue(after.lasting)
              assert.match(running(after) ?? "", /^sha256:/)
              assert.strictEqual(yield* containerPid(machine), pid, "the container has not noticed the upgrade")

              if (long) {
                // it is as well kept as the one of the image: its memory is limited, and it is started again
                const { brainStarts } = yield* machine.json(Version, "version")
                yield* machine.failBrain("OUT_OF_MEMORY")
                yield* eventually(
                  "another brain",
                  Effect.orElseSucceed(machine.json(Version, "version"), () => ({ brainStarts })),
                  (version) => version.brainStarts > brainStarts,
                  600
                )
                assert.match(machine.console(), /oom-kill:constraint=CONSTRAINT_MEMCG.*oom_memcg=\/brain/)
                const again = yield* upgradeOf(machine, "the upgraded brain again", isSettled)
                assert.strictEqual(running(again), running(after))
                assert.strictEqual(
                  yield* containerPid(machine),
                  pid,
                  "the container has not noticed that it ran out of memory"
                )
              }

              const ends = yield* machine.try("upgrade", "install", brain("9.0.1", "process.exit(9)"))
              assert.strictEqual(ends.code, 1)
              assert.include(
                ends.stderr,
                "it ended too often before it had proved itself; the last one ended with exit code 9"
              )
              const back = yield* upgradeOf(machine, "the one before", isSettled)
              assert.strictEqual(running(back), running(after))
              assert.strictEqual(yield* containerPid(machine), pid, "the container has not noticed the fall-back")
              assert.include(machine.console(), "init/upgrade running")
              assert.match(machine.console(), /init\/upgrade .*degraded: brain 9\.0\.1/)

              if (!long) {
                assert.strictEqual(yield* machine.run("down"), stopping)
                assert.strictEqual(yield* machine.ended, 0)
                return running(after)
              }
              // one that says nothing is on its trial when the power is cut
              yield* machine.run("upgrade", "install", brain("9.0.2", "for (;;);"), "--deadline", "1h", "--no-wait")
              yield* machine.prints(/(made room for another one[^]*){4}/)
              return running(after)
            })
          )
          if (!long) return
          const machine = yield* machineWithDisk
          yield* machine.up
          const { last, ...after } = yield* upgradeOf(machine, "the upgraded brain after the power cut", isSettled)
          assert.strictEqual(running(after), upgraded)
          assert.deepInclude(last, { version: "9.0.2", fate: "UPGRADE_FATE_FELL_BACK" })
          assert.strictEqual(last?.fallBack?.reason, "FALL_BACK_REASON_INTERRUPTED")
          yield* containerPid(machine)
          assert.strictEqual(yield* machine.run("down"), stopping)
          assert.strictEqual(yield* machine.ended, 0)
          assert.notInclude(machine.console(), "Kernel panic")
        }).pipe(Effect.scoped),
      1_500_000
    )
  }
})
