/** States in plain words: real trees brought into trouble, and what is said of their actors. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { TestClock } from "effect/testing"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import * as Why from "../../src/actor/Why.ts"
import { type ProbeOptions, Probes } from "./Probe.ts"

/** What is said, a line for each thing; moments as seconds since the start of the test. */
const why = Effect.fnUntraced(function* (root: Root.Root, path: string) {
  const now = yield* Clock.currentTimeMillis
  const said = yield* Why.of(root.tree, path, now)
  const seconds = (at: number) => `${at / 1_000}s`
  return [
    said.now,
    ...said.story.map(({ because, from, text, times, to }) => {
      const when = times === 1 ? seconds(from) : `${seconds(from)}–${seconds(to)} ×${times}`
      return `${when} ${text}${because === undefined ? "" : ` [${because}]`}`
    }),
    ...said.policy.map((text) => `policy: ${text}`),
    ...said.prospects.map(({ at, text }) => `next: ${at === undefined ? "" : `${seconds(at)} `}${text}`),
    ...said.involved.map(({ path, relation, state, text }) => `${relation}: ${path} (${state}) ${text}`),
    ...said.remedies.map(({ action, path, text }) => `do: ${action} ${path}: ${text}`)
  ]
})

const pod = Effect.fnUntraced(function* (options: Record<string, ProbeOptions>) {
  const probes = new Probes()
  const children = Object.entries(options).map(([id, given]) => probes.make(id, { policy, ...given }))
  const dynamic = yield* DynamicSupervisor.make("pod", { children: Effect.succeed(children) })
  const root = yield* Root.start(Supervisor.make("init", { children: [dynamic.spec] }))
  yield* Effect.yieldNow
  return { probes, root }
})

const policy = RestartPolicy.make({ backoff: { initial: 1_000, jitter: 0 } })

describe("why", () => {
  it.effect("tells of one that is well what it does and what would follow if it failed", () =>
    Effect.gen(function* () {
      const { root } = yield* pod({ a: {} })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* why(root, "init/pod/a"), [
        "it runs",
        "0s it came up",
        "policy: it is permanent: started again however it ends",
        "next: if it fails now: it is started again in about 1 s"
      ])
      assert.deepStrictEqual(yield* why(root, "init/pod"), [
        "it runs, with 1 actor below it, none of them in trouble",
        "0s it came up",
        "policy: it is permanent: started again however it ends",
        'policy: its supervisor "init" takes 5 restarts in 30 s before it gives up; 0 have been spent',
        "next: if it fails now: it is started again at once"
      ])
      assert.include(yield* why(root, "init"), "next: if it fails: Ironwood's brain ends, and is started anew")
      assert.strictEqual((yield* Effect.flip(Why.of(root.tree, "init/nobody", 0)))._tag, "NoSuchActor")
    })
  )

  it.effect("tells ends alike in a row as one, how the delay came about, and what is left of the budget", () =>
    Effect.gen(function* () {
      const parks = RestartPolicy.make({
        backoff: { initial: 1_000, jitter: 0 },
        budget: { restarts: 4, within: "10 minutes" },
        whenSpent: "park"
      })
      const { probes, root } = yield* pod({ a: { policy: parks } })
      for (const delay of [1, 2, 4]) {
        yield* TestClock.adjust("500 millis")
        yield* probes.crash("a", "no database")
        if (delay < 4) yield* TestClock.adjust(`${delay} seconds`)
      }
      assert.deepStrictEqual(yield* why(root, "init/pod/a"), [
        "it has ended, and waits for its next start",
        "0.5s–4.5s ×3 it ended after 500 ms: no database (Crash); started again in 1 s to 4 s",
        "policy: it ended (Crash), consecutive end number 3; permanent: restart in 4 s",
        "policy: it is permanent: started again however it ends",
        "policy: the wait before a start: 1 s, doubling each time, at most 1 min; this is end number 3 in a row",
        "policy: its budget is 4 restarts in 10 min, of which 1 is left; once spent: park it until somebody starts it",
        "next: 8.5s incarnation 4 is started",
        "next: if it then runs for 10 s, it counts as healthy again",
        "next: if it ends the same way again before that: it is started again in about 8 s",
        "do: start init/pod/a: starts it now instead; its failures so far are forgotten",
        "do: stop init/pod/a: keeps it down until somebody starts it",
        "do: set-policy init/pod/a: changes when and how often it is started again"
      ])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* why(root, "init/pod/a"), [
        "it runs again after 3 ends in a row, and not yet for as long as counts as healthy",
        "0.5s–4.5s ×3 it ended after 500 ms: no database (Crash); started again in 1 s to 4 s",
        "8.5s it came up, in incarnation 4",
        "policy: it is permanent: started again however it ends",
        "policy: its budget is 4 restarts in 10 min, of which 1 is left; once spent: park it until somebody starts it",
        "next: 18.5s it counts as healthy, and its 3 ends in a row are forgotten at its next end",
        "next: if it ends the same way again now: it is started again in about 8 s"
      ])
      yield* probes.crash("a", "no database")
      yield* TestClock.adjust("9 seconds")
      assert.include(
        yield* why(root, "init/pod/a"),
        "next: if it ends the same way again now: it is parked until somebody starts it"
      )
      yield* probes.crash("a", "no database")
      const parked = yield* why(root, "init/pod/a")
      assert.deepStrictEqual(
        parked.filter((line) => !line.startsWith("policy")),
        [
          "it is parked: its policy gave up, and waits for a person",
          "0.5s–9.5s ×4 it ended after 500 ms to 1 s: no database (Crash); started again in 1 s to 8 s",
          "18.5s it ended after 1 s: no database (Crash); parked, to wait for a person",
          "next: nothing, until somebody starts it",
          "do: start init/pod/a: starts it again; its failures so far are forgotten, and its budget is whole",
          "do: set-policy init/pod/a: changes when and how often it is started again"
        ]
      )
      assert.include(
        parked,
        "policy: it ended (Crash); its budget of 4 restarts in 10 min is spent: it is parked until somebody starts it"
      )
    })
  )

  it.effect("names the rule that decided", () =>
    Effect.gen(function* () {
      const rules = RestartPolicy.make({
        rules: [{ on: { tags: ["Crash"] }, then: "park" }],
        maxConsecutive: 3,
        whenSpent: "park"
      })
      const { probes, root } = yield* pod({ a: { policy: rules } })
      yield* probes.crash("a", "bad configuration")
      const said = yield* why(root, "init/pod/a")
      assert.includeMembers(
        [...said],
        [
          "policy: it ended (Crash); rule 1 (Crash): it is parked until somebody starts it",
          "policy: rule 1 (Crash) comes before that: park it until somebody starts it",
          "policy: 3 ends in a row without a run of 10 s are its limit; then: park it until somebody starts it"
        ]
      )
    })
  )

  it.effect("follows those that an actor waits for to the one that began it, and says who waits for that", () =>
    Effect.gen(function* () {
      const { probes, root } = yield* pod({
        db: {},
        cache: { dependencies: { bindsTo: ["db"] } },
        app: { dependencies: { requires: ["cache"] } }
      })
      yield* TestClock.adjust("500 millis")
      yield* probes.crash("db", "disk full")
      assert.include(yield* why(root, "init/pod/db"), "blocks: init/pod/cache (waiting) waits for it")
      assert.deepStrictEqual(yield* why(root, "init/pod/cache"), [
        'it waits for "db" before it starts',
        '0.5s it was stopped after 500 ms: it needs "db", which has ended [init/pod/db]',
        'policy: its last end was not its own, so its policy had no say: it needs "db", which has ended',
        "policy: it is permanent: started again however it ends",
        'next: 1.5s "db" is started',
        "next: it is started as soon as these are there",
        "cause: init/pod/db (backing-off) began it: disk full (Crash)",
        "waits-for: init/pod/db (backing-off) is backing-off: disk full (Crash)",
        "blocks: init/pod/app (waiting) waits for it",
        "do: explain init/pod/db: tells why that one ended, which began it"
      ])
      assert.deepStrictEqual(
        (yield* why(root, "init/pod/app")).filter((line) => !line.startsWith("policy")),
        [
          'it waits for "cache" before it starts',
          '0.5s it was stopped after 500 ms: it needs "cache", which is being ended [init/pod/cache]',
          "next: it is started as soon as these are there",
          'cause: init/pod/cache (waiting) passed it on: it needs "db", which has ended',
          "cause: init/pod/db (backing-off) began it: disk full (Crash)",
          "waits-for: init/pod/cache (waiting) is waiting",
          "waits-for: init/pod/db (backing-off) is backing-off: disk full (Crash)",
          "do: explain init/pod/db: tells why that one ended, which began it",
          'do: explain init/pod/cache: tells why "cache" is not there yet'
        ]
      )
      yield* root.tree.stop("init/pod/db")
      assert.deepStrictEqual(yield* why(root, "init/pod/db"), [
        "it is stopped, and stays so until somebody starts it",
        "0.5s it ended after 500 ms: disk full (Crash); started again in 1 s",
        "0.5s it was stopped: it was not running",
        "policy: it is permanent: started again however it ends",
        "policy: a stop is remembered when Ironwood restarts",
        "next: nothing, until somebody starts it",
        "blocks: init/pod/cache (waiting) waits for it",
        "do: start init/pod/db: starts it"
      ])
      assert.include(yield* why(root, "init/pod/cache"), 'do: start init/pod/db: starts "db", which it waits for')
      yield* root.tree.start("init/pod/db")
      assert.deepStrictEqual(
        (yield* why(root, "init/pod/app")).filter((line) => line.startsWith("cause")),
        [
          'cause: init/pod/cache (running) passed it on: it needs "db", which has ended',
          "cause: init/pod/db (running) began it: disk full (Crash)"
        ]
      )
    })
  )

  it.effect("names the one that had a supervisor give up, for the supervisor, the others and the one itself", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const inner = Supervisor.make("inner", {
        intensity: 0,
        policy: RestartPolicy.make({ backoff: { initial: 5_000, jitter: 0 } }),
        children: [probes.make("a", { policy: RestartPolicy.permanent }), probes.make("b", { policy })]
      })
      const root = yield* Root.start(Supervisor.make("init", { children: [inner] }))
      yield* TestClock.adjust("3 seconds")
      assert.include(
        yield* why(root, "init/inner/a"),
        'next: if it fails now: its supervisor "inner" gives up and fails with it, which ends its other child'
      )
      yield* probes.crash("a", "the disk is gone")
      const began = "cause: init/inner/a (waiting) began it: the disk is gone (Crash)"
      assert.includeMembers([...(yield* why(root, "init/inner"))], ["next: 8s incarnation 2 is started", began])
      const gaveUp =
        'supervisor: init/inner (backing-off) is backing-off: init/inner gave up: "a" ended again after 0 restarts within 30 s (the supervisor\'s intensity); last: Crash: the disk is gone (RestartIntensityReached)'
      assert.deepStrictEqual(yield* why(root, "init/inner/b"), [
        "it waits for its supervisor, which is backing-off",
        "3s it was ended after 3 s, while what it manages went on: its supervisor gives up (RestartIntensityReached) [init/inner/a]",
        "policy: its last end was not its own, so its policy had no say: its supervisor gives up (RestartIntensityReached)",
        "policy: it is permanent: started again however it ends",
        "next: 8s it is started when its turn comes",
        began,
        gaveUp,
        "do: explain init/inner/a: tells why that one ended, which began it",
        "do: explain init/inner: tells why its supervisor does not run"
      ])
      assert.includeMembers(
        [...(yield* why(root, "init/inner/a"))],
        [
          "it waits for its supervisor, which is backing-off",
          "3s it ended after 3 s: the disk is gone (Crash); its supervisor gave up with it",
          "policy: it ended (Crash); the supervisor's intensity of 0 restarts in 30 s is spent: it gives up",
          gaveUp
        ]
      )
      assert.includeMembers(
        [...(yield* why(root, "init"))],
        [
          "it runs, with 3 actors below it, 1 of them in trouble",
          "do: explain init/inner: tells why that one is in trouble"
        ]
      )
      yield* TestClock.adjust("6 seconds")
      assert.includeMembers(
        [...(yield* why(root, "init/inner/b"))],
        ["it runs", "cause: init/inner/a (running) began it: the disk is gone (Crash)"]
      )
      const [again] = (yield* why(root, "init")).filter((line) => line.startsWith("below: init/inner (running)"))
      assert.match(again ?? "", /is running again after 1 end in a row, the last: init\/inner gave up: "a" ended/)
    })
  )

  it.effect("names the sibling that an actor is started anew with", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = ["a", "b"].map((id) => probes.make(id, { policy }))
      const root = yield* Root.start(Supervisor.make("init", { strategy: "one_for_all", children }))
      yield* TestClock.adjust("3 seconds")
      yield* probes.crash("a", "the disk is gone")
      assert.deepStrictEqual(yield* why(root, "init/b"), [
        "it has been ended, and waits for its turn to start",
        '3s it was ended after 3 s, while what it manages went on: "a" ended, and under one_for_all it starts anew with it [init/a]',
        'policy: its last end was not its own, so its policy had no say: "a" ended, and under one_for_all it starts anew with it',
        "policy: it is permanent: started again however it ends",
        "next: 4s it is started when its turn comes",
        "cause: init/a (backing-off) began it: the disk is gone (Crash)",
        "do: explain init/a: tells why that one ended, which began it"
      ])
    })
  )

  it.effect("tells of a fallback, from both sides", () =>
    Effect.gen(function* () {
      const falls = RestartPolicy.make({
        budget: { restarts: 0, within: "1 minute" },
        whenSpent: "fallback",
        fallback: "spare"
      })
      const { probes, root } = yield* pod({ main: { policy: falls }, spare: { autoStart: false } })
      assert.include(
        yield* why(root, "init/pod/main"),
        'next: if it fails now: it is parked, and "spare" is started in its place'
      )
      yield* probes.crash("main", "no port")
      assert.includeMembers(
        [...(yield* why(root, "init/pod/main"))],
        [
          'it is parked: its policy gave up, and left its place to "spare" until a person starts it',
          "0s it ended after 0 ms: no port (Crash); parked, for a sibling to run in its place",
          "stands-in: init/pod/spare (running) runs in its place"
        ]
      )
      assert.includeMembers(
        [...(yield* why(root, "init/pod/spare"))],
        [
          'it runs in the place of "main"',
          '0s it came up, in the place of "main" [init/pod/main]',
          "stands-in: init/pod/main (parked) is the one whose place it takes"
        ]
      )
    })
  )

  it.effect("tells of a start that waits for its turn, and of a group that starts anew", () =>
    Effect.gen(function* () {
      const at = RestartPolicy.make({ backoff: { initial: 0, jitter: 0 } })
      const group = RestartPolicy.make({ rules: [{ on: { tags: ["Crash"] }, then: "restart-group" }] }, at)
      const probes = new Probes()
      const children = ["a", "b"].map((id) => probes.make(id, { policy: at }))
      const root = yield* Root.start(
        Supervisor.make("init", { children: [...children, probes.make("c", { policy: group, readyAtOnce: true })] }),
        { restartRate: { perSecond: 0.5, burst: 1 } }
      )
      yield* probes.crash("a")
      yield* probes.crash("b")
      assert.includeMembers(
        [...(yield* why(root, "init/b"))],
        [
          "its next start is due, and waits for its turn",
          "0s it waited for its turn: its restart is due; all restarts together are held to 0.5 per second, and 1 wait"
        ]
      )
      yield* TestClock.adjust("5 seconds")
      assert.notInclude((yield* why(root, "init/b")).join("\n"), "for its turn")
      yield* probes.crash("c")
      assert.include(
        yield* why(root, "init/c"),
        "5s it ended after 5 s: crash (Crash); the whole group started again at once"
      )
      assert.include(
        (yield* why(root, "init/a")).join("\n"),
        '"c" ended, and the policy of that restarts the group [init/c]'
      )
    })
  )

  it.effect("tells of the other states too", () =>
    Effect.gen(function* () {
      const once = RestartPolicy.make({ restart: "transient" })
      const { probes, root } = yield* pod({
        slow: { readyAtOnce: false },
        done: { policy: once },
        off: { autoStart: false },
        over: { policy: RestartPolicy.make({ restart: "on-success" }) }
      })
      yield* probes.finish("done")
      yield* probes.crash("over")
      const nows: Array<string | undefined> = []
      for (const id of ["slow", "done", "off", "over"]) nows.push((yield* why(root, `init/pod/${id}`))[0])
      assert.deepStrictEqual(nows, [
        "it has been started, and has not said yet that it is ready",
        "it has done its work, and is not started again",
        "it is stopped, and stays so until somebody starts it",
        "it has failed, and is not started again"
      ])
      assert.include(
        yield* why(root, "init/pod/done"),
        "policy: it is transient: started again when it fails, and done when it ends normally"
      )
    })
  )

  it.effect.prop(
    "has an answer for everybody, whatever has happened",
    {
      steps: Schema.Array(
        Schema.Tuple([
          Schema.Literals(["crash", "finish", "stop", "start", "restart", "wait"]),
          Schema.Literals(["db", "cache", "app", "spare", "solo"])
        ])
      ).pipe(Schema.check(Schema.isMaxLength(30)))
    },
    ({ steps }) =>
      Effect.gen(function* () {
        const parks = { budget: { restarts: 2, within: "1 minute" }, maxConsecutive: 4 } as const
        const policies = {
          db: RestartPolicy.make({ ...parks, whenSpent: "fallback", fallback: "spare" }, policy),
          cache: RestartPolicy.make({ ...parks, whenSpent: "escalate" }, policy),
          app: RestartPolicy.make({ rules: [{ on: { tags: ["Crash"] }, then: "restart-group" }] }, policy),
          spare: RestartPolicy.make({ restart: "transient", ...parks, whenSpent: "park" }, policy),
          solo: RestartPolicy.make({ restart: "on-success" }, policy)
        }
        const { probes, root } = yield* pod({
          db: { policy: policies.db },
          cache: { policy: policies.cache, dependencies: { bindsTo: ["db"] } },
          app: { policy: policies.app, dependencies: { requires: ["cache"], after: ["solo"] } },
          spare: { policy: policies.spare, autoStart: false },
          solo: { policy: policies.solo }
        })
        const explainAll = Effect.gen(function* () {
          const { nodes } = yield* root.tree.snapshot()
          for (const { path } of nodes) {
            const said = yield* Why.of(root.tree, path, yield* Clock.currentTimeMillis)
            const causes = said.involved.filter(({ relation }) => relation === "cause").map((one) => one.path)
            assert.strictEqual(new Set(causes).size, causes.length, "each cause once")
            assert.isAbove(said.prospects.length, 0)
            if (said.node.waitingFor.length > 0) {
              assert.isTrue(said.involved.some(({ relation }) => relation === "waits-for"))
              assert.isAbove(said.remedies.length, 0)
            }
            for (const text of [said.now, ...said.policy, ...said.story.map((chapter) => chapter.text)]) {
              assert.notMatch(text, /undefined|NaN|\.$/, text)
            }
          }
        })
        for (const [step, id] of steps) {
          const path = `init/pod/${id}`
          const { state } = yield* Effect.orElseSucceed(root.tree.get(path), () => ({ state: "removed" }))
          if (step === "wait") yield* TestClock.adjust("2 seconds")
          else if (step === "crash") yield* state === "running" ? probes.crash(id, "a crash") : Effect.void
          else if (step === "finish") yield* state === "running" ? probes.finish(id) : Effect.void
          else yield* Effect.forkChild(Effect.ignore(root.tree[step](path)))
          yield* Effect.yieldNow
          yield* explainAll
        }
        yield* root.end("stop")
      }).pipe(Effect.scoped)
  )
})
