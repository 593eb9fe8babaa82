/**
 * Reads every change of a tree as a watcher does and checks it against what must always hold, with books of its own
 * (`Account.ts`). What is wrong becomes a violation of the world.
 *
 * - Folding the watch gives the snapshot; no revision is left out; states follow the lifecycle table.
 * - Every decision in the history is the one that `decide` takes, from the policy and what happened before; the back-off is
 *   in the policy's range, and no budget, intensity or number of ends in a row is exceeded.
 * - Nothing is restarted before its time, before the siblings that it needs, against a person's word, or beyond the rate.
 */
import type { Intensity } from "../../../src/actor/ChildSpec.ts"
import { type Decision, decide } from "../../../src/actor/Decision.ts"
import * as Lifecycle from "../../../src/actor/Lifecycle.ts"
import type { ActorState } from "../../../src/actor/Lifecycle.ts"
import type { RestartRate } from "../../../src/actor/Root.ts"
import type { HistoryDecision, HistoryEntry, TreeEvent, TreeNode } from "../../../src/actor/Tree.ts"
import type { RestartPolicy } from "../../../src/actor/RestartPolicy.ts"
import { Fold } from "../Fold.ts"
import { Account } from "./Account.ts"
import type { Host } from "./Host.ts"
import type { World } from "./World.ts"

const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf("/")))

const decisionNames = {
  Restart: "restart",
  Park: "park",
  Escalate: "escalate",
  Finish: "finish",
  Fallback: "fallback",
  RestartGroup: "restart-group",
  RebootHost: "reboot-host"
} as const satisfies Record<Decision["_tag"], HistoryDecision>

export class Auditor {
  readonly fold = new Fold()
  decisions = 0
  readonly #world: World
  readonly #host: Host
  readonly #rate: RestartRate
  readonly #accounts = new Map<string, Account>()
  /** Told to start, or begun anew, by a person: its appointments are void. */
  #byPerson = new Set<string>()
  readonly #stopped = new Set<string>()
  /** Under which policy it was last decided that somebody rests. */
  readonly #restsBy = new Map<string, RestartPolicy>()
  /** When supervisors restarted something on their own account, in the last second. */
  #automatic: Array<number> = []

  constructor(world: World, host: Host, rate: RestartRate) {
    this.#world = world
    this.#host = host
    this.#rate = rate
  }

  #accountOf(path: string): Account {
    const known = this.#accounts.get(path)
    if (known !== undefined) return known
    const account = new Account()
    this.#accounts.set(path, account)
    return account
  }

  /** A person starts or restarts it; answers what to do when that is refused. */
  forgiven(path: string): () => void {
    const before = this.#accountOf(path).copy()
    const stopped = this.#stopped.delete(path)
    const acted = new Set(this.#byPerson)
    this.#accountOf(path).reset()
    this.#byPerson.add(path)
    return () => {
      this.#accounts.set(path, before)
      if (stopped) this.#stopped.add(path)
      this.#byPerson = acted
    }
  }

  /** A person has stopped it. */
  stopped(path: string): void {
    this.#stopped.add(path)
  }

  /** Another brain: it knows of stops only what the desired state knows. */
  anotherBrain(remembered: (path: string) => boolean): void {
    for (const path of this.#stopped) if (!remembered(path)) this.#stopped.delete(path)
    this.#byPerson.clear()
    this.#automatic = []
  }

  // --- what the watch tells ---

  readonly hear = (event: TreeEvent): void => {
    const { fold } = this
    if (event._tag !== "Snapshot" && event.revision !== fold.revision + 1) {
      this.#world.violation(`revision ${event.revision} after ${fold.revision}: changes were left out`)
    }
    if (event._tag === "Changed") this.#changed(fold.nodes.get(event.node.path), event.node, event.entry)
    if (event._tag === "Removed") {
      this.#accounts.delete(event.path)
      this.#byPerson.delete(event.path)
      this.#stopped.delete(event.path)
    }
    fold.apply(event)
  }

  #changed(before: TreeNode | undefined, after: TreeNode, entry: HistoryEntry | undefined): void {
    const account = this.#accountOf(after.path)
    if (entry?.event === "policy-changed") account.reset()
    if (before === undefined) return
    const { path } = after
    const legal = Object.values(Lifecycle.table[before.state])
    if (after.state !== before.state && !legal.includes(after.state)) {
      this.#world.violation(`${path}: from ${before.state} to ${after.state}`)
    }
    if (before.state !== "starting" && after.state === "starting") this.#starts(before, after, account)
    else if (after.incarnation !== before.incarnation) this.#world.violation(`${path}: another life without a start`)
    if (entry?.event === "ended" || entry?.event === "start-failed") this.#judge(before, after, entry, account)
  }

  #starts(before: TreeNode, after: TreeNode, account: Account): void {
    const { path, since } = after
    const wrong = (what: string): void => this.#world.violation(`${path} is started ${what}`)
    if (after.incarnation !== before.incarnation + 1) wrong(`as ${after.incarnation} after ${before.incarnation}`)
    if (after.type === "supervisor") account.begins()
    if (after.restarts === before.restarts) account.started(after.policy, since)
    if (this.#stopped.has(path)) wrong("although a person stopped it")
    const parent = this.fold.nodes.get(parentOf(path))
    const { after: order = [], afterSuccess = [], bindsTo = [], requires = [] } = this.#host.dependenciesOf(path)
    const sibling = (id: string) => this.fold.nodes.get(`${parentOf(path)}/${id}`)?.state
    for (const id of [...requires, ...bindsTo]) {
      if (sibling(id) !== "running") wrong(`while ${id}, which it needs, is ${sibling(id)}`)
    }
    for (const id of afterSuccess) {
      if (sibling(id) !== "finished") wrong(`while ${id}, which has to succeed first, is ${sibling(id)}`)
    }
    for (const id of order) {
      if (sibling(id) === "waiting" || sibling(id) === "starting")
        wrong(`while ${id}, which goes first, is ${sibling(id)}`)
    }
    if (this.#byPerson.delete(path) || before.state !== "backing-off") return
    // In a group those that stand on one that a person has started come along, whatever they wait for.
    const early = since < (before.nextAttemptAt ?? 0)
    if (early && (parent?.strategy === "one_for_one" || !this.#hasCome(parentOf(path), since)))
      wrong(`${(before.nextAttemptAt ?? 0) - since} ms too early`)
    if (parent?.strategy !== "one_for_one") return
    this.#automatic = this.#automatic.filter((at) => since - at < 1_000)
    this.#automatic.push(since)
    const { burst, perSecond } = this.#rate
    if (this.#automatic.length > burst + perSecond) wrong(`as number ${this.#automatic.length} in a second`)
  }

  /** Whether a child of `above` came up at `at`. */
  #hasCome(above: string, at: number): boolean {
    for (const node of this.fold.nodes.values()) {
      if (node.startedAt === at && parentOf(node.path) === above) return true
    }
    return false
  }

  #judge(before: TreeNode, after: TreeNode, entry: HistoryEntry, account: Account): void {
    const { path } = after
    const wrong = (what: string): void =>
      this.#world.violation(`${path}: ${what}; it says: ${entry.decision}, ${entry.reason}`)
    const parent = this.fold.nodes.get(parentOf(path))
    if (entry.decision === "none") {
      if (before.state !== "stopping" && !entry.reason.includes("its supervisor is ending"))
        wrong("nothing was decided")
      return
    }
    if (parent === undefined) return
    if (entry.decision === "escalate" && entry.reason.startsWith("its first start failed")) {
      if (parent.state !== "starting" || entry.event !== "start-failed") wrong("this was no first start")
      return
    }
    this.decisions++
    const limit = this.#host.intensityOf(parent.path)
    const spent = limit === undefined ? 0 : this.#accountOf(parent.path).spent(entry.at, limit.within)
    const situation = { ...account.situation(before, entry), intensity: limit, restartsOfSupervisor: spent }
    const [least, most] = [decide({ ...situation, random: 0 }), decide({ ...situation, random: 1 })]
    if (decisionNames[least._tag] !== entry.decision) return wrong(`the decision should be: ${least.reason}`)
    const attempt = least._tag === "Finish" ? 0 : least.attempt
    if (after.attempt !== attempt) wrong(`after ${before.attempt} the attempt is ${after.attempt}, not ${attempt}`)
    if (least._tag === "Restart" && most._tag === "Restart") {
      const { delay = -1, nextAt } = entry
      if (delay < least.delay || delay > most.delay) wrong(`${delay} is not from ${least.delay} to ${most.delay}`)
      if (nextAt !== entry.at + delay || after.nextAttemptAt !== nextAt)
        wrong(`${nextAt} is not ${delay} after ${entry.at}`)
      if (least.spendsIntensity) this.#spendIntensity(parent.path, limit, entry.at)
      if (least.delay === most.delay && entry.reason !== least.reason) wrong(`the reason should be: ${least.reason}`)
      const problem = account.enter({ ...least, delay }, situation, entry.at)
      if (problem !== undefined) wrong(problem)
      return
    }
    this.#restsBy.set(path, situation.policy)
    account.enter(least, situation, entry.at)
  }

  #spendIntensity(path: string, limit: Intensity | undefined, now: number): void {
    const account = this.#accountOf(path)
    account.spend(now)
    if (limit !== undefined && account.spent(now, limit.within) > limit.restarts) {
      this.#world.violation(`${path}: its intensity is exceeded`)
    }
  }

  // --- the state of things, between two events ---

  /** Checks what is shown against who lives. Slow ends are under way: only the moment's truth counts. */
  look(shown: ReadonlyArray<TreeNode>): void {
    const states = new Map<string, ActorState>(shown.map((node) => [node.path, node.state]))
    for (const { path, state, type } of shown) {
      const own = this.#host.dependenciesOf(path)
      for (const id of own.bindsTo ?? []) {
        const other = states.get(`${parentOf(path)}/${id}`)
        if (state === "running" && other !== "running") this.#world.violation(`${path} runs while ${id} is ${other}`)
      }
      const above = states.get(parentOf(path))
      if (above !== undefined && Lifecycle.isAlive(state) && !Lifecycle.isAlive(above)) {
        this.#world.violation(`${path} is ${state} below one that is ${above}`)
      }
      if (type === "supervisor" || path === "init/audit") continue
      const lives = this.#world.live.has(path)
      if (Lifecycle.isAlive(state) !== lives)
        this.#world.violation(`${path} is shown ${state}, and ${lives ? "lives" : "does not live"}`)
    }
    for (const path of this.#world.live.keys()) {
      if (!states.has(path)) this.#world.violation(`${path} lives and is not shown`)
    }
  }

  /** After a quiet time: what is wanted runs, and what does not has a reason that lasts. */
  healed(shown: ReadonlyArray<TreeNode>): void {
    const states = new Map<string, TreeNode>(shown.map((node) => [node.path, node]))
    for (const { path, state, waitingFor } of shown) {
      const policy = this.#restsBy.get(path)
      const ruled = policy !== undefined && policy.rules.length > 0
      const lasting =
        state === "running" ||
        (state === "stopped" && (this.#stopped.has(path) || this.#host.find(path)?.wish?.stopped === true)) ||
        (state === "parked" && (policy?.whenSpent === "park" || ruled)) ||
        ((state === "finished" || state === "failed") && (policy?.restart !== "permanent" || ruled)) ||
        (state === "waiting" && (waitingFor.length > 0 || states.get(parentOf(path))?.state === "stopped"))
      if (!lasting) this.#world.violation(`${path} is ${state} after a quiet time`)
    }
  }
}
