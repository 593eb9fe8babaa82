/**
 * The files and processes of a guest: `SystemFiles` over the small program `files` (C, beside taproot), which runs in the guest
 * for as long as this brain is connected and answers one request after the other. Its header has the form of both.
 *
 * Use: `make` with the guest's `Processes`. The program of an earlier brain is ended, and one that has died is started again
 * with the next request.
 *
 * Trap: everything that comes from it is a guest's word: bounded, and read as such.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { constants } from "node:os"
import { FileFailed, type ProcessFacts, type SystemFiles } from "../../host/SystemFiles.ts"
import { describeErrno } from "../../taproot/Errno.ts"
import type { Process, Processes } from "../../taproot/Processes.ts"
import { RootedFileRefused } from "../RootedFile.ts"
import type { ReadInRoot } from "../System.ts"

const LABEL = "files"
const PROGRAM = "/usr/lib/ironwood/files"
/** Bytes of an answer, and of a request. */
const MOST = 1_048_576

const operations = {
  read: 1,
  readIn: 2,
  write: 3,
  list: 4,
  remove: 5,
  rmdir: 6,
  mkdir: 7,
  kill: 8,
  processes: 9,
  like: 10
} as const

/** How long a guest's file may have stayed the same before it is looked at again: nothing tells. */
const LOOK_AGAIN = "5 seconds"

const codes = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

const text = (value: string | Uint8Array): ReadonlyArray<Uint8Array> => {
  const bytes = Buffer.from(value)
  return [u32(bytes.length), bytes]
}

/** A program that answers. */
interface Helper {
  readonly process: Process
  /** Who waits, in the order of their requests. */
  readonly waiting: Array<Deferred.Deferred<Buffer, number>>
}

const ENOTCONN = 107
const EPROTO = 71

/** Puts answers together: u32 length, and so many bytes. False: that is no answer. */
const makeAnswers = (take: (answer: Buffer) => void) => {
  let pieces: Array<Uint8Array> = []
  let length = 0
  return (bytes: Uint8Array): boolean => {
    pieces.push(bytes)
    length += bytes.length
    if (length < 4) return true
    let all = Buffer.concat(pieces, length)
    while (all.length >= 4) {
      const wanted = all.readUInt32LE(0)
      if (wanted < 4 || wanted > MOST + 4) return false
      if (all.length < 4 + wanted) break
      take(all.subarray(4, 4 + wanted))
      all = all.subarray(4 + wanted)
    }
    // a copy: what was answered need not be kept for it
    pieces = [Uint8Array.from(all)]
    length = all.length
    return true
  }
}

/** `u32 pid` and three texts each. */
const factsIn = (answer: Buffer): ReadonlyArray<ProcessFacts> => {
  const found: Array<ProcessFacts> = []
  let at = 0
  const number = () => {
    const value = at + 4 <= answer.length ? answer.readUInt32LE(at) : 0
    at += 4
    return value
  }
  const words = () => {
    const length = number()
    const bytes = answer.subarray(at, at + length)
    at += length
    return bytes
  }
  while (at + 16 <= answer.length) {
    const pid = number()
    const [stat, status, command] = [words(), words(), words()]
    if (stat.length > 0) {
      found.push({ pid, stat: stat.toString("latin1"), status: status.toString("latin1"), command: command.toString() })
    }
  }
  return found
}

export const make = Effect.fnUntraced(function* (processes: Processes["Service"]) {
  const scope = yield* Effect.scope
  const turn = Semaphore.makeUnsafe(1)
  for (const old of yield* processes.takeAll(LABEL)) {
    yield* Effect.ignore(old.signal("SIGKILL"))
    yield* old.acknowledge
  }

  let current: Helper | undefined

  const listen = ({ process, waiting }: Helper) =>
    Effect.gen(function* () {
      const answers = makeAnswers((answer) => {
        const first = waiting.shift()
        const errno = answer.readUInt32LE(0)
        if (first === undefined) return
        Deferred.doneUnsafe(first, errno === 0 ? Exit.succeed(Buffer.from(answer.subarray(4))) : Exit.fail(errno))
      })
      yield* Stream.runForEachWhile(process.output("stdout"), ({ bytes }) => Effect.sync(() => answers(bytes)))
      yield* Effect.ignore(process.signal("SIGKILL"))
      yield* process.acknowledge
      if (current?.process === process) current = undefined
      for (const one of waiting.splice(0)) Deferred.doneUnsafe(one, Exit.fail(ENOTCONN))
    })

  const helper = Effect.gen(function* () {
    if (current !== undefined && Option.isNone(yield* current.process.exitNow)) return current
    const process = yield* processes.spawn({
      label: LABEL,
      argv: [PROGRAM],
      stdin: { _tag: "Stream" },
      stdout: { _tag: "Stream" },
      stderr: { _tag: "Inherit" }
    })
    const made: Helper = { process, waiting: [] }
    current = made
    yield* Effect.forkIn(listen(made), scope)
    return made
  })

  const ask = (operation: number, ...fields: ReadonlyArray<Uint8Array>): Effect.Effect<Buffer, number> => {
    const body = Buffer.concat([Buffer.from([operation]), ...fields])
    if (body.length > MOST) return Effect.fail(EPROTO)
    const sent = Effect.gen(function* () {
      const { process, waiting } = yield* helper
      const answer = yield* Deferred.make<Buffer, number>()
      waiting.push(answer)
      yield* process.write(Buffer.concat([u32(body.length), body]))
      return answer
    }).pipe(Effect.uninterruptible)
    return turn.withPermit(sent).pipe(
      // no program, or it has just died: nobody answers
      Effect.mapError(() => ENOTCONN),
      Effect.flatMap(Deferred.await)
    )
  }

  const failed = (path: string) => (errno: number) =>
    new FileFailed({
      path,
      code: codes.get(errno) ?? "EUNKNOWN",
      problem: errno === ENOTCONN ? "the guest does not answer any more" : describeErrno(errno)
    })
  const named = <A>(path: string, effect: Effect.Effect<A, number>) => Effect.mapError(effect, failed(path))

  const files: SystemFiles = {
    read: (path) => named(path, ask(operations.read, ...text(path), u32(MOST - 16))),
    write: (path, content, mode = 0o600) =>
      Effect.asVoid(named(path, ask(operations.write, ...text(path), u32(mode), ...text(content)))),
    list: (path) =>
      Effect.map(named(path, ask(operations.list, ...text(path))), (answer) =>
        answer
          .toString("utf8")
          .split("\0")
          .filter((entry) => entry.length > 1)
          .map((entry) => ({ name: entry.slice(1), isDirectory: entry.startsWith("d") }))
      ),
    remove: (path) => Effect.asVoid(named(path, ask(operations.remove, ...text(path)))),
    removeDirectory: (path) => Effect.asVoid(named(path, ask(operations.rmdir, ...text(path)))),
    makeDirectory: (path) => Effect.asVoid(named(path, ask(operations.mkdir, ...text(path), u32(0o700)))),
    kill: (pid) => Effect.asVoid(named(`/proc/${pid}`, ask(operations.kill, u32(pid), u32(9)))),
    processes: (pids) =>
      Effect.map(
        Effect.orElseSucceed(ask(operations.processes), () => Buffer.alloc(0)),
        (answer) => factsIn(answer).filter(({ pid }) => pids === undefined || pids.includes(pid))
      ),
    uptime: Effect.map(
      Effect.orElseSucceed(ask(operations.read, ...text("/proc/uptime"), u32(128)), () => Buffer.alloc(0)),
      (answer) => Number(answer.toString("latin1").split(" ")[0]) || 0
    ),
    changed: () => Effect.sleep(LOOK_AGAIN)
  }

  const readInRoot: ReadInRoot = (root, path, maximumBytes) =>
    ask(operations.readIn, ...text(root), ...text(path), u32(Math.min(maximumBytes, MOST - 16))).pipe(
      Effect.mapError(failed(path)),
      Effect.asSome,
      Effect.catchIf(
        ({ code }) => code === "ENOENT" || code === "ENOTDIR",
        () => Effect.succeedNone
      ),
      Effect.mapError(({ problem }) => new RootedFileRefused({ path, problem }))
    )

  /** Gives a directory the owner, group and mode of another. */
  const like = (path: string, model: string) =>
    Effect.asVoid(named(path, ask(operations.like, ...text(path), ...text(model))))

  return { files, readInRoot, like }
})
