/**
 * The copy in memory of what the state database holds durably: reads come from here. Changed by nothing but the worker's
 * answers, in their order.
 */
import type { ChangeResult, Contents, RawRecord, RawRequest } from "./StateProtocol.ts"

/** The index of the first that is not before `name`. */
const placeOf = (sorted: ReadonlyArray<RawRecord>, name: string): number => {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle]?.name ?? "") < name) low = middle + 1
    else high = middle
  }
  return low
}

class Table {
  readonly records = new Map<string, RawRecord>()
  /** Never changed once it was given out; undefined: to be sorted anew. */
  #sorted: ReadonlyArray<RawRecord> | undefined

  set(record: RawRecord): void {
    const isNew = !this.records.has(record.name)
    this.records.set(record.name, record)
    // a sort for each of many that are made while somebody lists them would cost the square of their number
    const sorted = this.#sorted
    this.#sorted = sorted?.toSpliced(placeOf(sorted, record.name), isNew ? 0 : 1, record)
  }

  delete(name: string): void {
    const sorted = this.#sorted
    if (this.records.delete(name)) this.#sorted = sorted?.toSpliced(placeOf(sorted, name), 1)
  }

  get sorted(): ReadonlyArray<RawRecord> {
    this.#sorted ??= [...this.records.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
    return this.#sorted
  }
}

export class StateMirror {
  #tables = new Map<string, Table>()
  #requests = new Map<string, RawRequest>()
  #loading: StateMirror | undefined

  get(kind: string, name: string): RawRecord | undefined {
    return this.#tables.get(kind)?.records.get(name)
  }

  /** All of a kind, by name. */
  list(kind: string): ReadonlyArray<RawRecord> {
    return this.#tables.get(kind)?.sorted ?? []
  }

  request(id: string): RawRequest | undefined {
    return this.#requests.get(id)
  }

  /** The database is about to be read anew; reads show what was there before until `endLoading`. */
  beginLoading(): void {
    this.#loading = new StateMirror()
  }

  load(contents: Contents): void {
    const { records, requests } = contents
    const target = this.#loading ?? this
    for (const record of records) target.#table(record.kind).set(record)
    for (const request of requests) target.#requests.set(request.id, request)
  }

  endLoading(): void {
    if (this.#loading === undefined) return
    this.#tables = this.#loading.#tables
    this.#requests = this.#loading.#requests
    this.#loading = undefined
  }

  apply(result: ChangeResult): void {
    switch (result._tag) {
      case "Put":
        this.#table(result.record.kind).set(result.record)
        return
      case "Removed":
        this.#tables.get(result.kind)?.delete(result.name)
        return
      case "Remembered":
        this.#requests.set(result.request.id, result.request)
        for (const id of result.forgotten) this.#requests.delete(id)
        return
      case "Journalled":
        return
    }
  }

  #table(kind: string): Table {
    let table = this.#tables.get(kind)
    if (table === undefined) {
      table = new Table()
      this.#tables.set(kind, table)
    }
    return table
  }
}
