/**
 * How a container is stopped this once, where that differs from its spec.
 *
 * Trap: stored with the desired state while the container is wanted stopped, so that a brain that takes over a stop goes on
 * with it as it was asked for.
 */
import * as Schema from "effect/Schema"
import { GracePeriod } from "../storage/Workload.ts"
import { StopSignal } from "./ContainerSpec.ts"

export const StopOptions = Schema.Struct({
  /** Time between the signal and SIGKILL; zero: SIGKILL at once. Default: as the spec says. */
  gracePeriod: Schema.optionalKey(GracePeriod),
  /** Default: as the spec, else the image, says. */
  signal: Schema.optionalKey(StopSignal)
})
export type StopOptions = typeof StopOptions.Type
