/**
 * The history of an actor as a table: when, which life, what happened, what was decided and why. Newest first.
 */
import type { HistoryEntry } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import * as Table from "./Table.ts"
import * as Text from "./Text.ts"

const columns: ReadonlyArray<Table.Column> = [
  { title: "WHEN" },
  { title: "REVISION", align: "right" },
  { title: "LIFE", align: "right" },
  { title: "EVENT" },
  { title: "EXIT", shrinkTo: 16, optional: true },
  { title: "DECISION", shrinkTo: 16, optional: true }
]

/** The lines of the table. */
export const table = (
  entries: ReadonlyArray<HistoryEntry>,
  now: number,
  options: { readonly width?: number; readonly heading?: (text: string) => string } = {}
): ReadonlyArray<string> =>
  Table.render(
    columns,
    entries.map((entry) => {
      const moment = ActorText.momentOf(entry.time)
      return [
        moment === undefined ? "" : HumanText.ago(moment, now),
        String(entry.revision),
        String(entry.incarnation),
        Text.clean(entry.event),
        Text.clean(entry.exit?.message ?? ""),
        // the reason says the decision, and when, in words
        Text.clean(entry.reason === "" ? entry.decision : entry.reason)
      ]
    }),
    options
  )
