/**
 * Whether another kernel is loaded for kexec(2), to be asked before the machine is stopped for it: afterwards taproot can only
 * restart the long way, through the firmware.
 *
 * Ironwood loads none itself; a privileged container with kexec-tools can.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readFile } from "node:fs/promises"

/** There is nothing to go on with. */
export class NoKernelLoaded extends Schema.TaggedError<NoKernelLoaded>()("NoKernelLoaded", {}) {
  override get message(): string {
    return "no kernel is loaded for kexec, so nothing was stopped; load one first, or restart the machine: ironwood down --then restart"
  }
}

/** As the kernel says; one without kexec has no such file. */
const present = Effect.promise(() => readFile("/sys/kernel/kexec_loaded", "utf8").catch(() => "0"))

/** Fails where a kexec would be an ordinary restart. */
export const required: Effect.Effect<void, NoKernelLoaded> = Effect.flatMap(present, (text) =>
  text.trim() === "1" ? Effect.void : new NoKernelLoaded()
)
