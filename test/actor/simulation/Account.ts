/**
 * The books of one actor that an auditor keeps beside the engine's: what a decision about its next end has to count. Plain
 * lists, counted over again each time.
 */
import * as Duration from "effect/Duration"
import { type Decision, isHealthy, type Situation } from "../../../src/actor/Decision.ts"
import type { HistoryEntry, TreeNode } from "../../../src/actor/Tree.ts"
import type { RestartPolicy } from "../../../src/actor/RestartPolicy.ts"

export class Account {
  /** When restarts that count were decided on. */
  #restarts: Array<number> = []
  /** A tumbling window: when it was opened, and the starts in it. */
  #opened = 0
  #starts = 0
  #byRule = new Map<number, number>()
  /** A supervisor's: when its intensity was spent, in its present life. */
  #spent: Array<number> = []

  /** A person took it in hand, or its policy is another. */
  reset(): void {
    this.#restarts = []
    this.#starts = 0
    this.#byRule.clear()
  }

  /** How it was before; for a call that was refused. */
  copy(): Account {
    const copy = new Account()
    copy.#restarts = [...this.#restarts]
    copy.#opened = this.#opened
    copy.#starts = this.#starts
    copy.#byRule = new Map(this.#byRule)
    copy.#spent = [...this.#spent]
    return copy
  }

  /** The supervisor begins another life. */
  begins(): void {
    this.#spent = []
  }

  spent(now: number, within: number): number {
    return this.#spent.filter((at) => now - at < within).length
  }

  spend(now: number): void {
    this.#spent.push(now)
  }

  #restartsIn({ budget }: RestartPolicy, now: number, delay: number): number {
    if (budget === undefined) return 0
    const within = Duration.toMillis(budget.within)
    if (budget.window === "sliding") return this.#restarts.filter((at) => now - at < within).length
    return this.#starts === 0 || now + delay - this.#opened > within ? 0 : this.#starts
  }

  #start(within: number, at: number): void {
    if (this.#starts === 0 || at - this.#opened > within) {
      this.#opened = at
      this.#starts = 0
    }
    this.#starts++
  }

  /** It is started, and not as a restart. */
  started({ budget }: RestartPolicy, now: number): void {
    if (budget?.window === "tumbling") this.#start(Duration.toMillis(budget.within), now)
  }

  /** What is known of its end, as `entry` tells it, by who kept these books. */
  situation(before: TreeNode, entry: HistoryEntry): Omit<Situation, "random" | "intensity" | "restartsOfSupervisor"> {
    const { exit } = entry
    if (exit === undefined) throw new Error("an end without an exit")
    const ranFor = exit.beforeReady ? 0 : entry.at - (before.startedAt ?? entry.at)
    return {
      policy: before.policy,
      exit,
      supervisor: before.type === "supervisor",
      attempt: before.attempt,
      canReboot: false,
      ranFor,
      restartsOfChild: (delay) => this.#restartsIn(before.policy, entry.at, delay),
      ruleRestarts: (index) => this.#byRule.get(index) ?? 0
    }
  }

  /** Enters what a decision spends; answers what is wrong with that, if something is. */
  enter(
    decision: Decision,
    { exit, policy, ranFor }: Pick<Situation, "exit" | "policy" | "ranFor">,
    now: number
  ): string | undefined {
    if (isHealthy(policy, exit, ranFor)) this.#byRule.clear()
    if (decision._tag !== "Restart") return undefined
    if (decision.rule !== undefined) this.#byRule.set(decision.rule, (this.#byRule.get(decision.rule) ?? 0) + 1)
    if (!decision.counts) return undefined
    const { budget, maxConsecutive, whenSpent } = policy
    this.#restarts.push(now)
    if (budget?.window === "tumbling") this.#start(Duration.toMillis(budget.within), now + decision.delay)
    if (whenSpent === "keep-trying") return undefined
    if (budget !== undefined && this.#restartsIn(policy, now, decision.delay) > budget.restarts) {
      return `more than ${budget.restarts} restarts in ${Duration.format(budget.within)}`
    }
    if (maxConsecutive !== undefined && decision.attempt >= maxConsecutive)
      return `${maxConsecutive} ends in a row, and restarted`
    return undefined
  }
}
