/** `ironwood policy get` and `policy set`: restart policies, read and changed live. */
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { type RestartPolicy, RestartPolicySchema } from "../../../proto/generated/ironwood/v1/policy_pb.ts"
import { TreeService } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { Client } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"
import * as PolicyFlags from "../PolicyFlags.ts"
import * as PolicyText from "../PolicyText.ts"
import { requestId } from "../RequestId.ts"
import { pairs } from "../Table.ts"
import * as Target from "../Target.ts"

const target = Argument.String("NAME|PATH").pipe(
  Argument.withDescription("A container's name, or an actor's path or name")
)

const print = (policy: RestartPolicy) =>
  Output.answer(
    RestartPolicySchema,
    policy,
    Effect.map(currentStyle, (style) => pairs(PolicyText.lines(policy), { name: style.dim }))
  )

/** The policy in force: a container's is its own, also while its sandbox is down. */
const policyOf = Effect.fnUntraced(function* (who: Target.Target) {
  const client = yield* Client
  const policy =
    who._tag === "Container"
      ? (yield* client.call(ContainerService.method.getContainer, { name: who.name })).container?.spec?.restart
      : (yield* Target.actorOf(who.path)).policy
  if (policy !== undefined) return policy
  return yield* failure("it has no restart policy of its own", {
    exitCode: exitCodes.conflict,
    next: "`ironwood tree` shows its supervisor, which decides"
  })
})

const get = Command.make(
  "get",
  { target },
  Effect.fnUntraced(function* ({ target: word }) {
    yield* print(yield* policyOf(yield* Target.resolve(word)))
  })
).pipe(
  describe({
    short: "Show the restart policy of a container or actor, in words",
    examples: [
      ["ironwood policy get flaky", "In words"],
      ["ironwood policy get flaky -o yaml", "As a spec file has it under `restart:`"]
    ]
  })
)

const set = Command.make(
  "set",
  { ...PolicyFlags.policyFlags, target },
  Effect.fnUntraced(function* ({ target: word, ...flags }) {
    const client = yield* Client
    if (Object.values(flags).every((flag) => flag._tag === "None")) {
      return yield* failure("nothing to change", {
        exitCode: exitCodes.usage,
        next: "Say what, e.g. --max 30s; `ironwood policy set --help` has examples"
      })
    }
    const who = yield* Target.resolve(word)
    const policy = PolicyFlags.change(yield* policyOf(who), flags)
    const answer =
      who._tag === "Container"
        ? (yield* client.call(ContainerService.method.setContainerPolicy, {
            name: who.name,
            policy,
            requestId: requestId()
          })).container?.spec?.restart
        : (yield* client.call(TreeService.method.setActorPolicy, { path: who.path, policy, requestId: requestId() }))
            .actor?.policy
    return yield* print(answer ?? policy)
  })
).pipe(
  describe({
    short: "Change the restart policy of a container or actor, live",
    long: [
      "Only what is said changes. Nothing is restarted: the new policy decides from the next ending on.",
      "For a container it is kept for good; for other actors until Ironwood's brain is restarted."
    ],
    examples: [
      ["ironwood policy set web --restart always", "Restarted however it ends"],
      ["ironwood policy set job --restart on-failure", "Restarted only when it fails (transient)"],
      ["ironwood policy set web --initial 200ms --factor 2 --max 30s", "Wait 200ms, 400ms … 30s between tries"],
      ["ironwood policy set web --first 0s", "The first restart after a healthy run at once"],
      ["ironwood policy set web --budget 5/10m --when-spent park", "After 5 restarts in 10 minutes wait for a person"],
      ["ironwood policy set web --budget none", "Never give up"]
    ]
  })
)

export const policy = Command.make("policy").pipe(
  Command.withSubcommands([get, set]),
  describe({
    short: "Show or change restart policies, live",
    long: [
      "A policy says which endings lead to a restart (permanent: all; transient: failures; temporary: none), how long to wait",
      "(a back-off that grows and is reset by a healthy run), how many restarts are allowed in a stretch of time (the",
      "budget), and what happens when that is spent."
    ]
  })
)
