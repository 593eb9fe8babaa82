/**
 * Looking at the tree as it changes: a picture redrawn in place on a terminal, a line per event elsewhere.
 *
 * The picture is written as one piece (home, lines, clear what is left), inside the terminal's synchronized-update marks, so
 * it does not flicker; at most ten times a second, and once a second for the times in it. A change of the window's size
 * clears the screen first. The cursor is hidden and given back, whatever ends the view.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import {
  ProcessSelection,
  type WatchTreeResponse,
  WatchTreeResponseSchema
} from "../../proto/generated/ironwood/v1/tree_pb.ts"
import type { Connection } from "./Client.ts"
import { EventText } from "./EventText.ts"
import { OutputSetting, style as currentStyle } from "./Globals.ts"
import * as HumanText from "./HumanText.ts"
import * as Output from "./Output.ts"
import { Screen } from "./Screen.ts"
import * as TreeModel from "./TreeModel.ts"
import * as TreeView from "./TreeView.ts"
import * as Watch from "./Watch.ts"

/** Redraws the tree at and below `path` until interrupted or until the watch fails. Standard output must be a terminal. */
export const picture = Effect.fnUntraced(function* (
  connection: Connection,
  path: string,
  shape: Pick<TreeView.Options, "all" | "troubledOnly"> = {},
  processes = ProcessSelection.UNSPECIFIED
) {
  const screen = yield* Screen
  const style = yield* currentStyle
  const model = TreeModel.make()
  const dirty = yield* Queue.sliding<void>(1)
  let lostAt: number | undefined
  let drawn = 0
  let clear = false
  yield* Effect.addFinalizer(() => Effect.ignore(screen.write("\u001B[?25h")))
  yield* screen.write("\u001B[?25l")

  const draw = Effect.fnUntraced(function* () {
    const now = yield* Clock.currentTimeMillis
    const size = (yield* screen.size) ?? { columns: 80, rows: 24 }
    const lines = TreeView.render(model.actors, {
      now,
      style,
      symbols: true,
      ...shape,
      processes: model.processes,
      width: size.columns,
      height: size.rows - 1,
      remark: style.dim(`revision ${model.revision ?? "-"}`),
      ...(lostAt === undefined
        ? {}
        : {
            alert: style.red(`no answer for ${HumanText.span(now - lostAt)}, trying again; this is what was last known`)
          })
    })
    const home = clear ? "\u001B[2J\u001B[H" : drawn > 0 ? `\u001B[${drawn}A\r` : ""
    yield* screen.write(`\u001B[?2026h${home}${lines.map((line) => `${line}\u001B[K\n`).join("")}\u001B[J\u001B[?2026l`)
    drawn = lines.length
    clear = false
  })

  yield* Watch.follow(connection, { path, processes }).pipe(
    Stream.runForEach((followed) =>
      Effect.gen(function* () {
        if (followed._tag === "Event") TreeModel.apply(model, followed.event)
        if (followed._tag === "Lost") TreeModel.lost(model)
        lostAt = followed._tag === "Lost" ? yield* Clock.currentTimeMillis : undefined
        // a picture of half a snapshot would show actors as missing
        if (model.revision !== undefined) yield* Queue.offer(dirty, undefined)
      })
    ),
    Effect.raceFirst(
      screen.resized.pipe(
        Stream.runForEach(() => {
          clear = true
          return Queue.offer(dirty, undefined)
        }),
        Effect.andThen(Effect.never)
      )
    ),
    Effect.raceFirst(Effect.repeat(Queue.offer(dirty, undefined), Schedule.spaced("1 second"))),
    Effect.raceFirst(
      Effect.forever(
        Effect.gen(function* () {
          yield* Queue.take(dirty)
          if (model.revision === undefined) return
          yield* draw()
          yield* Effect.sleep("100 millis")
        })
      )
    )
  )
}, Effect.scoped)

/**
 * A line (or JSON, or YAML) per event of the actors at and below `path`, after revision `from` or from now on. Says on standard
 * error when the connection is lost and when it is back.
 */
export const events = Effect.fnUntraced(function* (
  connection: Connection,
  options: {
    readonly path: string
    readonly from?: bigint
    readonly showSnapshot: boolean
    readonly processes?: ProcessSelection
  }
) {
  const style = yield* currentStyle
  const format = yield* OutputSetting
  const screen = yield* Screen
  const text = new EventText({ style, symbols: screen.isTerminal, showSnapshot: options.showSnapshot })
  const print = Effect.fnUntraced(function* (event: WatchTreeResponse) {
    const now = yield* Clock.currentTimeMillis
    if (event.event.case === "bookmark" && format === "table") return
    yield* Output.item(WatchTreeResponseSchema, event, () => text.lines(event, now))
  })
  yield* Watch.follow(connection, options).pipe(
    Stream.runForEach((followed) => {
      if (followed._tag === "Event") return print(followed.event)
      return Output.remark(
        followed._tag === "Lost"
          ? `ironwood: the connection is lost, trying again (${followed.reason})`
          : "ironwood: connected again"
      )
    })
  )
})
