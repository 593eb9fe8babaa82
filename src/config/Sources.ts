/**
 * Where a machine finds its config when it starts, and what is there. What is local is read before anything else, since the
 * state's disk may be named in it ({@link local}, at most a few milliseconds); a URL needs the network and is read by the actor
 * `init/host/config` later.
 *
 * A source that cannot be read or is wrong holds up nothing: what came of it is a value, and told in the tree and by the API.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { type ConfigSource, nameOf, usualSources } from "../host/ConfigSource.ts"
import { within } from "../host/Deadline.ts"
import type { KernelParameters } from "../host/KernelParameters.ts"
import type { Processes } from "../taproot/Processes.ts"
import { digestOf, type Document, readBytes, type Violation } from "./Document.ts"
import { blob, firmwareConfig, smbios } from "./sources/Blobs.ts"
import { configDisk } from "./sources/ConfigDisk.ts"
import { download } from "./sources/Download.ts"
import { SourceFailed } from "./sources/SourceFailed.ts"

/** What came of looking. */
export type Found =
  | { readonly _tag: "Document"; readonly name: string; readonly digest: string; readonly document: Document }
  | { readonly _tag: "Wrong"; readonly name: string; readonly violations: ReadonlyArray<Violation> }
  /** It is on the network, and not read yet. */
  | { readonly _tag: "Later"; readonly name: string; readonly url: string }
  | { readonly _tag: "Nowhere" }

/** How long the local ones may take together: a disk may hang. */
const usualPatience = "20 seconds"

/** Another one in tests. */
interface Ways {
  readonly disk: typeof configDisk
  readonly patience: Duration.Input
}

const wrong = (source: ConfigSource, description: string): Found => ({
  _tag: "Wrong",
  name: nameOf(source),
  violations: [{ field: "", description }]
})

/** Judges what a source said. */
export const judge = (source: ConfigSource, bytes: Uint8Array, wantedDigest: string | undefined): Found => {
  const name = nameOf(source)
  const digest = digestOf(bytes)
  if (wantedDigest !== undefined && wantedDigest !== digest) {
    return wrong(source, `its digest is ${digest}, and ironwood.config_digest says ${wantedDigest}; it is not used`)
  }
  return Result.match(readBytes(bytes), {
    onSuccess: (document): Found => ({ _tag: "Document", name, digest, document }),
    onFailure: (violations): Found => ({ _tag: "Wrong", name, violations })
  })
}

type Bytes = Effect.Effect<Uint8Array | undefined, SourceFailed, Processes>

const promised = (promise: () => Promise<Uint8Array | undefined>): Bytes =>
  Effect.tryPromise({
    try: promise,
    catch: (cause) => new SourceFailed({ problem: cause instanceof Error ? cause.message : String(cause) })
  })

const bytesOf = (source: Exclude<ConfigSource, { readonly _tag: "None" | "Url" }>, { disk }: Ways): Bytes => {
  switch (source._tag) {
    case "Inline":
      return Effect.succeed(source.bytes)
    case "FirmwareConfig":
      return promised(() => firmwareConfig())
    case "Smbios":
      return promised(() => smbios())
    case "Blob":
      return promised(blob)
    case "Disk":
      return disk(source.label)
  }
}

/** Undefined: it is not there. */
const look = (
  source: ConfigSource,
  digest: string | undefined,
  ways: Ways
): Effect.Effect<Found | undefined, never, Processes> => {
  if (source._tag === "None") return Effect.succeed<Found>({ _tag: "Nowhere" })
  if (source._tag === "Url") return Effect.succeed<Found>({ _tag: "Later", name: nameOf(source), url: source.url })
  return Effect.match(bytesOf(source, ways), {
    onSuccess: (bytes) => bytes && judge(source, bytes, digest),
    onFailure: ({ problem }) => wrong(source, problem)
  })
}

/** Looks at the source that was said, or at the usual ones until one is there. */
export const local = (
  { config, configDigest }: Pick<KernelParameters, "config" | "configDigest">,
  ways: Ways = { disk: configDisk, patience: usualPatience }
): Effect.Effect<Found, never, Processes> =>
  within(
    Effect.gen(function* () {
      for (const source of config === undefined ? usualSources : [config]) {
        const found = yield* look(source, configDigest, ways)
        if (found !== undefined) return found
      }
      if (config !== undefined) return wrong(config, "there is none")
      return { _tag: "Nowhere" } as const
    }),
    {
      duration: ways.patience,
      orElse: () =>
        Effect.succeed<Found>({
          _tag: "Wrong",
          name: config === undefined ? "the machine" : nameOf(config),
          violations: [
            {
              field: "",
              description: `the machine config could not be read within ${Duration.format(Duration.fromInputUnsafe(ways.patience))}`
            }
          ]
        })
    }
  )

/** The document at a URL. Fails when it cannot be had now. */
export const later = (url: string, digest: string | undefined): Effect.Effect<Found, SourceFailed> =>
  Effect.map(download(url), (bytes) => judge({ _tag: "Url", url }, bytes, digest))

/** What was found at the start of this brain. */
export class AtStart extends Context.Service<AtStart, Found>()("ironwood/config/Sources/AtStart") {}

/** Of a machine that boots into Ironwood. */
export const layer = (kernel: KernelParameters) => Layer.effect(AtStart, local(kernel))

/** Of an Ironwood that is a process like others: nobody hands it a config. */
export const none = Layer.succeed(AtStart, { _tag: "Nowhere" })
