/**
 * Partitioned supervisors: N copies of one child under one supervisor, with the ids `0` to `N-1`, and a router that says
 * which of them is in charge of a key.
 *
 * For what one actor cannot do alone because it does one thing at a time: a mailbox that many send to, a pool that starts
 * children all day. What belongs to one key stays in one place and in order; different keys go on side by side.
 *
 * ```ts
 * const pools = yield* PartitionSupervisor.make("pools", {
 *   partitions: 8,
 *   copy: () => DynamicSupervisor.make("pool", { children: Effect.succeed([]) })   // each copy gets its index as id
 * })
 * Supervisor.make("init", { children: [pools.spec] })
 * yield* pools.get(container.name).startChild(spec)
 * ```
 *
 * The router is a pure function: an integer goes to its absolute value modulo N, everything else by a hash of its text
 * ({@link hashOf}: FNV-1a over UTF-16, mixed as in MurmurHash3). It depends on nothing but key and N, so a key has the same
 * partition after a restart, in another process, and in another version: it may be written to disk.
 *
 * **Traps.**
 * - Another N sends most keys elsewhere. State that is kept per partition has to move with them.
 * - A key that gets half the work makes one partition do half of it. And sequential numbers with a common factor of N
 *   (every eighth of 8) all meet in one: use text then.
 * - A partition that is down is down for its keys: the router does not look for another, or order would be lost.
 *
 * **Where this differs from Elixir's `PartitionSupervisor`**: there N is the number of cores by default, since partitions
 * are for parallelism; here all share one thread, so they are for waiting side by side, and N is yours to choose. Keys
 * hash the same everywhere (`:erlang.phash2` promises as much, but for terms). The copies are made with their handles, and
 * not found by name. N does not change while it runs.
 */
import * as Effect from "effect/Effect"
import type { ChildSpec } from "./ChildSpec.ts"
import * as Supervisor from "./Supervisor.ts"

/** What a partition is: its spec, and whatever handle comes with that (a `DynamicSupervisor`, `{ spec, mailbox }` …). */
export interface Copy<out R> {
  readonly spec: ChildSpec<unknown, R>
}

export interface Options<C, E, R> extends Omit<
  Supervisor.Options<ReadonlyArray<ChildSpec<unknown, never>>>,
  "children"
> {
  /** How many; at least 1. */
  readonly partitions: number
  /** Makes the copy with this index. The id in its spec is replaced. */
  readonly copy: (index: number) => Effect.Effect<C, E, R>
}

/** The handle: put `spec` into a parent, and ask who is in charge of a key. */
export interface PartitionSupervisor<out C, out R> {
  readonly spec: ChildSpec<Supervisor.SupervisorFailure, R>
  readonly partitions: number
  /** From 0 to `partitions - 1`. */
  readonly partition: (key: string | number) => number
  /** The copy in charge of a key. */
  readonly get: (key: string | number) => C
  /** All of them, in order. */
  readonly copies: ReadonlyArray<C>
}

/** The services that the copies' children need. */
type Needs<C> = C extends Copy<infer R> ? R : never

/** A partitioned supervisor, with the strategy, intensity and so on of a static one. Dies when N is not a whole number of at least 1. */
export function make<C extends Copy<unknown>, E = never, R = never>(
  id: string,
  options: Options<C, E, R>
): Effect.Effect<PartitionSupervisor<C, Needs<C>>, E, R>
export function make<C extends Copy<RChild>, RChild, E, R>(
  id: string,
  options: Options<C, E, R>
): Effect.Effect<PartitionSupervisor<C, RChild>, E, R> {
  return Effect.gen(function* () {
    const { copy, partitions, ...own } = options
    if (!Number.isSafeInteger(partitions) || partitions < 1) {
      return yield* Effect.die(new TypeError(`${id} needs at least 1 partition, and a whole number, not ${partitions}`))
    }
    const copies = yield* Effect.forEach(Array.from({ length: partitions }).keys(), copy)
    const children = copies.map(({ spec }, index): ChildSpec<unknown, RChild> => ({ ...spec, id: String(index) }))
    const partition = (key: string | number) => partitionOf(key, partitions)
    return {
      spec: Supervisor.make(id, { ...own, children }),
      partitions,
      partition,
      get: (key: string | number) => {
        const found = copies[partition(key)]
        if (found === undefined) throw new TypeError("unreachable: a partition is one of them")
        return found
      },
      copies
    }
  })
}

/** The partition of `key` among so many: the same for ever. */
export const partitionOf = (key: string | number, partitions: number): number =>
  typeof key === "number" && Number.isSafeInteger(key) ? Math.abs(key) % partitions : hashOf(String(key)) % partitions

/** A hash of 32 bits of a text: the same for ever, and even in its low bits. No defence against chosen keys. */
export const hashOf = (text: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    hash = Math.imul(hash ^ (unit & 0xff), 0x01000193)
    hash = Math.imul(hash ^ (unit >>> 8), 0x01000193)
  }
  // FNV's low bits alone are uneven for short texts; the finalizer of MurmurHash3 has every bit depend on all others.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
