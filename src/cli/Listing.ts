/** What the commands that list something have in common: all pages of it, and a table in the colours and the width of this screen. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { style as currentStyle } from "./Globals.ts"
import { Screen } from "./Screen.ts"
import type { Style } from "./Style.ts"
import * as Table from "./Table.ts"

/** The items of all pages. `call` asks for the page of a token, `""` for the first one. */
export const allPages = Effect.fnUntraced(function* <Page extends { readonly nextPageToken: string }, Item, E, R>(
  call: (pageToken: string) => Effect.Effect<Page, E, R>,
  itemsOf: (page: Page) => ReadonlyArray<Item>
) {
  const items: Array<Item> = []
  let pageToken = ""
  do {
    const page = yield* call(pageToken)
    items.push(...itemsOf(page))
    pageToken = page.nextPageToken
  } while (pageToken !== "")
  return items
})

/** The lines of a table. `rowsOf` is told what time it is, in milliseconds since 1970. */
export const table = Effect.fnUntraced(function* (
  columns: ReadonlyArray<Table.Column>,
  rowsOf: (now: number, style: Style) => ReadonlyArray<ReadonlyArray<string>>
) {
  const screen = yield* Screen
  const style = yield* currentStyle
  const now = yield* Clock.currentTimeMillis
  const size = yield* screen.size
  return Table.render(columns, rowsOf(now, style), {
    heading: style.dim,
    ...(size === undefined ? {} : { width: size.columns })
  })
})
