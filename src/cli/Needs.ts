/**
 * What the containers of spec files need of each other (`after`, `requires`, `bindsTo`): the order to make them in, what of
 * it the files bring along themselves, and circles, which nobody could make.
 *
 * Trap: only containers of one sandbox can need each other. What is on the server already only the server knows.
 */
import type { ContainerSpec } from "../../proto/generated/ironwood/v1/container_pb.ts"
import * as Manifest from "./Manifest.ts"

type ContainerObject = Extract<Manifest.ManifestObject, { readonly kind: "Container" }>

/** The lists by the names of their fields in the API and in JSON. */
const lists = [
  ["after", "after"],
  ["requires", "requires"],
  ["binds_to", "bindsTo"]
] as const

/** One name in one of the lists. */
interface Need {
  /** As the API calls it: `spec.binds_to[0]`. */
  readonly field: string
  /** As a file has it: `bindsTo[0]`. */
  readonly path: string
  readonly name: string
}

const needsOf = (spec: ContainerSpec): ReadonlyArray<Need> =>
  lists.flatMap(([field, json]) =>
    spec[json].map((name, index) => ({ field: `spec.${field}[${index}]`, path: `${json}[${index}]`, name }))
  )

const isContainer = (object: Manifest.ManifestObject): object is ContainerObject => object.kind === "Container"

/** Whether these objects bring along what `spec` needs by this name: a container of the same sandbox. */
const brings = (objects: ReadonlyArray<Manifest.ManifestObject>, spec: ContainerSpec, name: string): boolean =>
  spec.sandbox !== "" &&
  name !== spec.name &&
  objects.some((object) => isContainer(object) && object.name === name && object.spec.sandbox === spec.sandbox)

/** Whom `spec` names and the objects have, but in another sandbox: names are unique, so nobody else can be meant. */
const elsewhere = (
  objects: ReadonlyArray<Manifest.ManifestObject>,
  spec: ContainerSpec,
  name: string
): Manifest.ManifestObject | undefined =>
  name === spec.name || brings(objects, spec, name)
    ? undefined
    : objects.find((object) => isContainer(object) && object.name === name)

/** The needs of `spec` that the objects do not meet, but for those that {@link problems} tells of. */
export const unmet = (objects: ReadonlyArray<Manifest.ManifestObject>, spec: ContainerSpec): ReadonlyArray<Need> =>
  needsOf(spec).filter(({ name }) => !brings(objects, spec, name) && elsewhere(objects, spec, name) === undefined)

/** What can be seen to be wrong without a server: needs of another sandbox's containers, and circles. */
export const problems = (objects: ReadonlyArray<Manifest.ManifestObject>): ReadonlyArray<Manifest.Problem> => [
  ...objects.filter(isContainer).flatMap((object) =>
    needsOf(object.spec).flatMap(({ name, path }) => {
      const other = elsewhere(objects, object.spec, name)
      if (other === undefined) return []
      const text = `${path}: "${name}" (${Manifest.formatPosition(other.where)}) is in another sandbox, and only containers of one sandbox can need each other: put both into one`
      return [{ at: object.fieldAt(path), text }]
    })
  ),
  ...circles(objects)
]

/** `spec` with those of its needs only that are {@link unmet}. */
export const withoutMet = (objects: ReadonlyArray<Manifest.ManifestObject>, spec: ContainerSpec): ContainerSpec => {
  const wanted = new Set(unmet(objects, spec).map(({ name }) => name))
  const left = (names: ReadonlyArray<string>) => names.filter((name) => wanted.has(name))
  return { ...spec, after: left(spec.after), requires: left(spec.requires), bindsTo: left(spec.bindsTo) }
}

/** The containers in an order in which each comes after those it needs; else as they are. Circles are left as they are. */
export const inOrder = (objects: ReadonlyArray<Manifest.ManifestObject>): ReadonlyArray<Manifest.ManifestObject> => {
  const byName = new Map(objects.filter(isContainer).map((object) => [object.name, object]))
  const ordered = new Set<Manifest.ManifestObject>()
  const begun = new Set<Manifest.ManifestObject>()
  const visit = (object: Manifest.ManifestObject): void => {
    if (begun.has(object)) return
    begun.add(object)
    if (isContainer(object)) {
      for (const { name } of needsOf(object.spec)) {
        const other = byName.get(name)
        if (other !== undefined && brings(objects, object.spec, name)) visit(other)
      }
    }
    ordered.add(object)
  }
  objects.forEach(visit)
  return [...ordered]
}

/** Needs that go round: each circle once, told where it closes. */
const circles = (objects: ReadonlyArray<Manifest.ManifestObject>): ReadonlyArray<Manifest.Problem> => {
  const containers = objects.filter(isContainer)
  const byName = new Map(containers.map((object) => [object.name, object]))
  const problems: Array<Manifest.Problem> = []
  const done = new Set<ContainerObject>()
  const visit = (object: ContainerObject, way: ReadonlyArray<ContainerObject>): void => {
    if (done.has(object)) return
    for (const { name, path } of needsOf(object.spec)) {
      const other = byName.get(name)
      if (other === undefined || !brings(objects, object.spec, name)) continue
      const from = [...way, object].indexOf(other)
      if (from === -1) visit(other, [...way, object])
      else {
        const names = [...way, object].slice(from).map((one) => one.name)
        problems.push({
          at: object.fieldAt(path),
          text: `${path}: goes round in a circle: ${[...names, names[0]].join(" → ")}`
        })
      }
    }
    done.add(object)
  }
  for (const object of containers) visit(object, [])
  return problems
}
