/** A virtual machine as a person has it: from a spec file to its removal, over the death of the brain. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { kill } from "node:process"
import { eventually, start } from "../support/ironwood.ts"
import { guest } from "../vmm/guest.ts"

const Vm = Schema.Struct({
  status: Schema.Struct({
    state: Schema.String,
    pid: Schema.optionalKey(Schema.Int),
    lastExit: Schema.optionalKey(Schema.Struct({ tag: Schema.optionalKey(Schema.String), message: Schema.String }))
  })
})

const Facts = Schema.Struct({
  facts: Schema.Struct({ hypervisors: Schema.Array(Schema.Struct({ name: Schema.String, works: Schema.Boolean })) })
})

describe("ironwood vm", () => {
  it.live("a machine is applied, looked at, lives through the brain's death, is stopped and removed", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const { facts } = yield* instance.json(Facts, "host")
      assert.deepStrictEqual(
        facts.hypervisors.map(({ name }) => name),
        ["qemu", "cloud-hypervisor", "firecracker"]
      )
      assert.isTrue(facts.hypervisors[0]?.works)
      const { initrd, kernel } = guest()
      const yaml = (more = "") => `kind: Vm
name: web
chipset: microvm
memory_bytes: 192MiB
kernel: ${kernel}
initrd: ${initrd}
command_line: console=ttyS0 panic=-1 guest.do=idle
restart: { backoff: { initial: 10ms } }
${more}`
      const applied = yield* instance.apply(yaml())
      assert.strictEqual(applied.stdout, "vm web  created\n", applied.stderr)
      assert.strictEqual((yield* instance.apply(yaml())).stdout, "vm web  unchanged\n")
      const other = yield* instance.apply(yaml("cpus: 2"))
      assert.include(other.stderr, "cpus cannot be changed live")
      const wrong = yield* instance.apply(yaml("watchdog: true").replace("name: web", "name: wrong"))
      assert.include(wrong.stderr, "watchdog: a microvm of QEMU has none")

      const says = (text: string) =>
        eventually(
          `the console to say ${text}`,
          instance.run("vm", "console", "--no-follow", "-n", "2000", "web"),
          (seen) => seen.includes(text),
          150
        )
      yield* says("guest: ready")
      const before = yield* instance.json(Vm, "vm", "inspect", "web")
      assert.strictEqual(before.status.state, "VM_STATE_RUNNING")

      kill(yield* instance.brainPid, "SIGKILL")
      const after = yield* eventually(
        "the next brain to have it",
        Effect.option(instance.json(Vm, "vm", "inspect", "web")),
        (found) => found._tag === "Some" && found.value.status.state === "VM_STATE_RUNNING",
        60
      )
      assert.strictEqual(after._tag === "Some" ? after.value.status.pid : undefined, before.status.pid)

      yield* instance.run("vm", "pause", "web")
      assert.match(yield* instance.run("vm", "ls"), /^web +microvm, 1 CPU, 192MiB .* Paused /m)
      yield* instance.run("vm", "resume", "web")

      yield* instance.run("vm", "stop", "web")
      const stopped = yield* instance.json(Vm, "vm", "inspect", "web")
      assert.deepStrictEqual(
        [stopped.status.state, stopped.status.lastExit?.message],
        ["VM_STATE_STOPPED", "its guest powered off"]
      )
      yield* says("guest: power button")
      yield* instance.run("vm", "rm", "web")
      for (const command of ["inspect", "console"]) {
        const gone = yield* instance.try("vm", command, "web")
        assert.strictEqual(gone.code, 3)
        assert.include(gone.stderr, "there is no virtual machine web. `ironwood vm ls` lists those there are")
      }
    }).pipe(Effect.scoped)
  )
})
