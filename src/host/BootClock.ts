/**
 * The time since the start of the kernel, and which start that was: for what must last over a restart of the brain and must not
 * be moved by somebody who sets the clock.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { readFile } from "node:fs/promises"
import { uptime } from "node:os"

export class BootClock extends Context.Service<
  BootClock,
  {
    /** A new one at each start of the kernel. */
    readonly bootId: string
    /** Milliseconds since then. */
    readonly now: Effect.Effect<number>
  }
>()("ironwood/host/BootClock") {
  static readonly layer = Layer.effect(
    BootClock,
    Effect.map(
      Effect.promise(() => readFile("/proc/sys/kernel/random/boot_id", "utf8")),
      (id) => BootClock.of({ bootId: id.trim(), now: Effect.sync(() => uptime() * 1000) })
    )
  )
}
