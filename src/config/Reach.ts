/**
 * How each field of a machine config takes effect: {@link table} is consulted when a change is planned, and is part of
 * docs/machine-config.md.
 *
 * Trap: a field is looked up by its longest prefix in the table, so a struct's line holds for all that is in it.
 */

/** How a change of a field takes effect. */
export const reachMeanings = {
  live: "at once, while everything runs",
  reboot: "when the machine starts the next time",
  overridden: "not at all: the kernel command line says otherwise, and wins",
  elsewhere: "only on a machine that boots into Ironwood, which this is not"
} as const
export type Reach = keyof typeof reachMeanings

interface Row {
  /** Path in the document. */
  readonly field: string
  readonly reach: "live" | "reboot"
  /** It is about the machine itself, which an Ironwood that is a process like others leaves alone. */
  readonly machineOnly: boolean
}

export const table: ReadonlyArray<Row> = [
  { field: "version", reach: "live", machineOnly: false },
  { field: "hostname", reach: "live", machineOnly: true },
  { field: "network", reach: "live", machineOnly: true },
  { field: "time", reach: "live", machineOnly: true },
  { field: "kernel", reach: "live", machineOnly: true },
  { field: "watchdog", reach: "live", machineOnly: true },
  { field: "state", reach: "reboot", machineOnly: true },
  { field: "api", reach: "live", machineOnly: false },
  { field: "upgrade", reach: "live", machineOnly: false },
  { field: "upgrade.whenBrainFails", reach: "live", machineOnly: true },
  { field: "containers", reach: "live", machineOnly: false },
  { field: "restarts", reach: "live", machineOnly: false },
  { field: "registries", reach: "live", machineOnly: false },
  { field: "images", reach: "live", machineOnly: false }
]

/** The line that holds for a field. */
export const rowOf = (field: string): Row | undefined =>
  table
    .filter((row) => field === row.field || field.startsWith(`${row.field}.`) || field.startsWith(`${row.field}[`))
    .toSorted((one, other) => other.field.length - one.field.length)[0]

/** In words and Markdown: the fields that an Ironwood takes which is a process on a machine that is not its own. */
export const takenEverywhere = (): string => {
  const named = ({ field }: Row): string => {
    const without = table.filter((row) => row.machineOnly && row.field.startsWith(`${field}.`))
    const except = without.map((row) => `\`${row.field}\``).join(" and ")
    return `\`${field}\`${except === "" ? "" : ` (without ${except})`}`
  }
  const taken = table
    // the version is that of the document, which every Ironwood reads
    .filter(({ field, machineOnly }) => !machineOnly && field !== "version")
    .map(named)
  return `${taken.slice(0, -1).join(", ")} and ${taken.at(-1) ?? ""}`
}
