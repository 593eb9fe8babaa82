/**
 * What the desired state of every workload has, container or virtual machine: its name, its labels, how long it may take to end;
 * and in what two of them differ.
 *
 * Trap: names are DNS labels, so that they can be path segments, cgroup names and host names as they are.
 */
import * as Equal from "effect/Equal"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

/** A name of a workload: 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end. */
export const WorkloadName = Schema.String.pipe(
  Schema.check(
    Schema.isPattern(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, {
      expected: "1 to 63 lower-case letters, digits or hyphens, with no hyphen at either end"
    })
  )
)
export type WorkloadName = typeof WorkloadName.Type

/** Marks for people and programs to select by; they mean nothing to Ironwood. At most 64. */
export const Labels = Schema.Record(
  Schema.String.pipe(
    Schema.check(Schema.isPattern(/^[^\s=\0]{1,128}$/, { expected: "1 to 128 characters without blanks and =" }))
  ),
  Schema.String.pipe(Schema.check(Schema.isMaxLength(1024)))
).pipe(Schema.check(Schema.isMaxProperties(64, { expected: "at most 64 labels" })))
export type Labels = typeof Labels.Type

/** From 0 (killed at once) to one day, stored as milliseconds. */
export const GracePeriod = Schema.Finite.pipe(
  Schema.check(Schema.isBetween({ minimum: 0, maximum: 86_400_000 }, { expected: "0 to 24h" })),
  Schema.decodeTo(Schema.Duration, SchemaTransformation.durationFromMillis)
)

/** The fields in which two specs differ. */
export const differences = (left: object, right: object): ReadonlyArray<string> => {
  const [leftFields, rightFields] = [new Map(Object.entries(left)), new Map(Object.entries(right))]
  return [...new Set([...leftFields.keys(), ...rightFields.keys()])].filter(
    (field) => !Equal.equals(leftFields.get(field), rightFields.get(field))
  )
}
