/**
 * What every benchmark shares: rows of samples, medians, interleaving and the memory of a process.
 *
 * A benchmark asks one question or a few, measures Ironwood and its peers in the same run, in turn (A B A B …) because
 * the machines drift, and prints one JSON row per subject. `run.ts` makes the table. Nothing here judges.
 */
import { readFileSync } from "node:fs"

/** The samples of one subject for one question. */
export interface Row {
  readonly question: string
  readonly subject: string
  readonly unit: string
  readonly samples: ReadonlyArray<number>
  /** What this project aims at, in words. */
  readonly aim?: string
  readonly note?: string
}

/** Prints a row for `run.ts`. */
export const report = (row: Row): void => {
  process.stdout.write(`${JSON.stringify(row)}\n`)
}

/** Progress for the person who waits; not part of the result. */
export const progress = (text: string): void => {
  process.stderr.write(`bench: ${text}\n`)
}

/** The value below which `share` (0 to 1) of the samples lie; NaN of none. */
export const quantile = (samples: ReadonlyArray<number>, share: number): number => {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** The middle of the samples. */
export const median = (samples: ReadonlyArray<number>): number => quantile(samples, 0.5)

/**
 * Milliseconds before each sample. Before the kernel puts a process into a cgroup it waits for a grace period of RCU, some 12 ms;
 * who does it less than 20 ms after somebody else does not wait. Without this pause whoever comes right after another who
 * makes containers is faster by that, and whoever comes after somebody slow is not.
 */
const REST = 200

/** Runs each subject once per round, in turn, after one round that is not counted; milliseconds by subject. */
export const interleave = async <Name extends string>(
  rounds: number,
  subjects: Readonly<Record<Name, (round: number) => Promise<number>>>
): Promise<Map<string, Array<number>>> => {
  const samples = new Map<string, Array<number>>()
  for (let round = 0; round <= rounds; round++) {
    for (const [name, measure] of Object.entries<(round: number) => Promise<number>>(subjects)) {
      await new Promise((resolve) => setTimeout(resolve, REST))
      const value = await measure(round)
      if (round > 0) samples.set(name, [...(samples.get(name) ?? []), value])
    }
  }
  return samples
}

/** Memory of a process from /proc/PID/smaps_rollup, in MiB; proc(5). `Pss` shares pages among those who map them; `Anonymous` are those of no file. */
export const memory = (pid: number, field: "Rss" | "Pss" | "Anonymous"): number => {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))
  return found === null ? Number.NaN : Number(found[1]) / 1024
}

/**
 * The least of what `weigh` says in so many looks, two seconds apart. A brain that has nothing to do any more gives back what a burst has left, in
 * two collections some seconds apart (`src/IdleCollection.ts`), later on a busy machine.
 */
export const settled = async (weigh: () => number, most = 15): Promise<number> => {
  let least = Number.POSITIVE_INFINITY
  for (let looks = 0; looks < most; looks++) {
    await new Promise((resolve) => setTimeout(resolve, 2_000))
    least = Math.min(least, weigh())
  }
  return least
}

/** Milliseconds of processor time: of a process, and of its children that it has waited for; proc_pid_stat(5), in steps of 10. */
export const processorTime = (pid: number): { readonly own: number; readonly children: number } => {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ").map(Number) ?? []
  const [user = 0, system = 0, ofChildren = 0, systemOfChildren = 0] = fields.slice(11, 15)
  return { own: (user + system) * 10, children: (ofChildren + systemOfChildren) * 10 }
}

/** Milliseconds that `act` takes. */
export const timed = async (act: () => unknown): Promise<number> => {
  const start = performance.now()
  await act()
  return performance.now() - start
}
