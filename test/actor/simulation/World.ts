/**
 * What the workloads of a simulated host live in and share: what of it is down, and who lives. Everything that must never
 * be, whoever notices it, is a line in `violations`.
 */
export class World {
  readonly seed: number
  readonly violations: Array<string> = []
  /** Until when they do not answer. */
  registryDownUntil = 0
  databaseDownUntil = 0
  /** From now on nothing ends by itself: what is wrong must heal. */
  calm = false
  /** Lives, by path. */
  readonly live = new Map<string, number>()
  /** Lives that were begun, ever. */
  begun = 0
  #now: () => number = () => 0
  readonly #incarnations = new Map<string, number>()
  readonly #storm = new Map<string, () => void>()
  readonly #flapping = new Map<string, number>()

  constructor(seed: number) {
    this.seed = seed
  }

  /** Takes the time from there, in milliseconds since 1970. */
  set clock(now: () => number) {
    this.#now = now
  }

  get now(): number {
    return this.#now()
  }

  get registryDown(): boolean {
    return !this.calm && this.now < this.registryDownUntil
  }

  get databaseDown(): boolean {
    return !this.calm && this.now < this.databaseDownUntil
  }

  violation(text: string): void {
    const at = new Date(this.now).toISOString().slice(11, 23)
    if (this.violations.length < 20) this.violations.push(`${at} ${text}`)
  }

  begins(path: string, incarnation: number): void {
    this.begun++
    const other = this.live.get(path)
    if (other !== undefined) this.violation(`${path}: incarnation ${incarnation} begins while ${other} lives`)
    const last = this.#incarnations.get(path) ?? 0
    // One that was forgotten and added again begins anew.
    if (incarnation <= last && incarnation > 1) this.violation(`${path}: incarnation ${incarnation} after ${last}`)
    this.#incarnations.set(path, incarnation)
    this.live.set(path, incarnation)
  }

  ends(path: string): void {
    this.#storm.delete(path)
    this.live.delete(path)
  }

  onStorm(path: string, crash: () => void): void {
    this.#storm.set(path, crash)
  }

  /** All that run and are chosen end at the same instant. */
  storm(chosen: (path: string) => boolean): void {
    // Those that are back before the others have ended are spared.
    const running = Array.from(this.#storm)
    for (const [path, crash] of running) if (chosen(path)) crash()
  }

  /** Lives of this actor are short until `until`. */
  flap(path: string, until: number): void {
    this.#flapping.set(path, until)
  }

  flapping(path: string): boolean {
    return !this.calm && (this.#flapping.get(path) ?? 0) > this.now
  }
}
