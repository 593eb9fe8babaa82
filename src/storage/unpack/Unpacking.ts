/**
 * Unpacks one layer with `unpack` (unpack.c), which taproot spawned: it decompresses, hashes and writes beside the brain, shut
 * into the layer's directory; the brain gets the headers, judges each entry (`LayerFilter`) and says what to make.
 *
 * Use: `open` in a scope, `read` to the end, then `make` and `give` what comes last, then `sync`. The process ends with the scope,
 * however that closes.
 *
 * Traps: nothing is verified but what `read` says of it: compare the digest. What has gone wrong with the process is told by the
 * next step that listens, not by the one that writes.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { describe } from "../../taproot/ProcessExit.ts"
import { type Process, type Processes, SpawnRefused } from "../../taproot/Processes.ts"
import { helperPath } from "../../taproot/Helper.ts"
import type { Coming } from "../Blobs.ts"
import { BlobCorrupt, LayerRefused, StorageFailed, UnpackFailed } from "../ContentError.ts"
import { type Digest, parts, short } from "../Digest.ts"
import { type LayerFilter, type LayerLimits, type LayerSink, makeLayerFilter } from "../LayerFilter.ts"
import type { Compression } from "../OciImage.ts"
import type { TarEntry } from "../Tar.ts"
import { type Answer, type Commands, makeAnswers, makeCommands } from "./UnpackProtocol.ts"

/** Processes that unpack carry this label, so that a next brain can end those that a dead one left behind. */
export const labelPrefix = "unpack/"

export interface Request<E, R> {
  /** The blob's digest: what errors call the layer. */
  readonly blob: Digest
  readonly coming: Coming<E, R>
  readonly compression: Compression
  /** Whose algorithm the digest of the tar is to have; none when nobody wants to know. */
  readonly diffId?: Digest
  /** The empty directory that becomes the layer. */
  readonly tree: string
  /** A pipe for the contents that are `pass`ed on; then nothing is made in the tree. */
  readonly archive?: string
  readonly limits: LayerLimits
  /** What is to be done with what the layer becomes; it is made when not said. */
  readonly sink?: (commands: Commands) => LayerSink
}

export type Failure = UnpackFailed | StorageFailed

export interface Unpacking<E, R> {
  /** What the layer's entries have told; complete after `read`. */
  readonly filter: LayerFilter
  /** Unpacks all of the layer; the digest of its tar in hexadecimal digits. */
  readonly read: Effect.Effect<string, E | Failure | LayerRefused | BlobCorrupt, R>
  readonly make: (entries: Iterable<TarEntry>) => Effect.Effect<void>
  /** Gives directories their attributes. */
  readonly give: (directories: Iterable<TarEntry>) => Effect.Effect<void>
  /** Into the archive. */
  readonly pass: (pieces: Iterable<Uint8Array>) => Effect.Effect<void>
  /** Returns when all of it is on the disk or has been passed on, or with what could not be made. */
  readonly sync: Effect.Effect<void, Failure>
}

/** ENOSPC and EDQUOT. */
const fullDisk: ReadonlySet<number> = new Set([28, 122])
/** Of the blob: it is told of at least so many more at once. */
const stepBytes = 512 * 1024
const commandBytes = 32 * 1024

const making = (commands: Commands): LayerSink => ({
  entry: (entry) => {
    commands.make(entry)
    return undefined
  },
  data: () => {},
  dropped: commands.drop
})

const isSpawnRefused = (error: unknown): error is SpawnRefused => error instanceof SpawnRefused

/** Ends a process that may still run, and forgets it. */
export const end = (process: Process): Effect.Effect<void> =>
  process
    .signal("SIGKILL", { group: true })
    .pipe(Effect.ignore, Effect.andThen(process.exit), Effect.andThen(process.acknowledge))

const complaintsOf = (process: Process): Effect.Effect<string> =>
  Stream.runFold(
    process.output("stderr"),
    () => "",
    (said, chunk) => (said.length > 2000 ? said : said + new TextDecoder().decode(chunk.bytes))
  ).pipe(Effect.map((said) => said.trim().slice(0, 2000)))

export const open = Effect.fnUntraced(function* <E, R>(
  processes: Processes["Service"],
  { archive, blob, coming, compression, diffId, limits, sink = making, tree }: Request<E, R>
): Effect.fn.Return<Unpacking<E, R>, UnpackFailed, Scope.Scope> {
  const algorithm = diffId === undefined ? "none" : parts(diffId).algorithm
  const program = helperPath(processes.hello.taprootPid, "unpack")
  const failed = (problem: string) => new UnpackFailed({ layer: blob, problem })
  const process = yield* Effect.acquireRelease(
    processes
      .spawn({
        label: `${labelPrefix}${short(blob)}`,
        argv: [
          program,
          "1",
          coming.file,
          String(coming.size),
          compression,
          algorithm,
          tree,
          ...(archive === undefined ? [] : [archive])
        ],
        environment: {},
        stdin: { _tag: "Stream" },
        stdout: { _tag: "Stream" },
        stderr: { _tag: "Stream" }
      })
      .pipe(Effect.catchIf(isSpawnRefused, ({ message }) => failed(message))),
    end
  )
  const pull = yield* Stream.toPull(process.output("stdout"))
  const answers = makeAnswers()
  const commands = makeCommands()

  // who has stopped listening says why
  const write = (bytes: Uint8Array) => Effect.ignore(process.write(bytes))
  const flush = Effect.suspend(() => (commands.size() === 0 ? Effect.void : write(commands.take())))

  const gone = Effect.gen(function* () {
    const complaints = yield* complaintsOf(process)
    const exit = yield* process.exit
    return yield* failed(`unpack ${describe(exit)}${complaints === "" ? "" : `: ${complaints}`}`)
  })

  const listen: Effect.Effect<ReadonlyArray<Answer>, Failure> = pull.pipe(
    Effect.catch(() => gone),
    Effect.flatMap((chunks) => {
      const told: Array<Answer> = []
      for (const { bytes } of chunks) {
        const more = answers(bytes)
        if (more === undefined) return failed("unpack does not keep to its protocol")
        told.push(...more)
      }
      return Effect.succeed(told)
    })
  )

  const isFailure = ({ errno, problem }: Extract<Answer, { readonly _tag: "Failed" }>): Failure =>
    fullDisk.has(errno)
      ? new StorageFailed({ operation: "unpack a layer into", path: tree, code: "ENOSPC", problem })
      : failed(problem)

  const filter = makeLayerFilter(limits, sink(commands))

  /** What stays in `unpack` of the content that the last header told of. */
  let owed = 0
  const settle = (missing: number): void => {
    if (owed > 0) filter.skip(owed - missing)
    owed = 0
  }
  /** Undefined: there is more to come. */
  const judge = (
    answer: Answer
  ): Effect.Effect<string | undefined, Failure | LayerRefused | BlobCorrupt> | undefined => {
    const refused = (fault: { readonly entry: string; readonly problem: string }) =>
      Effect.fail(new LayerRefused({ layer: blob, ...fault }))
    switch (answer._tag) {
      case "Tar": {
        settle(0)
        const fault = filter.push(answer.bytes)
        if (fault !== undefined) return refused(fault)
        owed = answer.content
        // whoever finds contents in other places than the judge has not told the judge everything
        return owed !== filter.skippable()
          ? refused({ entry: "(a header)", problem: "says its size in a way that is not understood" })
          : undefined
      }
      case "Rest": {
        const fault = filter.rest(answer.count)
        return fault === undefined ? undefined : refused(fault)
      }
      case "End": {
        settle(answer.missing)
        const fault = filter.end()
        return fault === undefined ? Effect.succeed(answer.digest) : refused(fault)
      }
      case "Broken":
        return new BlobCorrupt({
          digest: blob,
          problem: `it cannot be unpacked (${compression}: ${answer.problem})`
        })
      case "Failed":
        return Effect.fail(isFailure(answer))
      case "Synced":
        return Effect.fail(failed("unpack does not keep to its protocol"))
    }
  }

  const judging: Effect.Effect<string, Failure | LayerRefused | BlobCorrupt> = Effect.gen(function* () {
    for (;;) {
      for (const answer of yield* listen) {
        const verdict = judge(answer)
        if (verdict === undefined) continue
        const digest = yield* verdict
        if (digest !== undefined) return digest
      }
      yield* flush
    }
  })

  /** Says how far the blob has come, until it is all there. */
  const following = Effect.gen(function* () {
    const own = makeCommands()
    for (let there = 0; there < coming.size;) {
      there = yield* coming.beyond(Math.min(there + stepBytes, coming.size) - 1)
      own.upTo(there)
      yield* write(own.take())
    }
  })

  const writeAll = <A>(items: Iterable<A>, collect: (item: A) => void) =>
    Effect.gen(function* () {
      for (const item of items) {
        collect(item)
        if (commands.size() >= commandBytes) yield* flush
      }
      yield* flush
    })

  return {
    filter,
    read: Effect.gen(function* () {
      const followed = yield* Effect.forkChild(following)
      return yield* Effect.raceFirst(judging, Effect.andThen(Fiber.join(followed), Effect.never))
    }),
    make: (entries) => writeAll(entries, commands.make),
    give: (directories) => writeAll(directories, commands.give),
    pass: (pieces) => writeAll(pieces, (piece) => commands.pass(piece, 0)),
    sync: Effect.gen(function* () {
      commands.sync()
      yield* flush
      for (;;) {
        for (const answer of yield* listen) {
          if (answer._tag === "Synced") return
          return yield* answer._tag === "Failed" ? isFailure(answer) : failed("unpack does not keep to its protocol")
        }
      }
    })
  }
})
