/**
 * Compares an unpacked layer with an archive of what it should be: GNU tar reads both, as it wrote the one from the other.
 *
 * Trap: of an entry that comes twice in a layer, the first is compared with what the second one made.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { type Process, type Processes, SpawnRefused } from "../taproot/Processes.ts"
import { UnpackFailed } from "./ContentError.ts"
import { type Digest, short } from "./Digest.ts"

/** How many lines of tar are kept: who has read these knows enough. */
const most = 20
const mostCharacters = 16_384

const linesOf = (tar: Process, stream: "stdout" | "stderr"): Effect.Effect<ReadonlyArray<string>> =>
  Stream.runFold(
    tar.output(stream),
    () => "",
    (said, { bytes }) => (said.length > mostCharacters ? said : said + new TextDecoder().decode(bytes))
  ).pipe(
    Effect.map((said) =>
      said
        .split("\n")
        .filter((line) => line !== "")
        .slice(0, most)
        .map((line) => line.replace(/^tar: /, ""))
    )
  )

const end = (tar: Process): Effect.Effect<void> =>
  tar.signal("SIGKILL", { group: true }).pipe(Effect.ignore, Effect.andThen(tar.exit), Effect.andThen(tar.acknowledge))

/** What differs, a line each; empty when nothing does. */
export const compareTree = <E, R>(
  processes: Processes["Service"],
  layer: Digest,
  tree: string,
  archive: Stream.Stream<Uint8Array, E, R>
): Effect.Effect<ReadonlyArray<string>, E | UnpackFailed, R> =>
  Effect.acquireUseRelease(
    processes.spawn({
      label: `unpack/compare-${short(layer)}`,
      argv: ["tar", "--compare", "--file=-", "--blocking-factor=128", "--numeric-owner", "--warning=no-timestamp"],
      environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
      directory: tree,
      stdin: { _tag: "Stream" },
      stdout: { _tag: "Stream" },
      stderr: { _tag: "Stream" }
    }),
    Effect.fnUntraced(function* (tar): Effect.fn.Return<ReadonlyArray<string>, E, R> {
      const differences = yield* Effect.forkChild(linesOf(tar, "stdout"))
      const complaints = yield* Effect.forkChild(linesOf(tar, "stderr"))
      yield* Stream.runForEachWhile(archive, (bytes) =>
        tar.write(bytes).pipe(
          Effect.as(true),
          Effect.orElseSucceed(() => false)
        )
      )
      yield* tar.closeStdin
      yield* tar.exit
      return [...(yield* Fiber.join(differences)), ...(yield* Fiber.join(complaints))]
    }),
    end
  ).pipe(
    Effect.catchIf(
      (error): error is SpawnRefused => error instanceof SpawnRefused,
      (refused) => new UnpackFailed({ layer, problem: refused.message })
    )
  )
