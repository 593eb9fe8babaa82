/**
 * Randomness from one start of a machine to the next, as a step of it: what was kept on the state's disk goes into the kernel's
 * pool, and something new is kept at once, so that no two starts begin with the same, however the first one ends.
 *
 * It is mixed in without being counted as randomness (random(4)): who has copied the disk knows it. The kernel has its own
 * sources beside it (the processor, jitter, virtio-rng).
 */
import * as Effect from "effect/Effect"
import { randomBytes } from "node:crypto"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { MachineState } from "./MachineState.ts"
import { writeDurably } from "./RebootGuard.ts"
import { step, StepFailed } from "./Step.ts"

const seedBytes = 256

/** Mixes in what the file has, and keeps something else there; how many bytes that were. */
export const renew = async (file: string, pool = "/dev/urandom"): Promise<number> => {
  const kept = Buffer.from(await readFile(file, "latin1").catch(() => ""), "base64").subarray(0, seedBytes)
  if (kept.length > 0) await writeFile(pool, kept)
  writeDurably(file, `${randomBytes(seedBytes).toString("base64")}\n`)
  return kept.length
}

export const randomSeedStep = (stateDirectory: string) =>
  step(
    "random-seed",
    { description: "randomness from the start before", deadline: "10 seconds" },
    Effect.gen(function* () {
      const { device } = yield* MachineState
      if (device === undefined) return { facts: { "mixed in": "nothing: this machine keeps its state in memory" } }
      const bytes = yield* Effect.tryPromise({
        try: () => renew(join(stateDirectory, "random-seed")),
        catch: (error) => new StepFailed({ step: "random-seed", problem: String(error) })
      })
      return { facts: { "mixed in": bytes === 0 ? "nothing: there was no start before" : `${bytes} bytes` } }
    })
  )
