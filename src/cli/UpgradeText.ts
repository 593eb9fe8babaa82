/** What is said of brains and upgrades. */
import * as Effect from "effect/Effect"
import {
  type Brain,
  FallBackReason,
  type FallBack,
  type GetUpgradeResponse,
  UpgradeFate
} from "../../proto/generated/ironwood/v1/upgrade_pb.ts"
import * as ActorText from "./ActorText.ts"
import { style as currentStyle } from "./Globals.ts"
import * as HumanText from "./HumanText.ts"
import { render } from "./Table.ts"
import * as Text from "./Text.ts"

/** The first twelve digits of an id. */
export const shortId = (id: string): string => Text.clean(id).replace(/^sha256:(.{12}).*$/, "$1")

const reasons: Readonly<Record<FallBackReason, string>> = {
  [FallBackReason.UNSPECIFIED]: "for a reason that is not known here",
  [FallBackReason.ENDED]: "it ended too often before it had proved itself",
  [FallBackReason.UNHEALTHY]: "it was not healthy in time",
  [FallBackReason.PROTOCOL]: "it speaks another version of taproot's protocol",
  [FallBackReason.UNSTABLE]: "it had proved itself, and then could not keep itself up",
  [FallBackReason.INTERRUPTED]: "Ironwood started anew before it had proved itself",
  [FallBackReason.DAMAGED]: "its files are not what was installed",
  [FallBackReason.REQUESTED]: "somebody asked for the one before it"
}

/** Why a brain was left, in a sentence. */
export const fallBack = ({ detail, reason }: FallBack): string =>
  [reasons[reason] ?? reasons[FallBackReason.UNSPECIFIED], Text.clean(detail)].filter((part) => part !== "").join("; ")

const stateOf = ({ fallBack: isFallBack, fault, problem, proving, running }: Brain): string =>
  [
    running ? (proving ? "running, and has yet to prove itself" : "running") : "",
    isFallBack ? "fall-back" : "",
    fault === undefined ? "" : `left: ${fallBack(fault)}`,
    problem === "" ? "" : `cannot run: ${Text.clean(problem)}`
  ]
    .filter((part) => part !== "")
    .join("; ")

const lastLines = ({ brains, last }: GetUpgradeResponse, now: number): ReadonlyArray<string> => {
  if (last === undefined) return []
  const since = ActorText.momentOf(last.time)
  const when = since === undefined ? "" : `, ${HumanText.span(now - since)} ago`
  const name = `${Text.clean(last.version)} (${shortId(last.brain)})`
  switch (last.fate) {
    case UpgradeFate.TRYING:
      return [`${name} is being tried${when}; if it does not prove itself, ${shortId(last.before)} has its turn again`]
    case UpgradeFate.CONFIRMED:
      return [`the last upgrade, to ${name}${when}, went well`]
    case UpgradeFate.FELL_BACK: {
      const running = brains.find((brain) => brain.running)
      const why = last.fallBack === undefined ? "" : `: ${fallBack(last.fallBack)}`
      return [`${name} was left for ${shortId(running?.id ?? last.before)}${why}`]
    }
    case UpgradeFate.UNSPECIFIED:
    default:
      return []
  }
}

/** All of it, for people. */
export const status = Effect.fnUntraced(function* (answer: GetUpgradeResponse, now: number) {
  const style = yield* currentStyle
  const rows = answer.brains.map((brain) => [shortId(brain.id), Text.clean(brain.version), stateOf(brain)])
  return [
    ...render([{ title: "BRAIN" }, { title: "VERSION" }, { title: "STATE" }], rows),
    ...lastLines(answer, now).map((line) => (answer.last?.fate === UpgradeFate.FELL_BACK ? style.yellow(line) : line)),
    ...(answer.note === "" ? [] : [style.yellow(Text.clean(answer.note))]),
    ...(answer.lasting
      ? []
      : [style.yellow("state is kept in memory here: what is installed is gone when the machine starts anew")]),
    ...(answer.signatureRequired
      ? []
      : [style.dim("no key is configured (upgrade.keys): nothing vouches for a brain but its digest")])
  ]
})
