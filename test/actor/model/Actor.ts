/** The model's actors as plain data, and what can be read off them. */
import { type Dependencies, noDependencies } from "../../../src/actor/ChildSpec.ts"
import type { Shape } from "../Shape.ts"

/** A time, and its place among those that are the same. */
export type Due = readonly [at: number, timer: number]

/** Several are started anew because of one. */
export interface Restart {
  from: Actor
  everyone: boolean
  due: Due
}

export interface Actor {
  shape: Shape
  readonly path: string
  readonly parent: Actor | undefined
  order: number
  state: string
  /** Siblings that its start waits for, and on whose account that start is. */
  waitingFor: ReadonlyArray<string>
  automatic: boolean
  /** A person is ending it. */
  departing: boolean
  incarnation: number
  restarts: number
  attempt: number
  /** Restarts that a sliding budget may count. */
  window: Array<number>
  /** A tumbling budget's window: since when, and the starts in it. */
  tumbling: { readonly opened: number; starts: number } | undefined
  /** Restarts in a row by the policy's one rule. */
  ruled: number
  readyAt: number
  /** Its own back-off: when. */
  due: Due | undefined
  // supervisors
  phase: "down" | "starting" | "up"
  children: Array<Actor>
  /** Places given to children in this life. */
  places: number
  /** What persons changed of a static list. */
  readonly changed: Map<string, Shape>
  spent: Array<number>
  pass: number
  restart: Restart | undefined
}

export const make = (shape: Shape, parent: Actor | undefined): Actor => ({
  shape,
  path: parent === undefined ? shape.id : `${parent.path}/${shape.id}`,
  parent,
  order: 0,
  state: "waiting",
  waitingFor: [],
  automatic: false,
  departing: false,
  incarnation: 0,
  restarts: 0,
  attempt: 0,
  window: [],
  tumbling: undefined,
  ruled: 0,
  readyAt: 0,
  due: undefined,
  phase: "down",
  children: [],
  places: 0,
  changed: new Map(),
  spent: [],
  pass: 0,
  restart: undefined
})

export const alive = ({ state }: Actor): boolean => state === "starting" || state === "running"

export const isParked = ({ state }: Actor): boolean => state === "parked"

export const isDynamic = ({ shape: { group } }: Actor): boolean => group?.kind === "dynamic"

/** What has been used up counts no more. */
export const forget = (actor: Actor): void => {
  actor.window = []
  actor.tumbling = undefined
  actor.ruled = 0
}

/** Another spec of the same id. */
export const respec = (actor: Actor, shape: Shape): void => {
  if (actor.shape.policy !== shape.policy) forget(actor)
  actor.shape = shape
}

/** Takes it out of its group. */
export const drop = (actor: Actor): void => {
  const { parent } = actor
  if (parent !== undefined) parent.children = parent.children.filter((child) => child !== actor)
}

/** True when `actor` is to start with those that are started anew. */
export const concerned = (actor: Actor): boolean => {
  const { parent } = actor
  const restart = parent?.restart
  return restart !== undefined && (restart.everyone || actor.order >= restart.from.order)
}

/** A static list with what persons changed of it; the desired state of a dynamic one knows nothing of that. */
export const listOf = ({ changed, shape: { group } }: Actor): ReadonlyArray<Shape> => {
  const own = group?.children ?? []
  const added = [...changed.values()].filter(({ id }) => !own.some((shape) => shape.id === id))
  return [...own.map((shape) => changed.get(shape.id) ?? shape), ...added]
}

// --- dependencies between siblings ---

/** For whom its start waits. */
export const unmet = ({ parent, shape }: Actor): ReadonlyArray<string> => {
  const { after, afterSuccess, bindsTo, requires } = { ...noDependencies, ...shape.dependencies }
  const sibling = (id: string) => parent?.children.find((child) => child.shape.id === id)
  const isUndecided = (id: string) => ["waiting", "starting"].includes(sibling(id)?.state ?? "")
  const isMissing = (id: string) => sibling(id)?.state !== "running" || sibling(id)?.departing === true
  const isUnfinished = (id: string) => sibling(id)?.state !== "finished"
  return [
    ...new Set([
      ...after.filter(isUndecided),
      ...afterSuccess.filter(isUnfinished),
      ...[...requires, ...bindsTo].filter(isMissing)
    ])
  ]
}

/** Siblings that depend on it in one of these ways. */
export const dependents = (
  { parent, shape: { id } }: Actor,
  ...kinds: ReadonlyArray<keyof Dependencies>
): ReadonlyArray<Actor> => {
  const names = ({ shape: { dependencies = {} } }: Actor) => kinds.some((kind) => dependencies[kind]?.includes(id))
  return (parent?.children ?? []).filter(names)
}

/** Those of a static group in the order in which they end: newest first, but after those that depend on it. */
export const inOrderOfEnd = (group: Actor): ReadonlyArray<Actor> => {
  const ordered = new Set<Actor>()
  const visit = (actor: Actor): void => {
    for (const dependent of dependents(actor, "after", "afterSuccess", "requires", "bindsTo")) {
      if (alive(dependent)) visit(dependent)
    }
    ordered.add(actor)
  }
  for (const actor of group.children.toReversed()) visit(actor)
  return [...ordered]
}

/** Whether a running static group, in which a child can name only what is there, could not have these. */
export const misplaced = (group: Actor, shapes: ReadonlyArray<Shape>): boolean => {
  if (group.shape.group?.kind !== "static") return false
  const ids = new Set([...group.children.map(({ shape: { id } }) => id), ...shapes.map(({ id }) => id)])
  return shapes.some(({ dependencies = {} }) =>
    Object.values(dependencies).some((named) => named.some((id) => !ids.has(id)))
  )
}
