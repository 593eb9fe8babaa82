/** `ironwood vm attach-disk|detach-disk|attach-nic|detach-nic|resize`: disks, cards and the measure of a machine that is there. */
import { create as createMessage } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { resolve } from "node:path"
import { type Vm, VmSchema, VmService } from "../../../proto/generated/ironwood/v1/vm_pb.ts"
import { Client } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { type Failure, withNext } from "../Failure.ts"
import { check, type Checked, checked, type FlagProblem, flagOf, wrongFlags } from "../FlagProblems.ts"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"
import { parseBytes } from "../Quantity.ts"
import { requestId } from "../RequestId.ts"
import { parseDisk, parseDiskMeasure, parseForward } from "../VmFlags.ts"

const name = Argument.String("NAME").pipe(Argument.withDescription("The virtual machine"))

/** A guest that is asked to let go may take its time. */
const patience = { timeout: "2 minutes" } as const

/** What went wrong, as flags and arguments of `command`. */
const told = (command: string, origins: ReadonlyMap<string, string>) => (error: Failure) =>
  error.violations !== undefined
    ? wrongFlags(
        command,
        error.violations.map((violation) => flagOf(violation, origins)),
        "Nothing was changed"
      )
    : error.exitCode === exitCodes.notFound
      ? withNext(error, "`ironwood vm ls` lists the machines, `ironwood vm inspect NAME` what one has")
      : error

const answer = (line: string, vm: Vm | undefined) =>
  Output.answer(VmSchema, vm ?? createMessage(VmSchema), Effect.succeed([line]))

export const attachDisk = Command.make(
  "attach-disk",
  {
    name,
    disk: Argument.String("FILE[,OPTION]").pipe(
      Argument.withDescription("A file or device of the host, or volume=NAME[,ro][,format=qcow2][,serial=NAME]"),
      Argument.map(check("FILE", parseDisk))
    )
  },
  Effect.fnUntraced(function* ({ disk, name }) {
    const client = yield* Client
    if (Result.isFailure(disk)) return yield* wrongFlags("vm attach-disk", [disk.failure], "Nothing was changed")
    const { vm } = yield* Effect.mapError(
      client.call(VmService.method.attachVmDisk, { name, disk: disk.success, requestId: requestId() }, patience),
      told("vm attach-disk", new Map([["disk", "FILE"]]))
    )
    return yield* answer(disk.success.path ?? vm?.spec?.disks.at(-1)?.path ?? "", vm)
  })
).pipe(
  describe({
    short: "Plug a disk into a virtual machine, while it runs or for its next start",
    long: [
      "The machine has it from then on, also after it was started anew. A microvm takes one only while it is down."
    ],
    examples: [
      ["ironwood vm attach-disk db more.img,serial=more", "The guest finds it with this serial"],
      ["ironwood vm attach-disk db tools.qcow2,format=qcow2,ro", "To read from only"]
    ]
  })
)

/** Which disk of a machine a word means: a file, or the name of a volume or a serial. */
const diskIn = (vm: Vm | undefined, word: string): string => {
  const file = resolve(word)
  // a file of this directory may be called like a volume: what the machine has counts
  const isFile = word.includes("/") || vm?.spec?.disks.some(({ path }) => path === file) === true
  return isFile ? file : word.replace(/^(volume|serial)=/, "")
}

export const detachDisk = Command.make(
  "detach-disk",
  {
    name,
    disk: Argument.String("DISK").pipe(
      Argument.withDescription("Its file or device, the name of its volume, or its serial")
    )
  },
  Effect.fnUntraced(function* ({ disk, name }) {
    const client = yield* Client
    const named = told("vm detach-disk", new Map([["path", "DISK"]]))
    const present = yield* Effect.mapError(client.call(VmService.method.getVm, { name }), named)
    const path = diskIn(present.vm, disk)
    const { vm } = yield* Effect.mapError(
      client.call(VmService.method.detachVmDisk, { name, path, requestId: requestId() }, patience),
      named
    )
    return yield* answer(path, vm)
  })
).pipe(
  describe({
    short: "Take a disk out of a virtual machine, once its guest has let go of it",
    long: [
      "The guest is asked; one that does not let go within 20 seconds keeps the disk. The file stays in any case."
    ],
    examples: [
      ["ironwood vm detach-disk db more.img", "Unmount it in the guest first"],
      ["ironwood vm detach-disk db data", "The volume `data`; or the disk with this serial"]
    ]
  })
)

export const attachNic = Command.make(
  "attach-nic",
  {
    mac: Flag.String("mac").pipe(
      Flag.withMetavar("ADDRESS"),
      Flag.withDescription("Its address (default: one that comes from the machine's name)"),
      Flag.withDefault("")
    ),
    hostAccess: Flag.Boolean("host-access").pipe(
      Flag.withDescription("It reaches what the host reaches, also what listens on the host's 127.0.0.1 only"),
      Flag.withDefault(false)
    ),
    publish: checked("publish", "[ADDRESS:]HOST:GUEST", parseForward).pipe(
      Flag.withAlias("p"),
      Flag.withDescription("A port of the host that leads to one of the guest, e.g. 2222:22; may be repeated"),
      Flag.atLeast(0)
    ),
    name
  },
  Effect.fnUntraced(function* ({ hostAccess, mac, name, publish }) {
    const client = yield* Client
    const problems: Array<FlagProblem> = publish.flatMap((one) => (Result.isFailure(one) ? [one.failure] : []))
    if (problems.length > 0) return yield* wrongFlags("vm attach-nic", problems, "Nothing was changed")
    const forwards = publish.flatMap((one) => Option.toArray(Result.getSuccess(one)))
    const { vm } = yield* Effect.mapError(
      client.call(
        VmService.method.attachVmNic,
        { name, nic: { mac: mac.toLowerCase(), hostAccess, forwards }, requestId: requestId() },
        patience
      ),
      told(
        "vm attach-nic",
        new Map([
          ["nic.mac", "--mac"],
          ["nic.forwards", "--publish"],
          ["nic", "NAME"]
        ])
      )
    )
    return yield* answer(mac === "" ? (vm?.spec?.nics.at(-1)?.mac ?? "") : mac.toLowerCase(), vm)
  })
).pipe(
  describe({
    short: "Plug a network card into a virtual machine, while it runs or for its next start; prints its address",
    long: [
      "A machine that was started without any card has no network on the host: into it only a closed card without ports can be",
      "plugged while it runs."
    ],
    examples: [["ironwood vm attach-nic web -p 8080:80", "A card with a port that leads to the guest"]]
  })
)

export const detachNic = Command.make(
  "detach-nic",
  { name, mac: Argument.String("ADDRESS").pipe(Argument.withDescription("The card's address")) },
  Effect.fnUntraced(function* ({ mac, name }) {
    const client = yield* Client
    const { vm } = yield* Effect.mapError(
      client.call(VmService.method.detachVmNic, { name, mac: mac.toLowerCase(), requestId: requestId() }, patience),
      told("vm detach-nic", new Map([["mac", "ADDRESS"]]))
    )
    return yield* answer(mac.toLowerCase(), vm)
  })
).pipe(
  describe({
    short: "Take a network card out of a virtual machine, once its guest has let go of it",
    examples: [["ironwood vm detach-nic web 52:54:00:12:34:56", "`ironwood vm inspect web` has the addresses"]]
  })
)

const count = (name: string, description: string) =>
  Flag.Int(name).pipe(Flag.withMetavar("N"), Flag.withDescription(description), Flag.optional)

const size = (name: string, description: string) =>
  checked(name, "SIZE", parseBytes).pipe(Flag.withDescription(description), Flag.optional)

export const resize = Command.make(
  "resize",
  {
    cpus: count("cpus", "Its processors"),
    memory: size("memory", "What the guest has, e.g. 2GiB").pipe(Flag.withAlias("m")),
    balloon: size("balloon", "What its balloon leaves to the guest"),
    maxCpus: count("max-cpus", "Of one that is down: how many processors it can get while it runs"),
    maxMemory: size("max-memory", "Of one that is down: what the guest can get while it runs"),
    disks: checked("disk", "FILE,OPTION", parseDiskMeasure).pipe(
      Flag.withDescription(
        "A disk of it, by its file, volume or serial: FILE,size=SIZE grows it; FILE,iops=N,bps=SIZE limits it, FILE,unlimited does not; may be repeated"
      ),
      Flag.atLeast(0)
    ),
    name
  },
  Effect.fnUntraced(function* ({ balloon, cpus, disks, maxCpus, maxMemory, memory, name }) {
    const client = yield* Client
    const problems: Array<FlagProblem> = []
    const values = <A>(all: ReadonlyArray<Checked<A>>): ReadonlyArray<A> =>
      all.flatMap((one) => {
        if (Result.isSuccess(one)) return [one.success]
        problems.push(one.failure)
        return []
      })
    const [memoryBytes] = values(Option.toArray(memory))
    const [balloonBytes] = values(Option.toArray(balloon))
    const [maxMemoryBytes] = values(Option.toArray(maxMemory))
    const measures = values(disks)
    if (problems.length > 0) return yield* wrongFlags("vm resize", problems, "Nothing was changed")
    const named = told(
      "vm resize",
      new Map([
        ["cpus", "--cpus"],
        ["memory_bytes", "--memory"],
        ["balloon_bytes", "--balloon"],
        ["max_cpus", "--max-cpus"],
        ["max_memory_bytes", "--max-memory"],
        ["disks", "--disk"]
      ])
    )
    const present =
      measures.length === 0
        ? undefined
        : (yield* Effect.mapError(client.call(VmService.method.getVm, { name }), named)).vm
    const { vm } = yield* Effect.mapError(
      client.call(
        VmService.method.resizeVm,
        {
          name,
          requestId: requestId(),
          disks: measures.map((measure) => ({ ...measure, path: diskIn(present, measure.path ?? "") })),
          ...(Option.isSome(cpus) ? { cpus: Math.max(0, cpus.value) } : {}),
          ...(Option.isSome(maxCpus) ? { maxCpus: Math.max(0, maxCpus.value) } : {}),
          ...(memoryBytes === undefined ? {} : { memoryBytes }),
          ...(balloonBytes === undefined ? {} : { balloonBytes }),
          ...(maxMemoryBytes === undefined ? {} : { maxMemoryBytes })
        },
        patience
      ),
      named
    )
    return yield* answer(name, vm)
  })
).pipe(
  describe({
    short: "Give a virtual machine more or less of processors and memory, or larger disks",
    long: [
      "While it runs processors and memory grow up to its --max-cpus and --max-memory, and shrink to what it was started with; a disk",
      "only grows. One that is down has it all from its next start on."
    ],
    examples: [
      [
        "ironwood vm resize --cpus 4 -m 4GiB db",
        "As far as it was created with --max-cpus 4 --max-memory 4GiB, or is down"
      ],
      ["ironwood vm resize --disk data.img,size=40GiB db", "The guest sees it grow"],
      ["ironwood vm resize --disk data.img,iops=200,bps=20MiB db", "A neighbour that leaves something to others"]
    ]
  })
)
