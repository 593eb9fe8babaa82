/**
 * A guest's memory on its way out of a QEMU and into one: QEMU's migration (docs/devel/migration.rst), to a file or to another QEMU.
 *
 * QEMU opens no file itself. `hand` (C, beside taproot) opens it, or makes a connection, and gives it to the machine's second
 * monitor under a name, where it stays until a migration takes it: so both commands are for that monitor, while what becomes of it
 * is asked on the first one.
 *
 * The memory is written while the guest goes on, in passes: what it has changed meanwhile is written again. When little is left,
 * or it has taken long, the guest is stopped for the rest.
 *
 * Traps:
 * - A QEMU that has sent its memory has let go of its disks and cannot send it again before its guest has gone on (`postmigrate`).
 * - What comes in is read as QEMU wrote it: only files of our own are ever given to it.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { join, relative } from "node:path"
import { helperPath } from "../../taproot/Helper.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import type { Processes } from "../../taproot/Processes.ts"
import { ControlLost, type Memory } from "../Hypervisor.ts"
import * as VmPaths from "../VmPaths.ts"
import * as Arguments from "./Arguments.ts"
import * as HotPlug from "./HotPlug.ts"
import * as Qmp from "./Qmp.ts"
import * as Resize from "./Resize.ts"

/** What a descriptor for a migration is called in QEMU. */
const NAME = "memory"
/** How long the guest may stand still for the last pass, in milliseconds, as QEMU estimates it. */
const STANDSTILL = 200
/** After so many passes, or so many milliseconds, the guest is stopped for the rest. */
const MOST_PASSES = 8
const PATIENCE = 60_000
/** No progress in so many milliseconds is the end. */
const STUCK = 60_000
const LOOK_AGAIN = "10 millis"

type Words = Readonly<Record<string, unknown>>

/** QEMU says how a migration goes, instead of being asked all the time. */
const TELLING: Words = { capabilities: [{ capability: "events", state: true }] }
/** What it says then. */
const telling: ReadonlySet<string> = new Set(["STOP", "MIGRATION"])

const Migration = Schema.Struct({
  status: Schema.optionalKey(Schema.String),
  "error-desc": Schema.optionalKey(Schema.String),
  ram: Schema.optionalKey(Schema.Struct({ transferred: Schema.Finite, "dirty-sync-count": Schema.Finite }))
})
const Status = Schema.Struct({ status: Schema.String })
const Children = Schema.Array(Schema.Struct({ name: Schema.String }))

/** Of a migration that is under way. */
const active: ReadonlySet<string> = new Set([
  "setup",
  "active",
  "device",
  "cancelling",
  "pre-switchover",
  "wait-unplug",
  "postcopy-active",
  "postcopy-paused"
])

/** Run states of a guest that we have stopped. */
const stopped: ReadonlySet<string> = new Set(["paused", "postmigrate", "finish-migrate"])

const Given = Schema.fromJsonString(
  Schema.Union([
    Schema.Struct({ return: Schema.Unknown }),
    Schema.Struct({ error: Schema.Struct({ desc: Schema.String }) })
  ])
)

/** The memory of the machine in `directory`, whose first monitor is `qmp`. */
export const make = (processes: Processes["Service"], directory: string, qmp: Qmp.Qmp): Memory => {
  const failed = (command: string, detail: string) => new ControlLost({ command, detail })

  /** Has the machine given what `what` says, under `NAME`. */
  const hand = (what: string) =>
    Effect.gen(function* () {
      const { exit, stderr, stdout } = yield* Effect.mapError(
        processes.run({
          label: `${VmPaths.toolLabel}hand`,
          argv: [helperPath(processes.hello.taprootPid, "hand"), Arguments.HAND_SOCKET, what, NAME],
          directory,
          maxOutputBytes: 65_536
        }),
        ({ message }) => failed("hand", message)
      )
      const words = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8").trim()
      if (!ProcessExit.isSuccess(exit)) return yield* failed("hand", words(stderr) || ProcessExit.describe(exit))
      for (const line of words(stdout).split("\n")) {
        const given = yield* Effect.mapError(Schema.decodeEffect(Given)(line), ({ message }) => failed("hand", message))
        if ("error" in given) return yield* failed("hand", given.error.desc)
      }
    })

  /** Commands for the second monitor of a machine, one after the other. */
  const onSecond = (place: string, commands: ReadonlyArray<readonly [command: string, words: Words]>) =>
    Effect.scoped(
      Effect.flatMap(Qmp.connect(join(place, Arguments.HAND_SOCKET)), (second) =>
        Effect.forEach(commands, ([command, words]) => second.execute(command, { arguments: words }), { discard: true })
      )
    ).pipe(Effect.mapError(Qmp.lost))

  const how = (asked: Qmp.Qmp) => Effect.mapError(asked.ask("query-migrate", Migration), Qmp.lost)

  /**
   * Waits for the end of a migration; `hurry` has the guest stopped. When its guest has begun to stand still, as it says itself; one
   * that did so before anybody listened: when it was seen last to go on.
   */
  const finish = (asked: Qmp.Qmp, command: string, hurry: boolean) =>
    Effect.gen(function* () {
      const news = yield* Queue.sliding<void>(1)
      let stoppedAt: number | undefined
      yield* asked.events.pipe(
        Effect.flatMap(
          Stream.runForEach(({ name, time }) =>
            Effect.sync(() => {
              if (name === "STOP") stoppedAt = time
              if (telling.has(name)) Queue.offerUnsafe(news, undefined)
            })
          )
        ),
        Effect.forkScoped({ startImmediately: true })
      )
      const began = yield* Clock.currentTimeMillis
      let moved = { transferred: -1, at: began }
      let isStopped = false
      let standing = began
      while (true) {
        const { "error-desc": why = "", ram, status = "none" } = yield* how(asked)
        const now = yield* Clock.currentTimeMillis
        if (status === "completed") return stoppedAt ?? standing
        if (!active.has(status)) return yield* failed(command, why === "" ? `it ended as ${status}` : why)
        if (status === "active" && !isStopped) standing = now
        if (ram !== undefined && ram.transferred > moved.transferred) moved = { transferred: ram.transferred, at: now }
        if (now - moved.at > STUCK) return yield* failed(command, `nothing has moved for ${STUCK / 1000} s`)
        if (hurry && !isStopped && (now - began > PATIENCE || (ram?.["dirty-sync-count"] ?? 0) > MOST_PASSES)) {
          isStopped = true
          yield* Effect.mapError(asked.execute("stop"), Qmp.lost)
        }
        yield* Effect.timeoutOption(Queue.take(news), LOOK_AGAIN)
      }
    }).pipe(Effect.scoped)

  const runState = Effect.map(Effect.mapError(qmp.ask("query-status", Status), Qmp.lost), (now) => now.status)

  const isSent = Effect.map(runState, (now) => now === "postmigrate")

  const start = onSecond(directory, [
    ["migrate-set-capabilities", TELLING],
    ["migrate-set-parameters", { "max-bandwidth": 2 ** 40, "downtime-limit": STANDSTILL }],
    ["migrate", { uri: `fd:${NAME}` }]
  ])

  /** Has a machine that waits for it take what it was handed. */
  const take = (place: string) =>
    onSecond(place, [
      ["migrate-set-capabilities", TELLING],
      ["migrate-incoming", { uri: `fd:${NAME}` }]
    ])

  const property = (path: string, name: string) =>
    qmp.ask("qom-get", Schema.String, { arguments: { path, property: name } })

  /** What is behind each root port. */
  const slots = Effect.gen(function* () {
    const present = yield* qmp.ask("qom-list", Children, { arguments: { path: HotPlug.PERIPHERAL } })
    const found: Array<string> = []
    for (let index = 0; index < HotPlug.MOST_SLOTS; index++) {
      const name = Arguments.slotName(index)
      if (!present.some((one) => one.name === name)) break
      const bus = `${HotPlug.PERIPHERAL}/${name}/${name}`
      const behind = yield* qmp.ask("qom-list", Children, { arguments: { path: bus } })
      const child = behind.find((one) => one.name.startsWith("child["))
      const path = child === undefined ? "" : yield* property(bus, child.name)
      found.push(HotPlug.deviceName.exec(path.slice(path.lastIndexOf("/") + 1))?.[1] ?? "")
    }
    return found
  })

  const since = (standing: number) => Effect.map(Clock.currentTimeMillis, (now) => now - standing)

  return {
    model: Effect.mapError(
      Effect.gen(function* () {
        const type = yield* property("/machine", "type")
        return { type: type.replace(/-machine$/, ""), slots: yield* slots, ...(yield* Resize.grown(qmp)) }
      }),
      Qmp.lost
    ),
    save: (file) =>
      hand(`new:${file}`).pipe(Effect.andThen(start), Effect.andThen(finish(qmp, "save", true)), Effect.flatMap(since)),
    beside: [],
    load: (file) =>
      hand(`in:${file}`).pipe(
        Effect.andThen(take(directory)),
        Effect.andThen(finish(qmp, "load", false)),
        Effect.asVoid
      ),
    send: (place, arrived) =>
      Effect.gen(function* () {
        // seen from where `hand` runs: the kernel takes no long path of a socket
        yield* hand(`peer:${join(relative(directory, place), Arguments.HAND_SOCKET)}`)
        yield* take(place)
        yield* start
        const standing = yield* finish(qmp, "send", true)
        yield* arrived
        return yield* since(standing)
      }),
    arrived: Effect.asVoid(finish(qmp, "send", false)),
    settle: (goOn) =>
      Effect.gen(function* () {
        const [{ status = "none" }, now] = yield* Effect.all([how(qmp), runState], { concurrency: 2 })
        const isActive = active.has(status)
        if (isActive) {
          yield* Effect.mapError(qmp.execute("migrate_cancel"), Qmp.lost)
          // one that was about to be done is done
          yield* Effect.ignore(finish(qmp, "cancel", false))
        }
        if (goOn && stopped.has(isActive ? yield* runState : now)) {
          yield* Effect.mapError(qmp.execute("cont"), Qmp.lost)
        }
      }),
    isSent,
    claim: (nics) =>
      Effect.gen(function* () {
        const words = (command: string) =>
          Effect.mapError(
            qmp.ask("human-monitor-command", Schema.String, { arguments: { "command-line": command } }),
            Qmp.lost
          )
        const refused: Array<string> = []
        for (const { forwards, id } of nics) {
          for (const { guestPort, hostAddress, hostPort, protocol } of forwards) {
            const host = `${protocol}:${hostAddress}:${hostPort}`
            // words about one that was not there
            yield* words(`hostfwd_remove ${id} ${host}`)
            const problem = yield* words(`hostfwd_add ${id} ${host}-:${guestPort}`)
            if (problem.trim() !== "") refused.push(problem.trim())
          }
        }
        // one that somebody else has takes no other along
        if (refused.length > 0) return yield* failed("claim", refused.join("; "))
      })
  }
}
