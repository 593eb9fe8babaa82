/** `Processes.run`: a short helper command from its start to its end, with its output in memory and bounded. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { OutputStream, Process, RunRequest, RunResult, SpawnRefused, SpawnRequest } from "./Processes.ts"

const defaultOutputBytes = 1_048_576

export const run = (
  spawn: (request: SpawnRequest) => Effect.Effect<Process, SpawnRefused>,
  { maxOutputBytes = defaultOutputBytes, stdin, ...request }: RunRequest
): Effect.Effect<RunResult, SpawnRefused> =>
  Effect.acquireUseRelease(
    spawn({
      ...request,
      stdin: { _tag: stdin === undefined ? "Null" : "Stream" },
      stdout: { _tag: "Stream" },
      stderr: { _tag: "Stream" }
    }),
    (process) =>
      Effect.map(
        Effect.all(
          [
            collect(process, "stdout", maxOutputBytes),
            collect(process, "stderr", maxOutputBytes),
            process.exit,
            stdin === undefined ? Effect.void : feed(process, stdin)
          ],
          { concurrency: "unbounded" }
        ),
        ([stdout, stderr, exit]) => ({
          exit,
          stdout: stdout.bytes,
          stderr: stderr.bytes,
          truncated: stdout.truncated || stderr.truncated
        })
      ),
    // Also after an interruption: the whole group goes, and the entry as soon as its process has ended.
    (process, exit) =>
      Effect.andThen(
        exit._tag === "Success" ? Effect.void : Effect.ignore(process.signal("SIGKILL", { group: true })),
        process.acknowledge
      )
  )

/** A program that stops reading, or ends first, is its own business: the exit tells. */
const feed = (process: Process, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.andThen(Effect.ignore(process.write(bytes)), process.closeStdin)

const collect = (process: Process, stream: OutputStream, most: number) =>
  Effect.suspend(() => {
    const kept: Array<Uint8Array> = []
    let length = 0
    let truncated = false
    return Effect.map(
      Stream.runForEach(process.output(stream), ({ bytes }) =>
        Effect.sync(() => {
          const room = most - length
          if (bytes.length > room) truncated = true
          if (room > 0) kept.push(bytes.subarray(0, room))
          length += Math.min(bytes.length, room)
        })
      ),
      () => ({ bytes: new Uint8Array(Buffer.concat(kept, length)), truncated })
    )
  })
