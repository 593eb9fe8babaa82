/**
 * The drivers of hypervisors, and which of them makes a machine: the one that was asked for by name, or the first that works on
 * this host and can do what the machine wants ({@link choosing}).
 *
 * Which one made a life is remembered in the machine's directory, so that whoever meets its process later takes hold of it by the
 * same driver.
 *
 * Trap: a machine that names no driver may have another one in its next life: when one was installed, or ceased to work. Who
 * cares, names it.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { ProcessExit } from "../taproot/ProcessExit.ts"
import type { Process, SpawnRefused } from "../taproot/Processes.ts"
import {
  type Capabilities,
  type Control,
  ControlLost,
  type DriverFacts,
  DriverName,
  type GuestState,
  type Hypervisor,
  HypervisorMissing,
  type LaunchRequest,
  PlaceFailed,
  type Refusal,
  type Wanted
} from "./Hypervisor.ts"
import type { Machine } from "./Machine.ts"

/** What one program can do, and how it is done. */
export interface Driver {
  readonly name: DriverName
  /** Found once, and looked for again while there is a problem. */
  readonly facts: Effect.Effect<DriverFacts>
  /** What the machine wants and this driver cannot, wherever it runs. */
  readonly refusals: (machine: Machine) => ReadonlyArray<Refusal>
  /** As `Hypervisor.launch`. */
  readonly launch: (request: LaunchRequest) => Effect.Effect<Process, HypervisorMissing | PlaceFailed | SpawnRefused>
  /** As `Hypervisor.control`. */
  readonly control: (directory: string, process: Process) => Effect.Effect<Control, ControlLost, Scope.Scope>
  /** As `Hypervisor.endOf`; without: its process never ends with its guest. */
  readonly endOf?: (directory: string, exit: ProcessExit) => Effect.Effect<Option.Option<GuestState>>
  /** As `Hypervisor.release`; without: there is nothing. */
  readonly release?: (directory: string, cgroup: string) => Effect.Effect<void>
}

/** The capabilities of a driver whose machines keep the shape that they were started with, which is a plain one. */
export const plainShape = {
  secureBoot: [],
  growth: [],
  diskSizes: false,
  diskLimits: false,
  balloonTarget: false,
  topology: false,
  hugepages: false,
  ignition: false,
  passthrough: []
} as const satisfies Partial<Capabilities>

/** Of a driver into whose machines nothing can be plugged; what asks for it was refused before. */
export const noHotPlug = (
  title: string
): Pick<Control, "devices" | "attachDisk" | "attachNic" | "insertDisk" | "detach" | "shape"> => {
  const refused = (command: string) =>
    new ControlLost({ command, detail: `${title} takes no device while its machine runs` })
  return {
    devices: Effect.undefined,
    attachDisk: () => Effect.fail(refused("attach-disk")),
    attachNic: () => Effect.fail(refused("attach-nic")),
    shape: () => Effect.void,
    insertDisk: () => Effect.fail(refused("insert-disk")),
    detach: () => Effect.fail(refused("detach"))
  }
}

/** Where it is remembered which driver made the life in a directory. */
const RECORD = "hypervisor"

const remember = (directory: string, name: DriverName) =>
  Effect.tryPromise({
    try: async () => {
      await fs.mkdir(directory, { recursive: true, mode: 0o700 })
      await fs.writeFile(join(directory, RECORD), name, { mode: 0o600 })
    },
    catch: (error) => new PlaceFailed({ detail: String(error) })
  })

/** Lives of before there was more than one driver have no record. */
const remembered = (directory: string): Effect.Effect<DriverName> =>
  Effect.tryPromise(() => fs.readFile(join(directory, RECORD), "utf8")).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(DriverName)),
    Effect.orElseSucceed((): DriverName => "qemu")
  )

/** Chooses among these, the first being asked first. */
export const choosing = (drivers: readonly [Driver, ...Array<Driver>]): Hypervisor["Service"] => {
  const [first] = drivers
  const named = (name: DriverName): Driver | undefined => drivers.find((driver) => driver.name === name)
  const facts = Effect.forEach(drivers, (driver) => driver.facts, { concurrency: "unbounded" })

  const missing = (found: ReadonlyArray<DriverFacts>) =>
    new HypervisorMissing({ detail: found.map(({ problem }) => problem).join("; ") })

  /** Who else could do what `refused` says, in words. */
  const others = (driver: Driver, machine: Machine, { field }: Refusal, found: ReadonlyArray<DriverFacts>): string => {
    const able = drivers.filter(
      (other) => other !== driver && !other.refusals(machine).some((refusal) => refusal.field === field)
    )
    if (able.length === 0) return ""
    const words = able.map(({ name }) => {
      const problem = found.find((one) => one.name === name)?.problem
      return problem === undefined ? name : `${name} (here: ${problem})`
    })
    return `; ${words.join(" or ")} could`
  }

  /** The driver for a machine, or all that is against it. */
  const choose = Effect.fnUntraced(function* (
    machine: Machine,
    wanted: Wanted
  ): Effect.fn.Return<Driver, ReadonlyArray<Refusal>> {
    const found = yield* facts
    const problemOf = (driver: Driver) => found.find(({ name }) => name === driver.name)?.problem
    const refused = (driver: Driver, refusals: ReadonlyArray<Refusal>) =>
      refusals.map((refusal) => ({
        field: refusal.field,
        problem: `${refusal.problem}${others(driver, machine, refusal, found)}`
      }))
    if (wanted !== "auto") {
      const driver = named(wanted)
      if (driver === undefined) return yield* Effect.fail([{ field: "hypervisor", problem: `there is no ${wanted}` }])
      const problem = problemOf(driver)
      const all = [
        ...(problem === undefined
          ? []
          : [{ field: "hypervisor", problem: `${wanted} does not work here: ${problem}` }]),
        ...refused(driver, driver.refusals(machine))
      ]
      return all.length === 0 ? driver : yield* Effect.fail(all)
    }
    const working = drivers.filter((driver) => problemOf(driver) === undefined)
    const able = working.find((driver) => driver.refusals(machine).length === 0)
    if (able !== undefined) return able
    const [spokesman = first] = working
    return yield* Effect.fail(refused(spokesman, spokesman.refusals(machine)))
  })

  return {
    facts,
    refusals: (machine, wanted = "auto") =>
      Effect.map(Effect.result(choose(machine, wanted)), (chosen) => (Result.isFailure(chosen) ? chosen.failure : [])),
    launch: Effect.fn("Hypervisor.launch")(function* (request) {
      const chosen = yield* Effect.result(choose(request.machine, request.hypervisor ?? "auto"))
      if (Result.isFailure(chosen)) {
        const words = chosen.failure.map(({ field, problem }) => `${field}: ${problem}`).join("; ")
        if (words === "") return yield* missing(yield* facts)
        return yield* new HypervisorMissing({ detail: words, particular: true })
      }
      yield* remember(request.place.directory, chosen.success.name)
      return yield* chosen.success.launch(request)
    }),
    control: Effect.fn("Hypervisor.control")(function* (directory, process) {
      const name = yield* remembered(directory)
      const driver = named(name)
      if (driver === undefined) return yield* new ControlLost({ command: "connect", detail: `there is no ${name}` })
      return yield* driver.control(directory, process)
    }),
    driverOf: remembered,
    endOf: (directory, exit) =>
      Effect.flatMap(remembered(directory), (name) => named(name)?.endOf?.(directory, exit) ?? Effect.succeedNone),
    release: (directory, cgroup) =>
      Effect.flatMap(remembered(directory), (name) => named(name)?.release?.(directory, cgroup) ?? Effect.void)
  }
}
