/** What a machine that boots by UEFI may ask for, and what it needs of the host. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as CloudHypervisor from "../../src/vmm/cloud-hypervisor/CloudHypervisor.ts"
import { beyond } from "../../src/vmm/Hypervisor.ts"
import * as Arguments from "../../src/vmm/qemu/Arguments.ts"
import * as Qemu from "../../src/vmm/qemu/Qemu.ts"
import * as Uefi from "../../src/vmm/Uefi.ts"
import { machineOf, problemsOf, VmSpec } from "../../src/vmm/VmSpec.ts"

const specOf = (fields: Readonly<Record<string, unknown>>) =>
  Schema.decodeUnknownSync(VmSpec)({ name: "pc", disks: [{ path: "/disk" }], ...fields })

const secure = { firmware: "uefi", secureBoot: true } as const

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-uefi-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** What is a file of variables, as far as it is looked at. */
const variables = (): Buffer => {
  const bytes = Buffer.alloc(540_672)
  bytes.write("_FVH", 40, "latin1")
  return bytes
}

describe("UEFI", () => {
  it("is of a machine that its firmware boots, and so are Secure Boot and the variables", () => {
    const of = { secureBoot: true, firmwareVariables: "/variables" }
    assert.deepStrictEqual(problemsOf(specOf(of)), [
      { field: "secureBoot", problem: "needs firmware uefi" },
      { field: "firmwareVariables", problem: "needs firmware uefi" }
    ])
    assert.deepStrictEqual(
      problemsOf(specOf({ ...of, firmware: "uefi", kernel: "/k" })).map(({ field }) => field),
      ["secureBoot", "firmwareVariables"]
    )
    assert.deepStrictEqual(problemsOf(specOf({ ...of, firmware: "uefi" })), [])
  })

  it("with Secure Boot keeps its variables to itself, where the driver can", () => {
    const machine = machineOf(specOf(secure), "/variables")
    const { words } = Arguments.make("qemu", machine, "tcg")
    assert.include(words.join(" "), "-global driver=cfi.pflash01,property=secure,value=on")
    assert.match(words[words.indexOf("-machine") + 1] ?? "", /^q35,smm=on,/)
    assert.deepStrictEqual(beyond("QEMU", Qemu.capabilities, machine), [])
    assert.deepStrictEqual(beyond("Cloud Hypervisor", CloudHypervisor.capabilities, machine), [
      { field: "secureBoot", problem: "a q35 of Cloud Hypervisor has none" }
    ])
    assert.deepStrictEqual(
      beyond("QEMU", Qemu.capabilities, { ...machine, chipset: "microvm" }).map(({ field }) => field),
      ["boot", "secureBoot"]
    )
    const plain = Arguments.make("qemu", machineOf(specOf({ firmware: "uefi" }), "/variables"), "tcg")
    assert.notInclude(plain.words.join(" "), "property=secure")
  })

  it.effect("needs files of the host: what is missing is said with its field", () =>
    Effect.gen(function* () {
      const ovmf = yield* directory
      const file = (name: string, content: Uint8Array | string) => {
        writeFileSync(join(ovmf, name), content)
        return join(ovmf, name)
      }
      const problems = (fields: Readonly<Record<string, unknown>>) => Uefi.hostProblems(specOf(fields), ovmf)
      const missing = (name: string) => `${ovmf}/${name}: there is no such file; install the package ovmf`

      assert.deepStrictEqual(yield* problems({ firmware: "uefi" }), [
        { field: "firmware", problem: missing("OVMF_CODE_4M.fd") },
        { field: "firmware", problem: missing("OVMF_VARS_4M.fd") }
      ])
      file("OVMF_CODE_4M.fd", "code")
      file("OVMF_VARS_4M.fd", variables())
      assert.deepStrictEqual(yield* problems({ firmware: "uefi" }), [])
      // a firmware without Secure Boot is not that with it
      assert.deepStrictEqual(yield* problems(secure), [
        { field: "secureBoot", problem: missing("OVMF_CODE_4M.secboot.fd") },
        { field: "secureBoot", problem: missing("OVMF_VARS_4M.ms.fd") }
      ])
      file("OVMF_CODE_4M.secboot.fd", "code")
      const own = file("own.fd", variables())
      assert.deepStrictEqual(yield* problems({ ...secure, firmwareVariables: own }), [])
      for (const wrong of [variables().subarray(512), Buffer.alloc(540_672)]) {
        const [problem] = yield* problems({ ...secure, firmwareVariables: file("wrong.fd", wrong) })
        assert.strictEqual(problem?.field, "firmwareVariables")
        assert.include(problem?.problem, "it is no file of variables of this firmware")
      }
      // one that does not fit into memory is not read
      truncateSync(own, 2 ** 40)
      const [long] = yield* problems({ ...secure, firmwareVariables: own })
      assert.include(long?.problem, "it is no file of variables of this firmware")
      // these have no use for them
      assert.deepStrictEqual(yield* problems({}), [])
      rmSync(join(ovmf, "OVMF_CODE_4M.fd"))
      assert.deepStrictEqual(yield* problems({ firmware: "uefi", kernel: "/k" }), [])
      assert.deepStrictEqual(yield* problems({ firmware: "uefi", hypervisor: "cloud-hypervisor" }), [])
    })
  )
})
