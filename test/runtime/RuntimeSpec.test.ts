/** From image and spec to `config.json`, cell by cell and as properties; the runtimes themselves judge it in `OciRuntime.integration.test.ts`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { ContainerSpec, decodeContainerSpec } from "../../src/runtime/ContainerSpec.ts"
import { root } from "../../src/runtime/ContainerUser.ts"
import * as Capabilities from "../../src/runtime/Capabilities.ts"
import * as Isolation from "../../src/runtime/Isolation.ts"
import * as RuntimeSpec from "../../src/runtime/RuntimeSpec.ts"
import { ImageConfig } from "../../src/storage/OciImage.ts"

const image: ImageConfig = {
  entrypoint: ["/entry", "point"],
  cmd: ["cmd"],
  env: ["PATH=/image/bin", "A=image", "B=image", "EMPTY=", "=nameless", "novalue", "NUL=\0"],
  user: "",
  workingDir: "/srv",
  stopSignal: "",
  volumes: [],
  exposedPorts: [],
  labels: {}
}

/** Without what is not given to the runtime, or has a test of its own. */
const { probes: _, tmpfs: __, ...fields } = ContainerSpec.fields
const plain = Schema.Struct(fields)

const specOf = (fields: object) => decodeContainerSpec({ name: "web", image: "hello", ...fields })

const make = (fields: object, input: Partial<RuntimeSpec.Input> = {}) =>
  Effect.flatMap(specOf(fields), (spec) =>
    RuntimeSpec.make({
      spec,
      image,
      rootfs: "/rootfs",
      user: root,
      cgroupsPath: "/ironwood-0/web/web-1",
      hostname: "web",
      ipc: "new",
      pid: "new",
      users: undefined,
      sharedMemory: undefined,
      binds: [],
      devices: [],
      network: "new",
      hostFiles: [],
      limitSwap: false,
      isolation: Isolation.of(spec.security, Capabilities.names),
      seccompFilter: undefined,
      processLimit: 1024,
      init: "",
      ...input
    })
  )

const namespaces = (oci: RuntimeSpec.OciSpec) => oci.linux.namespaces.map(({ type }) => type).sort()

describe("RuntimeSpec", () => {
  const cells: ReadonlyArray<readonly [string, object, ReadonlyArray<string>]> = [
    ["neither: the image's", {}, ["/entry", "point", "cmd"]],
    ["command: replaces the image's", { command: ["x", "y"] }, ["/entry", "point", "x", "y"]],
    ["empty command: the entrypoint alone", { command: [] }, ["/entry", "point"]],
    ["entrypoint: drops the image's command", { entrypoint: ["/mine"] }, ["/mine"]],
    ["both", { entrypoint: ["/mine"], command: ["x"] }, ["/mine", "x"]],
    ["empty entrypoint: the command alone", { entrypoint: [], command: ["x"] }, ["x"]]
  ]
  for (const [title, fields, expected] of cells) {
    it.effect(`arguments, ${title}`, () =>
      Effect.map(make(fields), (oci) => assert.deepStrictEqual(oci.process.args, expected))
    )
  }

  it.effect("a NUL in an image cuts nothing off", () =>
    Effect.map(make({}, { image: { ...image, cmd: ["a\0b"] } }), (oci) =>
      assert.deepStrictEqual(oci.process.args, ["/entry", "point", "ab"])
    )
  )

  it.effect("nothing to run is an error, not a container that cannot start", () =>
    Effect.gen(function* () {
      for (const fields of [{ entrypoint: [] }, { entrypoint: [""] }]) {
        const error = yield* Effect.flip(make(fields))
        assert.strictEqual(error._tag, "NothingToRun")
      }
    })
  )

  it.effect("environment: defaults, image, spec, each over the one before; broken entries dropped", () =>
    Effect.map(make({ environment: { B: "spec", C: "a=b" } }), (oci) =>
      assert.deepStrictEqual(oci.process.env, [
        "PATH=/image/bin",
        "HOSTNAME=web",
        "A=image",
        "B=spec",
        "EMPTY=",
        "C=a=b"
      ])
    )
  )

  it.effect("there is always a PATH", () =>
    Effect.map(make({}, { image: { ...image, env: [] } }), (oci) =>
      assert.match(oci.process.env[0] ?? "", /^PATH=.*\/usr\/bin/)
    )
  )

  it.effect("working directory: spec over image over /, always absolute", () =>
    Effect.gen(function* () {
      const directory = (fields: object, workingDir: string) =>
        Effect.map(make(fields, { image: { ...image, workingDir } }), (oci) => oci.process.cwd)
      assert.strictEqual(yield* directory({}, "/srv"), "/srv")
      assert.strictEqual(yield* directory({ workingDirectory: "/mine" }, "/srv"), "/mine")
      assert.strictEqual(yield* directory({}, ""), "/")
      assert.strictEqual(yield* directory({}, "relative"), "/relative")
    })
  )

  it.effect("limits: only what is given, CPUs as a quota, swap only where it can be limited", () =>
    Effect.gen(function* () {
      const none = yield* make({})
      assert.deepStrictEqual(none.linux.resources, {
        devices: [{ allow: false, access: "rwm" }],
        pids: { limit: 1024 }
      })
      const resources = { memoryBytes: 64 * 1024 * 1024, cpus: 0.25, pids: 10 }
      const { cpu, memory, pids } = (yield* make({ resources })).linux.resources
      assert.deepStrictEqual(
        { cpu, memory, pids },
        {
          cpu: { quota: 25_000, period: 100_000 },
          memory: { limit: 67_108_864 },
          pids: { limit: 10 }
        }
      )
      const swap = yield* make({ resources }, { limitSwap: true })
      assert.deepStrictEqual(swap.linux.resources.memory, { limit: 67_108_864, swap: 67_108_864 })
      const least = yield* make({ resources: { cpus: 0.01 } })
      assert.strictEqual(least.linux.resources.cpu?.quota, 1_000, "the least that the kernel takes")
    })
  )

  it.effect("network: new, the sandbox's, the host's", () =>
    Effect.gen(function* () {
      assert.include(namespaces(yield* make({})), "network")
      const shared = yield* make({}, { network: { path: "/run/ns" } })
      assert.deepStrictEqual(shared.linux.namespaces.at(-1), { type: "network", path: "/run/ns" })
      const host = yield* make(
        {},
        { network: "host", hostFiles: [{ source: "/etc/resolv.conf", target: "/etc/resolv.conf" }] }
      )
      assert.notInclude(namespaces(host), "network")
      assert.deepStrictEqual(host.mounts.at(-1), {
        destination: "/etc/resolv.conf",
        type: "bind",
        source: "/etc/resolv.conf",
        options: ["bind", "ro", "nosuid", "nodev"]
      })
    })
  )

  it.effect("a user other than root holds no capabilities, and nobody gains any", () =>
    Effect.gen(function* () {
      const asRoot = yield* make({})
      assert.deepStrictEqual([...asRoot.process.capabilities.effective].sort(), [...Capabilities.usual].sort())
      const user = { uid: 1000, gid: 100, groups: [7, 8] }
      const asUser = yield* make({}, { user })
      assert.deepStrictEqual(asUser.process.capabilities.effective, [])
      assert.deepStrictEqual(asUser.process.capabilities.permitted, [])
      assert.deepStrictEqual(asUser.process.user, { uid: 1000, gid: 100, additionalGids: [7, 8] })
      assert.isTrue(asUser.process.noNewPrivileges)
    })
  )

  it.effect.prop("whatever the spec says, the result is complete and is JSON", { plain }, ({ plain }) =>
    Effect.gen(function* () {
      const spec = new ContainerSpec(plain)
      const result = yield* Effect.result(
        RuntimeSpec.make({
          spec,
          image,
          rootfs: "/rootfs",
          user: root,
          cgroupsPath: "/c",
          hostname: "h",
          ipc: "new",
          pid: "new",
          users: undefined,
          sharedMemory: undefined,
          binds: [],
          devices: [],
          network: "new",
          hostFiles: [],
          limitSwap: true,
          isolation: Isolation.of(spec.security, Capabilities.names),
          seccompFilter: undefined,
          processLimit: 1024,
          init: "/init"
        })
      )
      if (result._tag === "Failure") {
        assert.strictEqual(spec.entrypoint?.[0] ?? "", "", "only without a program there is nothing to run")
        return
      }
      const oci = result.success
      assert.deepStrictEqual(JSON.parse(JSON.stringify(oci)), oci)
      assert.isTrue(oci.process.cwd.startsWith("/"))
      assert.isAbove(oci.process.args.length, 0)
      const names = oci.process.env.map((variable) => variable.slice(0, variable.indexOf("=")))
      assert.strictEqual(new Set(names).size, names.length, "every variable once")
      assert.isTrue((oci.linux.resources.cpu?.quota ?? 1_000) >= 1_000)
    })
  )
})
