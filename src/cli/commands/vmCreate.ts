/** `ironwood vm create`: a virtual machine from flags. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { create as createMessage } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { readFile } from "node:fs/promises"
import { resolve } from "node:path"
import { RestartPolicySchema } from "../../../proto/generated/ironwood/v1/policy_pb.ts"
import {
  VmChipset,
  VmFirmware,
  VmHugepages,
  VmHypervisor,
  VmReboot,
  VmSchema,
  VmService,
  type VmSpecSchema
} from "../../../proto/generated/ironwood/v1/vm_pb.ts"
import { Client } from "../Client.ts"
import { type Checked, checked, type FlagProblem, flagOf, wrongFlags } from "../FlagProblems.ts"
import { describe } from "../Help.ts"
import { labelFlag } from "../Labels.ts"
import * as Output from "../Output.ts"
import { parseRestart, withRestart } from "../PolicyFlags.ts"
import { parseBytes } from "../Quantity.ts"
import { durationFlag, secondsOrDuration, toProto } from "../QuantityFlags.ts"
import { requestId } from "../RequestId.ts"
import { parseDisk, parseForward, parseTopology } from "../VmFlags.ts"

const no = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false))

const file = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar("FILE"), Flag.withDescription(description), Flag.withDefault(""))

const flags = {
  kernel: file("kernel", "A kernel of the host that is booted at once; without, the firmware boots a disk"),
  initrd: file("initrd", "Its initramfs"),
  commandLine: Flag.String("append").pipe(
    Flag.withMetavar("TEXT"),
    Flag.withDescription("The kernel's command line (default: console=ttyS0)"),
    Flag.optional
  ),
  memory: checked("memory", "SIZE", parseBytes).pipe(
    Flag.withAlias("m"),
    Flag.withDescription("What the guest has, e.g. 2GiB (default: 512MiB)"),
    Flag.optional
  ),
  hostMemory: checked("host-memory", "SIZE", parseBytes).pipe(
    Flag.withDescription("What its hypervisor may use of the host with it (default: 512MiB more)"),
    Flag.optional
  ),
  cpus: Flag.Int("cpus").pipe(Flag.withMetavar("N"), Flag.withDescription("Processors (default: 1)"), Flag.optional),
  maxCpus: Flag.Int("max-cpus").pipe(
    Flag.withMetavar("N"),
    Flag.withDescription("Processors it can get by `vm resize` while it runs (default: none)"),
    Flag.optional
  ),
  maxMemory: checked("max-memory", "SIZE", parseBytes).pipe(
    Flag.withDescription("What the guest can get by `vm resize` while it runs (default: no more)"),
    Flag.optional
  ),
  topology: checked("topology", "sockets=N,…", parseTopology).pipe(
    Flag.withDescription("How the guest sees them: sockets=N,cores=N,threads=N,numa=N"),
    Flag.optional
  ),
  hugepages: Flag.Literals("hugepages", ["none", "2MiB", "1GiB"]).pipe(
    Flag.withDescription("Huge pages of the host that its memory is made of (default: none)"),
    Flag.withDefault("none" as const)
  ),
  pci: Flag.String("pci").pipe(
    Flag.withMetavar("ADDRESS"),
    Flag.withDescription("A PCI device of the host, bound to vfio-pci, e.g. 0000:01:00.0; may be repeated"),
    Flag.atLeast(0)
  ),
  disks: checked("disk", "FILE[,OPTION]", parseDisk).pipe(
    Flag.withDescription(
      "A disk: a file or device of the host, image=REGISTRY/NAME:TAG or volume=NAME[,ro][,format=qcow2][,serial=NAME][,size=SIZE][,iops=N][,bps=SIZE]; may be repeated"
    ),
    Flag.atLeast(0)
  ),
  net: no("net", "A network card, on a network of its own: the guest reaches nothing"),
  hostAccess: no(
    "host-access",
    "Its card reaches what the host reaches, also what listens on the host's 127.0.0.1 only; brings a card"
  ),
  publish: checked("publish", "[ADDRESS:]HOST:GUEST", parseForward).pipe(
    Flag.withAlias("p"),
    Flag.withDescription(
      "A port of the host that leads to one of the guest, e.g. 2222:22; brings a card; may be repeated"
    ),
    Flag.atLeast(0)
  ),
  chipset: Flag.Literals("chipset", ["q35", "microvm"]).pipe(
    Flag.withDescription("q35: a PC; microvm: no PCI and no firmware, starts sooner (default: q35)"),
    Flag.withDefault("q35" as const)
  ),
  hypervisor: Flag.Literals("hypervisor", ["auto", "qemu", "cloud-hypervisor", "firecracker"]).pipe(
    Flag.withDescription(
      "What makes it (default: auto, the first that works on the host and can; see `ironwood host`)"
    ),
    Flag.withDefault("auto" as const)
  ),
  firmware: Flag.Literals("firmware", ["bios", "uefi"]).pipe(
    Flag.withDescription("What boots a disk (default: bios)"),
    Flag.withDefault("bios" as const)
  ),
  secureBoot: no(
    "secure-boot",
    "UEFI starts only what is signed by a key in its variables (default keys: Microsoft's)"
  ),
  firmwareVariables: file(
    "firmware-variables",
    "What UEFI's variables are at the first start: a file of the host, e.g. with keys of yours"
  ),
  userData: file("user-data", "Data for cloud-init: a file here, e.g. with #cloud-config in its first line"),
  metaData: file("meta-data", "Beside it: cloud-init's meta data (default: the machine's name)"),
  networkConfig: file("network-config", "Beside it: cloud-init's network config"),
  ignition: file("ignition", "A config for Ignition: a file here"),
  watchdog: no("watchdog", "A watchdog, which the guest must feed once it has begun to"),
  balloon: no("balloon", "A balloon, by which the host takes memory back"),
  onReboot: Flag.Literals("on-reboot", ["reset", "end"]).pipe(
    Flag.withDescription("A reboot of the guest is its own matter, or ends this life (default: reset)"),
    Flag.withDefault("reset" as const)
  ),
  restart: checked("restart", "POLICY", parseRestart).pipe(
    Flag.withDescription(
      "When it is started again: permanent, transient, temporary or on-success (default: permanent)"
    ),
    Flag.optional
  ),
  stopTime: durationFlag("stop-time", secondsOrDuration).pipe(
    Flag.withDescription("How long the guest may take from the power button to its end (default: 30s)"),
    Flag.optional
  ),
  labels: labelFlag("A label, NAME=VALUE; may be repeated"),
  notStarted: no("not-started", "Only make it known; `ironwood vm start` starts it")
}

const hypervisors = {
  auto: VmHypervisor.UNSPECIFIED,
  qemu: VmHypervisor.QEMU,
  "cloud-hypervisor": VmHypervisor.CLOUD_HYPERVISOR,
  firecracker: VmHypervisor.FIRECRACKER
} as const

const hugepages = {
  none: VmHugepages.VM_HUGEPAGES_NONE,
  "2MiB": VmHugepages.VM_HUGEPAGES_2MIB,
  "1GiB": VmHugepages.VM_HUGEPAGES_1GIB
} as const

/** The flags from which fields of the request come. */
const origins: ReadonlyMap<string, string> = new Map([
  ["spec.name", "NAME"],
  ["spec.hypervisor", "--hypervisor"],
  ["spec.chipset", "--chipset"],
  ["spec.kernel", "--kernel"],
  ["spec.initrd", "--initrd"],
  ["spec.command_line", "--append"],
  ["spec.memory_bytes", "--memory"],
  ["spec.host_memory_bytes", "--host-memory"],
  ["spec.cpus", "--cpus"],
  ["spec.max_cpus", "--max-cpus"],
  ["spec.max_memory_bytes", "--max-memory"],
  ["spec.topology", "--topology"],
  ["spec.hugepages", "--hugepages"],
  ["spec.pci_devices", "--pci"],
  ["spec.cloud_init.user_data", "--user-data"],
  ["spec.cloud_init.meta_data", "--meta-data"],
  ["spec.cloud_init.network_config", "--network-config"],
  ["spec.ignition", "--ignition"],
  ["spec.firmware", "--firmware"],
  ["spec.secure_boot", "--secure-boot"],
  ["spec.firmware_variables", "--firmware-variables"],
  ["spec.disks", "--disk"],
  ["spec.nics", "--publish"],
  ["spec.watchdog", "--watchdog"],
  ["spec.balloon", "--balloon"],
  ["spec.labels", "--label"],
  ["spec.stop_grace_period", "--stop-time"]
])

export const create = Command.make(
  "create",
  { ...flags, name: Argument.String("NAME").pipe(Argument.withDescription("What it is called")) },
  Effect.fnUntraced(function* (given) {
    const client = yield* Client
    const problems: Array<FlagProblem> = []
    const values = <A>(all: ReadonlyArray<Checked<A>>): ReadonlyArray<A> =>
      all.flatMap((one) => {
        if (Result.isSuccess(one)) return [one.success]
        problems.push(one.failure)
        return []
      })
    const value = <A>(one: Option.Option<Checked<A>>): A | undefined => values(Option.toArray(one))[0]
    const memoryBytes = value(given.memory)
    const hostMemoryBytes = value(given.hostMemory)
    const maxMemoryBytes = value(given.maxMemory)
    const topology = value(given.topology)
    const restart = value(given.restart)
    const disks = values(given.disks)
    const forwards = values(given.publish)
    const content = (flag: string, path: string) =>
      path === ""
        ? Effect.succeed("")
        : Effect.match(
            Effect.tryPromise(() => readFile(path, "utf8")),
            {
              onSuccess: (text) => text,
              onFailure: () => {
                problems.push({ flag, text: `${path} cannot be read` })
                return ""
              }
            }
          )
    const userData = yield* content("--user-data", given.userData)
    const metaData = yield* content("--meta-data", given.metaData)
    const networkConfig = yield* content("--network-config", given.networkConfig)
    const ignition = yield* content("--ignition", given.ignition)
    if (given.userData === "" && (metaData !== "" || networkConfig !== "")) {
      problems.push({ flag: "--user-data", text: "must be given beside --meta-data and --network-config" })
    }
    const spec: MessageInitShape<typeof VmSpecSchema> = {
      name: given.name,
      hypervisor: hypervisors[given.hypervisor],
      chipset: given.chipset === "microvm" ? VmChipset.MICROVM : VmChipset.Q35,
      firmware: given.firmware === "uefi" ? VmFirmware.UEFI : VmFirmware.BIOS,
      secureBoot: given.secureBoot,
      firmwareVariables: given.firmwareVariables === "" ? "" : resolve(given.firmwareVariables),
      onReboot: given.onReboot === "end" ? VmReboot.END : VmReboot.RESET,
      kernel: given.kernel === "" ? "" : resolve(given.kernel),
      initrd: given.initrd === "" ? "" : resolve(given.initrd),
      disks: [...disks],
      nics:
        given.net || given.hostAccess || forwards.length > 0
          ? [{ forwards: [...forwards], hostAccess: given.hostAccess }]
          : [],
      ...(given.userData === "" ? {} : { cloudInit: { userData, metaData, networkConfig } }),
      ignition,
      watchdog: given.watchdog,
      balloon: given.balloon,
      labels: given.labels,
      ...(Option.isSome(given.commandLine) ? { commandLine: given.commandLine.value } : {}),
      ...(Option.isSome(given.cpus) ? { cpus: Math.max(0, given.cpus.value) } : {}),
      hugepages: hugepages[given.hugepages],
      pciDevices: [...given.pci],
      ...(Option.isSome(given.maxCpus) ? { maxCpus: Math.max(0, given.maxCpus.value) } : {}),
      ...(maxMemoryBytes === undefined ? {} : { maxMemoryBytes }),
      ...(topology === undefined ? {} : { topology }),
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      ...(hostMemoryBytes === undefined ? {} : { hostMemoryBytes }),
      ...(Option.isSome(given.stopTime) ? { stopGracePeriod: toProto(given.stopTime.value) } : {}),
      ...(restart === undefined ? {} : { restart: withRestart(createMessage(RestartPolicySchema), restart) })
    }
    if (problems.length > 0) return yield* wrongFlags("vm create", problems)
    const { vm } = yield* client
      .call(
        VmService.method.createVm,
        { spec, notStarted: given.notStarted, requestId: requestId() },
        { timeout: "5 minutes" }
      )
      .pipe(
        Effect.mapError((error) =>
          error.violations === undefined
            ? error
            : wrongFlags(
                "vm create",
                error.violations.map((violation) => flagOf(violation, origins))
              )
        )
      )
    return yield* Output.answer(VmSchema, vm ?? createMessage(VmSchema), Effect.succeed([given.name]))
  })
).pipe(
  describe({
    short: "Create a virtual machine and start it",
    long: [
      "It is supervised from then on: it comes back by its restart policy, also after a restart of Ironwood. A guest that powers",
      "off has ended well; one that panics, and a hypervisor that crashes or is killed, has not. Files are those of the host.",
      "A card is closed: published ports lead to the guest, and it reaches nothing by itself, unless --host-access is given."
    ],
    examples: [
      ["ironwood vm create web --disk web.qcow2,format=qcow2 -m 2GiB --cpus 2 -p 2222:22", "From a disk image"],
      [
        "ironwood vm create job --chipset microvm --kernel vmlinuz --initrd job.img --restart on-failure:3",
        "A kernel at once; tried again at most 3 times"
      ],
      ["ironwood vm create lab --firmware uefi --disk lab.img --restart no", "By UEFI; it stays off when it is off"],
      ["ironwood vm create safe --firmware uefi --secure-boot --disk safe.img", "By UEFI, and only what is signed"]
    ]
  })
)
