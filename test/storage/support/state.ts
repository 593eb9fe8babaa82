/** What the tests of the state database share: directories that vanish with the test, and a short way to a service. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as State from "../../../src/storage/State.ts"
import type { StateConnection } from "../../../src/storage/StateConnection.ts"
import type { StateFailure } from "../../../src/storage/StateErrors.ts"

/** A directory that is removed with the scope. */
export const temporaryDirectory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-state-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Runs `use` with the database at `path` open; closes it after. */
export const withState = <A, E, R>(
  path: string,
  use: Effect.Effect<A, E, R>,
  workerFile?: string
): Effect.Effect<A, E | StateFailure, Exclude<R, State.State | StateConnection>> =>
  Effect.scoped(
    Effect.flatMap(Layer.build(State.layer(workerFile === undefined ? { path } : { path, workerFile })), (context) =>
      Effect.provideContext(use, context)
    )
  )

/** The content of every file in a directory, as digests. */
export const fingerprint = (directory: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(directory)
      .sort()
      .map((name) => [
        name,
        createHash("sha256")
          .update(readFileSync(join(directory, name)))
          .digest("hex")
      ])
  )

/** A schema with a bit of everything that a specification holds. */
export const Sample = Schema.Struct({
  text: Schema.String,
  count: Schema.Int,
  limits: Schema.optionalKey(Schema.Struct({ memoryBytes: Schema.Int })),
  tags: Schema.Array(Schema.String)
})
export type Sample = typeof Sample.Type

export const sample = (count: number, text = "some"): Sample => ({ text, count, tags: [] })
