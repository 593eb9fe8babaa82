/** `ironwood inspect`: everything known of one container or actor. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import {
  type Container,
  ContainerSchema,
  ContainerService,
  DesiredState,
  type Security
} from "../../../proto/generated/ironwood/v1/container_pb.ts"
import {
  type Actor,
  ActorSchema,
  type HistoryEntry,
  TreeService
} from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client } from "../Client.ts"
import * as ContainerText from "../ContainerText.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HistoryText from "../HistoryText.ts"
import * as HumanText from "../HumanText.ts"
import { portText } from "../NetworkFlags.ts"
import * as Output from "../Output.ts"
import * as PolicyText from "../PolicyText.ts"
import { pairs } from "../Table.ts"
import * as Target from "../Target.ts"
import * as Text from "../Text.ts"

/** How many entries of the history a person gets to see here; `ironwood history` has all. */
const entriesShown = 8

export const inspect = Command.make(
  "inspect",
  {
    target: Argument.String("NAME|PATH").pipe(
      Argument.withDescription("A container's name, or an actor's path (or its name, when only one has it)")
    )
  },
  Effect.fnUntraced(function* ({ target: word }) {
    const client = yield* Client
    const target = yield* Target.resolve(word)
    if (target._tag === "Actor") {
      const actor = yield* Target.actorOf(target.path)
      return yield* Output.answer(ActorSchema, actor, page(actor, undefined))
    }
    const { container } = yield* client.call(ContainerService.method.getContainer, { name: target.name })
    if (container === undefined) return yield* Effect.die("GetContainer answered without a container")
    return yield* Output.answer(
      ContainerSchema,
      container,
      Effect.flatMap(Target.actorOf(container.actorPath), (actor) => page(actor, container))
    )
  })
).pipe(
  describe({
    short: "Show everything known of a container or an actor",
    long: [
      "State, last exit with its causes, policy in words, limits, and the newest of what happened.",
      "-o json prints the API's Container (or Actor)."
    ],
    examples: [
      ["ironwood inspect web", "A container"],
      ["ironwood inspect init/gateway/grpc", "Any other actor"],
      ["ironwood inspect web -o json | jq .status.pid", "The pid on the host"]
    ]
  })
)

const page = Effect.fnUntraced(function* (actor: Actor, container: Container | undefined) {
  const client = yield* Client
  const style = yield* currentStyle
  const now = yield* Clock.currentTimeMillis
  const { entries } = yield* client.call(TreeService.method.getActorHistory, {
    path: actor.path,
    pageSize: entriesShown
  })
  const section = (title: string, rows: ReadonlyArray<readonly [string, string]>): ReadonlyArray<string> => {
    const filled = rows.filter(([, value]) => value !== "")
    return filled.length === 0 ? [] : ["", style.bold(title), ...pairs(filled, { indent: "  ", name: style.dim })]
  }
  const state = ActorText.state(actor)
  const span = ActorText.stateSpan(actor, now)
  const color = ActorText.paint(style, state.color)
  return [
    `${style.bold(Text.clean(actor.path))}  ${style.dim(Text.clean(actor.kind))}  ${color(state.word)}${span === "" ? "" : ` for ${span}`}`,
    ...section("State", [
      ["about", Text.clean(actor.description)],
      ["strategy", ActorText.strategy(actor)],
      ["trouble", ActorText.troubles(actor, now).join(", ")],
      ["why", Text.clean(actor.reason)],
      ["on account of", Text.clean(actor.because)],
      ["incarnation", String(actor.incarnation)],
      ["restarts", String(actor.restarts)],
      ["failures in a row", actor.consecutiveFailures === 0 ? "" : String(actor.consecutiveFailures)],
      ["budget left", actor.budgetLeft === undefined ? "" : HumanText.count(actor.budgetLeft, "restart")],
      ["its children", ActorText.intensity(actor)],
      ["mailbox", ActorText.mailbox(actor, now)],
      ...Object.entries(actor.annotations)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, value]) => [Text.clean(name), Text.clean(value)] as const)
    ]),
    ...section("Last exit", lastExit(actor, now)),
    ...(container === undefined ? [] : section("Container", facts(container, now))),
    ...(actor.policy === undefined ? [] : section("Restart policy", PolicyText.lines(actor.policy))),
    ...history(entries, now, style.bold)
  ]
})

const lastExit = ({ lastExit: exit }: Actor, now: number): ReadonlyArray<readonly [string, string]> => {
  if (exit === undefined) return []
  const moment = ActorText.momentOf(exit.time)
  const detail = exit.detail.trim().split("\n")
  return [
    ["when", moment === undefined ? "" : HumanText.ago(moment, now)],
    ["kind", Text.clean(exit.tag)],
    ["message", Text.clean(exit.message)],
    ["came of", ActorText.causes(exit).join("\n")],
    // One line says no more than the message does.
    ["stacks", detail.length > 1 ? detail.map(Text.clean).join("\n") : ""]
  ]
}

const facts = (container: Container, now: number): ReadonlyArray<readonly [string, string]> => {
  const { createTime, spec, status } = container
  const created = ActorText.momentOf(createTime)
  const words = (record: Record<string, string>) =>
    Object.entries(record)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => Text.clean(`${name}=${value}`))
      .join("\n")
  const limits = [
    ...(spec?.resources?.memoryBytes === undefined ? [] : [`memory ${HumanText.size(spec.resources.memoryBytes)}`]),
    ...(spec?.resources?.cpus === undefined ? [] : [`${spec.resources.cpus} CPUs`]),
    ...(spec?.resources?.pids === undefined ? [] : [`${spec.resources.pids} processes`]),
    ...(spec?.processLimits ?? []).map(({ hard, resource, soft }) => Text.clean(`${resource} ${soft}:${hard}`))
  ]
  return [
    ["image", Text.clean(spec?.image ?? "")],
    ["digest", Text.clean(status?.imageDigest ?? "")],
    ["command", ContainerText.commandText(container)],
    ["directory", Text.clean(spec?.workingDirectory ?? "")],
    ["user", Text.clean(spec?.user ?? "")],
    ["environment", words(spec?.environment ?? {})],
    ["labels", words(spec?.labels ?? {})],
    ["sandbox", Text.clean(spec?.sandbox ?? "")],
    ["ports", container.ports.map(portText).join(", ")],
    ["starts after", (spec?.after ?? []).map(Text.clean).join(", ")],
    ["after success of", (spec?.afterSuccess ?? []).map(Text.clean).join(", ")],
    ["requires", (spec?.requires ?? []).map(Text.clean).join(", ")],
    ["bound to", (spec?.bindsTo ?? []).map(Text.clean).join(", ")],
    ["limits", limits.join(", ")],
    ["security", security(spec?.security)],
    [
      "mounts",
      (spec?.mounts ?? [])
        .map(
          ({ readOnly, source, target }) =>
            `${Text.clean(source)} at ${Text.clean(target)}${readOnly ? ", read-only" : ""}`
        )
        .join("\n")
    ],
    [
      "volumes",
      (spec?.volumes ?? [])
        .map(
          ({ name, readOnly, target }) => `${Text.clean(name)} at ${Text.clean(target)}${readOnly ? ", read-only" : ""}`
        )
        .join("\n")
    ],
    ["devices", (spec?.devices ?? []).map(({ access, path }) => `${Text.clean(path)} (${access})`).join(", ")],
    ["secrets", (spec?.secrets ?? []).map(({ name }) => Text.clean(name)).join(", ")],
    ["root filesystem", spec?.readonlyRootfs === true ? "read-only" : ""],
    [
      "stop",
      `${Text.clean(spec?.stopSignal ?? "") || "the image's signal"}, killed after ${HumanText.shortSpan(ActorText.millisecondsOf(spec?.stopGracePeriod))}`
    ],
    ["asked for", status?.desired === DesiredState.STOPPED ? "stopped (by a person)" : "running"],
    ["created", created === undefined ? "" : HumanText.ago(created, now)],
    ["uid", container.uid]
  ]
}

const security = (wanted: Security | undefined): string =>
  wanted === undefined
    ? ""
    : [
        ...(wanted.privileged ? ["privileged"] : []),
        ...(wanted.seccompUnconfined ? ["every system call"] : []),
        ...wanted.addCapabilities.map((name) => `and ${Text.clean(name)}`),
        ...wanted.dropCapabilities.map((name) => `without ${Text.clean(name)}`)
      ].join(", ")

const history = (
  entries: ReadonlyArray<HistoryEntry>,
  now: number,
  bold: (text: string) => string
): ReadonlyArray<string> =>
  entries.length === 0
    ? []
    : ["", bold("History (newest first)"), ...HistoryText.table(entries, now).map((line) => `  ${line}`)]
