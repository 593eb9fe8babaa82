/**
 * JSON Merge Patch (RFC 7396): {@link apply} a patch, and find with {@link diff} the one that leads from a value to another.
 *
 * Traps: in a patch `null` takes a member away, so no document that holds a null can be reached by one; lists are replaced as
 * a whole. Members are defined, not assigned: one that is called `__proto__` is a member like any other.
 */

export type Json = null | boolean | number | string | ReadonlyArray<Json> | JsonObject
export interface JsonObject {
  readonly [member: string]: Json
}

export const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** An own member, or undefined. */
export const member = (object: JsonObject, name: string): Json | undefined =>
  Object.hasOwn(object, name) ? object[name] : undefined

/** The target after the patch. */
export const apply = (target: Json | undefined, patch: Json): Json => {
  if (!isObject(patch)) return patch
  const members = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) members.delete(name)
    else members.set(name, apply(members.get(name), value))
  }
  return Object.fromEntries(members)
}

/** Whether two values are the same, whatever the order of members. */
export const equals = (one: Json | undefined, other: Json | undefined): boolean => {
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((item, index) => equals(item, other[index]))
  }
  if (isObject(one) && isObject(other)) {
    const names = Object.keys(one)
    return (
      names.length === Object.keys(other).length &&
      names.every((name) => Object.hasOwn(other, name) && equals(one[name], other[name]))
    )
  }
  return one === other
}

/** The patch that makes `after` of `before`; undefined when they are the same. */
export const diff = (before: Json | undefined, after: Json): Json | undefined => {
  if (equals(before, after)) return undefined
  if (!isObject(before) || !isObject(after)) return after
  const changes: Array<readonly [string, Json]> = []
  for (const name of Object.keys(before)) if (!Object.hasOwn(after, name)) changes.push([name, null])
  for (const [name, value] of Object.entries(after)) {
    const change = diff(member(before, name), value)
    if (change !== undefined) changes.push([name, change])
  }
  return Object.fromEntries(changes)
}
