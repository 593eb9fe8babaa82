/**
 * `Secrets`: small values that containers find as files and that nobody is shown again: passwords, keys, tokens.
 *
 * They are kept in memory alone: in a file system of taproot's (tmpfs, kept out of swap where the kernel can), which only root of
 * the host can read. So they outlive the brain, and are gone with taproot or the host; the desired state has their names only. A
 * container that needs one which is gone fails to start (`SecretMissing`), again and again by its policy, until it is given
 * again.
 *
 * Each run has copies of its own that belong to its user (mode 0400); a value that is put anew is what the next run finds.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as fs from "node:fs/promises"
import { Processes } from "../taproot/Processes.ts"
import { SecretMissing } from "./ContainerExit.ts"
import type { ContainerSpec } from "./ContainerSpec.ts"
import * as MountPoints from "./MountPoints.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"
import type { Bind } from "./RuntimeSpec.ts"

/** A secret as it may be shown. */
export interface Secret {
  readonly name: string
  readonly bytes: number
  /** When it was put: milliseconds since 1970. */
  readonly at: number
}

/** No memory could be had for it. */
export class SecretNotKept extends Schema.TaggedError<SecretNotKept>()("SecretNotKept", {
  name: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `the secret "${this.name}" cannot be kept: ${this.problem}`
  }
}

/** The most bytes of one, and of all of them with all copies. */
export const mostBytes = 256 * 1024
const ALL_BYTES = "64m"

export class Secrets extends Context.Service<
  Secrets,
  {
    /** Creates or replaces. */
    readonly put: (name: string, value: Uint8Array) => Effect.Effect<Secret, SecretNotKept>
    /** By name. */
    readonly list: Effect.Effect<ReadonlyArray<Secret>>
    /** Whether there was one. */
    readonly remove: (name: string) => Effect.Effect<boolean>
    /** Files for a run, as its user's. */
    readonly give: (
      run: string,
      spec: Pick<ContainerSpec, "name" | "secrets">,
      owner: { readonly uid: number; readonly gid: number }
    ) => Effect.Effect<ReadonlyArray<Bind>, SecretMissing | SecretNotKept>
    /** The values themselves, for a run that cannot have files of this host. */
    readonly values: (
      spec: Pick<ContainerSpec, "name" | "secrets">
    ) => Effect.Effect<ReadonlyArray<{ readonly value: Uint8Array; readonly target: string }>, SecretMissing>
    /** Takes back what a run was given. Fine when it was nothing. */
    readonly takeBack: (run: string) => Effect.Effect<void>
    /** Takes back what all but these runs were given. */
    readonly reconcile: (runs: ReadonlySet<string>) => Effect.Effect<void>
  }
>()("ironwood/runtime/Secrets") {}

const words = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const make = Effect.fnUntraced(function* (paths: RuntimePaths) {
  const processes = yield* Processes
  const points = MountPoints.make(processes)
  const mounting = Semaphore.makeUnsafe(1)
  const values = points.seen(`${paths.secrets}/values`)
  const runs = points.seen(`${paths.secrets}/runs`)

  /** Whether the memory is there; undefined until somebody has looked. */
  let seen: boolean | undefined
  /** The memory, made when it is not there. */
  const memory = mounting.withPermit(
    Effect.gen(function* () {
      const target = paths.secrets
      if (yield* points.isMounted(target)) return
      yield* Effect.tryPromise(() => fs.mkdir(target, { recursive: true, mode: 0o700 }))
      const { noDevices, noPrograms, noSetUid } = MountPoints.flags
      const request = { source: "secrets", target, type: "tmpfs", flags: noSetUid | noDevices | noPrograms }
      const data = `mode=0700,size=${ALL_BYTES}`
      // an older kernel does not know noswap
      yield* Effect.catch(points.mount({ ...request, data: `${data},noswap` }), () =>
        points.mount({ ...request, data })
      )
      yield* Effect.tryPromise(async () => {
        for (const directory of [values, runs]) await fs.mkdir(directory, { mode: 0o700 })
      })
      seen = true
    })
  )

  /** Nothing but what is in memory is ever read or written. An earlier brain may have made it; after that, nobody but us. */
  const kept = Effect.suspend(() =>
    seen === undefined
      ? Effect.tap(points.isMounted(paths.secrets), (is) => Effect.sync(() => (seen = is)))
      : Effect.succeed(seen)
  )

  const store = async (directory: string, name: string, value: Uint8Array, owner?: { uid: number; gid: number }) => {
    const target = `${directory}/${name}`
    await fs.writeFile(`${target}.new`, value, { mode: 0o400 })
    if (owner !== undefined) await fs.chown(`${target}.new`, owner.uid, owner.gid)
    await fs.rename(`${target}.new`, target)
  }

  const describe = async (name: string): Promise<Secret> => {
    const { mtimeMs, size } = await fs.stat(`${values}/${name}`)
    return { name, bytes: size, at: Math.floor(mtimeMs) }
  }

  const names = (directory: string) =>
    Effect.flatMap(kept, (is) =>
      is ? Effect.promise(() => fs.readdir(directory).catch((): Array<string> => [])) : Effect.succeed([])
    )

  const takeBack = (run: string) =>
    Effect.flatMap(kept, (is) =>
      is ? Effect.promise(() => fs.rm(`${runs}/${run}`, { recursive: true, force: true })) : Effect.void
    )

  const valueOf = (name: string, secret: string) =>
    Effect.mapError(
      Effect.tryPromise(() => fs.readFile(`${values}/${secret}`)),
      () => new SecretMissing({ name, secret })
    )

  const targetOf = ({ name, target }: ContainerSpec["secrets"][number]) => target ?? `/run/secrets/${name}`

  const copy = (
    name: string,
    directory: string,
    secret: string,
    owner: { readonly uid: number; readonly gid: number }
  ) =>
    Effect.gen(function* () {
      const value = yield* valueOf(name, secret)
      yield* Effect.tryPromise({
        try: () => store(directory, secret, value, owner),
        catch: (error) => new SecretNotKept({ name: secret, problem: words(error) })
      })
    })

  return Secrets.of({
    put: (name, value) =>
      Effect.andThen(
        memory,
        Effect.tryPromise(() => store(values, name, value))
      ).pipe(
        Effect.mapError((error) => new SecretNotKept({ name, problem: error.message })),
        Effect.andThen(Effect.promise(() => describe(name)))
      ),
    list: Effect.flatMap(names(values), (found) =>
      Effect.promise(() =>
        Promise.all(
          found
            .filter((name) => !name.endsWith(".new"))
            .sort()
            .map(describe)
        )
      )
    ),
    remove: Effect.fnUntraced(function* (name) {
      if (!(yield* names(values)).includes(name)) return false
      yield* Effect.promise(() => fs.rm(`${values}/${name}`, { force: true }))
      return true
    }),
    give: Effect.fnUntraced(function* (run, { name, secrets }, owner) {
      const [first] = secrets
      if (first === undefined) return []
      if (!(yield* kept)) return yield* new SecretMissing({ name, secret: first.name })
      const directory = `${runs}/${run}`
      yield* takeBack(run)
      yield* Effect.promise(() => fs.mkdir(directory, { mode: 0o700 }))
      return yield* Effect.forEach(secrets, (wanted) =>
        Effect.as(copy(name, directory, wanted.name, owner), {
          source: `${paths.secrets}/runs/${run}/${wanted.name}`,
          target: targetOf(wanted),
          readOnly: true,
          noPrograms: true
        })
      )
    }),
    values: Effect.fnUntraced(function* ({ name, secrets }) {
      const [first] = secrets
      if (first === undefined) return []
      if (!(yield* kept)) return yield* new SecretMissing({ name, secret: first.name })
      return yield* Effect.forEach(secrets, (wanted) =>
        Effect.map(valueOf(name, wanted.name), (value) => ({ value, target: targetOf(wanted) }))
      )
    }),
    takeBack,
    reconcile: (live) =>
      Effect.flatMap(names(runs), (found) =>
        Effect.forEach(
          found.filter((run) => !live.has(run)),
          takeBack,
          { discard: true }
        )
      )
  })
})

export const layer = (paths: RuntimePaths): Layer.Layer<Secrets, never, Processes> => Layer.effect(Secrets, make(paths))
