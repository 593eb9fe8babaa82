/** `ironwood down`: ends the Ironwood that answers, in order. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { HostService, StopAction } from "../../../proto/generated/ironwood/v1/host_pb.ts"
import * as Address from "../Address.ts"
import { Client, make, orElseStatus, status } from "../Client.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Output from "../Output.ts"
import { requestId } from "../RequestId.ts"
import { isAlive } from "../Taproot.ts"
import * as Path from "effect/Path"

export const down = Command.make(
  "down",
  {
    stateDirectory: Flag.String("state-dir").pipe(
      Flag.withMetavar("DIRECTORY"),
      Flag.withDescription("The state directory of the one to end (instead of --address)"),
      Flag.withDefault("")
    ),
    then: Flag.Literals("then", ["power-off", "restart", "halt", "kexec"]).pipe(
      Flag.withDescription("What a machine that booted into Ironwood does when all is down (default: power-off)"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ stateDirectory, then }) {
    const action = Option.match(then, { onNone: () => StopAction.UNSPECIFIED, onSome: (word) => actions[word] })
    const path = yield* Path.Path
    const client =
      stateDirectory === "" ? yield* Client : yield* make(Address.ofStateDirectory(path.resolve(stateDirectory)))
    const { taprootPid } = yield* client.call(HostService.method.getVersion, {})
    const id = requestId()
    const stop = client.call(HostService.method.stopHost, { requestId: id, action }, { once: true }).pipe(
      Effect.as(true),
      // the API may be gone before its answer is out: it is asked again as long as taproot lives
      Effect.catchIf(
        (error) => lostOnTheWay.has(error.status ?? -1),
        () => Effect.succeed(false)
      )
    )
    let accepted = yield* stop
    const began = yield* Clock.currentTimeMillis
    const local = Address.socketPath(client.address) !== undefined
    const gone = local
      ? Effect.sync(() => !isAlive(taprootPid))
      : client.call(HostService.method.getVersion, {}, { timeout: "2 seconds", once: true }).pipe(
          Effect.as(false),
          orElseStatus(status.unavailable, () => Effect.succeed(true))
        )
    for (let round = 1; !(yield* gone); round++) {
      if (!accepted && round % 20 === 0) accepted = yield* stop
      const now = yield* Clock.currentTimeMillis
      yield* Output.progress(`stopping everything in order… ${HumanText.span(now - began)}`)
      yield* Effect.sleep("50 millis")
    }
    yield* Output.progressDone
    yield* Output.lines([local ? "stopped" : "stopping: the API has ended, and the machine ends the rest in order"])
  }, Effect.scoped)
).pipe(
  describe({
    short: "Stop everything in order and end Ironwood",
    long: [
      "Containers get their stop signal and grace period. Returns when all is down; of a machine elsewhere, when its API is, since",
      "nobody is left there to say more. Should the brain die meanwhile, the next one goes on with it. What was asked for stays on",
      "disk: the next `ironwood up` brings the same containers up again."
    ],
    examples: [
      ["ironwood down", "The one that was started in this directory"],
      ["ironwood down --state-dir /var/lib/ironwood", "Another one"],
      ["ironwood --address 192.0.2.9:50051 down --then restart", "A machine, which then starts anew"]
    ]
  })
)

const actions = {
  "power-off": StopAction.POWER_OFF,
  restart: StopAction.RESTART,
  halt: StopAction.HALT,
  kexec: StopAction.KEXEC
} as const

/** Statuses of a call whose connection broke: cancelled, internal (a reset stream), unavailable. */
const lostOnTheWay: ReadonlySet<number> = new Set([status.cancelled, status.internal, status.unavailable])
