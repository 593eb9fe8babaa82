/**
 * What a container has used and may use, read from its cgroup: the same figures on v1, hybrid and v2, as far as the kernel has
 * them. Pure reading of texts is apart from the reading of files, so that every layout is tested everywhere.
 *
 * Traps: memory that "is used" includes the cache of files, which the kernel gives back when it needs to; `workingSet` is without
 * what it would give back first. Pressure is on v2 only. A limit near 2^63 is none.
 */
import * as Effect from "effect/Effect"
import { type CgroupLayout, hierarchyOf } from "./CgroupLayout.ts"
import { type SystemFiles, textOf } from "./SystemFiles.ts"

/** How much of the time somebody waited for it, in percent of the last 10 s, and in microseconds in all. */
export interface Pressure {
  readonly some10: number
  readonly full10: number
  readonly someTotal: number
  readonly fullTotal: number
}

export interface CgroupStats {
  /** Processor time in nanoseconds since the container's start. */
  readonly cpuNanos: number
  /** Time in nanoseconds that it was held back by its own limit. */
  readonly throttledNanos: number
  readonly memoryBytes: number
  /** Memory without the file cache that goes first. */
  readonly workingSetBytes: number
  readonly memoryPeakBytes: number | undefined
  readonly memoryLimitBytes: number | undefined
  readonly readBytes: number
  readonly writtenBytes: number
  readonly reads: number
  readonly writes: number
  readonly pids: number
  readonly pidsLimit: number | undefined
  readonly pressure: {
    readonly cpu: Pressure | undefined
    readonly memory: Pressure | undefined
    readonly io: Pressure | undefined
  }
}

/** The text of a file of a controller; empty when there is none. */
export type Read = (controller: string, file: string) => string

const numberIn = (text: string): number => {
  const value = Number(text.trim())
  return Number.isFinite(value) ? value : 0
}

/** A limit; undefined: none. */
const limitIn = (text: string): number | undefined => {
  const value = Number(text.trim() || "max")
  return Number.isFinite(value) && value < 2 ** 62 ? value : undefined
}

/** The value of `key` in lines of `key value`. */
const keyed = (text: string, key: string): number =>
  numberIn(
    text
      .split("\n")
      .find((line) => line.startsWith(`${key} `))
      ?.slice(key.length + 1) ?? ""
  )

const pressureIn = (text: string): Pressure | undefined => {
  const line = (kind: string) => {
    const match = new RegExp(`^${kind} avg10=([\\d.]+) .* total=(\\d+)$`, "m").exec(text)
    return { avg10: Number(match?.[1] ?? 0), total: Number(match?.[2] ?? 0) }
  }
  if (!text.includes("avg10=")) return undefined
  const [some, full] = [line("some"), line("full")]
  return { some10: some.avg10, full10: full.avg10, someTotal: some.total, fullTotal: full.total }
}

/** Sums over devices: v2 has `8:0 rbytes=1 wbytes=2 …`, v1 `8:0 Read 1`. */
const sumV2 = (text: string, key: string): number =>
  [...text.matchAll(new RegExp(`\\b${key}=(\\d+)`, "g"))].reduce((sum, match) => sum + Number(match[1]), 0)
const sumV1 = (text: string, operation: string): number =>
  [...text.matchAll(new RegExp(`^\\S+ ${operation} (\\d+)$`, "gm"))].reduce((sum, match) => sum + Number(match[1]), 0)

/** The figures of cgroup2. */
export const ofV2 = (read: Read): CgroupStats => {
  const [cpu, memory, io] = [read("cpu", "cpu.stat"), read("memory", "memory.stat"), read("io", "io.stat")]
  const memoryBytes = numberIn(read("memory", "memory.current"))
  const peak = read("memory", "memory.peak")
  return {
    cpuNanos: keyed(cpu, "usage_usec") * 1_000,
    throttledNanos: keyed(cpu, "throttled_usec") * 1_000,
    memoryBytes,
    workingSetBytes: Math.max(0, memoryBytes - keyed(memory, "inactive_file")),
    memoryPeakBytes: peak === "" ? undefined : numberIn(peak),
    memoryLimitBytes: limitIn(read("memory", "memory.max")),
    readBytes: sumV2(io, "rbytes"),
    writtenBytes: sumV2(io, "wbytes"),
    reads: sumV2(io, "rios"),
    writes: sumV2(io, "wios"),
    pids: numberIn(read("pids", "pids.current")),
    pidsLimit: limitIn(read("pids", "pids.max")),
    pressure: {
      cpu: pressureIn(read("cpu", "cpu.pressure")),
      memory: pressureIn(read("memory", "memory.pressure")),
      io: pressureIn(read("io", "io.pressure"))
    }
  }
}

/** The figures of cgroup v1. */
export const ofV1 = (read: Read): CgroupStats => {
  const stat = read("memory", "memory.stat")
  const memoryBytes = numberIn(read("memory", "memory.usage_in_bytes"))
  const bytes = read("blkio", "blkio.throttle.io_service_bytes_recursive")
  const operations = read("blkio", "blkio.throttle.io_serviced_recursive")
  const peak = read("memory", "memory.max_usage_in_bytes")
  return {
    cpuNanos: numberIn(read("cpuacct", "cpuacct.usage")),
    throttledNanos: keyed(read("cpu", "cpu.stat"), "throttled_time"),
    memoryBytes,
    workingSetBytes: Math.max(0, memoryBytes - keyed(stat, "total_inactive_file")),
    memoryPeakBytes: peak === "" ? undefined : numberIn(peak),
    memoryLimitBytes: limitIn(read("memory", "memory.limit_in_bytes")),
    readBytes: sumV1(bytes, "Read"),
    writtenBytes: sumV1(bytes, "Write"),
    reads: sumV1(operations, "Read"),
    writes: sumV1(operations, "Write"),
    pids: numberIn(read("pids", "pids.current")),
    pidsLimit: limitIn(read("pids", "pids.max")),
    pressure: { cpu: undefined, memory: undefined, io: undefined }
  }
}

const filesV1 = [
  ["cpuacct", "cpuacct.usage"],
  ["cpu", "cpu.stat"],
  ["memory", "memory.stat"],
  ["memory", "memory.usage_in_bytes"],
  ["memory", "memory.max_usage_in_bytes"],
  ["memory", "memory.limit_in_bytes"],
  ["blkio", "blkio.throttle.io_service_bytes_recursive"],
  ["blkio", "blkio.throttle.io_serviced_recursive"],
  ["pids", "pids.current"],
  ["pids", "pids.max"]
] as const

const filesV2 = [
  ["cpu", "cpu.stat"],
  ["cpu", "cpu.pressure"],
  ["memory", "memory.stat"],
  ["memory", "memory.current"],
  ["memory", "memory.peak"],
  ["memory", "memory.max"],
  ["memory", "memory.pressure"],
  ["io", "io.stat"],
  ["io", "io.pressure"],
  ["pids", "pids.current"],
  ["pids", "pids.max"]
] as const

/** Reads the figures of a cgroup; zeros where it has gone. */
export const read = (files: SystemFiles, layout: CgroupLayout, path: string): Effect.Effect<CgroupStats> =>
  Effect.gen(function* () {
    const isV2 = layout.kind === "v2"
    const texts = yield* Effect.forEach(
      isV2 ? filesV2 : filesV1,
      ([controller, file]): Effect.Effect<readonly [string, string]> => {
        const hierarchy = hierarchyOf(layout, controller)
        if (hierarchy === undefined) return Effect.succeed(["", ""] as const)
        return textOf(files, `${hierarchy.mountPoint}${path}/${file}`).pipe(
          Effect.orElseSucceed(() => ""),
          Effect.map((text) => [file, text] as const)
        )
      },
      { concurrency: "unbounded" }
    )
    const found = new Map<string, string>(texts)
    return (isV2 ? ofV2 : ofV1)((_, file) => found.get(file) ?? "")
  })
