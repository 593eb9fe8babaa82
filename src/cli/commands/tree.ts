/** `ironwood tree`: the supervision tree, once or live. */
import { create } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { GetTreeResponseSchema, ProcessSelection } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { Client } from "../Client.ts"
import { OutputSetting, style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as LiveTree from "../LiveTree.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import { colored } from "../Style.ts"
import * as SvgPicture from "../SvgPicture.ts"
import * as Target from "../Target.ts"
import { troubledOf } from "../TreeShape.ts"
import * as TreeView from "../TreeView.ts"

/** Wide enough for most notes, narrow enough for a page. */
const SVG_COLUMNS = 130

export const tree = Command.make(
  "tree",
  {
    watch: Flag.Boolean("watch").pipe(
      Flag.withAlias("w"),
      Flag.withDescription("Stay and show changes: redrawn in place on a terminal, a line per event elsewhere"),
      Flag.withDefault(false)
    ),
    all: Flag.Boolean("all").pipe(
      Flag.withAlias("a"),
      Flag.withDescription("Every actor on a line of its own, also where many are well"),
      Flag.withDefault(false)
    ),
    troubled: Flag.Boolean("troubled").pipe(
      Flag.withDescription("Only what is in trouble, and what is above it"),
      Flag.withDefault(false)
    ),
    processes: Flag.Boolean("processes").pipe(
      Flag.withAlias("p"),
      Flag.withDescription("With the processes of the host's containers, too; --no-processes: without those of guests"),
      Flag.optional
    ),
    svg: Flag.Boolean("svg").pipe(
      Flag.withDescription("The picture as an SVG document, for a ticket or a page"),
      Flag.withDefault(false)
    ),
    path: Argument.String("PATH").pipe(
      Argument.withDescription("Only this actor and those below it: its path, or its name when only one has it"),
      Argument.withDefault("")
    )
  },
  Effect.fnUntraced(function* ({ all, path: word, processes, svg, troubled: troubledOnly, watch }) {
    const client = yield* Client
    const screen = yield* Screen
    const isTable = (yield* OutputSetting) === "table"
    const isPicture = screen.isTerminal && isTable
    if (svg && (watch || !isTable)) {
      return yield* failure(
        `--svg is a picture of this moment, and ${watch ? "--watch" : "-o"} asks for something else`,
        {
          exitCode: exitCodes.usage,
          next: `Leave one of the two out`
        }
      )
    }
    const isDrawn = all || troubledOnly || (isTable && Option.isSome(processes))
    if (watch && !isPicture && isDrawn) {
      return yield* failure(
        `${all ? "--all" : troubledOnly ? "--troubled" : "--processes"} says how the picture of --watch is drawn`,
        {
          exitCode: exitCodes.usage,
          next: "Leave it out here: a line per event is printed, whatever the actor's state"
        }
      )
    }
    // what is in trouble is told at once, whatever a guest does
    const guests = troubledOnly ? ProcessSelection.UNSPECIFIED : ProcessSelection.GUESTS
    const selection = Option.match(processes, {
      onNone: () => guests,
      onSome: (wanted) => (wanted ? ProcessSelection.ALL : ProcessSelection.UNSPECIFIED)
    })
    const path = word === "" ? "" : yield* Target.pathOf(word)
    if (watch) {
      return isPicture
        ? yield* LiveTree.picture(client, path, { all, troubledOnly }, selection)
        : yield* LiveTree.events(client, {
            path,
            showSnapshot: true,
            // programs ask for what they want
            ...(Option.isSome(processes) ? { processes: selection } : {})
          })
    }
    const { actors, revision } = yield* Target.allActors(path, selection)
    const shown = troubledOnly ? troubledOf(actors, yield* Clock.currentTimeMillis) : actors
    return yield* Output.answer(
      GetTreeResponseSchema,
      create(GetTreeResponseSchema, { actors: [...shown], revision }),
      Effect.gen(function* () {
        const style = svg ? colored : yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        const size = svg ? { columns: SVG_COLUMNS } : yield* screen.size
        const lines = TreeView.render(new Map(actors.map((actor) => [actor.path, actor])), {
          now,
          style,
          symbols: svg || screen.isTerminal,
          all,
          troubledOnly,
          processes: new Map(
            actors.flatMap((actor) => (actor.processes === undefined ? [] : [[actor.path, actor.processes]]))
          ),
          remark: style.dim(`revision ${revision}`),
          ...(size === undefined ? {} : { width: size.columns })
        })
        return svg ? SvgPicture.make(lines, `The supervision tree at ${new Date(now).toISOString()}`) : lines
      })
    )
  })
).pipe(
  describe({
    short: "Show the supervision tree: what runs, what keeps failing, why, and when it is tried again",
    long: [
      "Each line is an actor: its state and for how long, how often it was restarted, its pid. For what is in trouble the",
      "note says how it last ended, when the next try is, the back-off, and how many failures there were in a row; what is",
      "above it says how many are in trouble below. Ten and more siblings that are well are one line: `… 97 running`.",
      "`ironwood why` explains each of them.",
      "",
      "Processes in the guests of microVMs are shown beneath their containers, with their numbers there, and beneath the",
      "microVM what its guest runs besides; with --processes those of the host's containers, too. They are no actors: nothing",
      "restarts them one by one. A guest that does not tell within a second is shown without.",
      "",
      "States: running, starting, waiting (its turn has not come), backing-off (waits for its next start), stopping,",
      "stopped (by a person), parked (its restart budget is spent), finished, failed (and its policy does not restart it)."
    ],
    examples: [
      ["ironwood tree", "Everything"],
      ["ironwood tree --watch", "Everything, live"],
      ["ironwood tree init/runtime", "The containers"],
      ["ironwood tree --processes web", "A container and every process in it"],
      ["ironwood tree --troubled", "What is in trouble, and nothing else"],
      ["ironwood tree --svg > tree.svg", "A picture of it, for whoever cannot look now"],
      ["ironwood tree --troubled -o json | jq -r '.actors[].path'", "The same for programs"],
      ["ironwood tree -o json | jq -r '.actors[] | select(.state == \"ACTOR_STATE_PARKED\").path'", "What is parked"]
    ]
  })
)
