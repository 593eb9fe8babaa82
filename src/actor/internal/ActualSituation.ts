/** An end as it has happened, with all that a decision about it depends on. */
import type { Intensity } from "../ChildSpec.ts"
import { isHealthy, type Situation } from "../Decision.ts"
import type { ExitView } from "../ExitView.ts"
import type { RestartPolicy } from "../RestartPolicy.ts"
import type { TreeNode } from "../Tree.ts"
import type { RestartAccount } from "./RestartAccount.ts"

/** What it takes from the actor's node. */
interface Ended {
  readonly view: TreeNode
  /** Of a supervisor: its children. */
  readonly group: object | undefined
  readonly engine: { readonly canReboot: boolean; readonly random: () => number }
}

/** What the supervisor adds to it. */
export interface Above {
  readonly intensity: Intensity | undefined
  /** Restarts that count against it now. */
  readonly restarts: number
}

export class ActualSituation implements Situation {
  readonly policy: RestartPolicy
  readonly exit: ExitView
  readonly supervisor: boolean
  readonly attempt: number
  readonly ranFor: number
  readonly intensity: Intensity | undefined
  readonly restartsOfSupervisor: number
  readonly canReboot: boolean
  readonly random: number
  /** Whether the run that ended was healthy. */
  readonly healthy: boolean
  readonly #account: RestartAccount
  readonly #now: number

  /** `now`: monotonic. */
  constructor(
    { engine, group, view }: Ended,
    exit: ExitView,
    ranFor: number,
    account: RestartAccount,
    now: number,
    { intensity, restarts }: Above
  ) {
    this.policy = view.policy
    this.exit = exit
    this.supervisor = group !== undefined
    this.attempt = view.attempt
    this.ranFor = ranFor
    this.intensity = intensity
    this.restartsOfSupervisor = restarts
    this.canReboot = engine.canReboot
    this.random = engine.random()
    this.healthy = isHealthy(view.policy, exit, ranFor)
    this.#account = account
    this.#now = now
  }

  restartsOfChild(delay: number): number {
    return this.#account.counted(this.#now, delay)
  }

  ruleRestarts(index: number): number {
    return this.#account.ofRule(index)
  }
}
