/**
 * Keeps a machine from rebooting itself for ever. Every reboot that a restart policy asks for (`reboot-host`) is written down in
 * the state directory before it is carried out; after {@link REBOOTS} of them within {@link WITHIN} there are no more, and who
 * asks is parked, which the tree and the console tell.
 *
 * State that is kept in memory forgets them. There a reboot is carried out only when the machine has been up for
 * {@link SETTLED}: it may still go round, but so slowly that a person can get hold of it.
 *
 * Trap: a clock that nobody has set yet may be before the last reboot, so times that are still to come count as just now.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { uptime } from "node:os"
import { dirname, join } from "node:path"
import { MachineState } from "./MachineState.ts"
import { step } from "./Step.ts"

/** So many reboots within this time are as many as may be. */
export const REBOOTS = 3
export const WITHIN = Duration.hours(1)
/** How long a machine that cannot remember must have been up. */
export const SETTLED = Duration.minutes(10)

/** A reboot that a policy asked for: when (milliseconds since 1970), for which actor, and why. */
export const Reboot = Schema.Struct({ at: Schema.Finite, path: Schema.String, reason: Schema.String })
export type Reboot = typeof Reboot.Type

const Reboots = Schema.fromJsonString(Schema.Array(Reboot))
const decode = Schema.decodeUnknownOption(Reboots)
const encode = Schema.encodeSync(Reboots)

/** What asks for one. */
export type Wish = Omit<Reboot, "at">

export class RebootGuard extends Context.Service<
  RebootGuard,
  {
    /** Whether earlier ones are known at all after a reboot. */
    readonly remembers: boolean
    /** Writes down that the host reboots now; answers why it must not, if so. */
    readonly claim: (wish: Wish) => string | undefined
    /** Those that count now, oldest first. */
    readonly recent: () => ReadonlyArray<Reboot>
  }
>()("ironwood/host/RebootGuard") {}

export interface Options {
  readonly file: string
  /** Whether the file is there after a reboot. */
  readonly lasting: boolean
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** Milliseconds since the machine was started. */
  readonly uptime: () => number
}

/** Either all of it is there after a power cut, or what was there before. */
export const writeDurably = (file: string, text: string): void => {
  const next = `${file}.next`
  writeFileSync(next, text, { mode: 0o600, flush: true })
  renameSync(next, file)
  const directory = openSync(dirname(file), "r")
  fsyncSync(directory)
  closeSync(directory)
}

/** Nothing, where there is none or it cannot be read: then what it forgot is made up for by the next ones. */
const read = (file: string): ReadonlyArray<Reboot> => {
  try {
    const found = decode(readFileSync(file, "utf8"))
    return found._tag === "Some" ? found.value : []
  } catch {
    return []
  }
}

export const make = ({ file, lasting, now, uptime }: Options): RebootGuard["Service"] => {
  let claimed = false
  const recent = (): ReadonlyArray<Reboot> => {
    const since = now() - Duration.toMillis(WITHIN)
    return read(file).filter(({ at }) => at > since)
  }
  const whenSettled = (problem: string): string | undefined =>
    uptime() >= Duration.toMillis(SETTLED)
      ? undefined
      : `${problem}, so the host reboots only when it has been up for ${Duration.format(SETTLED)}`
  const claim = (wish: Wish): string | undefined => {
    // The host is about to, for another's sake.
    if (claimed) return undefined
    const before = recent()
    if (before.length >= REBOOTS) {
      return `the host has rebooted for such a reason ${before.length} times within ${Duration.format(WITHIN)}, and does so no more`
    }
    let refusal = lasting
      ? undefined
      : whenSettled("earlier reboots are not remembered, since this machine keeps its state in memory")
    if (refusal !== undefined) return refusal
    try {
      writeDurably(file, encode([...before, { at: now(), path: wish.path, reason: wish.reason }]))
    } catch (error) {
      refusal = whenSettled(`the reboot could not be written down (${String(error)})`)
    }
    claimed = refusal === undefined
    return refusal
  }
  return { remembers: lasting, claim, recent }
}

/** Of a machine whose state is in this directory. */
export const layer = (directory: string) =>
  Layer.effect(
    RebootGuard,
    Effect.map(MachineState, ({ device }) =>
      make({
        file: join(directory, "reboots.json"),
        lasting: device !== undefined,
        now: Date.now,
        uptime: () => uptime() * 1_000
      })
    )
  )

/** Of an Ironwood that is no machine's: nobody asks. */
export const none = Layer.succeed(
  RebootGuard,
  RebootGuard.of({ remembers: false, claim: () => undefined, recent: () => [] })
)

/** Tells of them in the tree. */
export const rebootsStep = step(
  "reboots",
  { description: "reboots of this machine that restart policies asked for", deadline: "10 seconds" },
  Effect.map(RebootGuard, ({ recent, remembers }) => {
    const reboots = recent()
    const last = reboots.at(-1)
    const facts = {
      [`within ${Duration.format(WITHIN)}`]: remembers ? `${reboots.length}` : "not remembered",
      ...(last === undefined ? {} : { last: last.path })
    }
    const again = "1 minute"
    return last === undefined || reboots.length < REBOOTS
      ? { facts, again }
      : {
          facts,
          again,
          degraded: `it has rebooted ${reboots.length} times within ${Duration.format(WITHIN)} and does so no more; the last time for ${last.path}: ${last.reason}`
        }
  })
)
