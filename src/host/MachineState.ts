/**
 * Where a machine that boots into Ironwood keeps its state: the disk whose ext4 has the label of `ironwood.state`
 * (or, in the machine config, `state.label`), checked and mounted; an empty disk that `ironwood.state_format` (or
 * `state.format`) names is made into one. Without any it is memory, and what is in it ends
 * with the machine: the tree says so, and why.
 *
 * This is done before the database is opened, so it cannot be an actor; {@link stateStep} tells of it in the tree. A brain that is
 * not the first finds it mounted.
 *
 * Everything up to here holds up the API, and a disk may hang: each step has a deadline, and a disk that does not keep it is none.
 * It is mounted aside and moved, so that one that is mounted after all does not hide what the state has been kept in meanwhile.
 *
 * Trap: two disks with the same label are none: nobody can say which one is meant.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { describe } from "../taproot/ProcessExit.ts"
import { type MountFailed, Processes } from "../taproot/Processes.ts"
import { within } from "./Deadline.ts"
import * as StateDisk from "./StateDisk.ts"
import { step } from "./Step.ts"

const MS_NOSUID = 2n
const MS_NODEV = 4n
const MS_MOVE = 8192n

/** How long a disk that was asked for may take to be there. */
const tries = 50

/** The disk cannot be had, and why. */
class NoDisk extends Schema.TaggedError<NoDisk>()("NoDisk", { problem: Schema.String }) {
  override get message(): string {
    return this.problem
  }
}

/** Where it is looked, and for how long: another one in tests. */
export interface World {
  readonly disks: Pick<typeof StateDisk, "isEmpty" | "silentDisks" | "withLabel">
  readonly mounts: string
  /** What is kept here ends with the machine. */
  readonly runDirectory: string
  /** What a check, a format or a mount may take. */
  readonly patience: Duration.Input
}

const thisMachine: World = {
  disks: StateDisk,
  mounts: "/proc/self/mounts",
  runDirectory: "/run/ironwood",
  patience: "2 minutes"
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

const mountedOn = (directory: string, file: string): Effect.Effect<string | undefined> =>
  Effect.promise(async () => {
    const mounts = await readFile(file, "utf8")
    return mounts
      .split("\n")
      .map((line) => line.split(" "))
      .find(([, target]) => target === directory)?.[0]
  })

const lateAs =
  (what: string, { patience }: World) =>
  (): NoDisk =>
    new NoDisk({ problem: `${what} did not end within ${Duration.format(Duration.fromInputUnsafe(patience))}` })

/** Runs a program of e2fsprogs; its exit code must be one of `fine`. */
const run = Effect.fnUntraced(function* (
  argv: readonly [string, ...Array<string>],
  fine: ReadonlyArray<number>,
  world: World
) {
  const processes = yield* Processes
  const { exit, stderr, stdout } = yield* within(
    Effect.mapError(
      processes.run({ label: `state:${argv[0]}`, argv }),
      ({ message }) => new NoDisk({ problem: message })
    ),
    // stuck in the kernel it does not end by a signal either
    { duration: world.patience, orElse: lateAs(`\`${argv.join(" ")}\``, world) }
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
const format = Effect.fnUntraced(function* (device: string, label: string, world: World) {
  if (!(yield* look(`${device} cannot be read`, () => world.disks.isEmpty(device)))) {
    return yield* new NoDisk({
      problem: `${device} is not empty and has no ext4 labelled "${label}"; it is left alone`
    })
  }
  yield* run(["mke2fs", "-q", "-t", "ext4", "-L", label, device], [0], world)
})

/** The device with the label, which may be about to appear. */
const find = (label: string, asked: boolean, { disks }: World) =>
  look("disks cannot be listed", () => disks.withLabel(label)).pipe(
    Effect.flatMap((found) =>
      found.length === 1 && found[0] !== undefined
        ? Effect.succeed(found[0])
        : new NoDisk({
            problem:
              found.length === 0
                ? [
                    `no disk has an ext4 labelled "${label}"`,
                    ...disks.silentDisks().map((device) => `${device} does not answer`)
                  ].join("; ")
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

/** Mounts it aside, or not at all: what comes of it too late is taken back. */
const mountAside = Effect.fnUntraced(function* (device: string, world: World) {
  const processes = yield* Processes
  const target = join(world.runDirectory, "state-disk")
  yield* look(`making ${target}`, () => mkdir(target, { recursive: true, mode: 0o700 }))
  const mounted = processes
    .mount({ source: device, target, type: "ext4", flags: MS_NODEV | MS_NOSUID })
    .pipe(Effect.mapError(({ message }) => new NoDisk({ problem: message })))
  yield* within(
    Effect.onInterrupt(Effect.uninterruptible(mounted), () => Effect.ignore(processes.unmount(target))),
    { duration: world.patience, orElse: lateAs(`mounting ${device}`, world) }
  )
  return target
})

/** Finds, checks and mounts the disk. */
const mountDisk = Effect.fnUntraced(function* (directory: string, wanted: Wanted, world: World) {
  const processes = yield* Processes
  const label = wanted.label ?? "ironwood-state"
  if (wanted.format !== undefined && (yield* look("disks", () => world.disks.withLabel(label))).length === 0) {
    yield* format(wanted.format, label, world)
  }
  const device = yield* find(label, wanted.label !== undefined, world)
  // 1: it mended something
  yield* run(["e2fsck", "-p", device], [0, 1], world)
  const source = yield* mountAside(device, world)
  yield* processes
    .mount({ source, target: directory, type: "", flags: MS_MOVE })
    .pipe(Effect.mapError(({ message }) => new NoDisk({ problem: message })))
  return device
})

/** Why it is memory, for the brains that find it mounted. */
const problemFile = ({ runDirectory }: World): string => join(runDirectory, "state-problem")
const remembered = (world: World) =>
  Effect.promise(() => readFile(problemFile(world), "utf8").catch(() => "no disk was found at its start"))

const prepare = Effect.fnUntraced(function* (
  directory: string,
  wanted: Wanted,
  world: World
): Effect.fn.Return<MachineState["Service"], MountFailed, Processes> {
  const there = yield* mountedOn(directory, world.mounts)
  if (there !== undefined) {
    return there === "tmpfs" ? { device: undefined, problem: yield* remembered(world) } : { device: there, problem: "" }
  }
  const disk = yield* Effect.result(mountDisk(directory, wanted, world))
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
  yield* Effect.promise(() => writeFile(problemFile(world), problem).catch(() => {}))
  return { device: undefined, problem }
})

/** Mounts what holds `directory`, unless it is. Fails only when not even memory can be had. */
export const layer = (directory: string, wanted: Wanted, world = thisMachine) =>
  Layer.effect(MachineState, prepare(directory, wanted, world))

/** Of an Ironwood that is no machine's. */
export const none = Layer.succeed(MachineState, MachineState.of({ device: undefined, problem: "" }))

/** What was mounted by a brain before this one; nothing is done about it. Undefined where nothing was. */
export const found = (directory: string): Effect.Effect<MachineState["Service"] | undefined> =>
  Effect.map(mountedOn(directory, thisMachine.mounts), (there) =>
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
