/** What outlives the brain: revisions that never go back, counters, histories, and how an actor rested. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import type * as Actor from "../../src/actor/Actor.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as Journal from "../../src/actor/Journal.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const policy = RestartPolicy.make({ backoff: { initial: 100, jitter: 0 } })

const life = (journal: Journal.JournalService, probes: Probes) =>
  Effect.provideService(
    Root.start(Supervisor.make("init", { children: [probes.make("a", { policy }), probes.make("b", { policy })] })),
    Journal.Journal,
    journal
  )

describe("over a restart of the brain", () => {
  it.effect("counters, last exit, consecutive failures and history go on; revisions only grow", () =>
    Effect.gen(function* () {
      const journal = yield* Journal.makeMemory
      const probes = new Probes()
      const first = yield* life(journal, probes)
      yield* probes.crash("a", "one")
      yield* TestClock.adjust(100)
      yield* probes.crash("a", "two")
      yield* TestClock.adjust(100)
      const shown = yield* first.tree.snapshot()
      yield* first.end("release")

      const second = yield* life(journal, probes)
      const node = yield* second.tree.get("init/a")
      assert.deepInclude(node, { state: "running", incarnation: 3, restarts: 1, attempt: 2 })
      assert.deepInclude(node.lastExit, { tag: "Crash", message: "two" })
      assert.isAbove(node.revision, shown.revision)
      const history = yield* second.tree.history("init/a")
      assert.deepStrictEqual(
        history.map((entry) => entry.event),
        ["started", "ended", "started", "ended", "started"]
      )
      yield* probes.crash("a", "three")
      assert.deepInclude(yield* second.tree.get("init/a"), { state: "backing-off", attempt: 3 })
      const whole = second.tree.watch(shown.revision).pipe(Stream.filter(({ _tag }) => _tag === "Snapshot"))
      assert.isAbove(Option.getOrThrow(yield* Stream.runHead(whole)).revision, shown.revision)
    })
  )

  it.effect("who watches on from an earlier brain's revision hears what happened since, before a snapshot", () =>
    Effect.gen(function* () {
      const journal = yield* Journal.makeMemory
      const probes = new Probes()
      const first = yield* life(journal, probes)
      const { revision } = yield* first.tree.snapshot()
      yield* probes.crash("a", "while the watcher was away")
      yield* TestClock.adjust(100)
      yield* first.end("release")
      const second = yield* life(journal, probes)
      yield* probes.crash("b", "before it was back")
      const heard = yield* Stream.runCollect(Stream.take(second.tree.watch(revision), 10))
      assert.deepStrictEqual(
        heard.map((event) =>
          event._tag === "Changed"
            ? `${event.node.path} ${event.entry?.event} ${event.entry?.exit?.message}`
            : event._tag
        ),
        [
          "init/a ended while the watcher was away",
          "init/a started undefined",
          "init released undefined",
          "init/b released undefined",
          "init/a released undefined",
          "init/a started undefined",
          "init/b started undefined",
          "init started undefined",
          "init/b ended before it was back",
          "Snapshot"
        ]
      )
      const snapshot = heard.at(-1)
      const shown = heard.map((event) => (event._tag === "Changed" ? event.node.revision : event.revision))
      assert.deepStrictEqual(
        shown,
        [...heard.slice(1).map(() => revision), snapshot?.revision],
        "revisions never go back"
      )
      yield* probes.crash("a", "once more")
      const later = yield* Stream.runHead(second.tree.watch(snapshot?.revision))
      assert.isAbove(Option.getOrThrow(later).revision, snapshot?.revision ?? 0)
    })
  )

  it.effect("an actor that is removed and made anew begins anew", () =>
    Effect.gen(function* () {
      const journal = yield* Journal.makeMemory
      const probes = new Probes()
      const start = Effect.gen(function* () {
        const pool = yield* DynamicSupervisor.make("pool", { children: Effect.succeed([probes.make("a")]) })
        const root = yield* Root.start(Supervisor.make("init", { children: [pool.spec] }))
        return { pool, root }
      }).pipe(Effect.provideService(Journal.Journal, journal))
      yield* (yield* start).root.end("release")
      const { pool, root } = yield* start
      assert.deepInclude(yield* root.tree.get("init/pool/a"), { incarnation: 2 })
      yield* pool.terminateChild("a")
      yield* pool.deleteChild("a")
      yield* pool.startChild(probes.make("a"))
      assert.deepInclude(yield* root.tree.get("init/pool/a"), { incarnation: 1 })
    })
  )

  describe("an actor that resumes", () => {
    const budget = RestartPolicy.make({
      backoff: { initial: 10_000, jitter: 0 },
      budget: { restarts: 1, within: "1 hour" },
      whenSpent: "park"
    })
    const brain = (journal: Journal.JournalService, probes: Probes, options: Actor.Options) =>
      Effect.gen(function* () {
        const children = Effect.succeed([probes.make("a", { policy: budget, resume: true, ...options })])
        const pool = yield* DynamicSupervisor.make("pool", { children })
        return yield* Root.start(Supervisor.make("init", { children: [pool.spec] }))
      }).pipe(Effect.provideService(Journal.Journal, journal))

    it.effect("keeps its appointment, and the budget that is spent", () =>
      Effect.gen(function* () {
        const journal = yield* Journal.makeMemory
        const probes = new Probes()
        yield* brain(journal, probes, {})
        yield* probes.crash("a")
        yield* TestClock.adjust("4 seconds")
        probes.take()

        const second = yield* brain(journal, probes, {})
        const nextAttemptAt = 10_000
        assert.deepInclude(yield* second.tree.get("init/pool/a"), {
          state: "backing-off",
          nextAttemptAt,
          budgetLeft: 0
        })
        assert.deepStrictEqual(probes.take(), [])
        yield* TestClock.adjust("6 seconds")
        assert.deepInclude(yield* second.tree.get("init/pool/a"), { state: "running", restarts: 1, incarnation: 2 })
        yield* probes.crash("a")
        assert.deepInclude(yield* second.tree.get("init/pool/a"), { state: "parked" })
      })
    )

    it.effect("is started when its appointment fell between two brains", () =>
      Effect.gen(function* () {
        const journal = yield* Journal.makeMemory
        const probes = new Probes()
        const first = yield* brain(journal, probes, {})
        yield* probes.crash("a")
        const kept = yield* journal.load
        yield* first.end("release")
        yield* TestClock.adjust("1 minute")
        const second = yield* brain({ ...journal, load: Effect.succeed(kept) }, probes, {})
        yield* TestClock.adjust(0)
        assert.deepInclude(yield* second.tree.get("init/pool/a"), { state: "running", restarts: 1 })
      })
    )

    it.effect("stays parked until a person starts it", () =>
      Effect.gen(function* () {
        const journal = yield* Journal.makeMemory
        const probes = new Probes()
        yield* brain(journal, probes, {})
        yield* probes.crash("a")
        yield* TestClock.adjust("10 seconds")
        yield* probes.crash("a")
        yield* TestClock.adjust("10 seconds")

        const second = yield* brain(journal, probes, {})
        assert.deepInclude(yield* second.tree.get("init/pool/a"), { state: "parked", since: 10_000, attempt: 2 })
        yield* second.tree.start("init/pool/a")
        assert.deepInclude(yield* second.tree.get("init/pool/a"), { state: "running", budgetLeft: 1 })
        const third = yield* brain(journal, probes, {})
        assert.deepInclude(yield* third.tree.get("init/pool/a"), { state: "running", incarnation: 4 })
      })
    )

    it.effect("shows that it had finished, unless it is to start", () =>
      Effect.gen(function* () {
        const journal = yield* Journal.makeMemory
        const probes = new Probes()
        const policy = RestartPolicy.transient
        yield* brain(journal, probes, { policy })
        yield* probes.finish("a")
        const second = yield* brain(journal, probes, { policy, autoStart: false })
        assert.deepInclude(yield* second.tree.get("init/pool/a"), { state: "finished" })
        const third = yield* brain(journal, probes, { policy })
        assert.deepInclude(yield* third.tree.get("init/pool/a"), { state: "running" })
        yield* third.tree.stop("init/pool/a")
        const since = (yield* third.tree.get("init/pool/a")).since
        yield* TestClock.adjust("1 minute")
        const fourth = yield* brain(journal, probes, { policy, autoStart: false })
        assert.deepInclude(yield* fourth.tree.get("init/pool/a"), { state: "stopped", since })
      })
    )
  })

  it.effect("what is removed is forgotten", () =>
    Effect.gen(function* () {
      const journal = yield* Journal.makeMemory
      const root = yield* life(journal, new Probes())
      yield* root.tree.stop("init/b")
      yield* root.tree.remove("init/b")
      yield* root.end("stop")
      assert.deepStrictEqual([...(yield* journal.load).nodes.keys()], ["init", "init/a"])
    })
  )
})

describe("a slow journal", () => {
  it.effect("holds up no restart, is written one batch at a time, and gets the newest state", () =>
    Effect.gen(function* () {
      const memory = yield* Journal.makeMemory
      const gate = yield* Deferred.make<void>()
      let appends = 0
      let open = 0
      const journal: Journal.JournalService = {
        load: memory.load,
        append: (records) =>
          Effect.gen(function* () {
            if (appends++ > 0) {
              assert.strictEqual(++open, 1)
              yield* Deferred.await(gate)
              open--
            }
            yield* memory.append(records)
          })
      }
      const probes = new Probes()
      const root = yield* Effect.provideService(
        Root.start(
          Supervisor.make("init", {
            intensity: 1_000,
            children: [probes.make("a", { policy: RestartPolicy.permanent })]
          })
        ),
        Journal.Journal,
        journal
      )
      for (let crash = 0; crash < 200; crash++) yield* probes.crash("a")
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "running", restarts: 200 })
      assert.strictEqual(appends, 2)
      yield* Deferred.succeed(gate, undefined)
      yield* root.end("release")
      const kept = yield* memory.load
      assert.deepInclude(kept.nodes.get("init/a"), { restarts: 200, incarnation: 201 })
      assert.strictEqual(kept.history.get("init/a")?.length, Journal.HISTORY_LIMIT)
    })
  )
})

describe("the stored form", () => {
  it.effect("of entries and records comes back as it went", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* life(yield* Journal.makeMemory, probes)
      yield* probes.crash("a")
      const entries = Schema.fromJsonString(Schema.Array(Journal.EntryRecord))
      const history = yield* root.tree.history("init/a")
      const stored = yield* Schema.encodeEffect(entries)(history)
      const back = yield* Schema.decodeEffect(entries)(stored)
      assert.strictEqual(back.length, 2)
      assert.deepInclude(back[1], { event: "ended", decision: "restart", delay: 100 })
      assert.deepInclude(back[1]?.exit, { tag: "Crash", class: "failure" })
      // Without a stack: it was foreseen.
      assert.strictEqual(back[1]?.exit?.detail, "Crash: crash")
    })
  )
})
