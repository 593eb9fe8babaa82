/** What a spec makes of the usual isolation, and what a host does not allow; the kernel's word on it is in `OciRuntime.integration.test.ts`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import { join } from "node:path"
import { tmpdir } from "node:os"
import * as Capabilities from "../../src/runtime/Capabilities.ts"
import { decodeContainerSpec } from "../../src/runtime/ContainerSpec.ts"
import * as Isolation from "../../src/runtime/Isolation.ts"
import * as Seccomp from "../../src/runtime/Seccomp.ts"
import { SeccompFilters } from "../../src/runtime/SeccompFilters.ts"

const securityOf = (security: object) =>
  Effect.map(decodeContainerSpec({ name: "web", image: "hello", security }), (spec) => spec.security)

const isolated = (security: object, held: ReadonlyArray<Capabilities.Capability> = Capabilities.names) =>
  Effect.map(securityOf(security), (wanted) => Isolation.of(wanted, held))

const fieldsRefused = (security: object) =>
  Effect.map(securityOf(security), (wanted) =>
    Isolation.problemsOf(wanted, { privileged: false }).map(({ field }) => field)
  )

describe("capabilities", () => {
  it.effect("are read as people write them, and stored in one way", () =>
    Effect.gen(function* () {
      const security = yield* securityOf({ addCapabilities: ["net_admin", "CAP_SYS_TIME"], dropCapabilities: ["all"] })
      assert.deepStrictEqual(security.addCapabilities, ["CAP_NET_ADMIN", "CAP_SYS_TIME"])
      assert.deepStrictEqual(security.dropCapabilities, ["ALL"])
      const error = yield* Effect.flip(securityOf({ addCapabilities: ["NET_ADMIN", "NET_ADMINN"] }))
      assert.deepStrictEqual(
        error.problems.map(({ field }) => field),
        ["security.addCapabilities[1]"]
      )
      assert.match(error.message, /NET_ADMIN or CAP_NET_ADMIN, or ALL/)
    })
  )

  it.effect("adding stands above dropping, and a name above ALL", () =>
    Effect.gen(function* () {
      const names = (security: object) => Effect.map(isolated(security), ({ capabilities }) => [...capabilities].sort())
      assert.deepStrictEqual(yield* names({}), [...Capabilities.usual].sort())
      assert.deepStrictEqual(yield* names({ dropCapabilities: ["ALL"] }), [])
      assert.deepStrictEqual(yield* names({ dropCapabilities: ["ALL"], addCapabilities: ["CHOWN"] }), ["CAP_CHOWN"])
      const allButOne = yield* names({ addCapabilities: ["ALL"], dropCapabilities: ["SYS_MODULE"] })
      assert.deepStrictEqual(allButOne, Capabilities.names.filter((name) => name !== "CAP_SYS_MODULE").sort())
      assert.deepStrictEqual(yield* names({ privileged: true }), [...Capabilities.names].sort())
    })
  )

  it.effect("that this Ironwood does not have itself are not given", () =>
    Effect.gen(function* () {
      const { capabilities } = yield* isolated({ privileged: true }, ["CAP_CHOWN", "CAP_KILL"])
      assert.deepStrictEqual(capabilities, ["CAP_CHOWN", "CAP_KILL"])
    })
  )
})

describe("what a host does not allow", () => {
  it.effect("is all that gives more than is usual, each by its field", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* fieldsRefused({}), [])
      assert.deepStrictEqual(yield* fieldsRefused({ dropCapabilities: ["ALL"], addCapabilities: ["CHOWN"] }), [])
      assert.deepStrictEqual(
        yield* fieldsRefused({ addCapabilities: ["CHOWN", "SYS_ADMIN"], seccompUnconfined: true, privileged: true }),
        ["security.addCapabilities", "security.seccompUnconfined", "security.privileged"]
      )
      assert.deepStrictEqual(yield* fieldsRefused({ addCapabilities: ["ALL"] }), ["security.addCapabilities"])
      const wanted = yield* securityOf({ privileged: true })
      assert.deepStrictEqual(Isolation.problemsOf(wanted, { privileged: true }), [])
    })
  )
})

describe("the filter of system calls", () => {
  it("says of a call one thing only, whatever the capabilities", () => {
    for (const capabilities of [[], Capabilities.usual, Capabilities.names, ["CAP_SYS_ADMIN"]]) {
      const { syscalls } = Seccomp.profile(capabilities)
      const plain = syscalls.filter(({ args }) => args === undefined).flatMap(({ names }) => names)
      assert.strictEqual(
        new Set(plain).size,
        plain.length,
        `twice: ${plain.filter((name, at) => plain.indexOf(name) !== at).join(" ")}`
      )
      for (const { args = [] } of syscalls) {
        const compared = args.map(({ index }) => index)
        assert.strictEqual(new Set(compared).size, compared.length, "an argument is compared once in a rule")
      }
    }
  })

  it("opens what a capability is for, and nothing else", () => {
    const allowed = (capabilities: ReadonlyArray<string>) =>
      new Set(
        Seccomp.profile(capabilities)
          .syscalls.filter(({ action }) => action === "SCMP_ACT_ALLOW")
          .flatMap(({ names }) => names)
      )
    const usual = allowed(Capabilities.usual)
    for (const name of ["read", "clone", "socket", "chroot", "ptrace"]) assert.isTrue(usual.has(name), name)
    for (const name of ["mount", "unshare", "bpf", "clone3", "keyctl", "reboot"]) assert.isFalse(usual.has(name), name)
    const administrator = allowed([...Capabilities.usual, "CAP_SYS_ADMIN"])
    assert.deepStrictEqual(
      ["mount", "unshare", "clone3", "bpf", "reboot", "keyctl"].filter((name) => administrator.has(name)),
      ["mount", "unshare", "clone3", "bpf"]
    )
  })

  it.effect("is learnt from what crun left, once, and only when it can be a filter", () =>
    Effect.gen(function* () {
      const directory = fs.mkdtempSync(join(tmpdir(), "ironwood-filter-"))
      const filters = new SeccompFilters()
      const profile = Seccomp.profile(Capabilities.usual)
      yield* filters.learn(profile, directory)
      assert.isUndefined(filters.of(profile), "there is none")
      const leave = (bytes: number) => fs.writeFileSync(join(directory, "seccomp.bpf"), Buffer.alloc(bytes, 7))
      for (const bytes of [0, 12, 8 * 4_097]) {
        leave(bytes)
        yield* filters.learn(profile, directory)
        assert.isUndefined(filters.of(profile), `${bytes} bytes`)
      }
      leave(16)
      yield* filters.learn(profile, directory)
      leave(24)
      yield* filters.learn(profile, directory)
      assert.strictEqual(filters.of(Seccomp.profile([...Capabilities.usual])), Buffer.alloc(16, 7).toString("base64"))
      assert.isUndefined(filters.of(Seccomp.profile([])), "another profile")
      assert.isUndefined(filters.of(undefined))
      fs.rmSync(directory, { recursive: true })
    })
  )
})
