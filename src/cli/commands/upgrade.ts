/** `ironwood upgrade …`: another brain for a running Ironwood, and the way back. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { existsSync } from "node:fs"
import {
  ActivateBrainResponseSchema,
  GetUpgradeResponseSchema,
  InstallBrainResponseSchema,
  UpgradeFate,
  UpgradeService
} from "../../../proto/generated/ironwood/v1/upgrade_pb.ts"
import { Client } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Output from "../Output.ts"
import type { Seconds } from "../Quantity.ts"
import { durationFlag, secondsOrDuration, toProto } from "../QuantityFlags.ts"
import * as Text from "../Text.ts"
import * as UpgradeKeys from "../UpgradeKeys.ts"
import * as UpgradeText from "../UpgradeText.ts"

const brainFile = Argument.String("FILE").pipe(
  Argument.withDescription("A brain, as a checkout that was set up has it in build/brain.tar")
)

const deadlineFlag = durationFlag("deadline", secondsOrDuration).pipe(
  Flag.withDescription("How long it has to prove itself, 5s to 1h; default: 2m"),
  Flag.optional
)

const noWaitFlag = Flag.Boolean("no-wait").pipe(
  Flag.withDescription("Do not wait for what becomes of it"),
  Flag.withDefault(false)
)

const deadlineOf = (deadline: Option.Option<Seconds>) =>
  Option.match(deadline, { onNone: () => ({}), onSome: (time) => ({ deadline: toProto(time) }) })

/** Of a message; less than what a server takes. */
const chunkBytes = 256 * 1024

/** Waits until it is known what became of the brain; fails when it was left. */
const outcome = Effect.fnUntraced(function* (id: string, deadline: Option.Option<Seconds>) {
  const client = yield* Client
  const began = yield* Clock.currentTimeMillis
  const patience = Option.match(deadline, { onNone: () => 120, onSome: ({ seconds }) => Number(seconds) }) + 60
  for (;;) {
    const waited = (yield* Clock.currentTimeMillis) - began
    const answer = yield* Effect.option(client.call(UpgradeService.method.getUpgrade, {}, { timeout: "5 seconds" }))
    const last = answer._tag === "Some" ? answer.value.last : undefined
    if (answer._tag === "Some" && last?.brain === id && last.fate !== UpgradeFate.TRYING) {
      yield* Output.progressDone
      if (last.fate === UpgradeFate.CONFIRMED) {
        return `${Text.clean(last.version)} (${UpgradeText.shortId(id)}) runs and has proved itself`
      }
      const running = answer.value.brains.find((brain) => brain.running)
      return yield* failure(
        `${Text.clean(last.version)} (${UpgradeText.shortId(id)}) was left: ${last.fallBack === undefined ? "" : UpgradeText.fallBack(last.fallBack)}`,
        {
          exitCode: exitCodes.failed,
          next: `${Text.clean(running?.version ?? "the one before")} runs, and every workload with it; the log of the brain says more`
        }
      )
    }
    if (waited > patience * 1000) {
      yield* Output.progressDone
      return yield* failure(`it is not known what became of it after ${HumanText.span(waited)}`, {
        exitCode: exitCodes.timeout,
        next: "`ironwood upgrade status` tells once somebody answers"
      })
    }
    yield* Output.progress(`the new brain has to prove itself… ${HumanText.shortSpan(waited)}`)
    yield* Effect.sleep("500 millis")
  }
})

const install = Command.make(
  "install",
  {
    file: brainFile,
    signature: Flag.String("signature").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("Its signature; default: FILE.sig, where there is one"),
      Flag.optional
    ),
    deadline: deadlineFlag,
    only: Flag.Boolean("only").pipe(
      Flag.withDescription("Put it on the host's disk, and do not run it"),
      Flag.withDefault(false)
    ),
    noWait: noWaitFlag
  },
  Effect.fnUntraced(function* ({ deadline, file, noWait, only, signature }) {
    const client = yield* Client
    const bytes = yield* UpgradeKeys.readBrain(file)
    const signatureFile = Option.getOrUndefined(signature) ?? (existsSync(`${file}.sig`) ? `${file}.sig` : undefined)
    const start = {
      digest: UpgradeKeys.digestOf(bytes),
      size: BigInt(bytes.length),
      installOnly: only,
      ...deadlineOf(deadline),
      ...(signatureFile === undefined ? {} : { signature: yield* UpgradeKeys.readSignature(signatureFile) })
    }
    let sent = 0
    const pieces = Array.from({ length: Math.ceil(bytes.length / chunkBytes) }, (_, index) => () => {
      sent = (index + 1) * chunkBytes
      return {
        piece: { case: "chunk" as const, value: bytes.subarray(index * chunkBytes, (index + 1) * chunkBytes) }
      }
    })
    const told = Effect.forever(
      Effect.andThen(
        Effect.suspend(() =>
          Output.progress(`sending ${HumanText.size(Math.min(sent, bytes.length))} of ${HumanText.size(bytes.length)}`)
        ),
        Effect.sleep("100 millis")
      )
    )
    const answer = yield* Effect.raceFirst(
      client.send(UpgradeService.method.installBrain, [
        () => ({ piece: { case: "start" as const, value: start } }),
        ...pieces
      ]),
      told
    ).pipe(Effect.ensuring(Output.progressDone))
    const { brain, lasting, signedBy, trying } = answer
    yield* Output.answer(
      InstallBrainResponseSchema,
      answer,
      Effect.succeed([
        `${Text.clean(brain?.version ?? "")} (${UpgradeText.shortId(brain?.id ?? "")}) is installed; ${
          signedBy === "" ? "nothing vouches for it but its digest" : `the key ${Text.clean(signedBy)} vouches for it`
        }`
      ])
    )
    if (!lasting) {
      yield* Output.remark("this machine keeps its state in memory: the brain is gone when it starts anew")
    }
    if (!trying || noWait || brain === undefined) return
    const said = yield* outcome(brain.id, deadline)
    yield* Output.people([said])
  })
).pipe(
  describe({
    short: "Bring another brain and try it; workloads go on",
    long: [
      "It is on trial until it answers with every workload adopted. When it does not in time, ends too often, or speaks another",
      "protocol, the one before it has its turn again by itself, and the command says why. Where the machine config has keys",
      "(`upgrade.keys`) it must be signed with one of them."
    ],
    examples: [
      ["ironwood upgrade install build/brain.tar", "With build/brain.tar.sig, if that is there"],
      ["ironwood upgrade install brain.tar --deadline 30s", "Back after 30 seconds if it has not proved itself"],
      ["ironwood upgrade install brain.tar --only", "On the disk, for `ironwood upgrade use`"]
    ]
  })
)

const status = Command.make(
  "status",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const answer = yield* client.call(UpgradeService.method.getUpgrade, {})
    return yield* Output.answer(
      GetUpgradeResponseSchema,
      answer,
      Effect.flatMap(Clock.currentTimeMillis, (now) => UpgradeText.status(answer, now))
    )
  })
).pipe(
  describe({
    short: "Show which brain runs, which there are, and what became of the last upgrade",
    examples: [
      ["ironwood upgrade status", "All of it"],
      ["ironwood upgrade status -o json | jq .last.fallBack", "Why the last one was left"]
    ]
  })
)

const activate = Effect.fnUntraced(function* (brain: string, deadline: Option.Option<Seconds>, noWait: boolean) {
  const client = yield* Client
  const answer = yield* client.call(UpgradeService.method.activateBrain, { brain, ...deadlineOf(deadline) })
  const name = UpgradeText.shortId(answer.brain)
  yield* Output.answer(
    ActivateBrainResponseSchema,
    answer,
    Effect.succeed([answer.trying ? `${name} takes over` : `${name} runs already, and stays`])
  )
  if (!answer.trying || noWait) return
  yield* Output.people([yield* outcome(answer.brain, deadline)])
})

const use = Command.make(
  "use",
  {
    brain: Argument.String("BRAIN").pipe(
      Argument.withDescription("The beginning of its id, or built-in; `ironwood upgrade status` lists them")
    ),
    deadline: deadlineFlag,
    noWait: noWaitFlag
  },
  Effect.fnUntraced(function* ({ brain, deadline, noWait }) {
    return yield* activate(brain, deadline, noWait)
  })
).pipe(
  describe({
    short: "Try a brain that is installed",
    long: ["For the one that runs it only forgets what became of the last upgrade, so that the tree is well again."],
    examples: [
      ["ironwood upgrade use 3f2a90", "One that was installed before"],
      ["ironwood upgrade use built-in", "The one of the image"]
    ]
  })
)

const rollback = Command.make(
  "rollback",
  { deadline: deadlineFlag, noWait: noWaitFlag },
  Effect.fnUntraced(function* ({ deadline, noWait }) {
    return yield* activate("fall-back", deadline, noWait)
  })
).pipe(
  describe({
    short: "Go back to the brain before the one that runs",
    examples: [["ironwood upgrade rollback", "For what only people notice"]]
  })
)

const keygen = Command.make(
  "keygen",
  {
    file: Argument.String("FILE").pipe(
      Argument.withDescription("Where the secret key goes; the public one goes to FILE.pub")
    )
  },
  Effect.fnUntraced(function* ({ file }) {
    const key = yield* UpgradeKeys.generate(file)
    yield* Output.lines([key])
    yield* Output.remark(
      `the secret key is in ${file}; a machine takes brains signed with it once its config has the line above:`
    )
    yield* Output.remark(`  ironwood config patch '{"upgrade": {"keys": ["${key}"]}}'`)
  })
).pipe(
  describe({
    short: "Make a key that vouches for brains",
    long: ["The public half is printed. It goes into the machine config; the secret half stays with you."],
    examples: [["ironwood upgrade keygen brain.key", "brain.key and brain.key.pub"]]
  })
)

const sign = Command.make(
  "sign",
  {
    file: brainFile,
    key: Flag.String("key").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("The secret key, as `ironwood upgrade keygen` makes it")
    )
  },
  Effect.fnUntraced(function* ({ file, key }) {
    const digest = yield* UpgradeKeys.sign(file, key)
    yield* Output.lines([`${file}.sig vouches for ${digest}`])
  })
).pipe(
  describe({
    short: "Sign a brain",
    examples: [["ironwood upgrade sign build/brain.tar --key brain.key", "Writes build/brain.tar.sig"]]
  })
)

export const upgrade = Command.make("upgrade").pipe(
  Command.withSubcommands([install, status, rollback, use, keygen, sign]),
  describe({
    short: "Bring another brain, and go back",
    long: [
      "The brain is the part of Ironwood that decides; another one takes its place while every workload goes on. It is tried",
      "first, and taproot goes back by itself when it does not prove itself."
    ],
    examples: [
      ["ironwood upgrade install build/brain.tar", "Try another one"],
      ["ironwood upgrade status", "Which runs, and what became of the last"],
      ["ironwood upgrade rollback", "The one before"]
    ]
  })
)
