/** `ironwood config …`: the machine config, read, checked, compared, changed, tried and taken back. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  ApplyConfigResponseSchema,
  ConfigService,
  ConfirmConfigResponseSchema,
  GetConfigResponseSchema,
  ListConfigRevisionsResponseSchema,
  PatchConfigResponseSchema,
  RevertConfigResponseSchema,
  ValidateConfigResponseSchema
} from "../../../proto/generated/ironwood/v1/config_pb.ts"
import { Client } from "../Client.ts"
import * as ConfigText from "../ConfigText.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import { OutputSetting, style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"
import { durationFlag, secondsOrDuration, toProto } from "../QuantityFlags.ts"
import { requestId } from "../RequestId.ts"
import { Screen } from "../Screen.ts"
import * as SpecFiles from "../SpecFiles.ts"
import * as Text from "../Text.ts"

const file = Flag.String("file").pipe(
  Flag.withAlias("f"),
  Flag.withMetavar("FILE|-"),
  Flag.withDescription("A machine config in YAML or JSON, or - for standard input")
)

const revisionFlag = Flag.Int("revision").pipe(
  Flag.withMetavar("N"),
  Flag.withDescription("An older revision; `ironwood config history` lists them"),
  Flag.filter(
    (n) => n >= 0,
    (n) => `Expected 0 or more, got ${n}`
  ),
  Flag.optional
)

const tryFlag = durationFlag("try", secondsOrDuration).pipe(
  Flag.withDescription("Take it back after this time unless `ironwood config confirm` is said, e.g. 60s or 5m"),
  Flag.optional
)

const dryRunFlag = Flag.Boolean("dry-run").pipe(
  Flag.withDescription("Check everything and say what would change; change nothing"),
  Flag.withDefault(false)
)

const expectFlag = Flag.Int("expect").pipe(
  Flag.withMetavar("N"),
  Flag.withDescription("Refuse unless this revision is in force, so that nobody's change is lost"),
  Flag.optional
)

interface Changing {
  readonly try: Option.Option<Parameters<typeof toProto>[0]>
  readonly dryRun: boolean
  readonly expect: Option.Option<number>
}

/** What the requests that change something have in common. */
const changing = (flags: Changing) => ({
  validateOnly: flags.dryRun,
  requestId: requestId(),
  ...Option.match(flags.try, { onNone: () => ({}), onSome: (time) => ({ tryFor: toProto(time) }) }),
  ...Option.match(flags.expect, { onNone: () => ({}), onSome: (number) => ({ expectedRevision: BigInt(number) }) })
})

/** A document with what it is called in messages. */
const readFile = (name: string) =>
  Effect.map(SpecFiles.readText(name), (text) => ({ text, called: name === "-" ? "stdin" : name }))

const get = Command.make(
  "get",
  { revision: revisionFlag },
  Effect.fnUntraced(function* ({ revision }) {
    const client = yield* Client
    const answer = yield* client.call(
      ConfigService.method.getConfig,
      Option.match(revision, { onNone: () => ({}), onSome: (number) => ({ revision: BigInt(number) }) })
    )
    if ((yield* OutputSetting) !== "table") {
      return yield* Output.answer(GetConfigResponseSchema, answer, Effect.succeed([]))
    }
    const screen = yield* Screen
    yield* screen.write(answer.document.endsWith("\n") ? answer.document : `${answer.document}\n`)
    // remarks go where they do not end up in somebody's file
    const style = yield* currentStyle
    if (answer.trial !== undefined) yield* Output.remark(style.yellow(ConfigText.trial(answer.trial)))
    for (const line of ConfigText.problems(answer.source?.problems ?? [])) {
      yield* Output.remark(style.yellow(`${Text.clean(answer.source?.name ?? "")} is wrong: ${line}`))
    }
    for (const line of ConfigText.problems(answer.problems)) yield* Output.remark(style.yellow(`not done: ${line}`))
  })
).pipe(
  describe({
    short: "Print the machine config in force, or an older one, as it was written",
    long: [
      "What is wrong with it, or with where the machine should have it from, is told on standard error; -o json has it all."
    ],
    examples: [
      ["ironwood config get > machine.yaml", "To change it and apply it again"],
      ["ironwood config get --revision 3", "As it was"],
      ["ironwood config get -o json | jq .source", "Where the machine has it from, and what is wrong there"]
    ]
  })
)

/** What the server says about a file, which it only looks at. */
const checked = Effect.fnUntraced(function* (name: string) {
  const client = yield* Client
  const { called, text } = yield* readFile(name)
  const answer = yield* client
    .call(ConfigService.method.validateConfig, { document: text })
    .pipe(ConfigText.withLines(called, text))
  return { answer, called }
})

const validate = Command.make(
  "validate",
  { file },
  Effect.fnUntraced(function* ({ file: name }) {
    const { answer, called } = yield* checked(name)
    return yield* Output.answer(ValidateConfigResponseSchema, answer, Effect.succeed([`${called} is right`]))
  })
).pipe(
  describe({
    short: "Check a machine config, which may be another machine's",
    long: ["Everything that is wrong is told at once, with file and line. Nothing is changed."],
    examples: [["ironwood config validate -f machine.yaml", "Before it goes onto a disk, or into a boot entry"]]
  })
)

const diff = Command.make(
  "diff",
  { file },
  Effect.fnUntraced(function* ({ file: name }) {
    const { answer } = yield* checked(name)
    return yield* Output.answer(ValidateConfigResponseSchema, answer, ConfigText.changes(answer.changes))
  })
).pipe(
  describe({
    short: "Show what a machine config would change, and when each change would take effect",
    examples: [
      ["ironwood config diff -f machine.yaml", "Field by field"],
      [
        "ironwood config diff -f machine.yaml -o json | jq -e '[.changes[] | select(.reach == \"CONFIG_REACH_REBOOT\")] == []'",
        "Whether it takes effect without a restart of the machine"
      ]
    ]
  })
)

const apply = Command.make(
  "apply",
  { file: file.pipe(Flag.optional), revision: revisionFlag, try: tryFlag, dryRun: dryRunFlag, expect: expectFlag },
  Effect.fnUntraced(function* ({ file: name, revision, ...flags }) {
    const client = yield* Client
    if (Option.isSome(name) === Option.isSome(revision)) {
      return yield* failure("say which config", {
        exitCode: exitCodes.usage,
        next: "Name a file with -f, or an older revision with --revision; `ironwood config apply --help` has examples"
      })
    }
    const call = (from: { case: "document"; value: string } | { case: "revision"; value: bigint }) =>
      client.call(ConfigService.method.applyConfig, { from, ...changing(flags) })
    const answer = Option.isSome(name)
      ? yield* Effect.flatMap(readFile(name.value), ({ called, text }) =>
          call({ case: "document", value: text }).pipe(ConfigText.withLines(called, text))
        )
      : yield* call({ case: "revision", value: BigInt(Option.getOrElse(revision, () => 0)) })
    return yield* Output.answer(ApplyConfigResponseSchema, answer, ConfigText.applied(answer, flags.dryRun))
  })
).pipe(
  describe({
    short: "Make a machine config hold",
    long: [
      "It takes the place of the one before as a whole; what can take effect at once does, and each field says when. With",
      "--try it is taken back by itself unless you confirm it in time: also when you have cut yourself off, when Ironwood's",
      "brain dies meanwhile, and when the machine has to be reset."
    ],
    examples: [
      ["ironwood config apply -f machine.yaml --dry-run", "What would happen"],
      ["ironwood config apply -f machine.yaml --try 60s", "Back to what was in a minute, unless confirmed"],
      ["ironwood config apply --revision 3", "Back to an older one"],
      ["ironwood config get | sed s/node-1/node-2/ | ironwood config apply -f -", "Changed by a program"]
    ]
  })
)

const patch = Command.make(
  "patch",
  {
    file: file.pipe(
      Flag.withDescription("A file with the patch, or - for standard input, in place of the argument"),
      Flag.optional
    ),
    try: tryFlag,
    dryRun: dryRunFlag,
    expect: expectFlag,
    patch: Argument.String("PATCH").pipe(
      Argument.withDescription("A JSON Merge Patch (RFC 7396), in JSON or YAML: null takes a field out"),
      Argument.optional
    )
  },
  Effect.fnUntraced(function* ({ file: name, patch: given, ...flags }) {
    const client = yield* Client
    if (Option.isSome(name) === Option.isSome(given)) {
      return yield* failure("say what to change", {
        exitCode: exitCodes.usage,
        next: "Give a patch, or a file with one with -f; `ironwood config patch --help` has examples"
      })
    }
    const text = Option.isSome(name) ? (yield* readFile(name.value)).text : Option.getOrElse(given, () => "")
    const answer = yield* client.call(ConfigService.method.patchConfig, { patch: text, ...changing(flags) })
    const { result } = answer
    return yield* Output.answer(
      PatchConfigResponseSchema,
      answer,
      result === undefined ? Effect.succeed([]) : ConfigText.applied(result, flags.dryRun)
    )
  })
).pipe(
  describe({
    short: "Change some fields of the machine config",
    long: ["Lists are replaced as a whole. The document loses its comments."],
    examples: [
      [`ironwood config patch '{"hostname": "node-2"}'`, "One field"],
      [`ironwood config patch 'time: { servers: [192.0.2.123] }' --try 60s`, "In YAML, taken back unless confirmed"],
      [`ironwood config patch '{"kernel": {"consoleLevel": null}}'`, "A field taken out"]
    ]
  })
)

const confirm = Command.make(
  "confirm",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const answer = yield* client.call(ConfigService.method.confirmConfig, {})
    return yield* Output.answer(
      ConfirmConfigResponseSchema,
      answer,
      Effect.succeed([`revision ${answer.revision} stays`])
    )
  })
).pipe(
  describe({
    short: "Keep what is being tried",
    examples: [
      ["ironwood config apply -f machine.yaml --try 60s && ironwood config confirm", "If you can still say so"]
    ]
  })
)

const revert = Command.make(
  "revert",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const answer = yield* client.call(ConfigService.method.revertConfig, {})
    const { result } = answer
    return yield* Output.answer(
      RevertConfigResponseSchema,
      answer,
      result === undefined ? Effect.succeed([]) : ConfigText.applied(result, false)
    )
  })
).pipe(
  describe({
    short: "Take back what is being tried now",
    examples: [["ironwood config revert", "Before its time is over"]]
  })
)

const schema = Command.make(
  "schema",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const answer = yield* client.call(ConfigService.method.getConfigSchema, {})
    yield* (yield* Screen).write(answer.schema)
  })
).pipe(
  describe({
    short: "Print the JSON Schema of a machine config, for editors",
    long: ["The first line of a file can name it: # yaml-language-server: $schema=machine-config.schema.json"],
    examples: [["ironwood config schema > machine-config.schema.json", "For an editor"]]
  })
)

const history = Command.make(
  "history",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const answer = yield* client.call(ConfigService.method.listConfigRevisions, {})
    return yield* Output.answer(
      ListConfigRevisionsResponseSchema,
      answer,
      Effect.flatMap(Clock.currentTimeMillis, (now) => ConfigText.revisions(answer.revisions, now))
    )
  })
).pipe(
  describe({
    short: "List the revisions of the machine config, the newest first",
    long: ["The newest 32 are kept."],
    examples: [["ironwood config history", "Who changed it, when, and what became of it"]]
  })
)

/** A test holds it against `config/Reach.ts`, which decides it and which a client does not have. */
export const takenEverywhere =
  "`api`, `upgrade` (without `upgrade.whenBrainFails`), `containers`, `restarts`, `registries` and `images`"

export const config = Command.make("config").pipe(
  Command.withSubcommands([get, validate, diff, apply, patch, confirm, revert, history, schema]),
  describe({
    short: "Read and change the machine config",
    long: [
      "One document says what a machine that boots into Ironwood is to be: docs/machine-config.md. An Ironwood that is a",
      "process on a machine that is not its own takes only what is about itself:",
      takenEverywhere
    ],
    examples: [
      ["ironwood config get", "What holds"],
      ["ironwood config apply -f machine.yaml --try 60s", "A change that cannot cut you off for good"]
    ]
  })
)
