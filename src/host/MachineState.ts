/**
 * Where a machine that boots into Ironwood keeps its state: the disk whose ext4 has the label of `ironwood.state`
 * (or, in the machine config, `state.label`), checked and mounted; an empty disk that `ironwood.state_format` (or
 * `state.format`) names is made into one. Without any it is memory, and what is in it ends
 * with the machine: the tree says so, and why.
 *
 * This is done before the database is opened, so it cannot be an actor; {@link stateStep} tells of it in the tree. A brain that is
 * not the first finds it mounted.
 *
 * Trap: two disks with the same label are none: nobody can say which one is meant.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { readFile, writeFile } from "node:fs/promises"
import { describe } from "../taproot/ProcessExit.ts"
import { type MountFailed, Processes } from "../taproot/Processes.ts"
import * as StateDisk from "./StateDisk.ts"
import { step } from "./Step.ts"

const MS_NOSUID = 2n
const MS_NODEV = 4n

/** What a check or a format may take. */
const patience = "2 minutes"

/** How long a disk that was asked for may take to be there. */
const tries = 50

/** The disk cannot be had, and why. */
class NoDisk extends Schema.TaggedError<NoDisk>()("NoDisk", { problem: Schema.String }) {
  override get message(): string {
    return this.problem
  }
}

/** What holds the state directory. */
export class MachineState extends Context.Service<
  MachineState,
  {
    /** The device, or none: memory. */
    readonly device: string | undefined
    /** Why it is memory; empty when it is a disk. */
    readonly problem: string
  }
>()("ironwood/host/MachineState") {}

const mountedOn = (directory: string): Effect.Effect<string | undefined> =>
  Effect.promise(async () => {
    const mounts = await readFile("/proc/self/mounts", "utf8")
    return mounts
      .split("\n")
      .map((line) => line.split(" "))
      .find(([, target]) => target === directory)?.[0]
  })

/** Runs a program of e2fsprogs; its exit code must be one of `fine`. */
const run = Effect.fnUntraced(function* (argv: readonly [string, ...Array<string>], fine: ReadonlyArray<number>) {
  const processes = yield* Processes
  const { exit, stderr, stdout } = yield* processes.run({ label: `state:${argv[0]}`, argv }).pipe(
    Effect.mapError(({ message }) => new NoDisk({ problem: message })),
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => new NoDisk({ problem: `\`${argv.join(" ")}\` did not end within ${patience}` })
    })
  )
  if (exit._tag === "Exited" && fine.includes(exit.code)) return
  const said = new TextDecoder()
    .decode(stderr.length > 0 ? stderr : stdout)
    .trim()
    .split("\n")
    .slice(-3)
    .join(" ")
  return yield* new NoDisk({ problem: `\`${argv.join(" ")}\` ${describe(exit)}: ${said}` })
})

const look = <A>(what: string, promise: () => Promise<A>): Effect.Effect<A, NoDisk> =>
  Effect.tryPromise({ try: promise, catch: (cause) => new NoDisk({ problem: `${what}: ${String(cause)}` }) })

/** Makes an empty disk into one with the label; leaves any other alone. */
const format = Effect.fnUntraced(function* (device: string, label: string) {
  if (!(yield* look(`${device} cannot be read`, () => StateDisk.isEmpty(device)))) {
    return yield* new NoDisk({
      problem: `${device} is not empty and has no ext4 labelled "${label}"; it is left alone`
    })
  }
  yield* run(["mke2fs", "-q", "-t", "ext4", "-L", label, device], [0])
})

/** The device with the label, which may be about to appear. */
const find = (label: string, asked: boolean) =>
  look("disks cannot be listed", () => StateDisk.withLabel(label)).pipe(
    Effect.flatMap((found) =>
      found.length === 1 && found[0] !== undefined
        ? Effect.succeed(found[0])
        : new NoDisk({
            problem:
              found.length === 0
                ? `no disk has an ext4 labelled "${label}"`
                : `${found.join(" and ")} both have an ext4 labelled "${label}"; which one is it?`
          })
    ),
    Effect.tapError(() => Effect.sleep("100 millis")),
    Effect.retry({ times: asked ? tries : 0 })
  )

/** Which disk it is. */
export interface Wanted {
  /** Undefined: `ironwood-state`, where there is one. */
  readonly label: string | undefined
  /** The device that is made into that disk when it is empty. */
  readonly format: string | undefined
}

/** Finds, checks and mounts the disk. */
const mountDisk = Effect.fnUntraced(function* (directory: string, wanted: Wanted) {
  const processes = yield* Processes
  const label = wanted.label ?? "ironwood-state"
  if (wanted.format !== undefined && (yield* look("disks", () => StateDisk.withLabel(label))).length === 0) {
    yield* format(wanted.format, label)
  }
  const device = yield* find(label, wanted.label !== undefined)
  // 1: it mended something
  yield* run(["e2fsck", "-p", device], [0, 1])
  yield* processes
    .mount({ source: device, target: directory, type: "ext4", flags: MS_NODEV | MS_NOSUID })
    .pipe(Effect.mapError(({ message }) => new NoDisk({ problem: message })))
  return device
})

/** Why it is memory, for the brains that find it mounted. */
const problemFile = "/run/ironwood/state-problem"
const remembered = Effect.promise(() => readFile(problemFile, "utf8").catch(() => "no disk was found at its start"))

const prepare = Effect.fnUntraced(function* (
  directory: string,
  wanted: Wanted
): Effect.fn.Return<MachineState["Service"], MountFailed, Processes> {
  const there = yield* mountedOn(directory)
  if (there !== undefined) {
    return there === "tmpfs" ? { device: undefined, problem: yield* remembered } : { device: there, problem: "" }
  }
  const disk = yield* Effect.result(mountDisk(directory, wanted))
  if (disk._tag === "Success") return { device: disk.success, problem: "" }
  const processes = yield* Processes
  yield* processes.mount({
    source: "tmpfs",
    target: directory,
    type: "tmpfs",
    flags: MS_NODEV | MS_NOSUID,
    data: "mode=0700,size=50%"
  })
  const { problem } = disk.failure
  yield* Effect.promise(() => writeFile(problemFile, problem).catch(() => {}))
  return { device: undefined, problem }
})

/** Mounts what holds `directory`, unless it is. Fails only when not even memory can be had. */
export const layer = (directory: string, wanted: Wanted) => Layer.effect(MachineState, prepare(directory, wanted))

/** Of an Ironwood that is no machine's. */
export const none = Layer.succeed(MachineState, MachineState.of({ device: undefined, problem: "" }))

/** What was mounted by a brain before this one; nothing is done about it. Undefined where nothing was. */
export const found = (directory: string): Effect.Effect<MachineState["Service"] | undefined> =>
  Effect.map(mountedOn(directory), (there) =>
    there === undefined ? undefined : MachineState.of({ device: there === "tmpfs" ? undefined : there, problem: "" })
  )

/** Tells of it in the tree. */
export const stateStep = step(
  "state-disk",
  { description: "what keeps the state of this machine", deadline: "10 seconds" },
  Effect.map(MachineState, ({ device, problem }) =>
    device === undefined
      ? {
          facts: { device: "memory" },
          degraded: `nothing will last beyond the next restart of this machine: ${problem}`
        }
      : { facts: { device } }
  )
)
