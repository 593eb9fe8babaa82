/**
 * What of its restarts a child has used up: those that its policy's own budget counts, and those by each rule since the last
 * healthy run. The engine keeps one for each child that has anything to count, a dry run one for the child that it plays.
 *
 * Trap: times must not go backward; take them from a monotonic clock.
 */
import type { Decision } from "../Decision.ts"
import type { RestartPolicy } from "../RestartPolicy.ts"
import { type SpentWindow, windowOf } from "./RestartWindow.ts"

const none: ReadonlyArray<number> = []

export class RestartAccount {
  readonly #rules: number
  readonly #window: SpentWindow | undefined
  #byRule: Array<number> | undefined

  /** Nothing has been used up. */
  constructor({ budget, rules }: Pick<RestartPolicy, "budget" | "rules">) {
    this.#rules = rules.length
    this.#window = budget === undefined ? undefined : windowOf(budget)
  }

  /** Takes over what an earlier account had: restarts at these times, and by each rule. */
  resume(times: ReadonlyArray<number>, byRule: ReadonlyArray<number> | undefined): void {
    for (const at of times) this.#window?.record(at)
    if (byRule !== undefined && this.#rules > 0) this.#byRule = [...byRule]
  }

  /** Restarts that the budget counts at `now` against one made in `delay` milliseconds. */
  counted(now: number, delay = 0): number {
    return this.#window?.count(now, delay) ?? 0
  }

  /** Whether there is a budget. */
  get limited(): boolean {
    return this.#window !== undefined
  }

  /** Restarts left in the budget; undefined without one. */
  left(now: number): number | undefined {
    return this.#window === undefined ? undefined : this.#window.limit - this.#window.count(now)
  }

  /** When the restarts were made that count, oldest first; empty without a budget. */
  times(now: number): ReadonlyArray<number> {
    return this.#window === undefined || this.#window.count(now) === 0 ? none : this.#window.times(now)
  }

  /** Restarts by the rule in this place since the last healthy run. */
  ofRule(index: number): number {
    return this.#byRule?.[index] ?? 0
  }

  /** The same of all rules, in their order; nothing when there were none. */
  get byRule(): ReadonlyArray<number> | undefined {
    return this.#byRule
  }

  /** A start at `now` that is no restart. */
  started(now: number): void {
    this.#window?.started(now)
  }

  /** Counts what a decision taken at `now` spends. `healthy`: the run before it was. */
  spend(decision: Decision, healthy: boolean, now: number): void {
    if (healthy) this.#byRule = undefined
    if (decision._tag !== "Restart") return
    if (decision.counts) this.#window?.record(now, decision.delay)
    if (decision.rule === undefined) return
    this.#byRule ??= Array.from({ length: this.#rules }, () => 0)
    this.#byRule[decision.rule] = this.ofRule(decision.rule) + 1
  }
}

const nothingToCount = new RestartAccount({ rules: [] })

/** An account in which nothing has been used up. Those with neither budget nor rules share one that stays so. */
export const open = (policy: RestartPolicy): RestartAccount =>
  policy.budget === undefined && policy.rules.length === 0 ? nothingToCount : new RestartAccount(policy)
