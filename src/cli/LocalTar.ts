/**
 * `tar` of this machine, which packs what goes into a container and unpacks what comes out of it.
 *
 * What comes out is the work of strangers: GNU tar takes no member with `..` in its name, strips a leading `/`, and follows no link
 * that it has unpacked itself, so nothing is written beside the directory it works in.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { spawn, type StdioOptions } from "node:child_process"
import { failure, type Failure } from "./Failure.ts"
import * as Text from "./Text.ts"

/** `ended` waits for its end; a failure has its last words. Listened to from the first moment: what nobody hears at its end is lost. */
const begin = (args: ReadonlyArray<string>, stdio: StdioOptions) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn("tar", args, { stdio })
      const end = new Promise<Failure | undefined>((resolve) => {
        let words = ""
        child.stderr?.on("data", (bytes) => (words = (words + String(bytes)).slice(-2_000)))
        child.once("error", (error) => resolve(failure(`tar cannot be run here (${error.message})`)))
        child.once("close", (code) => {
          const said = Text.clean(words.trim().split("\n")[0] ?? "")
          resolve(code === 0 ? undefined : failure(`tar failed (${said})`))
        })
      })
      const ended = Effect.flatMap(
        Effect.promise(() => end),
        (problem) => (problem === undefined ? Effect.void : Effect.fail(problem))
      )
      return { child, ended }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** What it packs, as it comes. */
export const pack = (args: ReadonlyArray<string>): Stream.Stream<Uint8Array, Failure> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const chunks = yield* Queue.bounded<Uint8Array, Failure | "end">(16)
      const { child, ended } = yield* begin(["--create", "--file", "-", ...args], ["ignore", "pipe", "pipe"])
      child.stdout?.on("data", (bytes: Buffer) => {
        Queue.offerUnsafe(chunks, bytes)
        if (Queue.sizeUnsafe(chunks) >= 8) child.stdout?.pause()
      })
      yield* Effect.forkScoped(
        Effect.matchEffect(ended, {
          onSuccess: () => Queue.fail(chunks, "end"),
          onFailure: (error) => Queue.fail(chunks, error)
        })
      )
      const next = Effect.tap(Queue.take(chunks), () =>
        Effect.sync(() => {
          if (Queue.sizeUnsafe(chunks) < 8) child.stdout?.resume()
        })
      )
      return Stream.fromEffectRepeat(next).pipe(
        Stream.catch((error) => (error === "end" ? Stream.empty : Stream.fail(error)))
      )
    })
  ).pipe(Stream.scoped)

/** Unpacks what is written to it; `end` waits until all of it is there. */
export const unpack = Effect.fnUntraced(function* (args: ReadonlyArray<string>) {
  const { child, ended } = yield* begin(["--extract", "--file", "-", ...args], ["pipe", "ignore", "pipe"])
  // it says itself why it reads no more
  child.stdin?.on("error", () => {})
  return {
    write: (bytes: Uint8Array) =>
      Effect.callback<void>((resume) => void child.stdin?.write(bytes, () => resume(Effect.void))),
    end: Effect.andThen(
      Effect.sync(() => child.stdin?.end()),
      ended
    )
  }
})
