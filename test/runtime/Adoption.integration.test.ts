/**
 * What a dead brain, a dead taproot and a person's word mean for containers: a real taproot with a real brain below it
 * (`brain.ts`), both killed at any time.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import * as RuntimePaths from "../../src/runtime/RuntimePaths.ts"
import { eventually } from "../support/eventually.ts"
import { ask, brainPid, insist, killBrain, list, prepared, startTaproot, until } from "./livingBrain.ts"
import { isAlive, shell } from "./world.ts"

/** Prints numbers on both streams as fast as it can, 200 to a write, then waits a moment. */
const counter = shell(
  "i=0; while :; do n=$((i+200)); busybox seq $i $((n-1)); busybox seq $i $((n-1)) >&2; i=$n; sleep 0.01; done"
)

/** The numbers of a log: every one from 0 on, each once, in order. */
const assertWhole = (text: string, atLeast: number): void => {
  const numbers = text.split("\n").slice(0, -1)
  assert.isAtLeast(numbers.length, atLeast)
  const wrong = numbers.findIndex((line, index) => line !== String(index))
  assert.strictEqual(wrong, -1, `line ${wrong} is ${numbers.slice(Math.max(0, wrong - 2), wrong + 3).join(" | ")}`)
}

describe("adoption", () => {
  it.live("the brain is killed again and again: the container does not notice, its log has every line once", () =>
    Effect.gen(function* () {
      const { image, state } = yield* prepared
      const taproot = yield* startTaproot(state)
      yield* insist(state, { call: "import", name: image })
      const log = { maxBytes: 100_000, maxFiles: 100 }
      yield* insist(state, { call: "create", name: "count", fields: { command: counter, log } })
      const before = yield* until(state, "count", ({ state }) => state === "running")
      for (const pause of [0, 70, 150, 310]) {
        yield* Effect.sleep(pause)
        yield* killBrain(taproot)
        const after = yield* until(state, "count", ({ state }) => state === "running")
        assert.strictEqual(after.pid, before.pid)
        assert.strictEqual(after.restarts, 0, "no restart was spent")
        assert.isTrue(isAlive(after.pid))
        assert.strictEqual(after.node?.annotations["run"], before.node?.annotations["run"])
      }
      yield* Effect.sleep("200 millis")
      yield* insist(state, { call: "stop", name: "count" })
      for (const stream of ["stdout", "stderr"]) {
        const text = yield* insist(state, { call: "log", name: "count", stream })
        assertWhole(String(text), 1_000)
      }
    }).pipe(Effect.scoped)
  )

  it.live("an exit while the brain is dead is known to the next one, and the policy follows", () =>
    Effect.gen(function* () {
      const { image, state } = yield* prepared
      const taproot = yield* startTaproot(state)
      yield* insist(state, { call: "import", name: image })
      const quick = { restart: "permanent", backoff: { initial: 1, jitter: 0 } }
      yield* insist(state, { call: "create", name: "again", fields: { restart: quick } })
      yield* insist(state, { call: "create", name: "once", fields: { restart: { restart: "temporary" } } })
      const again = yield* until(state, "again", ({ state }) => state === "running")
      const once = yield* until(state, "once", ({ state }) => state === "running")
      yield* killBrain(taproot)
      for (const { pid } of [again, once]) process.kill(pid ?? 0, "SIGKILL")
      const next = yield* until(state, "again", ({ pid, state }) => state === "running" && pid !== again.pid)
      assert.strictEqual(next.lastExit?.tag, "ContainerSignaled")
      assert.strictEqual(next.restarts, 1)
      const ended = yield* until(state, "once", ({ state }) => state === "failed")
      assert.strictEqual(ended.lastExit?.tag, "ContainerSignaled")
      yield* killBrain(taproot)
      const later = yield* until(state, "once", ({ state }) => state !== "unregistered")
      assert.strictEqual(later.state, "failed", "run once is run once, whatever becomes of the brain")
      assert.strictEqual(later.lastExit?.tag, "ContainerSignaled", "and how it ended is still known")
    }).pipe(Effect.scoped)
  )

  it.live("a person's stop is remembered, and finished if the brain dies in the middle of it", () =>
    Effect.gen(function* () {
      const { image, state } = yield* prepared
      const taproot = yield* startTaproot(state)
      yield* insist(state, { call: "import", name: image })
      yield* insist(state, { call: "create", name: "stopped" })
      yield* insist(state, { call: "create", name: "slow", fields: { stopGracePeriod: 2_000 } })
      yield* insist(state, { call: "stop", name: "stopped" })
      const slow = yield* until(state, "slow", ({ state }) => state === "running")
      yield* Effect.forkChild(Effect.ignore(ask(state, { call: "stop", name: "slow" })))
      yield* until(state, "slow", ({ state }) => state === "stopping")
      yield* killBrain(taproot)
      const views = yield* list(state)
      assert.deepStrictEqual(
        views.map(({ desired, name, state }) => [name, desired, state]),
        [
          ["slow", "stopped", "stopped"],
          ["stopped", "stopped", "stopped"]
        ]
      )
      yield* eventually("the stop goes on", () => !isAlive(slow.pid))
      yield* insist(state, { call: "start", name: "slow" })
      yield* until(state, "slow", ({ state }) => state === "running")
    }).pipe(Effect.scoped)
  )

  it.live("a person's stop is forgotten where the policy says so", () =>
    Effect.gen(function* () {
      const { image, state } = yield* prepared
      const taproot = yield* startTaproot(state)
      yield* insist(state, { call: "import", name: image })
      yield* insist(state, { call: "create", name: "always", fields: { restart: { rememberStop: false } } })
      yield* until(state, "always", ({ state }) => state === "running")
      yield* insist(state, { call: "stop", name: "always" })
      yield* until(state, "always", ({ state }) => state === "stopped")
      yield* killBrain(taproot)
      const view = yield* until(state, "always", ({ state }) => state === "running")
      assert.strictEqual(view.desired, "running")
    }).pipe(Effect.scoped)
  )

  it.live("a container that runs in the place of a parked one does not notice either", () =>
    Effect.gen(function* () {
      const { image, state } = yield* prepared
      const taproot = yield* startTaproot(state)
      yield* insist(state, { call: "import", name: image })
      const restart = {
        maxConsecutive: 2,
        whenSpent: "fallback",
        fallback: "sorry",
        backoff: { initial: 300, factor: 1, jitter: 0 }
      }
      const fields = { command: shell("exit 1"), restart }
      yield* insist(state, { call: "sandbox", name: "pod" })
      yield* insist(state, { call: "create", name: "sorry", fields: { sandbox: "pod" } })
      yield* insist(state, { call: "stop", name: "sorry" })
      yield* insist(state, { call: "create", name: "web", fields: { ...fields, sandbox: "pod" } })
      const before = yield* until(state, "sorry", ({ state }) => state === "running")
      yield* until(state, "web", ({ state }) => state === "parked")
      yield* killBrain(taproot)
      const after = yield* until(state, "sorry", ({ state }) => state === "running")
      assert.strictEqual(after.pid, before.pid)
      assert.deepInclude(yield* until(state, "web", () => true), { state: "parked" })
      yield* insist(state, { call: "stop", name: "web" })
      yield* until(state, "sorry", ({ state }) => state === "stopped")
      assert.isFalse(isAlive(before.pid))
    }).pipe(Effect.scoped)
  )

  it.live("the brain is killed while containers start and are removed: each runs once, and the removed are gone", () =>
    Effect.gen(function* () {
      const { image, state } = yield* prepared
      const taproot = yield* startTaproot(state)
      yield* insist(state, { call: "import", name: image })
      const names = Array.from({ length: 12 }, (_, index) => `web-${index}`)
      for (const pause of [5, 30, 60, 120]) {
        // Asked for in parallel and cut off by the kill: idempotent by name, so it is simply asked for again.
        yield* Effect.forkChild(
          Effect.forEach(names, (name) => Effect.ignore(ask(state, { call: "create", name })), { concurrency: 12 })
        )
        yield* Effect.sleep(pause)
        yield* killBrain(taproot)
        yield* list(state)
      }
      yield* Effect.forEach(names, (name) => insist(state, { call: "create", name }), { concurrency: 12 })
      for (const name of names) yield* until(state, name, ({ state }) => state === "running")
      const running = (yield* list(state)).map(({ pid }) => pid ?? 0)
      assert.strictEqual(new Set(running).size, names.length)
      const inCgroup = (pid: string): boolean => {
        try {
          return readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(RuntimePaths.cgroupOf(state))
        } catch {
          return false
        }
      }
      const alive = () => readdirSync("/proc").filter((name) => /^\d+$/.test(name) && inCgroup(name)).length
      yield* eventually("one process each", () => alive() === names.length)

      yield* Effect.forkChild(
        Effect.forEach(names, (name) => Effect.ignore(ask(state, { call: "remove", name })), { concurrency: 12 })
      )
      yield* Effect.sleep("25 millis")
      yield* killBrain(taproot)
      const left = (yield* list(state)).map(({ name }) => name)
      yield* eventually("the removed are gone", () => alive() === left.length)
      yield* Effect.forEach(left, (name) => insist(state, { call: "remove", name }), { concurrency: 12 })
      assert.strictEqual(alive(), 0)
      assert.deepStrictEqual(readdirSync(join(state, "runtime/rootfs")), [])
      assert.isTrue(!existsSync(join(state, "logs")) || readdirSync(join(state, "logs")).length === 0)
    }).pipe(Effect.scoped)
  )

  it.live("taproot itself is killed: the next one clears away what is left and starts the containers anew", () =>
    Effect.gen(function* () {
      const { image, state } = yield* prepared
      const first = yield* startTaproot(state)
      yield* insist(state, { call: "import", name: image })
      const command = shell("echo run >> /tmp/runs; busybox wc -l < /tmp/runs; exec sleep 100000")
      yield* insist(state, { call: "create", name: "web", fields: { command } })
      const before = yield* until(state, "web", ({ state }) => state === "running")
      const logIs = (text: string) =>
        eventually(
          `the log is ${JSON.stringify(text)}`,
          Effect.map(insist(state, { call: "log", name: "web" }), (found) => found === text)
        )
      yield* logIs("1\n")
      const brain = brainPid(first.pid ?? 0)
      first.kill("SIGKILL")
      yield* eventually("the brain has followed", () => !isAlive(brain))
      assert.isTrue(isAlive(before.pid), "an orphan now")
      yield* startTaproot(state)
      const after = yield* until(state, "web", ({ state }) => state === "running")
      assert.isFalse(isAlive(before.pid))
      assert.notStrictEqual(after.pid, before.pid)
      yield* logIs("1\n2\n")
    }).pipe(Effect.scoped)
  )
})
