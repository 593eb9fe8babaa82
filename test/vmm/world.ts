/**
 * Virtual machines for tests: real taproot, real QEMU, real state in a temporary state directory, and a tree with the `vmm`
 * branch. `brain` builds services and tree in the scope given, so that a test can have one brain after another on the same taproot.
 */
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { fromMounts, parseMountInfo } from "../../src/host/CgroupLayout.ts"
import { Cgroups } from "../../src/host/Cgroups.ts"
import * as ContentLive from "../../src/storage/ContentLive.ts"
import * as State from "../../src/storage/State.ts"
import * as StateJournal from "../../src/storage/StateJournal.ts"
import * as Volumes from "../../src/storage/Volumes.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { helperPath } from "../../src/taproot/Helper.ts"
import { type Vm, Vms } from "../../src/vmm/Vms.ts"
import * as VmsLive from "../../src/vmm/VmsLive.ts"
import { VmSpec } from "../../src/vmm/VmSpec.ts"
import { VmMoves, VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import { VmSupervisor } from "../../src/vmm/VmSupervisor.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import { guest } from "./guest.ts"

export const stateDirectory = Effect.acquireRelease(
  Effect.sync(() => realpathSync(mkdtempSync(join(tmpdir(), "ironwood-vms-")))),
  (state) => Effect.sync(() => rmSync(state, { recursive: true, force: true }))
)

export const mount = (...words: ReadonlyArray<string>): void => {
  const { status, stderr } = spawnSync("mount", words)
  assert.strictEqual(status, 0, String(stderr))
}

/** A file system of its own at `directory`, in memory, with so many MiB; it must be there before the taproot that is to see it. */
export const room = (directory: string, mib: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      mkdirSync(directory, { recursive: true })
      mount("-t", "tmpfs", "-o", `size=${mib}m`, "tmpfs", directory)
    }),
    () => Effect.sync(() => void spawnSync("umount", ["-l", directory]))
  )

/** Runs a program that lies beside taproot: its code, or the signal that ended it, and what it said. */
export const tool = Effect.fnUntraced(function* (name: "copy" | "hand", words: ReadonlyArray<string>) {
  const processes = yield* Processes
  const argv = [helperPath(processes.hello.taprootPid, name), ...words] as const
  const { exit, stderr, stdout } = yield* processes.run({ label: name, argv })
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8")
  const end = exit._tag === "Exited" ? exit.code : exit._tag === "Signaled" ? exit.signal : exit.message
  return { end, stdout: text(stdout), stderr: text(stderr) }
})

const cgroupOf = (state: string): string => `/${basename(state)}`

export interface BrainOptions {
  readonly binary?: string
  readonly path?: string
  readonly ending?: Root.Ending
}

/** Starts services and tree on the taproot in the context; the tree ends with the scope. */
export const brain = Effect.fnUntraced(function* (state: string, options: BrainOptions = {}) {
  const context = yield* Layer.build(
    VmsLive.layer({
      directory: join(state, "vm"),
      cgroup: cgroupOf(state),
      ...(options.binary === undefined ? {} : { binary: options.binary }),
      ...(options.path === undefined ? {} : { path: options.path })
    }).pipe(
      Layer.provideMerge(Volumes.layer({ directory: join(state, "volumes") })),
      Layer.provideMerge(ContentLive.layer({ directory: join(state, "content") })),
      Layer.provideMerge(StateJournal.layer()),
      Layer.provideMerge(State.layer({ path: join(state, "state.db") })),
      Layer.provideMerge(Cgroups.layer)
    )
  )
  const { spec } = Context.get(context, VmSupervisor)
  const root = yield* Effect.acquireRelease(
    Root.start(Supervisor.make("init", { kind: "root", children: [spec] })),
    (root) => root.end(options.ending ?? "stop")
  ).pipe(Effect.provideContext(context))
  return {
    context,
    root,
    vms: Context.get(context, Vms),
    snapshots: Context.get(context, VmSnapshots),
    restores: Context.get(context, VmRestores),
    moves: Context.get(context, VmMoves)
  }
})

/** What is left of a state directory's machines on this host, in words. */
export const leftovers = (state: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (const { mountPoint } of fromMounts(parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"))).hierarchies) {
    if (existsSync(mountPoint + cgroupOf(state))) found.push(`cgroup ${mountPoint}${cgroupOf(state)}`)
  }
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(cgroupOf(state))) found.push(`process ${pid}`)
    } catch {
      // it has ended
    }
  }
  return found
}

/** Runs a test with one brain on one taproot; nothing may be left at its end. */
export const withVms = <A, E, R>(
  test: (world: {
    readonly state: string
    readonly vms: Vms["Service"]
    readonly root: Root.Root
  }) => Effect.Effect<A, E, R>,
  options: BrainOptions = {}
) =>
  Effect.gen(function* () {
    const state = yield* stateDirectory
    yield* Effect.gen(function* () {
      const { context, root, vms } = yield* brain(state, options)
      yield* test({ state, vms, root }).pipe(Effect.provideContext(context))
      yield* root.end("stop")
      assert.deepStrictEqual(leftovers(state), [], "nothing is left after an orderly stop")
      const { processes } = yield* (yield* Processes).status
      assert.strictEqual(processes, 0, "no entry in taproot")
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  }).pipe(Effect.scoped)

/** A small machine that boots the test's guest; it does what `guest.do` says. */
export const specOf = (name: string, fields: Readonly<Record<string, unknown>> = {}) => {
  const { initrd, kernel } = guest()
  return Schema.decodeUnknownEffect(VmSpec)({
    name,
    chipset: "microvm",
    memoryBytes: 192 * 1024 ** 2,
    kernel,
    initrd,
    commandLine: "console=ttyS0 panic=-1 guest.do=idle",
    restart: { backoff: { initial: 10, max: 10 } },
    ...fields
  })
}

export const consoleText = (vms: Vms["Service"], name: string) =>
  Stream.runFold(
    vms.console(name, { streams: ["stdout"] }),
    () => "",
    (text, { complete, content }) => `${text}${Buffer.from(content).toString("latin1")}${complete ? "\n" : ""}`
  )

/** How often its console has said so. */
const times = (text: string, words: string): number => text.split(words).length - 1

/** Waits until its console has said so, so many times in all. */
export const says = (vms: Vms["Service"], name: string, words: string, often = 1) =>
  eventually(
    `${name} to say "${words}" ${often} times`,
    consoleText(vms, name),
    (text) => times(text, words) >= often,
    150
  )

export const until = (vms: Vms["Service"], name: string, what: string, right: (vm: Vm) => boolean) =>
  eventually(
    `${name} to be ${what}`,
    // without what would fill pages when it does not come
    Effect.map(vms.get(name), (vm) => ({ ...vm, spec: vm.spec, node: undefined })),
    right,
    150
  )

/** Asks the guest until it has the devices, processors and memory that it should; what it said (see `guest.ts`). */
export const has = (vms: Vms["Service"], name: string, right: (text: string) => boolean) =>
  eventually(
    `${name} to have another measure`,
    Effect.gen(function* () {
      const before = (yield* consoleText(vms, name)).split("guest: that is all").length
      yield* Effect.flatMap(vms.attach(name), ({ write }) => write(Buffer.from("devices\n")))
      yield* says(vms, name, "guest: that is all", before)
      return (yield* consoleText(vms, name)).split("guest: heard devices").at(-1) ?? ""
    }),
    right,
    60
  )

/** MiB. */
export const memoryIn = (text: string): number => Number(/memory (\d+) MiB/.exec(text)?.[1])

/** Types a line at its console. */
export const type = (vms: Vms["Service"], name: string, text: string) =>
  Effect.flatMap(vms.attach(name), ({ write }) => write(Buffer.from(`${text}\n`)))

/** What its memory keeps, which a guest that has booted does not have. */
export const mark = (vms: Vms["Service"], name: string) =>
  Effect.gen(function* () {
    const before = (yield* consoleText(vms, name)).split("guest: mark").length
    yield* type(vms, name, "get")
    yield* says(vms, name, "guest: mark", before)
    return /.*guest: mark <(.*)>/s.exec(yield* consoleText(vms, name))?.[1]
  })
