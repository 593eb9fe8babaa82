/** Binding the socket: private from the first instant, stale ones replaced, clear errors. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { BindFailed } from "../../src/gateway/EffectGrpc.ts"
import { bindPrivately } from "../../src/gateway/UnixSocket.ts"

/** A directory of its own. */
const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-socket-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** A plain server, bound as grpc-js would. */
const listen = (path: string) =>
  Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>, BindFailed>((resume) => {
      const server = createServer()
      server.once("error", (error) => resume(Effect.fail(new BindFailed({ address: path, reason: error.message }))))
      server.listen(path, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  )

describe("UnixSocket", () => {
  it.live("is for its owner alone, and gone afterwards", () =>
    Effect.gen(function* () {
      const parent = yield* directory
      const path = join(parent, "api.sock")
      const scope = yield* Scope.make()
      const bound: Array<string> = []
      const bind = (hidden: string) => {
        bound.push(hidden)
        assert.strictEqual(statSync(dirname(hidden)).mode & 0o777, 0o700)
        return listen(hidden)
      }
      yield* Scope.provide(bindPrivately(path, bind), scope)
      // In the directory itself, not beside it: only there is renaming sure to be possible.
      assert.deepStrictEqual(
        bound.map((hidden) => dirname(dirname(hidden))),
        [parent]
      )
      assert.strictEqual(statSync(path).mode & 0o777, 0o600)
      assert.deepStrictEqual(readdirSync(parent), ["api.sock"])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(readdirSync(parent), [])
    })
  )

  it.live("replaces the socket that a dead server left behind", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "api.sock")
      const hidden = join(yield* directory, "dead")
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(listen(hidden), scope)
      // A server removes its path when it closes, so its socket is given a second name to leave behind.
      yield* Effect.promise(async () => (await import("node:fs/promises")).rename(hidden, path))
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(server.listening)
      assert.isTrue(statSync(path).isSocket())
      yield* Effect.scoped(bindPrivately(path, listen))
      assert.isFalse(existsSync(path))
    })
  )

  it.live("leaves alone what it cannot replace, and says why", () =>
    Effect.gen(function* () {
      const parent = yield* directory
      const refusal = (path: string) =>
        Effect.map(Effect.flip(Effect.scoped(bindPrivately(path, listen))), ({ message }) => message)

      const served = join(parent, "served")
      yield* bindPrivately(served, listen)
      assert.include(yield* refusal(served), "another process is serving it")
      assert.isTrue(statSync(served).isSocket())

      const file = join(parent, "file")
      writeFileSync(file, "precious")
      assert.include(yield* refusal(file), "something else than a socket")
      assert.isTrue(statSync(file).isFile())

      const deep = join(parent, "d".repeat(120))
      mkdirSync(deep)
      assert.include(yield* refusal(join(deep, "api.sock")), "at most 107 bytes")
      assert.include(yield* refusal(join(parent, "missing", "api.sock")), "ENOENT")
      assert.deepStrictEqual(readdirSync(parent).sort(), ["d".repeat(120), "file", "served"])
    })
  )

  it.live("leaves nothing when the bind fails", () =>
    Effect.gen(function* () {
      const parent = yield* directory
      const path = join(parent, "api.sock")
      const failure = yield* Effect.flip(
        Effect.scoped(bindPrivately(path, (address) => Effect.fail(new BindFailed({ address, reason: "no" }))))
      )
      assert.strictEqual(failure.reason, "no")
      assert.deepStrictEqual(readdirSync(parent), [])
    })
  )
})
