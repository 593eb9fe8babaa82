/**
 * Which lines the processes beneath an actor have in a picture of the tree: each below the one that brought it forth, as `pstree`
 * has them, and one line for those that there is no room for, or for why they are not known.
 *
 * Trap: they may be a guest's, and what it says of parents any nonsense: rings are cut, and a family deeper than {@link DEEPEST}
 * is shown flat from there on, so that nobody else's column is pushed off the screen.
 */
import type { ContainerProcess } from "../../proto/generated/ironwood/v1/container_pb.ts"
import type { ProcessList } from "../../proto/generated/ironwood/v1/tree_pb.ts"

/** One line: a process, or what is said instead of some. */
export interface ProcessRow {
  readonly _tag: "Process"
  readonly rails: string
  readonly process?: ContainerProcess
  readonly remark?: string
}

export const DEEPEST = 6

/** A process with those that it has brought forth. */
interface Family {
  readonly process: ContainerProcess
  readonly children: Array<Family>
}

const familiesOf = (processes: ReadonlyArray<ContainerProcess>): ReadonlyArray<Family> => {
  const present = new Set(processes.map(({ pid }) => pid))
  const children = new Map<number, Array<ContainerProcess>>()
  for (const process of processes) {
    const those = children.get(process.parent)
    if (those === undefined) children.set(process.parent, [process])
    else those.push(process)
  }
  const placed = new Set<ContainerProcess>()
  const place = (process: ContainerProcess, among: Array<Family>, depth: number): void => {
    if (placed.has(process)) return
    placed.add(process)
    const family: Family = { process, children: [] }
    among.push(family)
    for (const child of children.get(process.pid) ?? []) {
      place(child, depth < DEEPEST ? family.children : among, Math.min(depth + 1, DEEPEST))
    }
  }
  const roots: Array<Family> = []
  for (const process of processes) if (!present.has(process.parent)) place(process, roots, 1)
  // those of a ring have nobody above it
  for (const process of processes) place(process, roots, 1)
  return roots
}

/** The lines, top down, at most `most` and one that says how many more there are; `lead`: what is before the rails of each. */
export const rowsOf = (
  { omitted, problem, processes }: ProcessList,
  lead: string,
  most: number
): ReadonlyArray<ProcessRow> => {
  const shown = processes.slice(0, most)
  const more = processes.length - shown.length + omitted
  const remark = problem !== "" ? problem : more > 0 ? `${more} more process${more === 1 ? "" : "es"}` : undefined
  const rows: Array<ProcessRow> = []
  const visit = (families: ReadonlyArray<Family>, lead: string, isClosed: boolean): void => {
    for (const [index, { children, process }] of families.entries()) {
      const isLast = isClosed && index === families.length - 1
      rows.push({ _tag: "Process", rails: lead + (isLast ? "└─" : "├─"), process })
      visit(children, lead + (isLast ? "  " : "│ "), true)
    }
  }
  visit(familiesOf(shown), lead, remark === undefined)
  return remark === undefined ? rows : [...rows, { _tag: "Process", rails: `${lead}└─`, remark }]
}
