/**
 * iproute2's `ip`, with which links are set up: each call says what shall be, so it can be made again over what there is.
 * {@link LinkFailed} is what every failure of a link becomes; its `problem` says what is wrong and what to do about it.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { within } from "../../host/Deadline.ts"
import { describe, isSuccess } from "../../taproot/ProcessExit.ts"
import { Processes } from "../../taproot/Processes.ts"

/** Why a link could not be had: what a restart rule can tell apart. */
export const Reason = Schema.Literals(["no-device", "not-supported", "command-failed", "client-ended", "client-silent"])

/** A link could not be set up, or what keeps it so has ended. */
export class LinkFailed extends Schema.TaggedError<LinkFailed>()("LinkFailed", {
  link: Schema.String,
  reason: Reason,
  problem: Schema.String
}) {
  override get message(): string {
    return `link ${this.link}: ${this.problem}`
  }
}

/** What the kernel says when it has no such kind of device. */
const isUnsupported = (complaint: string): boolean => /unknown device type|operation not supported/i.test(complaint)

/** It asks the kernel, which answers at once, unless a driver holds up everybody: then it cannot be ended either. */
const patience = "10 seconds"

/** Runs it; what it printed. */
export const ip = Effect.fnUntraced(function* (link: string, ...args: ReadonlyArray<string>) {
  const processes = yield* Processes
  const failed = (problem: string) => new LinkFailed({ link, reason: "command-failed", problem })
  const { exit, stderr, stdout } = yield* within(
    Effect.mapError(processes.run({ label: `ip:${link}`, argv: ["ip", ...args] }), ({ message }) => failed(message)),
    { duration: patience, orElse: () => failed(`\`ip ${args.join(" ")}\` did not end within ${patience}`) }
  )
  if (isSuccess(exit)) return new TextDecoder().decode(stdout)
  const complaint = new TextDecoder().decode(stderr).trim()
  return yield* new LinkFailed({
    link,
    reason: isUnsupported(complaint) ? "not-supported" : "command-failed",
    problem: `\`ip ${args.join(" ")}\` ${describe(exit)}: ${complaint}`
  })
})
