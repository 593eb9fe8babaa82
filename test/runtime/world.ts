/**
 * A whole runtime for tests: real taproot, real OCI runtime, real state and images in a temporary state directory, and a
 * tree with the `runtime` branch. When the scope closes the tree is stopped in order, and then nothing may be left: no
 * process, cgroup, mount or state of a run; that is checked every time.
 *
 * `brain` builds services and tree in the scope given, so that a test can have one brain after another on the same taproot
 * (a *release*, as when a brain dies), or another taproot on the same state directory.
 */
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { fromMounts, parseMountInfo } from "../../src/host/CgroupLayout.ts"
import { type Container, Containers } from "../../src/runtime/Containers.ts"
import type { LogOptions } from "../../src/storage/logs/LogRetention.ts"
import * as ContainersLive from "../../src/runtime/ContainersLive.ts"
import { decodeContainerSpec } from "../../src/runtime/ContainerSpec.ts"
import * as Isolation from "../../src/runtime/Isolation.ts"
import * as OciRuntimeLive from "../../src/runtime/OciRuntimeLive.ts"
import * as RuntimePaths from "../../src/runtime/RuntimePaths.ts"
import { RuntimeSupervisor } from "../../src/runtime/RuntimeSupervisor.ts"
import { Content } from "../../src/storage/Content.ts"
import * as ContentLive from "../../src/storage/ContentLive.ts"
import * as RootfsLive from "../../src/storage/RootfsLive.ts"
import * as State from "../../src/storage/State.ts"
import * as Volumes from "../../src/storage/Volumes.ts"
import * as StateJournal from "../../src/storage/StateJournal.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { NeverHappened } from "../support/eventually.ts"
import {
  buildImage,
  type BuiltImage,
  type ConfigInput,
  directory,
  file,
  symlink,
  writeLayout
} from "../support/images.ts"
import * as Qemu from "../../src/vmm/qemu/Qemu.ts"
import { Cgroups } from "../../src/host/Cgroups.ts"
import * as Taproot from "../support/taproot.ts"

/** A temporary state directory, removed at the end. */
export const stateDirectory = Effect.acquireRelease(
  Effect.sync(() => realpathSync(mkdtempSync(join(tmpdir(), "ironwood-runtime-")))),
  (state) => Effect.sync(() => rmSync(state, { recursive: true, force: true }))
)

const applets = [
  "sh",
  "sleep",
  "cat",
  "true",
  "false",
  "id",
  "hostname",
  "tail",
  "echo",
  "ip",
  "kill",
  "seq",
  "yes",
  "stty",
  "tty",
  "httpd",
  "nc",
  "touch",
  "mkdir",
  "unshare",
  "mount",
  "mknod",
  "dmesg",
  "wc",
  "head",
  "ls",
  "dd"
]

/** A small image with busybox; with `note` in /etc/note it has another layer than others. */
export const busybox = (config: ConfigInput = {}, note = ""): BuiltImage =>
  buildImage({
    layers: [
      [
        directory("bin"),
        directory("etc"),
        directory("tmp", { mode: 0o1777 }),
        directory("srv"),
        ...(note === "" ? [] : [file("etc/note", note)]),
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:1000:100::/srv:/bin/sh\n"),
        file("etc/group", "users:x:100:\naudio:x:29:web\n"),
        file("bin/busybox", readFileSync("/usr/bin/busybox"), { mode: 0o755 }),
        ...applets.map((applet) => symlink(`bin/${applet}`, "busybox"))
      ]
    ],
    config: { Cmd: ["/bin/sleep", "100000"], ...config }
  })

/** It in a layout below the state directory; answers the layout's path. */
export const writeImage = (state: string, name: string, config: ConfigInput = {}, note = ""): string => {
  const path = join(state, "images", name)
  mkdirSync(path, { recursive: true })
  writeLayout(path, [{ image: busybox(config, note), name: `${name}:latest` }])
  return path
}

export interface BrainOptions {
  readonly candidates?: ReadonlyArray<string>
  /** What containers may have of the host; default nothing. */
  readonly allowance?: Partial<Isolation.Allowances>
}

const services = (state: string, options: BrainOptions) => {
  const runtime = join(state, "runtime")
  const nothing = { privileged: () => false, mounts: () => [], devices: () => [] }
  return ContainersLive.layer({ directory: runtime, logs: join(state, "logs") }).pipe(
    Layer.provideMerge(Qemu.layer({ directory: join(state, "vmm") })),
    Layer.provideMerge(Cgroups.layer),
    Layer.provide(Layer.succeed(Isolation.Allowance, { ...nothing, ...options.allowance })),
    Layer.provideMerge(
      OciRuntimeLive.layer({
        directory: runtime,
        ...(options.candidates === undefined ? {} : { candidates: options.candidates })
      })
    ),
    Layer.provideMerge(RootfsLive.layer({ directory: join(runtime, "rootfs") })),
    Layer.provideMerge(Volumes.layer({ directory: join(state, "volumes") })),
    Layer.provideMerge(ContentLive.layer({ directory: join(state, "content") })),
    Layer.provideMerge(StateJournal.layer()),
    Layer.provideMerge(State.layer({ path: join(state, "state.db") }))
  )
}

/**
 * Starts services and tree on the taproot in the context. The tree ends with the scope: in order (`stop`, the default), or
 * as a brain dies (`release`).
 */
export const brain = Effect.fnUntraced(function* (
  state: string,
  options: BrainOptions & { readonly ending?: Root.Ending } = {}
) {
  const context = yield* Layer.build(services(state, options))
  const { spec } = Context.get(context, RuntimeSupervisor)
  const root = yield* Effect.acquireRelease(
    Root.start(Supervisor.make("init", { kind: "root", children: [spec] })),
    (root) => root.end(options.ending ?? "stop")
  ).pipe(Effect.provideContext(context))
  return { context, root, containers: Context.get(context, Containers), content: Context.get(context, Content) }
})

/** What is left of a state directory's runs on this host, in words. */
export const leftovers = (state: string): ReadonlyArray<string> => {
  const cgroup = RuntimePaths.cgroupOf(state)
  const found: Array<string> = []
  for (const { mountPoint } of fromMounts(parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"))).hierarchies) {
    for (const path of [cgroup, `${cgroup}.microvms`]) {
      if (existsSync(mountPoint + path)) found.push(`cgroup ${mountPoint}${path}`)
    }
  }
  const places = ["oci", "bundles", "networks", "ipc", "users", "shm", "stages", "rootfs.layers"]
  for (const directory of places.map((place) => `runtime/${place}`)) {
    const path = join(state, directory)
    if (existsSync(path)) found.push(...readdirSync(path).map((name) => `${directory}/${name}`))
  }
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(cgroup)) found.push(`process ${pid}`)
    } catch {
      // it has ended
    }
  }
  return found
}

/** Runs a test with one brain on one taproot, with the image `busybox` imported. */
export const withContainers = <A, E, R>(
  test: (world: {
    readonly state: string
    readonly containers: Containers["Service"]
    readonly content: Content["Service"]
    readonly root: Root.Root
  }) => Effect.Effect<A, E, R>,
  options: BrainOptions = {}
) =>
  Effect.gen(function* () {
    const state = yield* stateDirectory
    yield* Effect.gen(function* () {
      const { containers, content, context, root } = yield* brain(state, options)
      yield* content.importFrom(writeImage(state, "busybox"))
      yield* test({ state, containers, content, root }).pipe(Effect.provideContext(context))
      yield* root.end("stop")
      assert.deepStrictEqual(leftovers(state), [], "nothing is left after an orderly stop")
      const { processes } = yield* (yield* Processes).status
      assert.strictEqual(processes, 0, "no entry in taproot")
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  }).pipe(Effect.scoped)

/** Decodes and creates; the image is `busybox` unless said otherwise. */
export const create = (
  containers: Containers["Service"],
  fields: { readonly name: string; readonly [field: string]: unknown },
  wait = true
) =>
  Effect.flatMap(decodeContainerSpec({ image: "busybox", stopGracePeriod: 100, ...fields }), (spec) =>
    containers.create(spec, { wait })
  )

export const shell = (script: string) => ["/bin/sh", "-c", script]

/** Looks again and again until the container is as wanted; the last look is in the error. */
export const until = (
  containers: Containers["Service"],
  name: string,
  wanted: (container: Container) => boolean,
  deadline: Duration.Input = "20 seconds"
): Effect.Effect<Container, NeverHappened> =>
  Effect.gen(function* () {
    let last: Container | undefined
    const look = Effect.gen(function* () {
      while (true) {
        last = yield* containers.get(name)
        if (wanted(last)) return last
        yield* Effect.sleep("5 millis")
      }
    })
    return yield* look.pipe(
      Effect.timeout(deadline),
      Effect.mapError(
        () => new NeverHappened({ what: `${name}: ${last?.state} ${last?.restarts} ${JSON.stringify(last?.lastExit)}` })
      )
    )
  })

/** The text of a container's log. */
export const logText = (containers: Containers["Service"], name: string, options: LogOptions = {}) =>
  Stream.runFold(
    containers.logs(name, options),
    () => "",
    (text, { complete, content }) => `${text}${Buffer.from(content).toString()}${complete ? "\n" : ""}`
  )

/** A zombie that nobody has reaped yet (this host's first process is slow at that) is not alive. */
export const isAlive = (pid: number | undefined): boolean => pid !== undefined && existsSync(`/proc/${pid}/exe`)

/** A scope that the test closes itself. */
export const ownScope = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const value = yield* Scope.provide(effect, scope)
    return { value, scope }
  })
