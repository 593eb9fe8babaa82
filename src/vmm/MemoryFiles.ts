/**
 * The files of a guest's memory for programs that write and read them by names of their own, in a directory: how they come to be
 * beside the file that the memory is (`Memory.save`), and how a program finds them again.
 *
 * Trap: a program that has written a file can go on writing to it. That such a file is not what it was is found out by its digest
 * before anybody uses it.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { ControlLost, type GuestState, type Memory } from "./Hypervisor.ts"
import { isRoot, type Lending } from "./Lending.ts"

/** What a program calls its files, each with what its name here has beyond the memory's. */
export type Names = Readonly<Record<string, string>>

/** What it is lent for this, by which name. */
const SAVING = "save"
const LOADING = "load"

const failed = (command: string) => (error: unknown) => new ControlLost({ command, detail: String(error) })

/** Whether a file is one that nobody else has: no link leads elsewhere. */
const isOwn = async (path: string): Promise<boolean> => {
  const stat = await fs.lstat(path)
  return stat.isFile() && stat.nlink === 1
}

/** From here on the program can put nothing into it any more. */
const close = async (own: string): Promise<void> => {
  await fs.chmod(own, 0o700)
  if (isRoot) await fs.chown(own, 0, 0)
}

const remove = async (own: string): Promise<void> => {
  await close(own)
  await fs.rm(own, { recursive: true, force: true })
}

/** Moves the files to their places; whoever wrote them cannot reach them by a name any more. */
const move = async (own: string, file: string, names: Names): Promise<void> => {
  await close(own)
  for (const [name, suffix] of Object.entries(names)) {
    const path = join(own, name)
    if (!(await isOwn(path))) throw new Error(`${name} is no file of its own`)
    if (isRoot) await fs.chown(path, 0, 0)
    await fs.chmod(path, 0o600)
    await fs.rename(path, `${file}${suffix}`)
  }
  await fs.rm(own, { recursive: true, force: true })
}

/** Has `write` write them into a directory; afterwards they are beside `file`, or, failed, none of them. */
const save = (
  lending: Lending,
  file: string,
  names: Names,
  write: (directory: string) => Effect.Effect<void, ControlLost>
): Effect.Effect<void, ControlLost> => {
  const own = `${file}.own`
  return Effect.gen(function* () {
    yield* Effect.tryPromise({ try: () => fs.mkdir(own, { mode: 0o700 }), catch: failed("save") })
    yield* Effect.ensuring(Effect.flatMap(lending.lend(SAVING, "dir", own), write), lending.takeBack(SAVING))
    yield* Effect.tryPromise({ try: () => move(own, file, names), catch: failed("save") })
  }).pipe(Effect.onError(() => Effect.ignore(Effect.tryPromise(() => remove(own)))))
}

/** Has `read` read files that it finds in a directory, by these names. */
export const load = (
  lending: Lending,
  files: Readonly<Record<string, string>>,
  read: (directory: string) => Effect.Effect<void, ControlLost>
): Effect.Effect<void, ControlLost> =>
  Effect.ensuring(Effect.flatMap(lending.lendAll(LOADING, files), read), lending.takeBackAll(LOADING, files))

export interface Program {
  readonly lending: Lending
  readonly names: Names
  readonly state: Effect.Effect<GuestState, ControlLost>
  readonly pause: Effect.Effect<void, ControlLost>
  readonly resume: Effect.Effect<void, ControlLost>
  /** Of a guest that stands still. */
  readonly write: (directory: string) => Effect.Effect<void, ControlLost>
}

/** The memory of a guest whose program writes it only while it stands still, as often as it is asked to, and sends it nowhere. */
export const make = (
  { lending, names, pause, resume, state, write }: Program,
  { load, model }: Pick<Memory, "load" | "model">
): Memory => {
  const nowhere = new ControlLost({ command: "send", detail: "its hypervisor sends memory nowhere" })
  return {
    model,
    load,
    beside: Object.values(names).filter((suffix) => suffix !== ""),
    save: (file) =>
      Effect.gen(function* () {
        if ((yield* state) === "running") yield* pause
        const standing = yield* Clock.currentTimeMillis
        yield* save(lending, file, names, write)
        return (yield* Clock.currentTimeMillis) - standing
      }),
    settle: (goOn) =>
      Effect.gen(function* () {
        yield* lending.takeBack(SAVING)
        if (goOn && (yield* state) === "paused") yield* resume
      }),
    // what it has written it can write again
    isSent: Effect.succeed(false),
    send: () => Effect.fail(nowhere),
    arrived: Effect.fail(nowhere),
    claim: () => Effect.void
  }
}
