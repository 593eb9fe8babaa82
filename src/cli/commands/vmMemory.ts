/** `ironwood vm restore`, `clone`, `migrate`: what is done with the memory of virtual machines besides snapshots. */
import { create as createMessage } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { MigrateVmResponseSchema, VmSchema, VmService } from "../../../proto/generated/ironwood/v1/vm_pb.ts"
import { Client } from "../Client.ts"
import { checked, type FlagProblem, wrongFlags } from "../FlagProblems.ts"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"
import { requestId } from "../RequestId.ts"
import { parseForward } from "../VmFlags.ts"
import { missingSnapshot, patience, snapshotName, standstill, vmName } from "./vmSnapshot.ts"

export const restore = Command.make(
  "restore",
  { name: vmName, snapshot: snapshotName },
  Effect.fnUntraced(function* ({ name, snapshot }) {
    const client = yield* Client
    const { vm = createMessage(VmSchema) } = yield* missingSnapshot(
      client.call(VmService.method.restoreVm, { name, snapshot, requestId: requestId() }, patience)
    )
    return yield* Output.answer(VmSchema, vm, Effect.succeed([name]))
  })
).pipe(
  describe({
    short: "Take a virtual machine back to a snapshot, disks and all",
    long: [
      "What it is now is ended, and what has been written to its disks since is lost. Its guest goes on in the middle of what it did, its clock being that of then.",
      "A snapshot that is damaged, or of another hypervisor than there is here, is refused before anything is touched. After a later crash the machine boots from its disks."
    ],
    examples: [["ironwood vm restore web before-upgrade", "As if nothing had happened since"]]
  })
)

export const clone = Command.make(
  "clone",
  {
    cold: Flag.Boolean("cold").pipe(
      Flag.withDescription("It boots from the copies of the disks, with addresses of its own, instead of going on"),
      Flag.withDefault(false)
    ),
    publish: checked("publish", "[ADDRESS:]HOST:GUEST", parseForward).pipe(
      Flag.withAlias("p"),
      Flag.withDescription(
        "A port of the host that leads to its first card; those of the first machine are not taken over; may be repeated"
      ),
      Flag.atLeast(0)
    ),
    name: vmName,
    snapshot: snapshotName,
    clone: Argument.String("NEW-NAME").pipe(Argument.withDescription("The machine to make"))
  },
  Effect.fnUntraced(function* ({ clone, cold, name, publish, snapshot }) {
    const client = yield* Client
    const problems: Array<FlagProblem> = []
    const forwards = publish.flatMap((one) => {
      if (Result.isSuccess(one)) return [one.success]
      problems.push(one.failure)
      return []
    })
    if (problems.length > 0) return yield* wrongFlags("vm clone", problems)
    const request = { name, snapshot, clone, cold, forwards, requestId: requestId() }
    const { vm = createMessage(VmSchema) } = yield* missingSnapshot(
      client.call(VmService.method.cloneVm, request, patience)
    )
    return yield* Output.answer(VmSchema, vm, Effect.succeed([clone]))
  })
).pipe(
  describe({
    short: "Make another virtual machine of a snapshot",
    long: [
      "Its disks are copies, beside those of the first machine and called NEW-NAME-<their name>.",
      "A guest that goes on has in its memory what the first one has: host name, addresses, machine id, keys, the state of its random numbers. On networks of their own that is no harm; --cold has it boot instead."
    ],
    examples: [
      ["ironwood vm clone web good web2 -p 8081:80", "A second one, up at once, reached at another port"],
      ["ironwood vm clone web good lab --cold", "One that boots from what was on the disks"]
    ]
  })
)

export const migrate = Command.make(
  "migrate",
  { name: vmName },
  Effect.fnUntraced(function* ({ name }) {
    const client = yield* Client
    const answer = yield* missingSnapshot(
      client.call(VmService.method.migrateVm, { name, requestId: requestId() }, patience)
    )
    return yield* Output.answer(
      MigrateVmResponseSchema,
      answer,
      Effect.succeed([
        `${name}  process ${answer.vm?.status?.pid ?? ""}, its guest stood still for ${standstill(answer.stoodStill)}`
      ])
    )
  })
).pipe(
  describe({
    short: "Move a virtual machine to a new process of its hypervisor, while it runs",
    long: [
      "After an upgrade of the hypervisor this has a machine run with the new one, without a reboot. The host needs its memory twice for the moment; on any failure it goes on where it is."
    ],
    examples: [["apt-get upgrade qemu-system-x86 && ironwood vm migrate web", "On with the new QEMU"]]
  })
)
