/** `ironwood vm …`: virtual machines. `create` has a file of its own. */
import { create as createMessage } from "@bufbuild/protobuf"
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  ListVmsResponseSchema,
  type StreamVmConsoleRequestSchema,
  type Vm,
  VmSchema,
  VmService
} from "../../../proto/generated/ironwood/v1/vm_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { type Failure, type ReaderGone, withNext } from "../Failure.ts"
import { answered, forEach } from "../ForEach.ts"
import { ContainerEnded } from "../Foreground.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Interactive from "../Interactive.ts"
import { Keyboard } from "../Keyboard.ts"
import { labelFlag } from "../Labels.ts"
import * as Listing from "../Listing.ts"
import * as Output from "../Output.ts"
import { durationFlag, secondsOrDuration, toProto } from "../QuantityFlags.ts"
import { stopTimeout } from "../Remove.ts"
import { requestId } from "../RequestId.ts"
import { Screen } from "../Screen.ts"
import * as Table from "../Table.ts"
import * as Text from "../Text.ts"
import { machineText, statusText } from "../VmText.ts"
import { create } from "./vmCreate.ts"
import { attachDisk, attachNic, detachDisk, detachNic, resize } from "./vmDevices.ts"
import { clone, migrate, restore } from "./vmMemory.ts"
import { snapshot } from "./vmSnapshot.ts"

const names = Argument.String("NAME").pipe(Argument.withDescription("Virtual machines"), Argument.variadic({ min: 1 }))

/** One that is not there: where to look. */
const missing = orElseStatus(status.notFound, (error) => withNext(error, "`ironwood vm ls` lists those there are"))

const ls = Command.make(
  "ls",
  {
    quiet: Flag.Boolean("quiet").pipe(Flag.withAlias("q"), Flag.withDescription("Names only"), Flag.withDefault(false)),
    labels: labelFlag("Only those with this label, NAME=VALUE; may be repeated")
  },
  Effect.fnUntraced(function* ({ labels, quiet }) {
    const client = yield* Client
    const vms = yield* Listing.allPages(
      (pageToken) => client.call(VmService.method.listVms, { pageToken, labels }),
      (page) => page.vms
    )
    if (quiet) return yield* Output.lines(vms.map(({ spec }) => spec?.name ?? ""))
    return yield* Output.answer(
      ListVmsResponseSchema,
      createMessage(ListVmsResponseSchema, { vms }),
      Listing.table(
        [
          { title: "NAME" },
          { title: "MACHINE", shrinkTo: 10 },
          { title: "CREATED" },
          { title: "STATUS", shrinkTo: 24 },
          { title: "RESTARTS", align: "right" },
          { title: "PID", align: "right", optional: true }
        ],
        (now, style) =>
          vms.map((vm) => {
            const created = ActorText.momentOf(vm.createTime)
            return [
              Text.clean(vm.spec?.name ?? ""),
              machineText(vm),
              created === undefined ? "" : HumanText.ago(created, now),
              statusText(vm, now, style),
              String(vm.status?.restarts ?? 0),
              vm.status?.pid === undefined ? "" : String(vm.status.pid)
            ]
          })
      )
    )
  })
).pipe(
  Command.withAlias("list"),
  describe({ short: "List the virtual machines", examples: [["ironwood vm ls", "All of them"]] })
)

const inspect = Command.make(
  "inspect",
  { name: Argument.String("NAME").pipe(Argument.withDescription("A virtual machine")) },
  Effect.fnUntraced(function* ({ name }) {
    const client = yield* Client
    const { vm = createMessage(VmSchema) } = yield* missing(client.call(VmService.method.getVm, { name }))
    return yield* Output.answer(
      VmSchema,
      vm,
      Effect.gen(function* () {
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        const { spec, status: is } = vm
        const ended = ActorText.momentOf(is?.lastExit?.time)
        return Table.pairs(
          [
            ["machine", machineText(vm)],
            ["status", statusText(vm, now, style)],
            ["actor", vm.actorPath],
            ["pid", is?.pid === undefined ? "" : String(is.pid)],
            ["boots", spec === undefined ? "" : Text.clean(spec.kernel === "" ? "its first disk" : spec.kernel)],
            ["command line", spec === undefined || spec.kernel === "" ? "" : Text.clean(spec.commandLine ?? "")],
            [
              "disks",
              (spec?.disks ?? [])
                .map(({ path, readOnly }) => Text.clean(`${path}${readOnly ? " (read-only)" : ""}`))
                .join("\n")
            ],
            ["cards", (spec?.nics ?? []).map(({ mac }) => Text.clean(mac)).join("\n")],
            [
              "ports",
              (spec?.nics ?? [])
                .flatMap(({ forwards }) => forwards)
                .map((one) => `${one.hostAddress}:${one.hostPort} → ${one.guestPort}/${one.protocol}`)
                .join("\n")
            ],
            ["restarts", String(is?.restarts ?? 0)],
            ["reboots", String(is?.reboots ?? 0)],
            [
              "last exit",
              is?.lastExit === undefined
                ? ""
                : `${Text.clean(is.lastExit.message)}${ended === undefined ? "" : ` ${HumanText.ago(ended, now)}`}`
            ]
          ].flatMap(([key = "", value = ""]) => (value === "" ? [] : [[key, value] as const])),
          { name: style.dim }
        )
      })
    )
  })
).pipe(
  describe({
    short: "Show everything known of a virtual machine",
    long: ["-o json prints the API's Vm; `ironwood why NAME` and `ironwood history NAME` have what happened."],
    examples: [["ironwood vm inspect web -o json | jq .status.pid", "The pid of its hypervisor on the host"]]
  })
)

/** A command that asks one thing of each of several machines. */
const each = <E extends Failure | ReaderGone>(
  name: string,
  ask: (client: Client["Service"], name: string) => Effect.Effect<{ readonly vm?: Vm | undefined }, E>,
  short: string,
  example: string
) =>
  Command.make(name, { names }, ({ names }) =>
    Effect.flatMap(Client, (client) =>
      forEach(names, (one) =>
        Effect.map(ask(client, one), ({ vm = createMessage(VmSchema) }) => answered(one, VmSchema, vm))
      )
    )
  ).pipe(describe({ short, examples: [[`ironwood vm ${name} web`, example]] }))

const patience = { timeout: "5 minutes" } as const
const named = (name: string) => ({ name, requestId: requestId() })

const start = each(
  "start",
  (client, name) => missing(client.call(VmService.method.startVm, named(name), patience)),
  "Start virtual machines that are down",
  "It stays up from then on, by its restart policy"
)
const pause = each(
  "pause",
  (client, name) => missing(client.call(VmService.method.pauseVm, named(name), patience)),
  "Have the processors of virtual machines stand still",
  "Until it is resumed, or stopped"
)
const resume = each(
  "resume",
  (client, name) => missing(client.call(VmService.method.resumeVm, named(name), patience)),
  "Let the processors of virtual machines go on",
  "After a pause, or when there is room on its disk again"
)
const reset = each(
  "reset",
  (client, name) => missing(client.call(VmService.method.resetVm, named(name), patience)),
  "Press the reset button of virtual machines",
  "Its guest begins anew; nobody asks it first"
)

const stop = Command.make(
  "stop",
  {
    time: durationFlag("time", secondsOrDuration).pipe(
      Flag.withAlias("t"),
      Flag.withDescription("How long the guest may take: 30s, or seconds (default: as its spec says)"),
      Flag.optional
    ),
    names
  },
  ({ names, time }) =>
    Effect.flatMap(Client, (client) =>
      forEach(names, (name) =>
        Effect.map(
          missing(
            client.call(
              VmService.method.stopVm,
              { name, requestId: requestId(), ...(Option.isSome(time) ? { gracePeriod: toProto(time.value) } : {}) },
              { timeout: stopTimeout }
            )
          ),
          ({ vm = createMessage(VmSchema) }) => answered(name, VmSchema, vm)
        )
      )
    )
).pipe(
  describe({
    short: "Stop virtual machines: the power button, the grace period, then the end of the hypervisor",
    long: [
      "Returns when they are down. They stay down, also over restarts of Ironwood and of the host, until a start."
    ],
    examples: [
      ["ironwood vm stop -t 2m db", "Give it two minutes to power off"],
      ["ironwood vm stop -t 0 web", "Pull the plug"]
    ]
  })
)

const rm = Command.make(
  "rm",
  {
    force: Flag.Boolean("force").pipe(
      Flag.withAlias("f"),
      Flag.withDescription(
        "Those too that are up (their hypervisors are killed) or have snapshots (which go with them)"
      ),
      Flag.withDefault(false)
    ),
    names
  },
  ({ force, names }) =>
    Effect.flatMap(Client, (client) =>
      forEach(names, (name) =>
        missing(
          client.call(VmService.method.removeVm, { name, force, requestId: requestId() }, { timeout: "5 minutes" })
        ).pipe(
          Effect.mapError((error) =>
            error.exitCode === exitCodes.conflict && !force
              ? withNext(error, `Stop it and remove its snapshots first, or \`ironwood vm rm -f ${name}\``)
              : error
          ),
          Effect.as(answered(name, VmSchema, createMessage(VmSchema, { spec: { name } })))
        )
      )
    )
).pipe(
  describe({
    short: "Remove virtual machines and their consoles; their disks stay",
    examples: [["ironwood vm stop web && ironwood vm rm web", "In order"]]
  })
)

type Request = MessageInitShape<typeof StreamVmConsoleRequestSchema>

const console = Command.make(
  "console",
  {
    noInput: Flag.Boolean("no-stdin").pipe(Flag.withDescription("Only look"), Flag.withDefault(false)),
    follow: Flag.Boolean("no-follow").pipe(
      Flag.withDescription("Print what there is, and end"),
      Flag.withDefault(false),
      Flag.map((none) => !none)
    ),
    tail: Flag.Int("tail").pipe(
      Flag.withAlias("n"),
      Flag.withMetavar("N"),
      Flag.withDescription("Begin with the last N lines (default: 24)"),
      Flag.withDefault(24)
    ),
    name: Argument.String("NAME").pipe(Argument.withDescription("The virtual machine"))
  },
  Effect.fnUntraced(function* ({ follow, name, noInput, tail }) {
    const client = yield* Client
    const screen = yield* Screen
    const keyboard = yield* Keyboard
    const input = follow && !noInput
    const typing = input && keyboard.isTerminal
    const said = yield* Interactive.said({ input, terminal: false, detachable: typing })
    const begin: Request = { request: { case: "start", value: { name, follow, tail: Math.max(0, tail) } } }
    const typed = said.pipe(
      Stream.mapEffect((one) =>
        one.case === "stdin"
          ? Effect.succeedSome<Request>({ request: { case: "input", value: one.value } })
          : one.case === "signal"
            ? Effect.fail(new Interactive.Impatient())
            : Effect.succeedNone
      ),
      Stream.filter(Option.isSome),
      Stream.map(({ value }) => value)
    )
    if (typing) yield* keyboard.raw
    let left = false
    yield* client.exchange(VmService.method.streamVmConsole, Stream.concat(Stream.make<[Request]>(begin), typed)).pipe(
      Stream.runForEach(({ output }) => screen.write(output)),
      Effect.catchTags({
        Detached: () => Effect.sync(() => void (left = true)),
        Impatient: () => new ContainerEnded({ code: exitCodes.interrupted })
      }),
      missing
    )
    if (left) return yield* Output.remark(`detached; \`ironwood vm console ${name}\` comes back to it`)
  }, Effect.scoped)
).pipe(
  describe({
    short: "Connect to the serial console of a virtual machine",
    long: [
      "What it has printed last, what it prints now, and what is typed or piped here goes to it. It outlives every stop and restart.",
      "On a terminal Ctrl-P Ctrl-Q leaves; without one, Ctrl-C."
    ],
    examples: [
      ["ironwood vm console web", "Log in, as far as the guest lets you"],
      ["ironwood vm console --no-follow -n 200 web", "Its last 200 lines"]
    ]
  })
)

export const vm = Command.make("vm").pipe(
  Command.withSubcommands([
    create,
    start,
    stop,
    pause,
    resume,
    reset,
    attachDisk,
    detachDisk,
    attachNic,
    detachNic,
    resize,
    rm,
    ls,
    inspect,
    console,
    snapshot,
    restore,
    clone,
    migrate
  ]),
  describe({
    short: "Create, steer and watch virtual machines",
    examples: [
      ["ironwood vm create web --disk web.qcow2,format=qcow2 -m 2GiB -p 2222:22", "One that boots a disk"],
      ["ironwood vm console web", "Its serial console"]
    ]
  })
)
