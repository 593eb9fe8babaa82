/** What containers use, and their processes, on the wire. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/container_pb.ts"
import type { Pressure } from "../host/CgroupStats.ts"
import { Containers, type Stats } from "../runtime/Containers.ts"
import type { ListedProcess } from "../runtime/ProcessList.ts"
import { invalid } from "./Request.ts"
import { millisOf, timestamp, timestampOfNanos, uint32, wireMillis } from "./Time.ts"

const whole = (value: number): bigint => BigInt(Math.max(0, Math.trunc(value)))
const perhaps = (value: number | undefined) => (value === undefined ? undefined : whole(value))

const pressureToProto = (pressure: Pressure | undefined): MessageInitShape<typeof Proto.PressureSchema> | undefined =>
  pressure && {
    some: pressure.some10,
    full: pressure.full10,
    someMicros: whole(pressure.someTotal),
    fullMicros: whole(pressure.fullTotal)
  }

/** `before`: what was told last, for the rate. A container that began anew since has none. */
export const statsToProto = (
  stats: Stats,
  before: Stats | undefined
): MessageInitShape<typeof Proto.ContainerStatsSchema> => {
  const elapsed = before === undefined ? 0 : Number(stats.time - before.time)
  const used = before === undefined ? -1 : stats.cpuNanos - before.cpuNanos
  return {
    name: stats.name,
    time: timestampOfNanos(stats.time),
    cpuNanos: whole(stats.cpuNanos),
    cpus: elapsed > 0 && used >= 0 ? used / elapsed : undefined,
    throttledNanos: whole(stats.throttledNanos),
    memoryBytes: whole(stats.memoryBytes),
    workingSetBytes: whole(stats.workingSetBytes),
    memoryPeakBytes: perhaps(stats.memoryPeakBytes),
    memoryLimitBytes: perhaps(stats.memoryLimitBytes),
    readBytes: whole(stats.readBytes),
    writtenBytes: whole(stats.writtenBytes),
    reads: whole(stats.reads),
    writes: whole(stats.writes),
    pids: whole(stats.pids),
    pidsLimit: perhaps(stats.pidsLimit),
    cpuPressure: pressureToProto(stats.pressure.cpu),
    memoryPressure: pressureToProto(stats.pressure.memory),
    ioPressure: pressureToProto(stats.pressure.io)
  }
}

const leastInterval = 100

/** Answers one call for as long as it is read. */
export const streamStats = ({ interval, names, once }: Proto.StreamContainerStatsRequest) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const containers = yield* Containers
      const millis = interval === undefined ? 1_000 : millisOf(interval)
      if (!(millis >= leastInterval && millis <= 86_400_000)) {
        return yield* invalid("interval", "must be from 100ms to 24h")
      }
      let before = new Map<string, Stats>()
      const next = Effect.map(containers.stats(names), (found) => {
        const stats = found.map((one) => statsToProto(one, before.get(one.name)))
        before = new Map(found.map((one) => [one.name, one]))
        return { stats }
      })
      const first = Stream.fromEffect(next)
      const later = Stream.fromEffectRepeat(Effect.delay(next, Duration.millis(millis)))
      return once ? first : Stream.concat(first, later)
    })
  )

/** A process; `now`: when it was looked at. */
export const processToProto = (
  process: ListedProcess,
  now: number
): MessageInitShape<typeof Proto.ContainerProcessSchema> => ({
  pid: uint32(process.pid),
  innerPid: uint32(process.innerPid),
  parent: uint32(process.parent),
  uid: uint32(process.uid),
  state: process.state,
  cpuTime: wireMillis(process.cpuMillis),
  memoryBytes: whole(process.memoryBytes),
  startTime: timestamp(now - process.age),
  command: process.command.toWellFormed()
})

/** The processes of a container. */
export const top = Effect.fn("ContainerService.topContainer")(function* ({ name }: Proto.TopContainerRequest) {
  const found = yield* (yield* Containers).top(name)
  const now = yield* Clock.currentTimeMillis
  return { processes: found.map((process) => processToProto(process, now)) }
})
