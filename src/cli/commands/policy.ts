/** `ironwood policy …`: restart policies, read and changed live, by name, and played through without starting anything. */
import { create } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { type RestartPolicy, RestartPolicySchema } from "../../../proto/generated/ironwood/v1/policy_pb.ts"
import {
  ExplainPolicyResponseSchema,
  ListPresetsResponseSchema,
  PolicyService
} from "../../../proto/generated/ironwood/v1/policy_service_pb.ts"
import { TreeService } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { Client } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import * as ExitPlan from "../ExitPlan.ts"
import * as ExplainText from "../ExplainText.ts"
import { failure } from "../Failure.ts"
import { wrongFlags } from "../FlagProblems.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as Manifest from "../Manifest.ts"
import * as Output from "../Output.ts"
import * as PolicyFlags from "../PolicyFlags.ts"
import * as PolicyText from "../PolicyText.ts"
import { toProto } from "../QuantityFlags.ts"
import { requestId } from "../RequestId.ts"
import { Screen } from "../Screen.ts"
import { nearest } from "../Suggest.ts"
import * as Table from "../Table.ts"
import * as SpecFiles from "../SpecFiles.ts"
import * as Target from "../Target.ts"
import * as Text from "../Text.ts"

const target = Argument.String("NAME|PATH").pipe(
  Argument.withDescription("A container's name, or an actor's path or name")
)

const print = (policy: RestartPolicy) =>
  Output.answer(
    RestartPolicySchema,
    policy,
    Effect.map(currentStyle, (style) => Table.pairs(PolicyText.lines(policy), { name: style.dim }))
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

/** The presets that the server has. */
const listPresets = Effect.flatMap(Client, (client) => client.call(PolicyService.method.listPresets, {}))

/** The policy of a preset. */
const presetNamed = Effect.fnUntraced(function* (wanted: string) {
  const { presets } = yield* listPresets
  const found = presets.find(({ name }) => name === wanted)?.policy
  if (found !== undefined) return found
  const near = nearest(
    wanted,
    presets.map(({ name }) => name)
  )
  return yield* failure(`there is no preset "${wanted}"`, {
    exitCode: exitCodes.usage,
    next: `${near === undefined ? "" : `Did you mean "${near}"? `}\`ironwood policy presets\` shows all`
  })
})

const set = Command.make(
  "set",
  { ...PolicyFlags.policyFlags, target },
  Effect.fnUntraced(function* ({ preset, target: word, ...flags }) {
    const client = yield* Client
    if (Option.isNone(preset) && Object.values(flags).every((flag) => flag._tag === "None")) {
      return yield* failure("nothing to change", {
        exitCode: exitCodes.usage,
        next: "Say what, e.g. --max 30s; `ironwood policy set --help` has examples"
      })
    }
    const change = PolicyFlags.read(flags)
    if (Result.isFailure(change)) return yield* wrongFlags("policy set", change.failure, "Nothing was changed")
    const who = yield* Target.resolve(word)
    const before = yield* Option.match(preset, { onNone: () => policyOf(who), onSome: presetNamed })
    const policy = PolicyFlags.change(before, change.success)
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
      "Only what is said changes; with --preset, the preset takes the place of what was. Nothing is restarted: the new policy",
      "decides from the next ending on. Rules by exit are written in a spec file.",
      "For a container or a virtual machine it is kept for good, or until a spec file with another policy is applied (`apply`,",
      "`up --file`); for other actors until Ironwood's brain is restarted."
    ],
    examples: [
      ["ironwood policy set web --restart always", "Restarted however it ends"],
      ["ironwood policy set job --restart on-failure", "Restarted only when it fails (transient)"],
      ["ironwood policy set web --initial 200ms --factor 2 --max 30s", "Wait 200ms, 400ms … 30s between tries"],
      ["ironwood policy set web --first 0s", "The first restart after a healthy run at once"],
      ["ironwood policy set web --budget 5/10m --when-spent park", "After 5 restarts in 10 minutes wait for a person"],
      ["ironwood policy set web --budget none", "Never give up"],
      ["ironwood policy set web --max-consecutive 5 --when-spent park", "Catch a slow crash loop too"],
      ["ironwood policy set web --preset kubernetes --max 1m", "As Kubernetes does, but never wait longer than 1m"]
    ]
  })
)

const presets = Command.make(
  "presets",
  {},
  Effect.fnUntraced(function* () {
    const answer = yield* listPresets
    return yield* Output.answer(
      ListPresetsResponseSchema,
      answer,
      Effect.gen(function* () {
        const style = yield* currentStyle
        const size = yield* (yield* Screen).size
        return Table.render(
          [{ title: "PRESET" }, { title: "WHAT IT DOES", shrinkTo: 24 }],
          answer.presets.map(({ description, name }) => [Text.clean(name), Text.clean(description)]),
          { heading: style.dim, ...(size === undefined ? {} : { width: size.columns }) }
        )
      })
    )
  })
).pipe(
  describe({
    short: "Show the policies that can be had by name",
    long: ["In a spec file: `restart: { preset: kubernetes }`; other fields beside it hold instead of the preset's."],
    examples: [
      ["ironwood policy presets", "Names and what they do"],
      ["ironwood policy explain --preset systemd", "What one of them does with a crash loop"]
    ]
  })
)

const wrongFile = (problems: ReadonlyArray<string>) =>
  failure("the policy is wrong", { exitCode: exitCodes.usage, details: problems.map(Text.clean) })

/** The policy in a file: that of the container or machine `name`, of the only one there is, or the whole file. */
const policyInFile = Effect.fnUntraced(function* (file: string, name: Option.Option<string>) {
  const text = yield* SpecFiles.readText(file)
  const called = file === "-" ? "stdin" : file
  if (!Manifest.hasKinds(text)) {
    const read = Manifest.parseMessage(text, called, RestartPolicySchema)
    return Result.isSuccess(read) ? read.success : yield* wrongFile(read.failure)
  }
  const { objects, problems } = Manifest.parse(text, called)
  if (problems.length > 0) return yield* wrongFile(problems.map(Manifest.formatProblem))
  const workloads = objects.filter((object) => object.kind === "Container" || object.kind === "Vm")
  const names = workloads.map((object) => object.name)
  const found = Option.match(name, {
    onNone: () => (workloads.length === 1 ? workloads[0] : undefined),
    onSome: (wanted) => workloads.find((object) => object.name === wanted)
  })
  if (found !== undefined) return found.spec.restart ?? create(RestartPolicySchema)
  return yield* failure(
    Option.match(name, {
      onNone: () => `${called} holds ${names.length === 0 ? "no container and no machine" : "several"}`,
      onSome: (wanted) => `${called} holds no container or machine "${wanted}"`
    }),
    {
      exitCode: exitCodes.usage,
      next: names.length === 0 ? "Name a file with one" : `Name one: ${names.map(Text.clean).join(", ")}`
    }
  )
})

const explain = Command.make(
  "explain",
  {
    preset: PolicyFlags.presetFlag,
    file: Flag.String("file").pipe(
      Flag.withAlias("f"),
      Flag.withMetavar("FILE|-"),
      Flag.withDescription(
        "A spec file with containers or machines, or one that holds a policy alone; - for standard input"
      ),
      Flag.optional
    ),
    exits: Flag.String("exits").pipe(
      Flag.withMetavar("LIST"),
      Flag.withDescription(
        'What happens, e.g. "1s:code=1 x3, 20s:oom, 3s:signal=SIGKILL, @10m:ok": a run of 1s ends with code 1, three times …'
      ),
      Flag.mapEffect((text) =>
        Result.match(ExitPlan.parse(text), {
          onSuccess: (plan) => Effect.succeed(plan),
          onFailure: (expected) =>
            Effect.fail(new CliError.InvalidValue({ option: "exits", value: text, expected, kind: "flag" }))
        })
      ),
      Flag.optional
    ),
    intensity: PolicyFlags.intensityFlag,
    target: Argument.String("NAME|PATH").pipe(
      Argument.withDescription(
        "A container's name, or an actor's path or name; with --file a container or machine in it"
      ),
      Argument.optional
    )
  },
  Effect.fnUntraced(function* ({ exits, file, intensity, preset, target: word }) {
    const client = yield* Client
    if (Option.isSome(preset) && (Option.isSome(file) || Option.isSome(word))) {
      return yield* failure("--preset is a policy of its own", {
        exitCode: exitCodes.usage,
        next: "Name an actor, a preset or a file"
      })
    }
    const asked = Option.isSome(preset)
      ? yield* presetNamed(preset.value)
      : Option.isSome(file)
        ? yield* policyInFile(file.value, word)
        : Option.isSome(word)
          ? yield* policyOf(yield* Target.resolve(word.value))
          : // Nobody is named: what somebody gets who says nothing.
            create(RestartPolicySchema)
    const answer = yield* client.call(PolicyService.method.explainPolicy, {
      policy: asked,
      exits: [...Option.getOrElse(exits, () => crashLoop)],
      ...(Option.isNone(intensity)
        ? {}
        : { intensity: { restarts: intensity.value.restarts, within: toProto(intensity.value.within) } })
    })
    return yield* Output.answer(
      ExplainPolicyResponseSchema,
      answer,
      Effect.gen(function* () {
        const style = yield* currentStyle
        const size = yield* (yield* Screen).size
        return ExplainText.lines(answer, {
          dim: style.dim,
          ...(size === undefined ? {} : { width: size.columns })
        })
      })
    )
  })
).pipe(
  describe({
    short: "Show what a restart policy would do with given exits, and why",
    long: [
      "A dry run: nothing is started. Without a name, a preset or a file it is the policy of somebody who says nothing; without",
      "--exits a crash loop, eight runs of 1s that end with code 1.",
      "",
      "An exit is [TIME:]WHAT, with xN behind it N times. TIME: how long the run lasted, or with @ since the first start.",
      "WHAT: ok, code=N, signal=NAME, oom, probe=NAME, tag=NAME, class=defect, unready (before it was up); joined by +."
    ],
    examples: [
      ["ironwood policy explain flaky", "What the policy of flaky makes of a crash loop"],
      [
        'ironwood policy explain --preset kubernetes --exits "1s:code=1 x5, 11m:code=1"',
        "Kubernetes' back-off, and its reset"
      ],
      ["ironwood policy explain -f examples/restart-policies.yaml job", "Before it is applied"]
    ]
  })
)

/** What is played when nothing is said. */
const crashLoop = Result.getOrElse(ExitPlan.parse("1s:code=1 x8"), () => [])

export const policy = Command.make("policy").pipe(
  Command.withSubcommands([get, set, explain, presets]),
  describe({
    short: "Show, change or try out restart policies",
    long: [
      "A policy says which endings lead to a restart (permanent: all; transient: failures; temporary: none), what is different",
      "for particular exits (rules), how long to wait (a back-off that grows and is reset by a healthy run), how many restarts",
      "are allowed in a stretch of time (the budget) or in a row, and what happens when that is spent."
    ]
  })
)
