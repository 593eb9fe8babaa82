/**
 * Where what is mounted into a container is put while that is made: a directory per run, with one mount for each thing. What is
 * put there is a thing that is open, not a name, so nobody can exchange it in between; and it is mounted as the container
 * shall have it, with the ids of its user namespace where it has one.
 *
 * Traps: crun 1.8 leaves out nosuid and nodev of what it binds into a user namespace (unless it is read-only, too): so they are
 * set here, on the mount that it copies. What is mounted *below* a thing is not there. A dead brain leaves its stages;
 * {@link Stages.reconcile} clears them.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type FileHandle, mkdir, readdir, rmdir, writeFile } from "node:fs/promises"
import { pid } from "node:process"
import * as IdMap from "../taproot/IdMap.ts"
import type { Processes } from "../taproot/Processes.ts"
import { flags, type MountPoints } from "./MountPoints.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"

/** How a thing is mounted. */
export interface Manner {
  /** The user namespace of the container. */
  readonly users: IdMap.UserNamespace | undefined
  /** What is root's on the disk is root's in that namespace, and so on. */
  readonly mapIds: boolean
  readonly readOnly: boolean
}

/** A thing could not be put there. */
export class NotStaged extends Schema.TaggedError<NotStaged>()("NotStaged", { problem: Schema.String }) {
  override get message(): string {
    return this.problem
  }
}

export interface Stage {
  /** Puts a file or directory there that is open (`O_PATH` is enough); gives the path of its mount. */
  readonly put: (thing: FileHandle, manner: Manner) => Effect.Effect<string, NotStaged>
}

export interface Stages {
  /** That of a run, as long as the scope. */
  readonly open: (run: string) => Effect.Effect<Stage, NotStaged, Scope.Scope>
  /** Clears all. */
  readonly reconcile: Effect.Effect<void>
}

const words = (error: unknown) => new NotStaged({ problem: error instanceof Error ? error.message : String(error) })

export const make = (processes: Processes["Service"], points: MountPoints, paths: RuntimePaths): Stages => {
  const clear = (run: string) =>
    Effect.gen(function* () {
      const directory = `${paths.stages}/${run}`
      const names = yield* Effect.promise(() => readdir(directory).catch((): Array<string> => []))
      yield* Effect.forEach(names, (name) => points.remove(`${directory}/${name}`), { discard: true })
      yield* Effect.promise(() => rmdir(directory).catch(() => undefined))
    })

  const put = (target: string, thing: FileHandle, { mapIds, readOnly, users }: Manner) =>
    Effect.gen(function* () {
      const source = `/proc/${pid}/fd/${thing.fd}`
      yield* Effect.tryPromise({
        try: async () => {
          await ((await thing.stat()).isDirectory() ? mkdir(target) : writeFile(target, "", { flag: "wx" }))
        },
        catch: words
      })
      if (users === undefined) {
        return yield* Effect.mapError(points.mount({ source, target, type: "", flags: flags.bind }), words)
      }
      yield* Effect.mapError(
        IdMap.mount(processes, {
          namespace: mapIds ? users : undefined,
          source,
          target,
          options: readOnly ? ["nosuid", "nodev", "ro"] : ["nosuid", "nodev"]
        }),
        ({ impossible, problem }) =>
          new NotStaged({
            problem: impossible ? `its file system, or this kernel, maps no user ids (${problem})` : problem
          })
      )
    })

  return {
    open: (run) => {
      const directory = `${paths.stages}/${run}`
      const made = Effect.tryPromise({
        try: () => mkdir(directory, { recursive: true, mode: 0o700 }),
        catch: words
      })
      return Effect.map(
        Effect.acquireRelease(Effect.andThen(clear(run), made), () => clear(run)),
        () => {
          let count = 0
          return {
            put: (thing, manner) =>
              Effect.suspend(() => {
                const target = `${directory}/${count++}`
                return Effect.as(put(target, thing, manner), target)
              })
          }
        }
      )
    },
    reconcile: Effect.flatMap(
      Effect.promise(() => readdir(paths.stages).catch((): Array<string> => [])),
      (runs) => Effect.forEach(runs, clear, { discard: true })
    )
  }
}
