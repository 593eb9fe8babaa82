/**
 * The last changes of the tree, and the watchers that read them.
 *
 * One ring for all: a watcher is a cursor, so a slow one costs nothing and a change costs O(1) whoever watches. The ring
 * holds what the tree shows anyhow; events are made of it for those who read. Every change has its own revision and
 * revisions are consecutive, so a revision *is* a place in the ring. A watcher that lags far gets only changes that are
 * still the newest of their actor; one that lags beyond the ring gets a snapshot. So does one that comes from an earlier
 * brain, and before it what the histories of the actors know of the time between: at the revision it came with, so that
 * revisions never go back and who leaves before the snapshot is told all of it again.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { ActorPath } from "../ActorPath.ts"
import type { HistoryEntry, Revision, TreeEvent, TreeNode, TreeSnapshot } from "../Tree.ts"

/** Changes held. A watcher that was away for no more than these resumes without a snapshot. */
export const CAPACITY = 8_192
/**
 * Beyond this many unread changes a watcher gets only the newest state of each actor. More than one batch of the engine
 * makes: who reads whenever it is his turn is told everything, also while a thousand actors come up.
 */
export const COALESCE_BEYOND = CAPACITY / 2
const CHUNK = 256

/** What the log asks the engine for. */
export interface Source {
  readonly snapshot: () => TreeSnapshot
  readonly current: (path: string) => TreeNode | undefined
  /** What happened after `from` to the actors that are there, oldest first; the newest `limit` of it. */
  readonly happenedSince: (
    from: Revision,
    limit: number
  ) => ReadonlyArray<{ readonly node: TreeNode; readonly entry: HistoryEntry }>
}

export class ChangeLog {
  readonly #source: Source
  /** By change: what the tree shows since, or the path of what is gone. */
  readonly #shown: Array<TreeNode | ActorPath> = []
  readonly #entries: Array<HistoryEntry | undefined> = []
  /** The revision before the first change of this log: what earlier brains may have shown. */
  readonly #base: Revision
  #revision: Revision
  #waiting = new Set<() => void>()
  /** True once there will be no more changes. */
  closed = false

  constructor(source: Source, base: Revision) {
    this.#source = source
    this.#base = base
    this.#revision = base
  }

  /** The revision of the newest change. */
  get revision(): Revision {
    return this.#revision
  }

  /** The revision of the next change. */
  next(): Revision {
    return this.#revision + 1
  }

  /** An actor is shown as `view` from the {@link next} revision on; `entry` is the event behind it. */
  changed(view: TreeNode, entry: HistoryEntry | undefined): void {
    this.#append(view, entry)
  }

  /** An actor is not shown from the {@link next} revision on. */
  removed(path: ActorPath): void {
    this.#append(path, undefined)
  }

  #append(shown: TreeNode | ActorPath, entry: HistoryEntry | undefined): void {
    const place = this.#placeOf(++this.#revision)
    this.#shown[place] = shown
    this.#entries[place] = entry
  }

  #placeOf(revision: Revision): number {
    return (revision - this.#base - 1) % CAPACITY
  }

  /** Wakes the watchers that wait for a change. Called once per batch of changes. */
  notify(): void {
    if (this.#waiting.size === 0) return
    const waiting = this.#waiting
    this.#waiting = new Set()
    for (const wake of waiting) wake()
  }

  /** No more changes: watchers end when they have read what there is. */
  close(): void {
    this.closed = true
    this.notify()
  }

  /** How many watchers wait; for leak checks. */
  get watchers(): number {
    return this.#waiting.size
  }

  watch(from: Revision | undefined): Stream.Stream<TreeEvent> {
    return Stream.fromPull(
      Effect.sync(() => {
        let cursor = from
        const pull: Effect.Effect<Arr.NonEmptyReadonlyArray<TreeEvent>, Cause.Done> = Effect.suspend(() => {
          const read = this.#read(cursor)
          cursor = read.cursor
          if (Arr.isReadonlyArrayNonEmpty(read.events)) return Effect.succeed(read.events)
          if (read.cursor < this.#revision) return pull
          if (this.closed) return Cause.done()
          return Effect.andThen(this.#changed, pull)
        })
        return pull
      })
    )
  }

  readonly #changed = Effect.callback<void>((resume) => {
    const wake = () => resume(Effect.void)
    this.#waiting.add(wake)
    return Effect.sync(() => this.#waiting.delete(wake))
  })

  #held(revision: Revision): boolean {
    return revision >= this.#base && revision <= this.#revision && this.#revision - revision <= this.#shown.length
  }

  #read(cursor: Revision | undefined): { readonly events: ReadonlyArray<TreeEvent>; readonly cursor: Revision } {
    // A fresh log may hold nothing, and still cannot vouch for what earlier brains showed up to its base.
    if (cursor === undefined || !this.#held(cursor) || (cursor === this.#base && this.#base > 0)) {
      const snapshot = this.#source.snapshot()
      const { revision } = snapshot
      const events: Array<TreeEvent> = []
      if (cursor !== undefined && this.#base > 0 && cursor <= this.#base) {
        for (const { entry, node } of this.#source.happenedSince(cursor, CAPACITY)) {
          events.push({ _tag: "Changed", revision: cursor, node: { ...node, revision: cursor }, entry })
        }
      }
      events.push({ _tag: "Snapshot", revision, snapshot })
      return { events, cursor: revision }
    }
    const coalesce = this.#revision - cursor > COALESCE_BEYOND
    const events: Array<TreeEvent> = []
    let at = cursor
    while (at < this.#revision && at - cursor < CAPACITY && events.length < CHUNK) {
      at++
      const place = this.#placeOf(at)
      const shown = this.#shown[place]
      if (shown === undefined) continue
      if (typeof shown === "string") {
        events.push({ _tag: "Removed", revision: at, path: shown })
      } else if (!coalesce || this.#source.current(shown.path)?.revision === at) {
        events.push({ _tag: "Changed", revision: at, node: shown, entry: this.#entries[place] })
      }
    }
    return { events, cursor: at }
  }
}
