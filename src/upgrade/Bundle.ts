/**
 * A brain as one file that can be sent: a plain tar with {@link fileNames} and nothing else. `manifest.json` says what it is
 * and what it needs, so that what cannot work here is refused before anything is done; its name is its sha256.
 * scripts/build.ts makes `build/brain.tar`.
 *
 * Trap: what a manifest says is a promise of a stranger. Everything that is decided by it is tried afterwards, with a way back.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import { fromBinary } from "../storage/Tar.ts"
import { makeTarReader } from "../storage/TarReader.ts"

/** The largest that is taken: one is a few MiB, and it is held in memory until all of it is known to be right. */
export const maximumBytes = 32 * 1024 * 1024

const manifestName = "manifest.json"

/** What a brain is started by, and what it needs beside it. */
export const entryName = "brain.cjs"
export const fileNames = [manifestName, entryName, "brain.bundle.cjs", "state-worker.cjs"] as const

const count = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 65_535 })))

export const Manifest = Schema.Struct({
  format: Schema.Literal("ironwood-brain/1"),
  version: Schema.String.pipe(Schema.check(Schema.isPattern(/^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$/))),
  /** The versions of the protocol with taproot that it speaks. */
  protocol: Schema.Struct({ newest: count, oldest: count }),
  /** The layout of the state that it works on; it brings older ones to it. */
  stateLayout: count,
  /** The oldest Node that runs it, its first number. */
  node: count
})
export type Manifest = typeof Manifest.Type

export interface Bundle {
  readonly manifest: Manifest
  readonly files: ReadonlyMap<string, Uint8Array>
}

const decodeManifest = Schema.decodeUnknownResult(Schema.fromJsonString(Manifest), {
  errors: "all",
  onExcessProperty: "ignore"
})

/** The manifest in a text, or what is wrong with it. */
export const manifestOf = (text: string): Result.Result<Manifest, string> =>
  Result.mapError(decodeManifest(text), ({ message }) => `${manifestName}: ${message.replaceAll(/\s*\n\s*/g, " ")}`)

export const digestOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** What is in a bundle, or why it is none. */
export const unpack = (bytes: Uint8Array): Result.Result<Bundle, string> => {
  const parts = new Map<string, Array<Uint8Array>>()
  let current: Array<Uint8Array> = []
  const known = new Set<string>(fileNames)
  const reader = makeTarReader(
    {
      entry: ({ name, type }) => {
        if (!known.has(name) || type !== "file") return "is no part of a brain"
        if (parts.has(name)) return "is there twice"
        current = []
        parts.set(name, current)
        return undefined
      },
      data: (piece) => void current.push(Uint8Array.from(piece))
    },
    { headerBytes: 4_096 }
  )
  const fault = reader.push(bytes) ?? reader.end()
  if (fault !== undefined) return Result.fail(`${fromBinary(fault.entry)} ${fault.problem}`)
  const missing = fileNames.filter((name) => !parts.has(name))
  if (missing.length > 0) return Result.fail(`it lacks ${missing.join(", ")}`)
  const files = new Map([...parts].map(([name, pieces]) => [name, new Uint8Array(Buffer.concat(pieces))]))
  return Result.map(manifestOf(Buffer.from(files.get(manifestName) ?? []).toString("utf8")), (manifest) => ({
    manifest,
    files
  }))
}
