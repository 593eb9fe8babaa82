/**
 * Virtual machines that boot by UEFI: a real firmware, a real guest on a disk. Secure Boot, which is six starts of it, only with
 * `IRONWOOD_BOOT=all`.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { copyFileSync } from "node:fs"
import { join } from "node:path"
import * as Disk from "../../scripts/image/Disk.ts"
import { sign, signingKeys } from "../../scripts/image/SigningKeys.ts"
import { tampered } from "../../scripts/image/Uki.ts"
import { VmSpec } from "../../src/vmm/VmSpec.ts"
import type { Vms } from "../../src/vmm/Vms.ts"
import * as Efi from "./efi.ts"
import { consoleText, says, until, withVms } from "./world.ts"

/** Ones without keys: the firmware takes the first that it is given. */
const FRESH = "/usr/share/OVMF/OVMF_VARS_4M.fd"

const specOf = (name: string, disk: string, fields: Readonly<Record<string, unknown>> = {}) =>
  Schema.decodeUnknownEffect(VmSpec)({
    name,
    memoryBytes: 512 * 1024 ** 2,
    firmware: "uefi",
    disks: [{ path: disk }],
    stopGracePeriod: 120_000,
    ...fields
  })

const typing = (vms: Vms["Service"], name: string) => (text: string) =>
  Effect.flatMap(vms.attach(name), ({ write }) => write(Buffer.from(`${text}\n`)))

describe("a machine with UEFI", () => {
  it.live(
    "boots its disk, hears the power button, and keeps its firmware's variables",
    () =>
      withVms(({ state, vms }) =>
        Effect.gen(function* () {
          const disk = Efi.disk(state, "disk", Efi.program(join(state, "guest.efi")))
          yield* vms.create(yield* specOf("pc", disk), { wait: true })
          const type = typing(vms, "pc")
          yield* says(vms, "pc", "guest: ready")
          yield* type("variable:kept")
          yield* says(vms, "pc", "guest: variable <kept> secure boot 0")
          const stopped = yield* vms.stop("pc")
          assert.strictEqual(stopped.lastExit?.class, "normal")
          assert.include(yield* consoleText(vms, "pc"), "guest: power button")

          yield* vms.start("pc")
          yield* says(vms, "pc", "guest: ready", 2)
          yield* type("variables")
          yield* says(vms, "pc", "guest: variable <kept> secure boot 0", 2)
          yield* vms.remove("pc", { force: true })
        })
      ),
    900_000
  )

  it.live.skipIf(process.env["IRONWOOD_BOOT"] !== "all")(
    "starts with Secure Boot what is signed by a key that it has, and nothing else",
    () =>
      withVms(({ state, vms }) =>
        Effect.gen(function* () {
          const unsigned = Efi.program(join(state, "unsigned.efi"))
          const keys = signingKeys(join(state, "keys"), () => {})
          const signed = join(state, "signed.efi")
          sign(keys, unsigned, signed, Efi.time)
          const changed = join(state, "changed.efi")
          tampered(signed, Efi.commandLine, changed)
          const refuses = (name: string) =>
            Effect.gen(function* () {
              yield* says(vms, name, "Access Denied")
              assert.notInclude(yield* consoleText(vms, name), "Linux version")
              yield* vms.remove(name, { force: true })
            })

          // by default it has the keys of others
          const disk = Efi.disk(state, "signed.img", signed)
          yield* vms.create(yield* specOf("strange", disk, { secureBoot: true }))
          yield* refuses("strange")

          // one that has none takes those on the disk over
          const enrolling = join(state, "enrolling.img")
          const slots = [{ name: "ironwood_1.efi", file: signed }]
          Disk.disk(enrolling, { slots, keys, enrol: "force", bytes: 512 * 1024 ** 2, time: Efi.time })
          yield* vms.create(yield* specOf("first", enrolling, { secureBoot: true, firmwareVariables: FRESH }))
          yield* says(vms, "first", "guest: ready")
          assert.isAbove((yield* until(vms, "first", "up", ({ state }) => state === "running")).reboots, 0)
          yield* typing(vms, "first")("variables")
          yield* says(vms, "first", "guest: variable <> secure boot 1")
          yield* vms.stop("first")
          const enrolled = join(state, "enrolled.fd")
          copyFileSync(join(state, "vm/machines/first/variables.fd"), enrolled)
          yield* vms.remove("first")

          const own = { secureBoot: true, firmwareVariables: enrolled }
          yield* vms.create(yield* specOf("good", disk, own))
          yield* says(vms, "good", "guest: ready")
          yield* vms.remove("good", { force: true })
          yield* vms.create(yield* specOf("changed", Efi.disk(state, "changed.img", changed), own))
          yield* refuses("changed")
          yield* vms.create(yield* specOf("unsigned", Efi.disk(state, "unsigned.img", unsigned), own))
          yield* refuses("unsigned")
        })
      ),
    900_000
  )
})
