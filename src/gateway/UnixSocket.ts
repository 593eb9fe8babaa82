/**
 * Where the gateway listens: a unix socket that only its owner may open, at a path that never holds a half-made one.
 *
 * The socket is bound in a directory that nobody else may enter, given mode 0600 there, and then renamed to its place:
 * there is no moment in which somebody else could connect, and a socket that a dead brain left behind is replaced in one
 * step. Used around a server's own bind, see {@link bindPrivately}.
 *
 * Traps: a socket's path has at most 107 bytes, which deep state directories exceed. Libuv removes the path that was
 * *bound* when the server closes, which is not where the socket is any more; {@link bindPrivately} removes the other.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { chmod, lstat, mkdtemp, rename, rm, rmdir } from "node:fs/promises"
import { connect } from "node:net"
import { dirname, join } from "node:path"
import { BindFailed } from "./EffectGrpc.ts"

/** Bytes of `sun_path` less its closing NUL. */
const longestPath = 107
/** What the private directory and the name in it add to the directory of the socket: `/.XXXXXX/s`. */
const privateName = 10

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const attempt = <A>(address: string, run: () => Promise<A>): Effect.Effect<A, BindFailed> =>
  Effect.tryPromise({ try: run, catch: (cause) => new BindFailed({ address, reason: reasonOf(cause) }) })

/** What is at a path: nothing, a socket, or something that is not ours to replace. */
const foundAt = (path: string): Effect.Effect<"nothing" | "socket" | "other"> =>
  Effect.promise(() =>
    lstat(path).then(
      (stats) => (stats.isSocket() ? ("socket" as const) : ("other" as const)),
      () => "nothing" as const
    )
  )

/** True when somebody accepts connections at a socket. */
const isServed = (path: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const socket = connect(path)
    const answer = (served: boolean) => {
      socket.destroy()
      resume(Effect.succeed(served))
    }
    socket.once("connect", () => answer(true))
    socket.once("error", () => answer(false))
    return Effect.sync(() => void socket.destroy())
  })

/**
 * Lets `bind` bind a socket at a private path and then moves it to `path`; removes it from there when the scope closes.
 * Fails when `path` is too long, is something else than a socket, is being served, or its directory cannot be written.
 */
export const bindPrivately = Effect.fn("UnixSocket.bindPrivately")(function* <A, R>(
  path: string,
  bind: (path: string) => Effect.Effect<A, BindFailed, R>
): Effect.fn.Return<A, BindFailed, R | Scope.Scope> {
  const directory = dirname(path)
  const needed = Math.max(Buffer.byteLength(path), Buffer.byteLength(directory) + privateName)
  if (needed > longestPath) {
    return yield* new BindFailed({
      address: path,
      reason: `the path of a unix socket has at most ${longestPath} bytes and this takes ${needed}; choose a state directory with a shorter path`
    })
  }
  const found = yield* foundAt(path)
  if (found === "other") {
    return yield* new BindFailed({ address: path, reason: "there is something else than a socket; move it away" })
  }
  if (found === "socket" && (yield* isServed(path))) {
    return yield* new BindFailed({ address: path, reason: "another process is serving it; stop that one first" })
  }
  return yield* Effect.acquireUseRelease(
    attempt(path, () => mkdtemp(`${directory}/.`)),
    (hidden) =>
      Effect.gen(function* () {
        const hiddenPath = join(hidden, "s")
        const bound = yield* bind(hiddenPath)
        yield* attempt(path, () => chmod(hiddenPath, 0o600))
        const { ino } = yield* attempt(path, () => lstat(hiddenPath))
        yield* Effect.acquireRelease(
          attempt(path, () => rename(hiddenPath, path)),
          () => removeIfOurs(path, ino)
        )
        return bound
      }),
    (hidden) => Effect.ignore(attempt(path, () => rmdir(hidden).catch(() => rm(hidden, { recursive: true }))))
  )
})

/** Removes the socket unless somebody else has put another one in its place. */
const removeIfOurs = (path: string, ino: number): Effect.Effect<void> =>
  Effect.promise(() =>
    lstat(path).then(
      (stats) => (stats.ino === ino ? rm(path, { force: true }) : undefined),
      () => undefined
    )
  )
