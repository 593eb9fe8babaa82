/**
 * A rule of a restart policy: for exits like these, do that instead of what the policy says otherwise.
 *
 * ```ts
 * RestartPolicy.make({
 *   rules: [
 *     { on: { outOfMemory: true }, consecutive: 3, whenSpent: "park" }, // three tries, then a person
 *     { on: { tags: ["ImageMissing"] }, backoff: { initial: "10 seconds", max: "5 minutes" }, counts: false },
 *     { on: { exitCodes: [78] }, then: "park" } // sysexits' EX_CONFIG: no restart heals it
 *   ]
 * })
 * ```
 *
 * When to use: where exits differ in what helps. A policy without rules treats all failures alike.
 *
 * Traps:
 * - The first rule that matches decides, over `restart` too: with `then: "restart"` a `temporary` actor is restarted.
 * - A rule with a back-off of its own counts its own restarts for the curve; whether a run was healthy says the policy's
 *   `resetAfter`, never the rule's. A rule without one goes along the policy's curve.
 * - `counts: false` restarts for ever unless `consecutive` bounds it; only the delay slows it down.
 * - A normal end has no facts, but matches the exit code 0.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Backoff } from "./Backoff.ts"
import { ExitClass, type ExitView } from "./ExitView.ts"

/**
 * What happens when a budget is spent. `escalate`: the supervisor gives up with a typed failure; `park`: the spec is
 * kept and waits for a person; `keep-trying`: on and on at the longest delay; `fallback`: parked, and the sibling that the
 * policy names is started; `restart-group`: its siblings are started anew with it; `reboot-host`: the host reboots.
 */
export const WhenSpent = Schema.Literals([
  "escalate",
  "park",
  "keep-trying",
  "fallback",
  "restart-group",
  "reboot-host"
])
export type WhenSpent = typeof WhenSpent.Type

/**
 * What a rule does. `restart`: as its other fields say; `finish`: it is over, as after a normal end; the others as in
 * {@link WhenSpent}, at once.
 */
export const Then = Schema.Literals([
  "restart",
  "finish",
  "park",
  "escalate",
  "fallback",
  "restart-group",
  "reboot-host"
])
export type Then = typeof Then.Type

/** Most entries in a list of conditions. */
const MOST = 256

const some = <S extends Schema.Top>(member: S) =>
  Schema.Array(member).pipe(Schema.check(Schema.isBetweenLength(1, MOST, { expected: `1 to ${MOST} of them` })))

/** Which exits: all that is named must hold, of a list one. What names nothing matches nothing, and is refused. */
export const Match = Schema.Struct({
  /** Tags of typed failures, names of defects, `Normal`, `Interrupted`, `StartTimeout`. */
  tags: Schema.optionalKey(
    some(Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, 200, { expected: "1 to 200 characters" }))))
  ),
  classes: Schema.optionalKey(some(ExitClass)),
  exitCodes: Schema.optionalKey(
    some(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 255 }, { expected: "0 to 255" }))))
  ),
  signals: Schema.optionalKey(
    some(
      Schema.String.pipe(
        Schema.check(Schema.isPattern(/^SIG[A-Z0-9+-]{2,12}$/, { expected: "a signal by its name, such as SIGKILL" }))
      )
    )
  ),
  outOfMemory: Schema.optionalKey(Schema.Boolean),
  probeFailed: Schema.optionalKey(Schema.Boolean)
}).pipe(
  Schema.check(
    Schema.makeFilter((match: Readonly<Record<string, unknown>>) =>
      Object.keys(match).length === 0
        ? "says nothing: name tags, classes, exit codes, signals, out of memory or a failed probe"
        : undefined
    )
  )
)
export type Match = typeof Match.Type

/** See the module header. */
export class Rule extends Schema.Class<Rule>("ironwood/RestartRule")(
  Schema.Struct({
    on: Match,
    then: Then.pipe(
      Schema.withConstructorDefault(Effect.succeed("restart" as const)),
      Schema.withDecodingDefaultKey(Effect.succeed("restart" as const))
    ),
    /** False: such a restart spends neither the budget nor the supervisor's intensity, and is no consecutive end. */
    counts: Schema.Boolean.pipe(
      Schema.withConstructorDefault(Effect.succeed(true)),
      Schema.withDecodingDefaultKey(Effect.succeed(true))
    ),
    /** Instead of the policy's; of restarts (also the group's). */
    backoff: Schema.optionalKey(Backoff),
    /** Of restarts: at most so many by this rule without a healthy run between. */
    consecutive: Schema.optionalKey(
      Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 100_000 }, { expected: "1 to 100000" })))
    ),
    /** When `consecutive` is used up; the policy's when it does not say. */
    whenSpent: Schema.optionalKey(WhenSpent)
  }).check(
    Schema.makeFilter(({ consecutive, then, whenSpent }) =>
      consecutive !== undefined && then !== "restart"
        ? { path: ["consecutive"], issue: `bounds restarts, and this rule does not restart (${then})` }
        : whenSpent !== undefined && consecutive === undefined
          ? { path: ["whenSpent"], issue: "says what follows when consecutive is used up, which is not set" }
          : undefined
    )
  )
) {}

const codeOf = ({ class: of, facts }: ExitView): number | undefined => (of === "normal" ? 0 : facts?.exitCode)

/** Whether `exit` is one of those that `match` is about. */
export const matches = (match: Match, exit: ExitView): boolean => {
  const { facts } = exit
  const code = codeOf(exit)
  return (
    (match.tags === undefined || match.tags.includes(exit.tag)) &&
    (match.classes === undefined || match.classes.includes(exit.class)) &&
    (match.exitCodes === undefined || (code !== undefined && match.exitCodes.includes(code))) &&
    (match.signals === undefined || (facts?.signal !== undefined && match.signals.includes(facts.signal))) &&
    (match.outOfMemory === undefined || match.outOfMemory === (facts?.outOfMemory === true)) &&
    (match.probeFailed === undefined || match.probeFailed === (facts?.probe !== undefined))
  )
}

/** The first rule that matches, with its place from 0. */
export const find = (
  rules: ReadonlyArray<Rule>,
  exit: ExitView
): { readonly index: number; readonly rule: Rule } | undefined => {
  const index = rules.findIndex((rule) => matches(rule.on, exit))
  const rule = rules[index]
  return rule === undefined ? undefined : { index, rule }
}

const either = (words: ReadonlyArray<string | number>): string => words.join(" or ")

/** The condition in words: `exit code 137 or 143`, `out of memory`, `ImageMissing`. */
export const describeMatch = (match: Match): string =>
  [
    ...(match.tags === undefined ? [] : [either(match.tags)]),
    ...(match.classes === undefined ? [] : [either(match.classes)]),
    ...(match.exitCodes === undefined ? [] : [`exit code ${either(match.exitCodes)}`]),
    ...(match.signals === undefined ? [] : [either(match.signals)]),
    ...(match.outOfMemory === undefined ? [] : [match.outOfMemory ? "out of memory" : "not out of memory"]),
    ...(match.probeFailed === undefined ? [] : [match.probeFailed ? "failed probe" : "no failed probe"])
  ].join(", ")

/** A rule as reasons name it, counted from 1: `rule 2 (out of memory)`. */
export const name = (index: number, rule: Rule): string => `rule ${index + 1} (${describeMatch(rule.on)})`
