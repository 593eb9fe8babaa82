/** A virtual machine in words. */
import type { Vm } from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { VmChipset, VmState } from "../../proto/generated/ironwood/v1/vm_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import type { Style } from "./Style.ts"
import * as Text from "./Text.ts"

const words: Readonly<Record<VmState, string>> = {
  [VmState.UNSPECIFIED]: "unknown",
  [VmState.CREATED]: "Created",
  [VmState.STARTING]: "Starting",
  [VmState.RUNNING]: "Up",
  [VmState.PAUSED]: "Paused",
  [VmState.STALLED]: "Stalled",
  [VmState.BACKING_OFF]: "Ended",
  [VmState.STOPPING]: "Stopping",
  [VmState.STOPPED]: "Stopped",
  [VmState.PARKED]: "Parked",
  [VmState.FINISHED]: "Finished",
  [VmState.FAILED]: "Failed"
}

const trouble: ReadonlySet<VmState> = new Set([VmState.BACKING_OFF, VmState.PARKED, VmState.FAILED])

/** `Up 3m`, `Ended: its guest's kernel panicked 2s ago, next try in 1s`. */
export const statusText = ({ status }: Vm, now: number, style: Style): string => {
  if (status === undefined) return ""
  const word = words[status.state] ?? "unknown"
  const since = ActorText.momentOf(status.state === VmState.RUNNING ? status.startTime : status.since)
  const exit = ActorText.momentOf(status.lastExit?.time)
  const next = ActorText.momentOf(status.nextAttemptTime)
  const head =
    since === undefined || status.state === VmState.BACKING_OFF ? word : `${word} ${HumanText.span(now - since)}`
  if (!trouble.has(status.state)) {
    return status.degraded === "" ? head : `${head}: ${style.yellow(Text.clean(status.degraded))}`
  }
  const why = status.lastExit === undefined ? "" : `: ${Text.clean(status.lastExit.message)}`
  const when = exit === undefined ? "" : ` ${HumanText.ago(exit, now)}`
  const then = next === undefined ? "" : `, next try in ${HumanText.span(Math.max(0, next - now))}`
  return style.yellow(`${head}${why}${when}${then}`)
}

/** `q35, 2 CPUs, 512 MiB`. */
export const machineText = ({ spec }: Vm): string =>
  spec === undefined
    ? ""
    : [
        spec.chipset === VmChipset.MICROVM ? "microvm" : "q35",
        HumanText.count(spec.cpus ?? 1, "CPU"),
        HumanText.size(spec.memoryBytes ?? 0n)
      ].join(", ")
