/**
 * User namespaces, mounts that are seen through them and networks that belong to them, made by the program `idmap` that comes with taproot (see its source), in
 * taproot's mount namespace.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { helperPath } from "./Helper.ts"
import * as ProcessExit from "./ProcessExit.ts"
import type { Processes } from "./Processes.ts"

/** How many users and groups a namespace of ours has: all that programs usually know of. */
export const COUNT = 65_536

/** A user namespace of this host. */
export interface UserNamespace {
  /** The file that keeps it. */
  readonly path: string
  /** The user and group of the host that its root is; the next {@link COUNT} - 1 are its others. */
  readonly first: number
}

/** A user namespace or such a mount could not be made. */
export class IdMapFailed extends Schema.TaggedError<IdMapFailed>()("IdMapFailed", {
  /** The file that was to keep it, or what was to be mounted. */
  path: Schema.String,
  problem: Schema.String,
  /** The kernel, or the file system, cannot do it at all. */
  impossible: Schema.Boolean
}) {
  override get message(): string {
    return this.impossible
      ? `${this.path}: its file system, or this kernel, maps no user ids (${this.problem})`
      : `${this.path}: ${this.problem}`
  }
}

export type MountOption = "ro" | "nosuid" | "nodev" | "noexec"

const UNMAPPABLE = 2

const call = (processes: Processes["Service"], path: string, words: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const program = helperPath(processes.hello.taprootPid, "idmap")
    const failed = (problem: string, impossible = false) => new IdMapFailed({ path, problem, impossible })
    const { exit, stderr } = yield* Effect.mapError(
      processes.run({ label: `idmap:${words[0]}`, argv: [program, ...words] }),
      ({ message }) => failed(message)
    )
    if (ProcessExit.isSuccess(exit)) return
    const said = Buffer.from(stderr).toString("utf8").trim().slice(0, 500)
    const impossible = exit._tag === "Exited" && exit.code === UNMAPPABLE
    return yield* failed(said === "" ? ProcessExit.describe(exit) : said, impossible)
  })

/** Makes a user namespace, kept by the file at its path, which is there and empty. */
export const makeNamespace = (
  processes: Processes["Service"],
  { first, path }: UserNamespace
): Effect.Effect<void, IdMapFailed> => call(processes, path, ["space", path, String(first), String(COUNT)])

/** Makes a network namespace that belongs to `users` (undefined: to the host), kept by the file `path`, which is there and empty. */
export const makeNetwork = (
  processes: Processes["Service"],
  { path, users }: { readonly path: string; readonly users: UserNamespace | undefined }
): Effect.Effect<void, IdMapFailed> => call(processes, path, ["network", users?.path ?? "-", path])

/** Mounts `source` at `target` as the namespace sees ids; `namespace` undefined: as everybody does. */
export const mount = (
  processes: Processes["Service"],
  request: {
    readonly namespace: UserNamespace | undefined
    readonly source: string
    /** There already: a directory for one, a file for anything else. */
    readonly target: string
    readonly options: ReadonlyArray<MountOption>
  }
): Effect.Effect<void, IdMapFailed> =>
  call(processes, request.source, [
    "mount",
    request.namespace?.path ?? "-",
    request.source,
    request.target,
    ...request.options
  ])
