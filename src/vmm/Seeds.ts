/**
 * What a guest is told at its first start: cloud-init's data (NoCloud: a small read-only disk with the label `cidata`) and Ignition's
 * config (in the machine's firmware configuration).
 *
 * Traps:
 * - It is part of the spec: stored on the state disk, and shown to whoever may look at the machine. A secret that is only needed once
 *   had better be fetched by the guest.
 * - Both are for the first start of a guest; one that has been set up looks at `instance-id` and leaves the rest.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Yaml from "effect/encoding/Yaml"
import type { FieldProblem } from "../storage/StateErrors.ts"
import * as Iso9660 from "./Iso9660.ts"

const KIB = 1024

const text = (kibibytes: number) =>
  Schema.String.pipe(
    Schema.check(
      Schema.makeFilter((value: string) =>
        Buffer.byteLength(value) <= kibibytes * KIB ? undefined : `must have at most ${kibibytes} KiB`
      )
    )
  )

export const CloudInit = Schema.Struct({
  userData: text(256),
  /** Default: the machine's name as `instance-id` and `local-hostname`. */
  metaData: Schema.optionalKey(text(64)),
  networkConfig: Schema.optionalKey(text(64))
})
export type CloudInit = typeof CloudInit.Type

export const Ignition = text(256)

/** The first words by which cloud-init knows what user data are. */
const KINDS =
  /^(#cloud-config\b|#!|#include\b|#include-once\b|#cloud-boothook\b|#part-handler\b|## template:|Content-Type: )/

const decodeMapping = Schema.decodeUnknownResult(Schema.Record(Schema.String, Schema.Unknown))

const mappingProblem = (yaml: string): string | undefined => {
  const parsed = Result.try({ try: (): unknown => Yaml.parse(yaml), catch: String })
  if (Result.isFailure(parsed)) return `is no YAML: ${parsed.failure.split("\n")[0]}`
  return Result.isFailure(decodeMapping(parsed.success)) ? "must be a mapping of YAML" : undefined
}

const IgnitionConfig = Schema.fromJsonString(
  Schema.Struct({
    ignition: Schema.Struct({ version: Schema.String.pipe(Schema.check(Schema.isPattern(/^3\.\d+\.\d+/))) })
  })
)
const decodeIgnition = Schema.decodeUnknownResult(IgnitionConfig)

interface Seeded {
  readonly cloudInit?: CloudInit
  readonly ignition?: string
}

/** What of it is not what it should be. */
export const problemsOf = ({ cloudInit, ignition }: Seeded): ReadonlyArray<FieldProblem> => {
  const found: Array<readonly [field: string, problem: string | undefined]> = []
  if (cloudInit !== undefined) {
    const { metaData, networkConfig, userData } = cloudInit
    found.push([
      "cloudInit.userData",
      KINDS.test(userData)
        ? userData.startsWith("#cloud-config")
          ? mappingProblem(userData)
          : undefined
        : "must begin with #cloud-config, #! or another mark of cloud-init's"
    ])
    if (metaData !== undefined) found.push(["cloudInit.metaData", mappingProblem(metaData)])
    if (networkConfig !== undefined) found.push(["cloudInit.networkConfig", mappingProblem(networkConfig)])
  }
  if (ignition !== undefined && decodeIgnition(ignition)._tag === "Failure") {
    found.push(["ignition", 'must be a config of Ignition: JSON with "ignition": {"version": "3.…"}'])
  }
  return found.flatMap(([field, problem]) => (problem === undefined ? [] : [{ field, problem }]))
}

/** Quoted: a name like `12`, `1e3` or `null` is something else in YAML. */
const metaDataOf = (name: string): string => `instance-id: "${name}"\nlocal-hostname: "${name}"\n`

/** The disk that cloud-init looks for. */
export const cloudInitDisk = (name: string, { metaData, networkConfig, userData }: CloudInit): Uint8Array =>
  Iso9660.image("cidata", [
    { name: "user-data", content: Buffer.from(userData) },
    { name: "meta-data", content: Buffer.from(metaData ?? metaDataOf(name)) },
    ...(networkConfig === undefined ? [] : [{ name: "network-config", content: Buffer.from(networkConfig) }])
  ])
