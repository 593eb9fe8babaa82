/**
 * A QEMU that runs, made to the measure of its machine: processors (plugged into its empty places), memory (virtio-mem), the
 * balloon, the sizes and limits of its disks. Everything is looked at first: what is right already is left alone.
 *
 * Traps:
 * - Processors and memory are only offered: the guest takes them and gives them back, if it knows how and when it gets to it.
 * - The processors that a machine was started with cannot be taken out; nor the memory.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { type Control, ControlLost, DeviceKept } from "../Hypervisor.ts"
import type { Disk, Machine } from "../Machine.ts"
import * as Arguments from "./Arguments.ts"
import { isRefused, lost, type Qmp } from "./Qmp.ts"

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

const PERIPHERAL = "/machine/peripheral"
/** A processor that was plugged in. */
const PLUGGED = /^\/machine\/peripheral\/(cpu-[0-9-]+)$/

/** A guest is looked at as long as it may take. */
const patience = Schedule.spaced("200 millis").pipe(Schedule.upTo({ duration: FOLLOWING }))

/** Its place, as a name. */
const nameOf = ({ props }: Place): string =>
  `cpu-${["socket-id", "core-id", "thread-id"].map((key) => props[key] ?? 0).join("-")}`

const inOrder = (one: Place, other: Place): number => {
  for (const key of ["socket-id", "die-id", "core-id", "thread-id"]) {
    const difference = (one.props[key] ?? 0) - (other.props[key] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

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

  const places = Effect.mapError(
    Effect.catchIf(qmp.ask("query-hotpluggable-cpus", Places), isRefused, () => Effect.succeed<typeof Places.Type>([])),
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
      const sorted = all.toSorted(inOrder)
      const taken = sorted.filter((place) => place["qom-path"] !== undefined)
      if (taken.length < cpus) {
        const free = sorted.filter((place) => place["qom-path"] === undefined)
        if (free.length < cpus - taken.length) {
          return yield* new ControlLost({
            command: "device_add",
            detail: `it was started with places for ${all.length} processors`
          })
        }
        for (const place of free.slice(0, cpus - taken.length)) {
          yield* tell("device_add", { driver: place.type, id: nameOf(place), ...place.props })
        }
        return
      }
      const plugged = taken.flatMap((place) => PLUGGED.exec(place["qom-path"] ?? "")?.[1] ?? [])
      if (plugged.length < taken.length - cpus) {
        return yield* new ControlLost({
          command: "device_del",
          detail: `the ${taken.length - plugged.length} processors that it was started with stay until it is stopped`
        })
      }
      for (const id of plugged.toReversed().slice(0, taken.length - cpus)) yield* takeOut(id)
    })

  const device = `${PERIPHERAL}/${Arguments.MORE_MEMORY}-device`
  const property = (name: string) => qmp.ask("qom-get", Schema.Int, { arguments: { path: device, property: name } })

  const memory = ({ memoryBytes }: Machine) =>
    Effect.gen(function* () {
      const requested = yield* Effect.mapError(
        Effect.catchIf(Effect.asSome(property("requested-size")), isRefused, () => Effect.succeedNone),
        lost
      )
      const { "base-memory": base } = yield* Effect.mapError(qmp.ask("query-memory-size-summary", Memory), lost)
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
      if (requested.value !== wanted)
        yield* tell("qom-set", { path: device, property: "requested-size", value: wanted })
      const follows = Effect.mapError(property("size"), lost)
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
