/** The brain's scheduler: everything is carried out, in order, and the event loop has its turns in between. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as SlicedScheduler from "../src/SlicedScheduler.ts"

const spin = (milliseconds: number): void => {
  const end = performance.now() + milliseconds
  while (performance.now() < end);
}

/** Fibers that all give way at once and then work for a slice each; the order in which they worked. */
const burst = (count: number, milliseconds: number) => {
  const worked: Array<number> = []
  const fibers = Array.from({ length: count }, (_, index) =>
    Effect.runFork(
      Effect.andThen(
        Effect.yieldNow,
        Effect.sync(() => {
          spin(milliseconds)
          worked.push(index)
        })
      ),
      { scheduler }
    )
  )
  return { worked, fibers }
}

const scheduler = SlicedScheduler.make()

describe("SlicedScheduler", () => {
  it("lets other work of the process in between two slices", async () => {
    const { fibers, worked } = burst(5, SlicedScheduler.SLICE + 1)
    const seen: Array<number> = []
    const look = (): void => {
      seen.push(worked.length)
      if (worked.length < 5) setImmediate(look)
    }
    setImmediate(look)
    await Effect.runPromise(Fiber.awaitAll(fibers))
    assert.deepStrictEqual(worked, [0, 1, 2, 3, 4])
    assert.includeMembers(seen, [1, 2, 3, 4])
  })

  it("carries out thousands of short tasks, in order", async () => {
    const { fibers, worked } = burst(5_000, 0)
    await Effect.runPromise(Fiber.awaitAll(fibers))
    assert.deepStrictEqual(
      worked,
      Array.from({ length: 5_000 }, (_, index) => index)
    )
  })

  it("forgets a fiber that is interrupted while it waits for its turn", async () => {
    const { fibers, worked } = burst(3, 0)
    fibers[1]?.interruptUnsafe()
    await Effect.runPromise(Fiber.awaitAll(fibers))
    assert.deepStrictEqual(worked, [0, 2])
  })

  it("goes on after a task that throws", async () => {
    const dispatcher = scheduler.makeDispatcher()
    const other = scheduler.makeDispatcher()
    const thrown = new Promise<unknown>((resolve) => {
      const listeners = process.listeners("uncaughtException")
      process.removeAllListeners("uncaughtException")
      process.once("uncaughtException", (error) => {
        for (const listener of listeners) process.on("uncaughtException", listener)
        resolve(error)
      })
    })
    const after = new Promise<void>((resolve) => {
      dispatcher.scheduleTask(() => {
        throw new Error("on purpose")
      }, 0)
      other.scheduleTask(resolve, 0)
    })
    assert.strictEqual(String(await thrown), "Error: on purpose")
    await after
  })
})
