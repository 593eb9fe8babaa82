/**
 * The brain is killed at any moment of a creation and of a removal: afterwards the machine is there whole, or gone without a
 * trace. `IRONWOOD_BOOT=all` tries many more moments.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { kill } from "node:process"
import { eventually, type Instance, processesWith, start } from "../support/ironwood.ts"
import { guest } from "../vmm/guest.ts"

/** Milliseconds after the command was sent off; it needs some 200 to be heard. */
const moments =
  process.env["IRONWOOD_BOOT"] === "all" ? Array.from({ length: 25 }, (_, index) => 150 + index * 15) : [220, 300, 420]

/** Kills the brain so long after a command has begun; returns when there is another one. */
const killedDuring = (instance: Instance, after: number, command: Effect.Effect<unknown>) =>
  Effect.gen(function* () {
    const brain = yield* instance.brainPid
    const fiber = yield* Effect.forkChild(command)
    yield* Effect.sleep(after)
    kill(brain, "SIGKILL")
    yield* Fiber.await(fiber)
    yield* eventually("another brain", instance.try("version"), ({ code }) => code === 0, 60)
  })

describe("a brain that is killed", () => {
  it.live(
    "leaves a virtual machine whole, or no trace of it",
    () =>
      Effect.gen(function* () {
        const instance = yield* start()
        const { initrd, kernel } = guest()
        /** What is there of a machine. */
        const traces = (name: string): ReadonlyArray<string> => [
          ...processesWith(`guest=${name},`).map((pid) => `process ${pid}`),
          ...["machines", "consoles"]
            .map((directory) => join(instance.stateDirectory, "vm", directory, name))
            .filter((path) => existsSync(path))
        ]
        const names = Effect.map(instance.try("vm", "ls", "-q"), ({ stdout }) => stdout.trim().split("\n"))
        const settled = (name: string) =>
          Effect.gen(function* () {
            if ((yield* names).includes(name)) {
              yield* eventually(
                `${name} to run`,
                instance.try("vm", "inspect", name, "-o", "json"),
                ({ stdout }) => stdout.includes("VM_STATE_RUNNING"),
                60
              )
              assert.lengthOf(processesWith(`guest=${name},`), 1)
              return true
            }
            yield* eventually(
              `no trace of ${name}`,
              Effect.sync(() => traces(name)),
              (found) => found.length === 0,
              60
            )
            return false
          })
        const machine = ["--chipset", "microvm", "-m", "64MiB", "--append", "guest.do=deaf"]
        const create = (name: string) =>
          instance.try("vm", "create", name, ...machine, "--kernel", kernel, "--initrd", initrd)
        for (const [index, moment] of moments.entries()) {
          // no other run of the tests has it on this host
          const name = `vm-${process.pid}-${index}`
          yield* killedDuring(instance, moment, create(name))
          // the same again is fine, whatever became of it
          if (!(yield* settled(name))) assert.strictEqual((yield* create(name)).code, 0)
          assert.isTrue(yield* settled(name))
          yield* killedDuring(instance, moment, instance.try("vm", "rm", "-f", name))
          if (yield* settled(name)) assert.strictEqual((yield* instance.try("vm", "rm", "-f", name)).code, 0)
          assert.isFalse(yield* settled(name))
        }
      }).pipe(Effect.scoped),
    { timeout: 1_800_000 }
  )
})
