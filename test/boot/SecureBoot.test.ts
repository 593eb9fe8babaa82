/**
 * A machine whose firmware enforces Secure Boot: takes the keys over from the disk, leaves an image that does not come up
 * for the one before, which then counts as good; refuses one that was changed after it was signed.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Qemu from "../../scripts/boot/Qemu.ts"
import { image, sourceOf } from "../../scripts/image.ts"
import { addSlot, removeSlot, slots } from "../../scripts/image/Disk.ts"
import { bootDisk, signedImage } from "../../scripts/image/Signed.ts"
import { tampered } from "../../scripts/image/Uki.ts"
import { eventually } from "../support/ironwood.ts"
import { boot, diskParameters, withPatience } from "../support/machine.ts"

const Actor = Schema.Struct({
  state: Schema.String,
  annotations: Schema.Record(Schema.String, Schema.String)
})

const Version = Schema.Struct({ brainStarts: Schema.Int })

const directories = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-secure-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Boots by a firmware are more than CI has time for. */
describe.skipIf(process.env["IRONWOOD_BOOT"] !== "all")("a machine with Secure Boot", () => {
  it.live(
    "runs what was signed, goes back to the image before when the newest does not come up, and refuses what was changed",
    () =>
      Effect.gen(function* () {
        const directory = yield* directories
        const say = () => {}
        const initramfs = yield* withPatience(join(directory, "initramfs.img"))
        const source = { ...sourceOf(image(say, { quick: true, hypervisor: false })), initramfs }
        const options = { directory, keys: join(directory, "keys"), say, enrol: "force", gibibytes: 1 } as const
        const good = signedImage(source, { ...options, parameters: diskParameters })
        const disk = bootDisk(source, good, options)

        // a newer one, signed too, whose kernel finds nothing to run
        const nothing = join(directory, "nothing.img")
        writeFileSync(nothing, "")
        const broken = signedImage(
          { ...source, version: "99.0.0", initramfs: nothing },
          { ...options, directory: yield* directories, parameters: ["panic=-1"] }
        )
        addSlot(disk, { name: "ironwood_99.0.0+1.efi", file: broken.file }, source.time)
        const goodSlot = `ironwood_${source.version}`
        assert.deepStrictEqual(slots(disk), [`${goodSlot}+3.efi`, "ironwood_99.0.0+1.efi"])

        const variables = join(directory, "variables.fd")
        copyFileSync(Qemu.freshVariables, variables)
        const firmware = { disk, variables }
        const machine = yield* boot({ firmware, memoryMiB: 1024 })
        yield* machine.up
        assert.include(machine.console(), "Enrolling secure boot keys")
        assert.match(machine.console(), /Unable to mount root fs[\s\S]*secureboot: Secure boot enabled/)
        const nothingYet: typeof Actor.Type = { state: "", annotations: {} }
        const assessment = Effect.orElseSucceed(
          machine.json(Actor, "inspect", "init/boot-assessment"),
          () => nothingYet
        )
        const assessed = yield* eventually(
          "the image to count as good",
          assessment,
          ({ annotations }) => annotations["image"] !== undefined,
          120
        )
        assert.deepStrictEqual(
          [assessed.state, assessed.annotations["image"]],
          ["ACTOR_STATE_RUNNING", `${goodSlot}.efi`]
        )
        yield* machine.run("down")
        yield* machine.ended
        assert.deepStrictEqual(slots(disk), [`${goodSlot}.efi`, "ironwood_99.0.0+0-1.efi"])

        for (const name of slots(disk)) removeSlot(disk, name)
        const changed = join(directory, "changed.efi")
        tampered(good.file, good.commandLine, changed)
        addSlot(disk, { name: `${goodSlot}.efi`, file: changed }, source.time)
        const refused = yield* boot({ firmware, memoryMiB: 1024 })
        yield* refused.prints(/Error loading \\EFI\\Linux\\ironwood_\S+: Access Denied/)
        assert.notInclude(refused.console(), "Linux version")
      }).pipe(Effect.scoped),
    900_000
  )

  it.live(
    "goes back to the image before when the brain of the newest one cannot keep itself up",
    () =>
      Effect.gen(function* () {
        const directory = yield* directories
        const initramfs = yield* withPatience(join(directory, "initramfs.img"))
        const source = { ...sourceOf(image(() => {}, { quick: true, hypervisor: false })), initramfs }
        const options = {
          directory,
          keys: join(directory, "keys"),
          say: () => {},
          enrol: "force",
          gibibytes: 1
        } as const
        const good = signedImage(source, { ...options, parameters: diskParameters })
        const disk = bootDisk(source, good, options)
        const newest = { ...source, version: "99.0.0" }
        const newer = signedImage(newest, { ...options, directory: yield* directories, parameters: diskParameters })
        addSlot(disk, { name: "ironwood_99.0.0+1.efi", file: newer.file }, source.time)
        const variables = join(directory, "variables.fd")
        copyFileSync(Qemu.freshVariables, variables)

        const machine = yield* boot({ firmware: { disk, variables }, memoryMiB: 1024 })
        yield* machine.up
        // as if it crashed soon after each start: never up for as long as it takes to count as good
        for (let starts = 1; starts <= 5; starts++) {
          yield* eventually(
            `brain ${starts}`,
            Effect.orElseSucceed(machine.json(Version, "version"), () => ({ brainStarts: 0 })),
            ({ brainStarts }) => brainStarts === starts,
            120
          )
          yield* machine.failBrain("KILL")
        }
        yield* machine.prints("brain: rescue mode:")
        const nothingYet: typeof Actor.Type = { state: "", annotations: {} }
        const inspect = (path: string) => Effect.orElseSucceed(machine.json(Actor, "inspect", path), () => nothingYet)
        const reason = "its image ironwood_99.0.0+0-1.efi has never proved itself; the boot loader leaves it"
        yield* eventually(
          "why it reboots",
          inspect("init/rescue"),
          ({ annotations }) => annotations["reboots-first"]?.startsWith(reason) === true,
          120
        )
        yield* machine.prints(/brain: the host reboots: .*never proved itself/, 400)
        const isGood = ({ annotations }: typeof Actor.Type) => annotations["image"] === `ironwood_${source.version}.efi`
        yield* eventually("the image before to count as good", inspect("init/boot-assessment"), isGood, 240)
        yield* machine.run("down")
        yield* machine.ended
        assert.deepStrictEqual(slots(disk), [`ironwood_${source.version}.efi`, "ironwood_99.0.0+0-1.efi"])
      }).pipe(Effect.scoped),
    1_200_000
  )
})
