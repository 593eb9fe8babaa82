/**
 * What is said of a process in a picture of the tree: dim, in the columns of the actors, so that nobody takes it for one.
 *
 * Everything in it may be a guest's word: it is made harmless, and a name takes {@link MOST_NAME} cells at most.
 */
import type { ContainerProcess } from "../../proto/generated/ironwood/v1/container_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import type { ProcessRow } from "./ProcessShape.ts"
import type { Style } from "./Style.ts"
import * as Text from "./Text.ts"

const MOST_NAME = 24

/** Of the letters of proc_pid_stat(5) those that somebody wants to know of. */
const states: Readonly<Record<string, string>> = { D: "disk sleep", T: "stopped", t: "traced", Z: "zombie" }

/** `sh` of `/bin/sh -c …`. */
const nameOf = ({ command }: ContainerProcess): string => {
  const [word = ""] = command.split(" ")
  return Text.fit(Text.clean(word.slice(word.lastIndexOf("/") + 1) || word), MOST_NAME)
}

/** The cells below ACTOR, KIND, STATE, FOR, RESTARTS and PID, and the note. */
export const cells = (
  { process, rails, remark = "" }: ProcessRow,
  now: number,
  style: Style
): { readonly columns: ReadonlyArray<string>; readonly note: string } => {
  if (process === undefined)
    return { columns: [style.dim(`${rails}…`), style.dim("process"), "", "", "", ""], note: Text.clean(remark) }
  const started = ActorText.momentOf(process.startTime)
  return {
    columns: [
      style.dim(`${rails}${nameOf(process)}`),
      style.dim("process"),
      style.dim(states[process.state] ?? ""),
      style.dim(started === undefined ? "" : HumanText.span(now - started)),
      "",
      style.dim(String(process.pid))
    ],
    note: `${HumanText.size(process.memoryBytes)}  ${Text.clean(process.command)}`
  }
}
