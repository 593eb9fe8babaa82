/**
 * The files and processes of a guest: `SystemFiles` over the small program `files` (C, beside taproot), which runs in the guest
 * for as long as this brain is connected and answers one request after the other. Its header has the form of both.
 *
 * Use: `make` with the guest's `Processes`. The program of an earlier brain is ended, and one that has died is started again
 * with the next request.
 *
 * Traps:
 * - Everything that comes from it is a guest's word: bounded, and read as such. What nobody asked for breaks the protocol.
 * - It works on one request at a time, and whatever a container mounts can hold that up. So a request has a deadline, which ends
 *   the program, and with it what others wait for; who gets nothing twice in a row has no guest.
 * - Who waits can be interrupted; the request goes its way, or the answers would be somebody else's.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { constants } from "node:os"
import { FileFailed, type ProcessFacts, type SystemFiles } from "../../host/SystemFiles.ts"
import { describeErrno } from "../../taproot/Errno.ts"
import type { Process, Processes } from "../../taproot/Processes.ts"
import { RootedFileRefused } from "../RootedFile.ts"
import type { ReadInRoot } from "../System.ts"
import type { Own } from "./GuestBelongings.ts"

const LABEL = "files"
const REMOVAL = "removal of files"
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
  like: 10,
  own: 11
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
  /** Done when nothing is expected of it any more. */
  readonly over: Deferred.Deferred<void>
}

interface Request {
  readonly bytes: Buffer
  readonly answer: Deferred.Deferred<Buffer, number>
}

const DEADLINE = Duration.seconds(20)
const MOST_MISSED = 2

const ENOTCONN = 107
const EPROTO = 71
const ETIMEDOUT = 110

/**
 * Puts answers together: u32 length, and so many bytes, each of which is copied once. `take` tells whether it was expected. False:
 * that is no answer, or nobody's.
 */
const makeAnswers = (take: (answer: Buffer) => boolean) => {
  let into = Buffer.alloc(4)
  let filled = 0
  let isLength = true
  return (bytes: Uint8Array): boolean => {
    for (let at = 0; at < bytes.length;) {
      const piece = bytes.subarray(at, at + into.length - filled)
      into.set(piece, filled)
      filled += piece.length
      at += piece.length
      if (filled < into.length) return true
      const wanted = isLength ? into.readUInt32LE(0) : 4
      if (wanted < 4 || wanted > MOST + 4) return false
      if (!isLength && !take(into)) return false
      into = Buffer.alloc(wanted)
      filled = 0
      isLength = !isLength
    }
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

/** `broken`: told when the guest does not keep to the rules. */
export const make = Effect.fnUntraced(function* (
  processes: Processes["Service"],
  broken: (detail: string) => Effect.Effect<void>
) {
  const scope = yield* Effect.scope
  const requests = yield* Queue.unbounded<Request>()
  for (const old of yield* processes.takeAll(LABEL)) {
    yield* Effect.ignore(old.signal("SIGKILL"))
    yield* old.acknowledge
  }

  let current: Helper | undefined
  let missed = 0

  /** From now on another one answers. */
  const giveUp = (helper: Helper, errno: number) =>
    Effect.sync(() => {
      if (current === helper) current = undefined
      Deferred.doneUnsafe(helper.over, Exit.void)
      for (const one of helper.waiting.splice(0)) Deferred.doneUnsafe(one, Exit.fail(errno))
    })

  const listen = (helper: Helper) =>
    Effect.gen(function* () {
      const { over, process, waiting } = helper
      const answers = makeAnswers((answer) => {
        const first = waiting.shift()
        if (first === undefined) return false
        missed = 0
        const errno = answer.readUInt32LE(0)
        Deferred.doneUnsafe(first, errno === 0 ? Exit.succeed(answer.subarray(4)) : Exit.fail(errno))
        return true
      })
      let isWell = true
      yield* Effect.raceFirst(
        Stream.runForEachWhile(process.output("stdout"), ({ bytes }) => Effect.sync(() => (isWell = answers(bytes)))),
        Deferred.await(over)
      )
      if (!isWell && !Deferred.isDoneUnsafe(over)) yield* broken("an answer about files that nobody asked for")
      yield* giveUp(helper, ENOTCONN)
      yield* Effect.ignore(process.signal("SIGKILL"))
      yield* process.acknowledge
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
    const made: Helper = { process, waiting: [], over: yield* Deferred.make<void>() }
    current = made
    yield* Effect.forkIn(listen(made), scope)
    return made
  })

  /** One request after the other, to the program that is there then. */
  const sending = Effect.gen(function* () {
    const { answer, bytes } = yield* Queue.take(requests)
    const { over, process, waiting } = yield* Effect.tapError(helper, () => Deferred.fail(answer, ENOTCONN))
    waiting.push(answer)
    yield* Effect.raceFirst(process.write(bytes), Deferred.await(over))
  }).pipe(
    // no program, or it has just died: `listen` tells who waits
    Effect.ignore,
    Effect.forever
  )
  yield* Effect.forkIn(sending, scope)

  /** Nobody may have answered because of somebody else's request: all of them have the same end. */
  const overdue = (answer: Request["answer"]) =>
    Effect.gen(function* () {
      if (!Deferred.doneUnsafe(answer, Exit.fail(ETIMEDOUT))) return
      missed++
      if (current !== undefined) yield* giveUp(current, ETIMEDOUT)
      if (missed >= MOST_MISSED) yield* broken("it does not answer about its files")
    })

  /** `fields` are made when it is sent: whoever keeps the effect keeps no piece of the 64 KiB that Node cuts small buffers from. */
  const ask = (operation: number, fields: () => ReadonlyArray<Uint8Array> = () => []): Effect.Effect<Buffer, number> =>
    Effect.suspend(() => {
      const body = Buffer.concat([Buffer.from([operation]), ...fields()])
      if (body.length > MOST) return Effect.fail(EPROTO)
      const answer = Deferred.makeUnsafe<Buffer, number>()
      Queue.offerUnsafe(requests, { bytes: Buffer.concat([u32(body.length), body]), answer })
      return Effect.timeoutOrElse(Deferred.await(answer), {
        duration: DEADLINE,
        orElse: () => Effect.andThen(overdue(answer), Deferred.await(answer))
      })
    })

  const failed = (path: string) => (errno: number) =>
    new FileFailed({
      path,
      code: codes.get(errno) ?? "EUNKNOWN",
      problem:
        errno === ENOTCONN
          ? "the guest does not answer any more"
          : errno === ETIMEDOUT
            ? `the guest did not answer within ${Duration.format(DEADLINE)}`
            : describeErrno(errno)
    })
  const named = <A>(path: string, effect: Effect.Effect<A, number>) => Effect.mapError(effect, failed(path))

  const files: SystemFiles = {
    read: (path) =>
      named(
        path,
        ask(operations.read, () => [...text(path), u32(MOST - 16)])
      ),
    write: (path, content, mode = 0o600) =>
      Effect.asVoid(
        named(
          path,
          ask(operations.write, () => [...text(path), u32(mode), ...text(content)])
        )
      ),
    list: (path) =>
      Effect.map(
        named(
          path,
          ask(operations.list, () => text(path))
        ),
        (answer) =>
          answer
            .toString("utf8")
            .split("\0")
            .filter((entry) => entry.length > 1)
            .map((entry) => ({ name: entry.slice(1), isDirectory: entry.startsWith("d") }))
      ),
    remove: (path) =>
      Effect.asVoid(
        named(
          path,
          ask(operations.remove, () => text(path))
        )
      ),
    removeDirectory: (path) =>
      Effect.asVoid(
        named(
          path,
          ask(operations.rmdir, () => text(path))
        )
      ),
    makeDirectory: (path) =>
      Effect.asVoid(
        named(
          path,
          ask(operations.mkdir, () => [...text(path), u32(0o700)])
        )
      ),
    kill: (pid) =>
      Effect.asVoid(
        named(
          `/proc/${pid}`,
          ask(operations.kill, () => [u32(pid), u32(9)])
        )
      ),
    processes: (pids) =>
      Effect.map(
        Effect.orElseSucceed(ask(operations.processes), () => Buffer.alloc(0)),
        (answer) => factsIn(answer).filter(({ pid }) => pids === undefined || pids.includes(pid))
      ),
    uptime: Effect.map(
      Effect.orElseSucceed(
        ask(operations.read, () => [...text("/proc/uptime"), u32(128)]),
        () => Buffer.alloc(0)
      ),
      (answer) => Number(answer.toString("latin1").split(" ")[0]) || 0
    ),
    onChange: (_, told) => Effect.asVoid(Effect.forkScoped(Effect.forever(Effect.delay(Effect.sync(told), LOOK_AGAIN))))
  }

  const readInRoot: ReadInRoot = (root, path, maximumBytes) =>
    ask(operations.readIn, () => [...text(root), ...text(path), u32(Math.min(maximumBytes, MOST - 16))]).pipe(
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
    Effect.asVoid(
      named(
        path,
        ask(operations.like, () => [...text(path), ...text(model)])
      )
    )

  const own: Own = (path, { gid, mode, uid }) =>
    Effect.asVoid(
      named(
        path,
        ask(operations.own, () => [...text(path), u32(uid), u32(gid), u32(mode)])
      )
    )

  /** Removes all of it in a program of its own: that may take its time, and keeps nobody else waiting. */
  const removeTree = (path: string) => {
    const body = Buffer.concat([Buffer.from([operations.remove]), ...text(path)])
    const stdin = Buffer.concat([u32(body.length), body])
    return Effect.ignore(processes.run({ label: REMOVAL, argv: [PROGRAM], stdin }))
  }

  return { files, readInRoot, like, own, removeTree }
})
