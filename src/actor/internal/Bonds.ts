/**
 * What hangs on the lives of actors: what is given back when they end (names), who monitors them, to whom they are linked.
 *
 * A life is a node between its start and its end, with or without a fiber: supervisors have lives too. The table has an
 * entry only for lives that something hangs on, so the others cost nothing but a look into it when they end.
 *
 * The order when a life is over, after its scope has closed: what it held is given back, then its supervisor decides,
 * then links and monitors act, one per task of the engine's queue: a storm of them is O(n) and gives way to others.
 */
import type { Down, DownReason } from "../Down.ts"
import * as Errors from "../Errors.ts"
import type { ExitView } from "../ExitView.ts"
import type { Self } from "../Self.ts"
import type { Cancel, Engine } from "./Engine.ts"
import type { Node } from "./Node.ts"

/** One monitor. Told at most once. */
interface Monitoring {
  readonly tell: (down: Down) => void
  /** Told, or not wanted any more. */
  over: boolean
}

/** One pair; the same value at both ends. */
interface Link {
  holds: number
}

interface Life<R> {
  readonly node: Node<R>
  over: boolean
  /** Done at the end of the life, before its supervisor hears of it. */
  releases: Set<(down: Down) => void> | undefined
  monitors: Set<Monitoring> | undefined
  links: Map<Life<R>, Link> | undefined
  /** It is being ended for this. */
  doom: Errors.LinkedActorEnded | undefined
}

export class Bonds<R> {
  readonly #engine: Engine<R>
  readonly #lives = new Map<Node<R>, Life<R>>()

  constructor(engine: Engine<R>) {
    this.#engine = engine
  }

  /** Lives that something hangs on; for leak checks. */
  get size(): number {
    return this.#lives.size
  }

  #lifeOf(node: Node<R>): Life<R> {
    const known = this.#lives.get(node)
    if (known !== undefined) return known
    const life = { node, over: false, releases: undefined, monitors: undefined, links: undefined, doom: undefined }
    this.#lives.set(node, life)
    return life
  }

  #forgetIdle(life: Life<R>): void {
    const held = (life.releases?.size ?? 0) + (life.monitors?.size ?? 0) + (life.links?.size ?? 0)
    if (held === 0 && life.doom === undefined && !life.over) this.#lives.delete(life.node)
  }

  /** The node of which `self` is the life, if it still is. */
  nodeOf(self: Self["Service"]): Node<R> | undefined {
    const node = this.#engine.find(self.path)
    return node?.incarnation === self ? node : undefined
  }

  /** Has `release` done when the life of `node` ends. */
  onEnd(node: Node<R>, release: (down: Down) => void): Cancel {
    const life = this.#lifeOf(node)
    life.releases ??= new Set()
    life.releases.add(release)
    return () => {
      if (life.releases?.delete(release) === true) this.#forgetIdle(life)
    }
  }

  // --- monitors ---

  /** Tells the end of the life that `path` has when the queue has come to this. */
  monitor(path: string, tell: (down: Down) => void): Cancel {
    const monitoring: Monitoring = { tell, over: false }
    let life: Life<R> | undefined
    this.#engine.post(() => {
      if (monitoring.over) return
      const node = this.#engine.find(path)
      if (node === undefined || !node.alive) {
        const reason = node === undefined ? "no-such-actor" : "not-alive"
        return this.#tell(monitoring, { path, incarnation: node?.view.incarnation ?? 0, reason, exit: undefined })
      }
      life = this.#lifeOf(node)
      life.monitors ??= new Set()
      life.monitors.add(monitoring)
    })
    return () => {
      monitoring.over = true
      if (life?.monitors?.delete(monitoring) === true) this.#forgetIdle(life)
    }
  }

  #tell(monitoring: Monitoring, down: Down): void {
    this.#engine.answer(() => {
      if (monitoring.over) return
      monitoring.over = true
      monitoring.tell(down)
    })
  }

  #tellAll(rest: Iterator<Monitoring>, down: Down): void {
    this.#engine.post(() => {
      const next = rest.next()
      if (next.done === true) return
      this.#tell(next.value, down)
      this.#tellAll(rest, down)
    })
  }

  // --- links ---

  /** Adds a hold on the link between two that live; answers what takes this hold away again. */
  link(one: Node<R>, other: Node<R>): Cancel {
    if (one === other) return () => {}
    const left = this.#lifeOf(one)
    const right = this.#lifeOf(other)
    left.links ??= new Map()
    right.links ??= new Map()
    const link = left.links.get(right) ?? { holds: 0 }
    if (link.holds++ === 0) {
      left.links.set(right, link)
      right.links.set(left, link)
    }
    let held = true
    return () => {
      if (held && --link.holds === 0 && left.links?.get(right) === link) this.#cut(left, right)
      held = false
    }
  }

  unlink(one: Node<R>, other: Node<R>): void {
    const left = this.#lives.get(one)
    const right = this.#lives.get(other)
    if (left !== undefined && right !== undefined) this.#cut(left, right)
  }

  #cut(left: Life<R>, right: Life<R>): void {
    left.links?.delete(right)
    right.links?.delete(left)
    this.#forgetIdle(left)
    this.#forgetIdle(right)
  }

  /** Why the life of `node` is being ended, when that is on account of a link. */
  doomOf(node: Node<R>): Errors.LinkedActorEnded | undefined {
    return this.#lives.size === 0 ? undefined : this.#lives.get(node)?.doom
  }

  // --- the end ---

  /** The life of `node` is over and its supervisor does not know yet. `exit`: when it ended by itself. */
  ended(node: Node<R>, reason: DownReason, exit: ExitView | undefined): void {
    if (this.#lives.size === 0) return
    const life = this.#lives.get(node)
    if (life === undefined) return
    this.#lives.delete(node)
    life.over = true
    const down = { path: node.view.path, incarnation: node.view.incarnation, reason, exit }
    if (life.releases !== undefined) for (const release of life.releases) release(down)
    if (life.links !== undefined) {
      const failure = exit === undefined || isNormal(exit) ? undefined : (life.doom ?? linked(node, exit))
      for (const other of life.links.keys()) {
        other.links?.delete(life)
        if (failure === undefined || other.doom !== undefined) this.#forgetIdle(other)
        else this.#condemn(other, failure)
      }
    }
    if (life.monitors !== undefined) this.#tellAll(life.monitors.values(), down)
  }

  #condemn(life: Life<R>, failure: Errors.LinkedActorEnded): void {
    life.doom = failure
    this.#engine.post(() => {
      if (!life.over) life.node.endLinked(failure)
    })
  }
}

/** Nothing that others have to die of. */
const isNormal = (exit: ExitView): boolean => exit.class === "normal" || exit.tag === "Ignored"

const linked = <R>(node: Node<R>, exit: ExitView): Errors.LinkedActorEnded =>
  new Errors.LinkedActorEnded({ path: node.view.path, exit })
