/**
 * Writes docs/lifecycle.md: the state × event tables of an actor and of a container, from the tables that the code runs
 * on. `scripts/node scripts/lifecycle-page.ts` after a change of them; a test says when that was forgotten.
 */
import { writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { events, states, table } from "../src/actor/Lifecycle.ts"
import { commandMeanings, commands, containerStates, findings } from "../src/runtime/Lifecycle.ts"

type Rows = ReadonlyArray<readonly [string, string]>

/** A Markdown table: a row per state, a column per event; a cell that cannot be is left blank. */
const matrix = <State extends string, Event extends string>(
  states: ReadonlyArray<State>,
  events: ReadonlyArray<Event>,
  cell: (state: State, event: Event) => string
): string =>
  [
    `| | ${events.map((event) => `*${event}*`).join(" | ")} |`,
    `|---|${events.map(() => "---").join("|")}|`,
    ...states.map((state) => `| **${state}** | ${events.map((event) => cell(state, event)).join(" | ")} |`)
  ].join("\n")

const meanings = (rows: Rows): string => rows.map(([name, meaning]) => `- *${name}*: ${meaning}`).join("\n")

const keys = <Key extends string>(record: Readonly<Record<Key, unknown>>): ReadonlyArray<Key> => {
  const found: Array<Key> = []
  for (const key in record) found.push(key)
  return found
}

/** The page. */
export const page = (): string => `# Lifecycles

Generated from \`src/actor/Lifecycle.ts\` and \`src/runtime/Lifecycle.ts\` by \`scripts/lifecycle-page.ts\`: these are the
tables that the code runs on.

## An actor

In which state an event leaves it. A blank cell cannot happen; the engine dies of it rather than show a state that is not
so.

${matrix(states, keys(events), (state, event) => (table[state][event] === "illegal" ? "" : table[state][event]))}

${meanings(Object.entries(events))}

## A container: what a person may ask for

What a command does in each state. *commit*: the wish is stored, reality follows or is so already; *refuse*: an error that
says what to do instead.

${matrix(containerStates, keys(commands.running), (state, command) => commands[state][command])}

${meanings(Object.entries(commandMeanings))}

## A container: what a brain does about what it finds

When it comes up, or when the container's actor crashed. *wanted*: desired state says that it shall run; *unwanted*: that it
shall not; *unknown*: desired state knows no such container.

${matrix(keys(findings), keys(findings.running), (finding, wanted) => findings[finding][wanted])}
`

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(fileURLToPath(new URL("../docs/lifecycle.md", import.meta.url)), page())
}
