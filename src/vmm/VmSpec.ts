/**
 * What a person asks for when they ask for a virtual machine: processors, memory, what it boots, disks and cards, and its restart
 * policy. The same schema decodes requests and stores the desired state.
 *
 * Traps: stored data; a field that is added later needs a default for decoding. Files are absolute paths of the host. A kernel
 * that is given is booted at once; without one the firmware looks for something on the disks.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import { dirname, join } from "node:path"
import { RestartPolicy } from "../actor/RestartPolicy.ts"
import { LogRetention } from "../storage/logs/LogRetention.ts"
import type { FieldProblem } from "../storage/StateErrors.ts"
import { VolumeName } from "../storage/Volumes.ts"
import { GracePeriod, Labels, WorkloadName } from "../storage/Workload.ts"
import { Wanted } from "./Hypervisor.ts"
import type { Machine } from "./Machine.ts"
import * as Seeds from "./Seeds.ts"
import { CloudInit, Ignition } from "./Seeds.ts"
import * as Shape from "./Shape.ts"
import { DiskLimits, Hugepages, Topology } from "./Shape.ts"
import * as Uefi from "./Uefi.ts"

const MIB = 1024 * 1024

/** A file of the host. */
const File = Schema.String.pipe(
  Schema.check(Schema.isPattern(/^\/[^\0]{0,4094}$/, { expected: "an absolute path of at most 4095 characters" }))
)

const port = Schema.Int.pipe(
  Schema.check(Schema.isBetween({ minimum: 1, maximum: 65_535 }, { expected: "a port from 1 to 65535" }))
)

const byDefault = <S extends Schema.Top>(schema: S, encoded: S["Encoded"]) =>
  schema.pipe(Schema.withDecodingDefaultKey(Effect.succeed(encoded)))

const no = byDefault(Schema.Boolean, false)

export const DiskSpec = Schema.Struct({
  /**
   * A regular file or a block device. One that is written to belongs to one machine alone. Of an image or a volume it is where that is
   * kept (`DiskSources`), and empty in a request.
   */
  path: byDefault(
    Schema.String.pipe(
      Schema.check(
        Schema.isPattern(/^(\/[^\0]{0,4094})?$/, { expected: "an absolute path of at most 4095 characters" })
      )
    ),
    ""
  ),
  /** It begins as what an artifact in a registry holds, and is the machine's own. */
  image: Schema.optionalKey(
    Schema.String.pipe(
      Schema.check(Schema.isPattern(/^[^\0\s]{1,4096}$/, { expected: "a name like registry.example/disks/debian:13" }))
    )
  ),
  /** A volume with a size. */
  volume: Schema.optionalKey(VolumeName),
  format: byDefault(Schema.Literals(["raw", "qcow2"]), "raw"),
  readOnly: no,
  /** What the guest finds in `/sys/block/…/serial`. */
  serial: Schema.optionalKey(
    Schema.String.pipe(
      Schema.check(
        Schema.isPattern(/^[A-Za-z0-9._-]{1,20}$/, {
          expected: "1 to 20 letters, digits, points, hyphens or underscores"
        })
      )
    )
  ),
  /** It is grown to this many bytes where it has less; never made smaller. */
  sizeBytes: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(
        Schema.isBetween({ minimum: MIB, maximum: 2 ** 50 }, { expected: "a number of bytes from 1048576 to 2^50" }),
        Schema.isMultipleOf(512, { expected: "a multiple of 512" })
      )
    )
  ),
  limits: Schema.optionalKey(DiskLimits)
})
export type DiskSpec = typeof DiskSpec.Type

const ForwardSpec = Schema.Struct({
  protocol: byDefault(Schema.Literals(["tcp", "udp"]), "tcp"),
  /** Where the host listens. */
  hostAddress: byDefault(
    Schema.String.pipe(
      Schema.check(Schema.isPattern(/^(\d{1,3}\.){3}\d{1,3}$/, { expected: "an IPv4 address of this host" }))
    ),
    "127.0.0.1"
  ),
  hostPort: port,
  guestPort: port
})

/** A card on a network of its own, behind the hypervisor: ports that are forwarded lead in, and by default nothing leads out. */
export const NicSpec = Schema.Struct({
  /** Default: one that comes from the machine's name. */
  mac: Schema.optionalKey(
    Schema.String.pipe(
      Schema.check(
        Schema.isPattern(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/, {
          expected: "a unicast address like 52:54:00:12:34:56"
        })
      )
    )
  ),
  forwards: byDefault(
    Schema.Array(ForwardSpec).pipe(Schema.check(Schema.isMaxLength(64, { expected: "at most 64 ports" }))),
    []
  ),
  /** The guest reaches what the host reaches: also what listens on the host's own 127.0.0.1, for it alone. */
  hostAccess: no
})
export type NicSpec = typeof NicSpec.Type

const memory = (least: number, words: string) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: least, maximum: 2 ** 50 }, { expected: words })))

export class VmSpec extends Schema.Class<VmSpec>("ironwood/VmSpec")({
  /** Unique on the host among virtual machines. */
  name: WorkloadName,
  /** What makes it. */
  hypervisor: byDefault(Wanted, "auto"),
  chipset: byDefault(Schema.Literals(["q35", "microvm"]), "q35"),
  cpus: byDefault(
    Schema.Int.pipe(
      Schema.check(Schema.isBetween({ minimum: 1, maximum: 255 }, { expected: "a number from 1 to 255" }))
    ),
    1
  ),
  /** What the guest has. */
  memoryBytes: byDefault(memory(32 * MIB, "a number of bytes from 33554432 (32 MiB) to 2^50"), 512 * MIB),
  /** How many processors it can have while it runs. Default: no more than `cpus`. */
  maxCpus: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(Schema.isBetween({ minimum: 1, maximum: 255 }, { expected: "a number from 1 to 255" }))
    )
  ),
  /** How much memory it can have while it runs. Default: no more than `memoryBytes`. */
  maxMemoryBytes: Schema.optionalKey(memory(32 * MIB, "a number of bytes from 33554432 (32 MiB) to 2^50")),
  topology: Schema.optionalKey(Topology),
  /** What its memory is made of. */
  hugepages: byDefault(Hugepages, "none"),
  /** Devices of the host's that are its own while it runs, by their PCI addresses. */
  pciDevices: byDefault(
    Schema.Array(
      Schema.String.pipe(
        Schema.check(
          Schema.isPattern(/^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/, {
            expected: "the address of a PCI device, like 0000:01:00.0"
          })
        )
      )
    ).pipe(Schema.check(Schema.isMaxLength(8, { expected: "at most 8 devices" }))),
    []
  ),
  /** What its hypervisor may use of the host, the guest's included; the kernel kills it at that. Default: 512 MiB more than the guest's most. */
  hostMemoryBytes: Schema.optionalKey(memory(64 * MIB, "a number of bytes from 67108864 (64 MiB) to 2^50")),
  /** Booted without firmware. */
  kernel: Schema.optionalKey(File),
  initrd: Schema.optionalKey(File),
  commandLine: byDefault(
    Schema.String.pipe(
      Schema.check(Schema.isPattern(/^[^\0\n]{0,2000}$/, { expected: "one line of at most 2000 characters" }))
    ),
    "console=ttyS0"
  ),
  /** Of a machine without a kernel. */
  firmware: byDefault(Schema.Literals(["bios", "uefi"]), "bios"),
  /** UEFI starts only what is signed by a key that is in its variables. */
  secureBoot: no,
  /** What UEFI's variables are at the first start. Default: those of the package `ovmf`; with Secure Boot, with Microsoft's keys. */
  firmwareVariables: Schema.optionalKey(File),
  disks: byDefault(
    Schema.Array(DiskSpec).pipe(Schema.check(Schema.isMaxLength(64, { expected: "at most 64 disks" }))),
    []
  ),
  nics: byDefault(Schema.Array(NicSpec).pipe(Schema.check(Schema.isMaxLength(8, { expected: "at most 8 cards" }))), []),
  /** A device that must be fed by the guest, once it has begun to; when it is not, the guest counts as hung. */
  watchdog: no,
  balloon: no,
  /** What the balloon leaves to the guest. Default: all. */
  balloonBytes: Schema.optionalKey(memory(32 * MIB, "a number of bytes from 33554432 (32 MiB) to 2^50")),
  /** What its guest is told at its first start. */
  cloudInit: Schema.optionalKey(CloudInit),
  ignition: Schema.optionalKey(Ignition),
  /** What a reboot of the guest is: `reset`, a matter of its own; `end`, the end of this life, for the restart policy to judge. */
  onReboot: byDefault(Schema.Literals(["reset", "end"]), "reset"),
  /** Time between the power button and the end of its hypervisor. */
  stopGracePeriod: byDefault(GracePeriod, 30_000),
  restart: RestartPolicy.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  labels: Labels.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  /** How much of its console is kept. */
  console: LogRetention.pipe(Schema.withDecodingDefaultKey(Effect.succeed({})))
}) {}

/** The field that says what a disk is. */
export const sourceOf = (disk: DiskSpec | undefined): "path" | "image" | "volume" =>
  disk?.image !== undefined ? "image" : disk?.volume !== undefined ? "volume" : "path"

/** The spec with other values in some fields. */
export const withFields = ({ ...present }: VmSpec, fields: Partial<VmSpec>): VmSpec =>
  new VmSpec({ ...present, ...fields })

/** What is wrong with a spec whose fields are right one by one. */
export const problemsOf = (spec: VmSpec): ReadonlyArray<FieldProblem> => {
  const paths = spec.disks.map(({ path }) => path)
  const twice = paths.findIndex((path, index) => paths.indexOf(path) !== index)
  const addresses = spec.nics.map((_, index) => macAt(spec, index))
  const same = addresses.findIndex((mac, index) => addresses.indexOf(mac) !== index)
  return [
    ...(spec.kernel === undefined && spec.initrd !== undefined
      ? [{ field: "initrd", problem: "needs a kernel beside it" }]
      : []),
    ...(spec.kernel === undefined && spec.disks.length === 0
      ? [{ field: "kernel", problem: "must be set, or there must be a disk to boot from" }]
      : []),
    ...(twice < 0
      ? []
      : [
          {
            field: `disks[${twice}].${sourceOf(spec.disks[twice])}`,
            problem: `is another disk of it already${spec.disks[twice]?.image === undefined ? "" : "; with another serial it is a second one"}`
          }
        ]),
    ...(same < 0 ? [] : [{ field: `nics[${same}].mac`, problem: "is the address of another card of it already" }]),
    ...(spec.hostMemoryBytes !== undefined && spec.hostMemoryBytes < spec.memoryBytes
      ? [{ field: "hostMemoryBytes", problem: "must not be less than memoryBytes" }]
      : []),
    ...spec.disks.flatMap(({ format, readOnly, sizeBytes, volume }, index) => [
      ...(readOnly && sizeBytes !== undefined
        ? [{ field: `disks[${index}].sizeBytes`, problem: "cannot be of a disk that is only read" }]
        : []),
      ...(volume !== undefined && sizeBytes !== undefined
        ? [
            {
              field: `disks[${index}].sizeBytes`,
              problem: "cannot be of a volume, which has the size that it was made with"
            }
          ]
        : []),
      ...(volume !== undefined && format !== "raw"
        ? [{ field: `disks[${index}].format`, problem: "must be raw: a volume is" }]
        : [])
    ]),
    ...Shape.problemsOf(spec),
    ...Uefi.problemsOf(spec),
    ...Seeds.problemsOf(spec)
  ]
}

/** An address of QEMU's own range, the same at every start. */
const macOf = (name: string, index: number): string => {
  const digest = createHash("sha256").update(`${name}/${index}`).digest()
  return ["52", "54", "00", ...[...digest.subarray(0, 3)].map((byte) => byte.toString(16).padStart(2, "0"))].join(":")
}

/** The name of a disk in its machine: the same wherever in the list it stands. */
export const diskId = ({ path }: Pick<DiskSpec, "path">): string =>
  `disk-${createHash("sha256").update(path).digest("hex").slice(0, 12)}`

export const nicId = (mac: string): string => `net-${mac.replaceAll(":", "")}`

/** The address of a machine's card. */
export const macAt = (spec: Pick<VmSpec, "name" | "nics">, index: number): string =>
  spec.nics[index]?.mac ?? macOf(spec.name, index)

/** An address that none of its cards has. */
export const freeMac = (spec: Pick<VmSpec, "name" | "nics">): string => {
  const taken = new Set(spec.nics.map((_, index) => macAt(spec, index)))
  let index = spec.nics.length
  while (taken.has(macOf(spec.name, index))) index++
  return macOf(spec.name, index)
}

/** Files of a machine, in its directory, that are made of its spec at every start. */
export const SEED_FILE = "cidata.iso"
export const IGNITION_FILE = "ignition.json"

/** The disk of cloud-init's data: the last one. */
const seedDisk = (spec: VmSpec, directory: string): Machine["disks"] =>
  spec.cloudInit === undefined
    ? []
    : [{ id: "disk-cidata", file: join(directory, SEED_FILE), format: "raw", readOnly: true }]

/** The machine that a spec asks for; `variables` is where its firmware's are kept. */
export const machineOf = (spec: VmSpec, variables: string): Machine => ({
  name: spec.name,
  chipset: spec.chipset,
  memoryBytes: spec.memoryBytes,
  cpus: spec.cpus,
  boot:
    spec.kernel !== undefined
      ? {
          _tag: "Kernel",
          kernel: spec.kernel,
          ...(spec.initrd === undefined ? {} : { initrd: spec.initrd }),
          commandLine: spec.commandLine
        }
      : spec.firmware === "uefi"
        ? { _tag: "Firmware", code: Uefi.codeOf(spec), variables, ...(spec.secureBoot ? { secure: true } : {}) }
        : { _tag: "Firmware" },
  disks: [
    ...spec.disks.map((one) => {
      const { image: _, path, volume: __, ...disk } = one
      return { ...disk, id: diskId(one), file: path }
    }),
    ...seedDisk(spec, dirname(variables))
  ],
  nics: spec.nics.map(({ forwards, hostAccess }, index) => {
    const mac = macAt(spec, index)
    return { id: nicId(mac), mac, forwards, restricted: !hostAccess }
  }),
  ports: [],
  watchdog: spec.watchdog,
  balloon: spec.balloon,
  ...(spec.balloonBytes === undefined ? {} : { balloonBytes: spec.balloonBytes }),
  ...(spec.maxCpus === undefined ? {} : { maxCpus: spec.maxCpus }),
  ...(spec.maxMemoryBytes === undefined ? {} : { maxMemoryBytes: spec.maxMemoryBytes }),
  ...(spec.topology === undefined ? {} : { topology: spec.topology }),
  ...(spec.hugepages === "none" ? {} : { hugepageBytes: Shape.hugepageSizes[spec.hugepages] }),
  pciDevices: spec.pciDevices,
  ...(spec.ignition === undefined ? {} : { ignition: join(dirname(variables), IGNITION_FILE) })
})

/** What its hypervisor may use of the host. */
export const hostMemoryOf = (spec: VmSpec): number =>
  spec.hostMemoryBytes ?? (spec.maxMemoryBytes ?? spec.memoryBytes) + 512 * MIB
