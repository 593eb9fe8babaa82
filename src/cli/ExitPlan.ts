/**
 * Exits as people write them for a dry run: `1s:code=1, 500ms:code=1 x3, 20s:oom, @2m:signal=SIGKILL, ok`.
 *
 * An exit is `[TIME:]WHAT [xN]`. TIME is how long the run lasted, or with `@` a time since the first start; left out: it ends
 * as soon as it runs. WHAT is one or more, joined by `+`: `ok`, `code=N`, `signal=NAME`, `oom`, `probe=NAME`, `tag=NAME`,
 * `class=failure|defect|interrupted|not-started`, `unready` (before its start was acknowledged). `xN` repeats it.
 *
 * What the words mean for a policy is the server's business; here they only become a message.
 */
import { create } from "@bufbuild/protobuf"
import * as Result from "effect/Result"
import { ExitClass, ExitFactsSchema } from "../../proto/generated/ironwood/v1/exit_pb.ts"
import { type PlannedExit, PlannedExitSchema } from "../../proto/generated/ironwood/v1/policy_service_pb.ts"
import { parseDuration } from "./Quantity.ts"
import { toProto } from "./QuantityFlags.ts"

/** As many as the server takes. */
const maximum = 1_000

const classes: ReadonlyMap<string, ExitClass> = new Map([
  ["normal", ExitClass.NORMAL],
  ["failure", ExitClass.FAILURE],
  ["defect", ExitClass.DEFECT],
  ["interrupted", ExitClass.INTERRUPTED],
  ["not-started", ExitClass.NOT_STARTED]
])

const help = "[TIME:]WHAT, where WHAT is ok, code=N, signal=NAME, oom, probe=NAME, tag=NAME, class=NAME or unready"

/** One word of WHAT, put into the exit; the failure is what would have been right. */
const say = (exit: PlannedExit, word: string): string | undefined => {
  const cut = word.indexOf("=")
  const name = cut < 0 ? word : word.slice(0, cut)
  const value = cut < 0 ? "" : word.slice(cut + 1)
  const facts = (exit.facts ??= create(ExitFactsSchema))
  if (["ok", "oom", "unready"].includes(name) ? cut >= 0 : value === "") return `${help}, not "${word}"`
  switch (name) {
    case "ok":
      exit.exitClass = ExitClass.NORMAL
      return undefined
    case "oom":
      facts.outOfMemory = true
      return undefined
    case "unready":
      exit.beforeReady = true
      return undefined
    case "code":
      if (!/^\d{1,3}$/.test(value)) return `an exit code from 0 to 255, not "${value}"`
      facts.exitCode = Number(value)
      return undefined
    case "signal": {
      const upper = value.toUpperCase()
      facts.signal = upper.startsWith("SIG") ? upper : `SIG${upper}`
      return undefined
    }
    case "probe":
      facts.probe = value
      return undefined
    case "tag":
      exit.tag = value
      return undefined
    case "class": {
      const found = classes.get(value)
      if (found === undefined) return `a class out of ${[...classes.keys()].join(", ")}, not "${value}"`
      exit.exitClass = found
      return undefined
    }
    default:
      return `${help}, not "${word}"`
  }
}

/** Reads the list; the failure is what would have been right. */
export const parse = (text: string): Result.Result<ReadonlyArray<PlannedExit>, string> => {
  const exits: Array<PlannedExit> = []
  for (const item of text.split(",")) {
    const match = /^(?:(@?)([^:=\s]+):)?(\S+?)(?:\s+x(\d{1,4}))?$/.exec(item.trim())
    if (match === null) return Result.fail(`${help}, not "${item.trim()}"`)
    const [, absolute, time, what = "", count = "1"] = match
    const exit = create(PlannedExitSchema)
    if (time !== undefined) {
      const duration = parseDuration(time)
      if (Result.isFailure(duration)) return Result.fail(duration.failure)
      const value = toProto(duration.success)
      exit.when = create(
        PlannedExitSchema,
        absolute === "@" ? { when: { case: "at", value } } : { when: { case: "after", value } }
      ).when
    }
    for (const word of what.split("+")) {
      const problem = say(exit, word)
      if (problem !== undefined) return Result.fail(problem)
    }
    const times = Number(count)
    if (exits.length + times > maximum) return Result.fail(`at most ${maximum} exits`)
    for (let index = 0; index < times; index++) exits.push(exit)
  }
  return Result.succeed(exits)
}
