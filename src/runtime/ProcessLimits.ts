/**
 * How many processes containers may have on this host: one that forks without end shall not take those that everybody else
 * needs, the host itself first. The kernel's own limit follows from its memory (`threads-max`).
 *
 * Use `each` for a container whose spec says nothing, and `all` for the cgroup above all of them.
 */
import * as Effect from "effect/Effect"
import { readFile } from "node:fs/promises"

export interface ProcessLimits {
  /** Processes and threads of a container whose spec has no limit. */
  readonly each: number
  /** Of all containers together. */
  readonly all: number
}

/** What serious programs stay below; podman has half of it as its default. */
const usual = 4096

/** `most`: what the kernel can have. */
export const within = (most: number): ProcessLimits => {
  const all = Math.max(64, Math.floor((most * 3) / 4))
  return { all, each: Math.min(usual, Math.floor(all / 2)) }
}

/** Of this host. */
export const ofHost: Effect.Effect<ProcessLimits> = Effect.promise(() =>
  readFile("/proc/sys/kernel/threads-max", "utf8").then(
    (text) => within(Number(text) > 0 ? Number(text) : 4 * usual),
    () => within(4 * usual)
  )
)
