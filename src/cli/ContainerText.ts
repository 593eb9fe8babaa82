/**
 * What is said of a container in a table: its status in docker's manner (`Up 2h13m`, `Exited (1) 5s ago, next try in 3s`).
 */
import { type Container, ContainerState } from "../../proto/generated/ironwood/v1/container_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import type { Style } from "./Style.ts"
import * as Text from "./Text.ts"

/** Is it down for good, unless somebody starts it? `ps` without `-a` leaves these out. */
export const isDown = ({ status }: Container): boolean =>
  status === undefined ||
  (status.state === ContainerState.CREATED && status.waitingFor.length === 0) ||
  status.state === ContainerState.STOPPED ||
  status.state === ContainerState.FINISHED

const exitWords = ({ status }: Container): string => {
  const exit = status?.lastExit
  if (exit === undefined) return ""
  if (exit.code !== undefined) return `exited (${exit.code})`
  if (exit.signal !== "" && exit.tag !== "OomKilled") return `killed (${Text.clean(exit.signal)})`
  return Text.clean(exit.tag === "OomKilled" ? "out of memory" : exit.message === "" ? exit.tag : exit.message)
}

const capital = (text: string): string => text.slice(0, 1).toUpperCase() + text.slice(1)

/** The status in words, painted by how good or bad it is. */
export const statusText = (container: Container, now: number, style: Style): string => {
  const { status } = container
  if (status === undefined) return "Unknown"
  const since = ActorText.momentOf(status.since)
  const ended = ActorText.momentOf(status.lastExit?.time) ?? since
  const next = ActorText.momentOf(status.nextAttemptTime)
  const past = (moment: number | undefined) => (moment === undefined ? "" : ` ${HumanText.ago(moment, now)}`)
  const why = exitWords(container)
  switch (status.state) {
    case ContainerState.CREATED:
      return status.waitingFor.length === 0
        ? "Created"
        : style.cyan(`Waiting for ${status.waitingFor.map(Text.clean).join(", ")}`)
    case ContainerState.STARTING:
      return style.cyan("Starting")
    case ContainerState.RUNNING: {
      const up = ActorText.momentOf(status.startTime) ?? since
      return style.green(up === undefined ? "Up" : `Up ${HumanText.span(now - up)}`)
    }
    case ContainerState.STOPPING:
      return style.cyan("Stopping")
    case ContainerState.STOPPED: {
      // an exit of another time is not how the stop went
      const own = since !== undefined && ended !== undefined && Math.abs(since - ended) < 1_000
      return style.dim(`Stopped${past(since)}${own && why !== "" ? `, ${why}` : ""}`)
    }
    case ContainerState.BACKING_OFF: {
      const wait =
        next === undefined ? "" : next > now ? `, next try in ${HumanText.shortSpan(next - now)}` : ", next try due"
      return style.yellow(`${capital(why === "" ? "backing off" : why)}${past(ended)}${wait}`)
    }
    case ContainerState.PARKED:
      return style.red(`Parked${past(since)}${why === "" ? "" : `, ${why}`}`)
    case ContainerState.FINISHED:
      return style.dim(`${capital(why === "" ? "finished" : why)}${past(ended)}`)
    case ContainerState.FAILED:
      return style.red(`Failed${past(ended)}${why === "" ? "" : `, ${why}`}`)
    default:
      return "Unknown"
  }
}

/** The command line as given: the entrypoint and the arguments of the spec; empty = those of the image. */
export const commandText = ({ spec }: Container): string =>
  [...(spec?.entrypoint ?? []), ...(spec?.command ?? [])]
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word)))
    .map(Text.clean)
    .join(" ")
