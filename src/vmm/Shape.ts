/**
 * The shape of a machine beyond how many processors and how much memory it starts with: how far both may grow while it runs, how
 * they are laid out, what its memory is made of. Schemas for `VmSpec`, and what is wrong with them together.
 */
import * as Schema from "effect/Schema"
import * as fs from "node:fs/promises"
import type { FieldProblem } from "../storage/StateErrors.ts"

const MIB = 1024 * 1024

const few = (most: number) =>
  Schema.Int.pipe(
    Schema.check(Schema.isBetween({ minimum: 1, maximum: most }, { expected: `a number from 1 to ${most}` }))
  )

/** How the guest sees its processors; the product is how many it can have. */
export const Topology = Schema.Struct({
  sockets: few(64),
  /** Of one socket. */
  cores: few(255),
  /** Of one core. */
  threads: few(8),
  /** Nodes of memory, each with the processors of as many sockets. */
  numaNodes: few(8)
})
export type Topology = typeof Topology.Type

export const hugepageSizes = { "2MiB": 2 * MIB, "1GiB": 1024 * MIB } as const
export const Hugepages = Schema.Literals(["none", "2MiB", "1GiB"])
export type Hugepages = typeof Hugepages.Type

/** What a disk may do at most, in a second; what is left out is not bounded. */
export const DiskLimits = Schema.Struct({
  operations: Schema.optionalKey(few(10_000_000)),
  bytes: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(
        Schema.isBetween({ minimum: 4096, maximum: 2 ** 40 }, { expected: "a number of bytes from 4096 to 2^40" })
      )
    )
  )
})
export type DiskLimits = typeof DiskLimits.Type

export interface Shaped {
  readonly cpus: number
  readonly maxCpus?: number
  readonly memoryBytes: number
  readonly maxMemoryBytes?: number
  readonly balloon: boolean
  readonly balloonBytes?: number
  readonly topology?: Topology
  readonly hugepages: Hugepages
}

/** In such steps memory comes and goes while a machine runs. */
const MEMORY_STEP = 2 * MIB

/** What is wrong with fields that are right one by one. */
export const problemsOf = (spec: Shaped): ReadonlyArray<FieldProblem> => {
  const { balloonBytes, cpus, hugepages, maxCpus = cpus, maxMemoryBytes, memoryBytes, topology } = spec
  const nodes = topology?.numaNodes ?? 1
  const step = maxMemoryBytes === undefined ? MIB : MEMORY_STEP
  const page = hugepages === "none" ? step : Math.max(step, hugepageSizes[hugepages])
  const wrong: ReadonlyArray<readonly [boolean, string, string]> = [
    [maxCpus < cpus, "maxCpus", "must not be less than cpus"],
    [
      topology !== undefined && topology.sockets * topology.cores * topology.threads !== maxCpus,
      "topology",
      `has places for ${topology === undefined ? 0 : topology.sockets * topology.cores * topology.threads} processors, and the machine has ${maxCpus}`
    ],
    [topology !== undefined && topology.sockets % nodes !== 0, "topology.numaNodes", "must divide the sockets"],
    [
      (maxMemoryBytes !== undefined || hugepages !== "none" || nodes > 1) && memoryBytes % (page * nodes) !== 0,
      "memoryBytes",
      `must be a multiple of ${(page * nodes) / MIB} MiB`
    ],
    [
      maxMemoryBytes !== undefined && (maxMemoryBytes < memoryBytes || maxMemoryBytes % page !== 0),
      "maxMemoryBytes",
      `must be a multiple of ${page / MIB} MiB, and not less than memoryBytes`
    ],
    [balloonBytes !== undefined && !spec.balloon, "balloonBytes", "needs a balloon"],
    [
      balloonBytes !== undefined && balloonBytes > memoryBytes,
      "balloonBytes",
      "must not be more than memoryBytes: it is what the balloon leaves to the guest"
    ]
  ]
  return wrong.filter(([isWrong]) => isWrong).map(([, field, problem]) => ({ field, problem }))
}

/** What is wrong with this host for the machine: huge pages that it does not have. `root` is where its `/sys` is. */
export const hostProblem = async (
  { hugepages, memoryBytes }: Pick<Shaped, "hugepages" | "memoryBytes">,
  root = "/sys"
): Promise<string | undefined> => {
  if (hugepages === "none") return undefined
  const kib = hugepageSizes[hugepages] / 1024
  const pages = Math.ceil(memoryBytes / hugepageSizes[hugepages])
  const directory = `${root}/kernel/mm/hugepages/hugepages-${kib}kB`
  const text = await fs.readFile(`${directory}/free_hugepages`, "utf8").catch(() => "")
  if (text === "") return `this host has no huge pages of ${hugepages}`
  const free = Number(text.trim())
  return free >= pages
    ? undefined
    : `it needs ${pages} huge pages of ${hugepages}, and ${free} of this host's are free: echo their number to ${directory}/nr_hugepages, or boot with hugepages=`
}
