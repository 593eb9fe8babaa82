/**
 * A Cloud Hypervisor that runs, made to the measure of its machine: processors, memory (virtio-mem), the balloon, the sizes of its
 * disks. What is right already is left alone.
 *
 * Traps:
 * - Processors and memory are only offered. That the guest has given up its processors is found out by asking for the same again:
 *   until then the answer is 429. How much of the memory it has taken or given back nobody tells.
 * - Memory below what it was started with it passes over without a word: that is refused here.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as fs from "node:fs/promises"
import * as Disks from "../Disks.ts"
import { type Control, ControlLost, DeviceKept } from "../Hypervisor.ts"
import type { Disk, Machine } from "../Machine.ts"
import * as RestSocket from "../RestSocket.ts"
import { VmInfo, type VmResize } from "./Api.ts"
import * as Config from "./Config.ts"

/** How long a guest may take. */
const FOLLOWING = "20 seconds"
const patience = Schedule.spaced("200 millis").pipe(Schedule.upTo({ duration: FOLLOWING }))

const MIB = 1024 * 1024
/** The status of an answer that says that processors are on their way out. */
const PENDING = 429

const lost = (command: string) => (detail: string) => new ControlLost({ command, detail })
const inMib = (bytes: number): number => Math.round(bytes / MIB)

/** A disk of a machine that is not started yet grows where it is. */
export const growFile = ({ file, format, sizeBytes = 0 }: Disk) =>
  Effect.gen(function* () {
    const present = yield* Effect.mapError(Disks.sizeOf({ path: file, format }), lost("resize-disk"))
    if (present >= sizeBytes) return
    yield* Effect.tryPromise({ try: () => fs.truncate(file, sizeBytes), catch: String }).pipe(
      Effect.mapError(lost("resize-disk"))
    )
  })

export const make = (api: RestSocket.RestSocket): Control["shape"] => {
  const resize = (body: typeof VmResize.Type) => api.send("PUT", "/vm.resize", { body })
  const tell = (body: typeof VmResize.Type) => Effect.mapError(resize(body), RestSocket.lost)

  const disks = (machine: Machine, { state }: VmInfo) =>
    Effect.forEach(
      machine.disks,
      (disk) =>
        Effect.gen(function* () {
          const { file, format, id, sizeBytes } = disk
          if (sizeBytes === undefined) return
          if (state === "Created") return yield* growFile(disk)
          const present = yield* Effect.mapError(Disks.sizeOf({ path: file, format }), lost("resize-disk"))
          if (present >= sizeBytes) return
          const body = { id, desired_size: sizeBytes }
          yield* Effect.mapError(api.send("PUT", "/vm.resize-disk", { body }), RestSocket.lost)
        }),
      { discard: true }
    )

  const processors = ({ cpus }: Machine, { config }: VmInfo) =>
    Effect.gen(function* () {
      const { boot_vcpus: present, max_vcpus: most } = config.cpus
      if (cpus === present) return
      if (cpus > most) return yield* lost("resize")(`it was started with places for ${most} processors`)
      const asked = resize({ desired_vcpus: cpus })
      yield* Effect.mapError(asked, RestSocket.lost)
      if (cpus > present) return
      yield* asked.pipe(
        Effect.mapError((error) =>
          error.status === PENDING
            ? new DeviceKept({ id: "its processors", detail: `it has not within ${FOLLOWING}` })
            : RestSocket.lost(error)
        ),
        Effect.retry({ while: ({ _tag }) => _tag === "DeviceKept", schedule: patience })
      )
    })

  const memory = ({ memoryBytes }: Machine, { config }: VmInfo) =>
    Effect.gen(function* () {
      const { hotplug_size: room, hotplugged_size: plugged, size: base } = config.memory
      if (Math.abs(memoryBytes - base - (plugged ?? 0)) < MIB) return
      if (memoryBytes < base) {
        return yield* lost("resize")(`the ${inMib(base)} MiB that it was started with stay until it is stopped`)
      }
      if (memoryBytes > base + (room ?? 0)) {
        return yield* lost("resize")(
          `it was started with room for ${inMib(base + (room ?? 0))} MiB until it is stopped`
        )
      }
      yield* tell({ desired_ram: memoryBytes })
    })

  const balloon = (machine: Machine, { config }: VmInfo) => {
    const wanted = Config.balloonOf(machine)
    const present = config.balloon?.size
    return present === undefined || present === wanted ? Effect.void : tell({ desired_balloon: wanted })
  }

  return (machine) =>
    Effect.gen(function* () {
      const info = yield* Effect.mapError(api.ask("/vm.info", VmInfo), RestSocket.lost)
      yield* disks(machine, info)
      // one that is not started yet was made so
      if (info.state === "Created") return
      yield* processors(machine, info)
      yield* memory(machine, info)
      yield* balloon(machine, info)
    })
}
