/** `ironwood vm snapshot …`: machines as they were. */
import { create as createMessage } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import {
  ListVmSnapshotsResponseSchema,
  VmSnapshotSchema,
  VmService
} from "../../../proto/generated/ironwood/v1/vm_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { withNext } from "../Failure.ts"
import { answered, forEach } from "../ForEach.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Listing from "../Listing.ts"
import * as Output from "../Output.ts"
import { requestId } from "../RequestId.ts"
import * as Table from "../Table.ts"
import * as Text from "../Text.ts"

/** Memory and disks take their time. */
export const patience = { timeout: "2 hours" } as const

export const vmName = Argument.String("NAME").pipe(Argument.withDescription("A virtual machine"))
export const snapshotName = Argument.String("SNAPSHOT").pipe(Argument.withDescription("One of its snapshots"))

/** One that is not there: where to look. */
export const missingSnapshot = orElseStatus(status.notFound, (error) =>
  withNext(error, "`ironwood vm snapshot ls` lists those there are, `ironwood vm ls` the machines")
)

const millis = ({ nanos, seconds }: { readonly seconds: bigint; readonly nanos: number }): number =>
  Number(seconds) * 1000 + nanos / 1e6

/** `43 ms`. */
export const standstill = (duration: { readonly seconds: bigint; readonly nanos: number } | undefined): string =>
  duration === undefined ? "" : `${Math.round(millis(duration))} ms`

const create = Command.make(
  "create",
  { name: vmName, snapshot: Argument.String("SNAPSHOT").pipe(Argument.withDescription("What it is to be called")) },
  Effect.fnUntraced(function* ({ name, snapshot }) {
    const client = yield* Client
    const answer = yield* missingSnapshot(
      client.call(VmService.method.createVmSnapshot, { vm: name, name: snapshot, requestId: requestId() }, patience)
    )
    const { snapshot: made = createMessage(VmSnapshotSchema) } = answer
    return yield* Output.answer(
      VmSnapshotSchema,
      made,
      Effect.succeed([
        `${snapshot}  ${HumanText.size(made.sizeBytes)}, its guest stood still for ${standstill(made.stoodStill)}`
      ])
    )
  })
).pipe(
  describe({
    short: "Write down a virtual machine: its memory and its disks, of one moment",
    long: [
      "Its guest goes on while its memory is written, then stands still while its disks are copied: for an instant where the file system shares blocks (XFS, Btrfs), else for as long as that takes.",
      "A machine that is paused stays so. Its kernel, its initramfs and its read-only disks are not copied."
    ],
    examples: [["ironwood vm snapshot create web before-upgrade", "Before something that may go wrong"]]
  })
)

const ls = Command.make(
  "ls",
  { name: vmName.pipe(Argument.optional) },
  Effect.fnUntraced(function* ({ name }) {
    const client = yield* Client
    const vm = Option.getOrElse(name, () => "")
    const snapshots = yield* Listing.allPages(
      (pageToken) => missingSnapshot(client.call(VmService.method.listVmSnapshots, { pageToken, vm })),
      (page) => page.snapshots
    )
    return yield* Output.answer(
      ListVmSnapshotsResponseSchema,
      createMessage(ListVmSnapshotsResponseSchema, { snapshots }),
      Listing.table(
        [
          { title: "MACHINE" },
          { title: "SNAPSHOT" },
          { title: "TAKEN" },
          { title: "SIZE", align: "right" },
          { title: "STOOD STILL", align: "right", optional: true },
          { title: "PROBLEM", optional: true }
        ],
        (now) =>
          snapshots.map((one) => {
            const taken = ActorText.momentOf(one.createTime)
            return [
              Text.clean(one.vm),
              Text.clean(one.name),
              taken === undefined ? "" : HumanText.ago(taken, now),
              one.problem === "" ? HumanText.size(one.sizeBytes) : "",
              one.paused ? "paused" : standstill(one.stoodStill),
              Text.clean(one.problem)
            ]
          })
      )
    )
  })
).pipe(
  Command.withAlias("list"),
  describe({
    short: "List the snapshots of a virtual machine, or of all",
    examples: [["ironwood vm snapshot ls web", "Those of one machine"]]
  })
)

const inspect = Command.make(
  "inspect",
  { name: vmName, snapshot: snapshotName },
  Effect.fnUntraced(function* ({ name, snapshot }) {
    const client = yield* Client
    const { snapshot: found = createMessage(VmSnapshotSchema) } = yield* missingSnapshot(
      client.call(VmService.method.getVmSnapshot, { vm: name, name: snapshot })
    )
    return yield* Output.answer(
      VmSnapshotSchema,
      found,
      Effect.gen(function* () {
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        const taken = ActorText.momentOf(found.createTime)
        return Table.pairs(
          [
            ["machine", `${Text.clean(found.vm)}, a ${Text.clean(found.model)} of ${Text.clean(found.hypervisor)}`],
            ["taken", taken === undefined ? "" : HumanText.ago(taken, now)],
            ["size", HumanText.size(found.sizeBytes)],
            ["its guest", found.paused ? "was paused" : `stood still for ${standstill(found.stoodStill)}`],
            ["disks", (found.spec?.disks ?? []).map(({ path }) => Text.clean(path)).join("\n")]
          ].flatMap(([key = "", value = ""]) => (value === "" ? [] : [[key, value] as const])),
          { name: style.dim }
        )
      })
    )
  })
).pipe(
  describe({
    short: "Show what is known of a snapshot",
    examples: [["ironwood vm snapshot inspect web good -o json | jq .spec", "The machine as it was"]]
  })
)

const rm = Command.make(
  "rm",
  { name: vmName, snapshots: snapshotName.pipe(Argument.variadic({ min: 1 })) },
  ({ name, snapshots }) =>
    Effect.flatMap(Client, (client) =>
      forEach(snapshots, (snapshot) =>
        Effect.as(
          missingSnapshot(
            client.call(
              VmService.method.removeVmSnapshot,
              { vm: name, name: snapshot, requestId: requestId() },
              patience
            )
          ),
          answered(snapshot, VmSnapshotSchema, createMessage(VmSnapshotSchema, { vm: name, name: snapshot }))
        )
      )
    )
).pipe(
  describe({
    short: "Remove snapshots of a virtual machine",
    examples: [["ironwood vm snapshot rm web good", "The machine itself notices nothing"]]
  })
)

export const snapshot = Command.make("snapshot").pipe(
  Command.withSubcommands([create, ls, inspect, rm]),
  describe({
    short: "Take and keep snapshots of virtual machines, with their memory",
    examples: [
      ["ironwood vm snapshot create web good", "Take one"],
      ["ironwood vm restore web good", "Go back to it"]
    ]
  })
)
