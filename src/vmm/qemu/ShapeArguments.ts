/**
 * The part of QEMU's command line that says how many processors a machine has and how much memory, and how much of both there is
 * room for.
 */
import type { Model } from "../Hypervisor.ts"
import type { Machine } from "../Machine.ts"

/** A processor in a place that was empty. */
export const processorDevice = ({ driver, place }: NonNullable<Model["plugged"]>[number]) => ({
  driver,
  id: `cpu-${["socket-id", "core-id", "thread-id"].map((key) => place[key] ?? 0).join("-")}`,
  ...place
})

/** The machine as it was started; what came later has its own words, or is in the memory that comes in. */
export const asStarted = (
  machine: Machine,
  { cpus = machine.cpus, memoryBytes = machine.memoryBytes }: Model
): Machine => ({
  ...machine,
  cpus,
  memoryBytes,
  // how many places there are follows from what it has now
  maxCpus: machine.maxCpus ?? machine.cpus
})

export const processorsText = ({ cpus, maxCpus = cpus, topology }: Machine): string =>
  [
    ...(maxCpus === cpus && topology === undefined ? [String(cpus)] : [`cpus=${cpus}`, `maxcpus=${maxCpus}`]),
    ...(topology === undefined
      ? []
      : [`sockets=${topology.sockets}`, `cores=${topology.cores}`, `threads=${topology.threads}`])
  ].join(",")

/** The memory that a machine can get while it runs. */
export const MORE_MEMORY = "more-memory"

const memoryObject = (id: string, bytes: number, { hugepageBytes, shares = [] }: Machine): string =>
  JSON.stringify({
    id,
    size: bytes,
    "qom-type": `memory-backend-${hugepageBytes === undefined && shares.length === 0 ? "ram" : "memfd"}`,
    ...(hugepageBytes === undefined ? {} : { hugetlb: true, hugetlbsize: hugepageBytes }),
    ...(shares.length === 0 ? {} : { share: true }),
    // what it does not have yet costs nothing
    ...(id === MORE_MEMORY ? { reserve: false } : {})
  })

export const memoryWords = (machine: Machine): ReadonlyArray<string> => {
  const { hugepageBytes, maxMemoryBytes, memoryBytes, shares = [], topology } = machine
  const kibibytes = (bytes: number) => `${Math.ceil(bytes / 1024)}k`
  const more = maxMemoryBytes === undefined ? 0 : maxMemoryBytes - memoryBytes
  const nodes = topology?.numaNodes ?? 1
  const size =
    more === 0 ? kibibytes(memoryBytes) : `size=${kibibytes(memoryBytes)},maxmem=${kibibytes(memoryBytes + more)}`
  return [
    "-m",
    size,
    ...(nodes > 1
      ? Array.from({ length: nodes }, (_, node) => [
          "-object",
          memoryObject(`memory${node}`, memoryBytes / nodes, machine),
          "-numa",
          `node,nodeid=${node},memdev=memory${node}`
        ]).flat()
      : hugepageBytes === undefined && shares.length === 0
        ? []
        : ["-object", memoryObject("memory", memoryBytes, machine), "-machine", "memory-backend=memory"]),
    ...(nodes > 1 && topology !== undefined
      ? Array.from({ length: topology.sockets }, (_, socket) => [
          "-numa",
          `cpu,node-id=${Math.floor((socket * nodes) / topology.sockets)},socket-id=${socket}`
        ]).flat()
      : []),
    ...(more === 0
      ? []
      : [
          "-object",
          memoryObject(MORE_MEMORY, more, machine),
          "-device",
          `virtio-mem-pci,id=${MORE_MEMORY}-device,memdev=${MORE_MEMORY},requested-size=0`
        ])
  ]
}
