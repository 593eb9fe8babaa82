/**
 * One line per event of the tree: when, at which revision, what state, who, and why.
 *
 * `14:03:07.250  r1042  backing-off  init/runtime/flaky/flaky  exited with code 1, next try in 1.8s, 3 failures in a row`.
 * The time is that of the change (the actor's own `since`), not of the printing: after a lost connection they differ.
 *
 * After the death of a brain the server sends what happened meanwhile, each event with the actor as it is *now*, and then a
 * snapshot. Those lines are made of the events: their time, their revision, what happened. The snapshot itself is then one
 * line, since its actors were all told before.
 */
import type { Actor, HistoryEntry, WatchTreeResponse } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { ActorState } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import type { Style } from "./Style.ts"
import * as Text from "./Text.ts"
import * as TreeView from "./TreeView.ts"

/** Makes the lines; keeps the parts of a snapshot until its last one. */
export class EventText {
  readonly #options: { readonly style: Style; readonly symbols: boolean; readonly showSnapshot: boolean }
  #snapshot: Array<Actor> = []
  #begun = false
  /** The newest change that has been told. */
  #told = 0n

  constructor(options: { readonly style: Style; readonly symbols: boolean; readonly showSnapshot: boolean }) {
    this.#options = options
  }

  /** The lines of one event; none for what says nothing to a person. `now` in milliseconds. */
  lines({ entry, event }: WatchTreeResponse, now: number): ReadonlyArray<string> {
    switch (event.case) {
      case "snapshot": {
        if (event.value.first) this.#snapshot = []
        this.#snapshot.push(...event.value.actors)
        if (!event.value.last) return []
        const actors = this.#snapshot
        this.#snapshot = []
        const head = this.#line(
          now,
          event.value.revision,
          "snapshot",
          "",
          TreeView.summary(actors, this.#options.style)
        )
        const again = this.#begun
        this.#begun = true
        if (again || !this.#options.showSnapshot) return [head]
        // in the order in which it came to be so, and the summary last: times only ever go up, as in any log
        const moments = actors.map((actor) => ({ actor, moment: ActorText.momentOf(actor.since) ?? now }))
        const sorted = moments.toSorted((one, other) => one.moment - other.moment)
        return [...sorted.map(({ actor }) => this.#actor(actor, now)), head]
      }
      case "changed":
        return entry === undefined || entry.revision === event.value.revision
          ? [this.#actor(event.value, now, entry)]
          : this.#past(event.value, now, entry)
      case "removed":
        return [this.#line(now, event.value.revision, "removed", "", Text.clean(event.value.path))]
      default:
        return []
    }
  }

  /** What happened before the actor came to be as it is. */
  #past(actor: Actor, now: number, entry: HistoryEntry): ReadonlyArray<string> {
    if (entry.revision <= this.#told) return []
    this.#told = entry.revision
    const { style } = this.#options
    const exit = entry.exit === undefined ? [] : [Text.clean(entry.exit.message)]
    const why = [...exit, ...(entry.reason === "" ? [] : [Text.clean(entry.reason)])]
    const rest = `${Text.clean(actor.path)}  ${style.dim(why.join(", "))}`
    return [this.#line(ActorText.momentOf(entry.time) ?? now, entry.revision, Text.clean(entry.event), "", rest)]
  }

  #actor(actor: Actor, now: number, entry?: HistoryEntry): string {
    const { style, symbols } = this.#options
    if (actor.revision > this.#told) this.#told = actor.revision
    const state = ActorText.state(actor)
    const color = ActorText.paint(style, state.color)
    const moment = ActorText.momentOf(actor.since) ?? now
    return this.#line(
      moment,
      actor.revision,
      color(state.word),
      symbols ? `${color(state.symbol)} ` : "",
      [Text.clean(actor.path), style.dim(notes(actor, moment, entry).join(", "))]
        .filter((part) => part !== "")
        .join("  ")
    )
  }

  #line(moment: number, revision: bigint, word: string, symbol: string, rest: string): string {
    const { style } = this.#options
    return `${style.dim(HumanText.clock(moment))}  ${style.dim(Text.padEnd(`r${revision}`, 6))}  ${symbol}${Text.padEnd(word, 11)}  ${rest}`
  }
}

/** What is worth saying of an actor at the moment it came into its state. */
const notes = (actor: Actor, moment: number, entry: HistoryEntry | undefined): ReadonlyArray<string> => {
  const troubles = ActorText.troubles(actor, moment)
  if (troubles.length > 0) return troubles
  if (entry !== undefined && entry.reason !== "") return [Text.clean(entry.reason)]
  switch (actor.state) {
    case ActorState.STARTING:
      return actor.incarnation > 1 ? [`incarnation ${actor.incarnation}`] : []
    case ActorState.RUNNING: {
      const pid = actor.annotations["pid"]
      return [
        ...(pid === undefined ? [] : [`pid ${Text.clean(pid)}`]),
        ...(actor.restarts > 0 ? [HumanText.count(actor.restarts, "restart")] : [])
      ]
    }
    case ActorState.STOPPED:
      return actor.reason === "" ? [] : [Text.clean(actor.reason)]
    case ActorState.FINISHED:
      return actor.lastExit === undefined ? [] : [Text.clean(actor.lastExit.message)]
    default:
      return []
  }
}
