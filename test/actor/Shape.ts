/** What both the model and the real tree of the property tests are built from. */
import type { AutoShutdown, Dependencies } from "../../src/actor/ChildSpec.ts"
import type { RestartPolicy } from "../../src/actor/RestartPolicy.ts"
import type { Strategy } from "../../src/actor/Strategy.ts"

export interface Shape {
  readonly id: string
  readonly policy: RestartPolicy
  /** Its own end for good may be that of its supervisor. */
  readonly significant?: boolean
  /** Only where the group is `one_for_one`. */
  readonly dependencies?: Partial<Dependencies>
  /** Absent: a leaf. */
  readonly group?: {
    readonly kind: "static" | "dynamic"
    readonly strategy: Strategy
    /** Restarts within {@link WITHIN}; dynamic ones have no intensity here. */
    readonly intensity: number
    readonly autoShutdown: AutoShutdown
    readonly children: ReadonlyArray<Shape>
  }
}

/** Window of every supervisor's intensity, in milliseconds. */
export const WITHIN = 1_000
