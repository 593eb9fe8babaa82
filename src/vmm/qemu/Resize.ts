/**
 * A QEMU that runs, made to the measure of its machine: processors (plugged into its empty places), memory (virtio-mem), the
 * balloon, the sizes and limits of its disks. Everything is looked at first: what is right already is left alone.
 *
 * Traps:
 * - Processors and memory are only offered: the guest takes them and gives them back, if it knows how and when it gets to it.
 * - QEMU 7.2 goes on using what it has freed of an emulated processor that was taken out: it crashes then, or when the next one is
 *   plugged in. So those stay.
 * - The processors that a machine was started with cannot be taken out; nor the memory. So a machine that takes another one's
 *   memory ({@link grown}) is started with as much as that one was, and the rest is plugged in.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { type Control, ControlLost, DeviceKept, type Model } from "../Hypervisor.ts"
import type { Disk, Machine } from "../Machine.ts"
import * as ShapeArguments from "./ShapeArguments.ts"
import { isRefused, lost, type Qmp, type QmpFailed } from "./Qmp.ts"

/** How long a guest may take. */
const FOLLOWING = "20 seconds"

const MIB = 1024 * 1024

const Places = Schema.Array(
  Schema.Struct({
    type: Schema.String,
    props: Schema.Record(Schema.String, Schema.Int),
    "qom-path": Schema.optionalKey(Schema.String)
  })
)
type Place = (typeof Places.Type)[number]

const Nodes = Schema.Array(
  Schema.Struct({
    "node-name": Schema.String,
    image: Schema.Struct({ "virtual-size": Schema.Int })
  })
)

const Memory = Schema.Struct({ "base-memory": Schema.Int })
const Balloon = Schema.Struct({ actual: Schema.Int })
const Kvm = Schema.Struct({ enabled: Schema.Boolean })

const PERIPHERAL = "/machine/peripheral"
/** A processor that was plugged in. */
const PLUGGED = /^\/machine\/peripheral\/(cpu-[0-9-]+)$/

/** A guest is looked at as long as it may take. */
const patience = Schedule.spaced("200 millis").pipe(Schedule.upTo({ duration: FOLLOWING }))

const inOrder = (one: Place, other: Place): number => {
  for (const key of ["socket-id", "die-id", "core-id", "thread-id"]) {
    const difference = (one.props[key] ?? 0) - (other.props[key] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

/** Places for processors, taken and free, in the order in which they are taken; none: it is a machine that has no others. */
const placesOf = (qmp: Qmp) =>
  Effect.map(
    Effect.catchIf(qmp.ask("query-hotpluggable-cpus", Places), isRefused, () => Effect.succeed<typeof Places.Type>([])),
    (found) => found.toSorted(inOrder)
  )

const isTaken = (place: Place): boolean => place["qom-path"] !== undefined
const pluggedName = (place: Place): string | undefined => PLUGGED.exec(place["qom-path"] ?? "")?.[1]

const more = `${PERIPHERAL}/${ShapeArguments.MORE_MEMORY}-device`
const moreMemory = (qmp: Qmp, property: "requested-size" | "size") =>
  qmp.ask("qom-get", Schema.Int, { arguments: { path: more, property } })

/** How much is wanted of the memory that it can get while it runs; nothing: it has no room for any. */
const requestedMemory = (qmp: Qmp) =>
  Effect.catchIf(Effect.asSome(moreMemory(qmp, "requested-size")), isRefused, () => Effect.succeedNone)

const baseMemory = (qmp: Qmp) =>
  Effect.map(qmp.ask("query-memory-size-summary", Memory), (found) => found["base-memory"])

/** What a machine was started with, and the processors that came later. */
export const grown = (qmp: Qmp) =>
  Effect.gen(function* (): Effect.fn.Return<Pick<Model, "cpus" | "plugged" | "memoryBytes">, QmpFailed> {
    const taken = (yield* placesOf(qmp)).filter(isTaken)
    const later = taken.filter((place) => pluggedName(place) !== undefined)
    const hasRoom = Option.isSome(yield* requestedMemory(qmp))
    return {
      ...(taken.length === 0 ? {} : { cpus: taken.length - later.length }),
      ...(later.length === 0 ? {} : { plugged: later.map(({ props, type }) => ({ driver: type, place: props })) }),
      ...(hasRoom ? { memoryBytes: yield* baseMemory(qmp) } : {})
    }
  })

export const make = (qmp: Qmp): Control["shape"] => {
  const tell = (command: string, words: Readonly<Record<string, unknown>>) =>
    Effect.asVoid(Effect.mapError(qmp.execute(command, { arguments: words }), lost))

  const growDisk = (nodes: typeof Nodes.Type, { id, sizeBytes = 0 }: Disk) => {
    const present = nodes.find((node) => node["node-name"] === id)?.image["virtual-size"]
    return present === undefined || present >= sizeBytes
      ? Effect.void
      : tell("block_resize", { "node-name": id, size: sizeBytes })
  }

  /** On PCI it is the device within that has the disk. */
  const limitDisk = ({ id, limits }: Disk) => {
    if (limits === undefined) return Effect.void
    const at = (device: string) =>
      qmp.execute("block_set_io_throttle", {
        arguments: {
          id: device,
          bps: limits.bytes ?? 0,
          bps_rd: 0,
          bps_wr: 0,
          iops: limits.operations ?? 0,
          iops_rd: 0,
          iops_wr: 0
        }
      })
    const inside = at(`${PERIPHERAL}/${id}-device/virtio-backend`)
    return Effect.asVoid(
      Effect.mapError(
        Effect.catchIf(inside, isRefused, () => at(`${id}-device`)),
        lost
      )
    )
  }

  const disks = (machine: Machine) =>
    Effect.gen(function* () {
      if (machine.disks.some(({ sizeBytes }) => sizeBytes !== undefined)) {
        const nodes = yield* Effect.mapError(
          qmp.ask("query-named-block-nodes", Nodes, { arguments: { flat: true } }),
          lost
        )
        for (const disk of machine.disks) yield* growDisk(nodes, disk)
      }
      for (const disk of machine.disks) yield* limitDisk(disk)
    })

  const places = Effect.mapError(placesOf(qmp), lost)

  const isEmulated = Effect.mapError(
    Effect.map(qmp.ask("query-kvm", Kvm), ({ enabled }) => !enabled),
    lost
  )

  /** Has the guest give one up. That it is gone no event says under emulation: it is looked for. */
  const takeOut = (id: string) =>
    Effect.gen(function* () {
      yield* tell("device_del", { id })
      yield* places.pipe(
        Effect.filterOrFail(
          (found) => !found.some((place) => place["qom-path"] === `${PERIPHERAL}/${id}`),
          () => new DeviceKept({ id: "its processors", detail: `it has not within ${FOLLOWING}` })
        ),
        Effect.retry({ while: ({ _tag }) => _tag === "DeviceKept", schedule: patience })
      )
    })

  const processors = ({ cpus }: Machine) =>
    Effect.gen(function* () {
      const all = yield* places
      if (all.length === 0) return
      const taken = all.filter(isTaken)
      if (taken.length < cpus) {
        const free = all.filter((place) => !isTaken(place))
        if (free.length < cpus - taken.length) {
          return yield* new ControlLost({
            command: "device_add",
            detail: `it was started with places for ${all.length} processors`
          })
        }
        for (const place of free.slice(0, cpus - taken.length)) {
          yield* tell("device_add", ShapeArguments.processorDevice({ driver: place.type, place: place.props }))
        }
        return
      }
      const plugged = taken.flatMap((place) => pluggedName(place) ?? [])
      if (plugged.length < taken.length - cpus) {
        return yield* new ControlLost({
          command: "device_del",
          detail: `the ${taken.length - plugged.length} processors that it was started with stay until it is stopped`
        })
      }
      const leaving = plugged.toReversed().slice(0, taken.length - cpus)
      if (leaving.length > 0 && (yield* isEmulated)) {
        return yield* new ControlLost({
          command: "device_del",
          detail: "a machine that is emulated keeps its processors until it is stopped: QEMU would crash"
        })
      }
      for (const id of leaving) yield* takeOut(id)
    })

  const memory = ({ memoryBytes }: Machine) =>
    Effect.gen(function* () {
      const requested = yield* Effect.mapError(requestedMemory(qmp), lost)
      const base = yield* Effect.mapError(baseMemory(qmp), lost)
      if (Option.isNone(requested)) {
        if (Math.abs(memoryBytes - base) < MIB) return
        return yield* new ControlLost({
          command: "qom-set",
          detail: `it was started with ${Math.round(base / MIB)} MiB, and cannot have more or less until it is stopped`
        })
      }
      const wanted = memoryBytes - base
      if (wanted < 0) {
        return yield* new ControlLost({
          command: "qom-set",
          detail: `the ${Math.round(base / MIB)} MiB that it was started with stay until it is stopped`
        })
      }
      if (requested.value !== wanted) yield* tell("qom-set", { path: more, property: "requested-size", value: wanted })
      const follows = Effect.mapError(moreMemory(qmp, "size"), lost)
      const had = yield* follows
      if (had === wanted) return
      yield* follows.pipe(
        Effect.filterOrFail(
          (has) => has === wanted,
          (has) =>
            new DeviceKept({
              id: "its memory",
              detail: `it has ${Math.round((base + has) / MIB)} of ${Math.round(memoryBytes / MIB)} MiB after ${FOLLOWING}`
            })
        ),
        Effect.retry({
          while: ({ _tag }) => _tag === "DeviceKept",
          schedule: patience
        })
      )
    })

  const balloon = ({ balloonBytes }: Machine) =>
    Effect.gen(function* () {
      if (balloonBytes === undefined) return
      const { actual } = yield* Effect.mapError(qmp.ask("query-balloon", Balloon), lost)
      if (actual !== balloonBytes) yield* tell("balloon", { value: balloonBytes })
    })

  return (machine) =>
    Effect.gen(function* () {
      yield* disks(machine)
      yield* balloon(machine)
      yield* processors(machine)
      yield* memory(machine)
    })
}
