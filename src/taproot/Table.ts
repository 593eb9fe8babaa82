/**
 * taproot's entries as this brain knows them: by id, and by label for those who come back for a process. Finding by id
 * or label costs the same however many there are.
 */
import * as Option from "effect/Option"
import { Entry, type EntryFacts } from "./Entry.ts"
import type { ProcessExit } from "./ProcessExit.ts"
import type { ChannelLost, Process } from "./Processes.ts"
import type { Requests } from "./Requests.ts"

export class Table {
  readonly #requests: Requests
  /** In the order of ids, which is the order of their making. */
  readonly #entries = new Map<bigint, Entry>()
  readonly #labels = new Map<string, Set<Entry>>()
  /** Of a previous brain, and asked for by nobody yet. */
  readonly #adoptable = new Set<Entry>()

  constructor(requests: Requests) {
    this.#requests = requests
  }

  get(id: bigint): Entry | undefined {
    return this.#entries.get(id)
  }

  /** An entry that this brain made. */
  add(facts: EntryFacts): Entry {
    const entry = new Entry(facts, this.#requests, (gone) => this.#forget(gone))
    this.#entries.set(entry.id, entry)
    const same = this.#labels.get(entry.label)
    if (same === undefined) this.#labels.set(entry.label, new Set([entry]))
    else same.add(entry)
    return entry
  }

  /** An entry that was there before this brain. Returns what is wrong with it, if anything. */
  meet(facts: EntryFacts, exit: ProcessExit | undefined): string | undefined {
    if (this.#entries.has(facts.id)) return `two entries with the id ${facts.id}`
    const entry = this.add(facts)
    this.#adoptable.add(entry)
    return exit === undefined ? undefined : entry.ended(exit)
  }

  adoptable(): ReadonlyArray<Process> {
    return Array.from(this.#adoptable, (entry) => entry.process)
  }

  /** The newest entry with this label. */
  take(label: string): Option.Option<Process> {
    let newest: Entry | undefined = undefined
    for (const entry of this.#labels.get(label) ?? []) newest = entry
    return newest === undefined ? Option.none() : Option.some(this.#taken(newest))
  }

  takeAll(prefix: string): ReadonlyArray<Process> {
    return Array.from(this.#entries.values())
      .filter((entry) => entry.label.startsWith(prefix))
      .map((entry) => this.#taken(entry))
  }

  lose(lost: ChannelLost): void {
    for (const entry of this.#entries.values()) entry.lose(lost)
  }

  /** All of them are gone, and this is how they ended. */
  vanish(exit: ProcessExit): void {
    for (const entry of this.#entries.values()) entry.vanish(exit)
  }

  #taken(entry: Entry): Process {
    this.#adoptable.delete(entry)
    return entry.process
  }

  #forget(entry: Entry): void {
    this.#entries.delete(entry.id)
    this.#adoptable.delete(entry)
    const same = this.#labels.get(entry.label)
    same?.delete(entry)
    if (same?.size === 0) this.#labels.delete(entry.label)
  }
}
