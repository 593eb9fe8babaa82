/**
 * Numbers that look random and are the same for the same seed (mulberry32): what a failing simulation needs to be run
 * again. Not for secrets.
 */
export class SeededRandom {
  #state: number

  /** `parts` are told apart by all of their characters: a seed, a path, the number of a life. */
  constructor(...parts: ReadonlyArray<string | number>) {
    // FNV-1a
    let hash = 0x811c9dc5
    for (const character of parts.join("\u0000")) {
      hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193)
    }
    this.#state = hash >>> 0
  }

  /** From 0 to 1, without 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }

  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1))
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  /** A length of time, in whole milliseconds of at least 1, that is `mean` on average: how long until a rare event. */
  exponential(mean: number): number {
    return Math.max(1, Math.round(-Math.log(1 - this.next()) * mean))
  }

  pick<A>(items: ReadonlyArray<A>): A {
    const item = items[this.between(0, items.length - 1)]
    if (item === undefined) throw new Error("nothing to pick from")
    return item
  }
}
