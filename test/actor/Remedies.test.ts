/** What a spent budget or a rule asks for beyond a restart: `fallback`, `restart-group`, `reboot-host`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as Journal from "../../src/actor/Journal.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { type ProbeOptions, Probes } from "./Probe.ts"

const at1s = { initial: 1_000, factor: 1, jitter: 0 }
const plain = RestartPolicy.make({ backoff: at1s })
const whenSpent = (remedy: RestartPolicy.RestartPolicy["whenSpent"], fallback?: string) =>
  RestartPolicy.make({ backoff: at1s, maxConsecutive: 2, whenSpent: remedy, ...(fallback ? { fallback } : {}) })

type Given = Record<string, ProbeOptions>

/** `init/pod`, dynamic or static, with these children. */
const pod = Effect.fnUntraced(function* (given: Given, kind: "dynamic" | "static", options: Root.Options = {}) {
  const probes = new Probes()
  const children = Object.entries(given).map(([id, one]) => probes.make(id, { policy: plain, resume: true, ...one }))
  const spec =
    kind === "dynamic"
      ? (yield* DynamicSupervisor.make("pod", { children: Effect.succeed(children), intensity: 3 })).spec
      : Supervisor.make("pod", { children, intensity: 3, bystanders: "stop" })
  const scope = yield* Scope.fork(yield* Effect.scope)
  const root = yield* Effect.provideService(
    Root.start(Supervisor.make("init", { children: [spec] }), options),
    Scope.Scope,
    scope
  )
  yield* Effect.yieldNow
  const states = Effect.map(root.tree.children("init/pod"), (nodes) =>
    Object.fromEntries(nodes.map(({ path, state }) => [path.slice("init/pod/".length), state]))
  )
  const decisions = (id: string) =>
    Effect.map(root.tree.history(`init/pod/${id}`), (entries) =>
      entries.flatMap(({ decision, reason }) => (decision === "none" ? [] : [`${decision}: ${reason}`]))
    )
  /** Crashes until its two consecutive ends are used up. */
  const wear = (id: string) =>
    Effect.gen(function* () {
      yield* probes.crash(id)
      yield* TestClock.adjust("1 second")
      yield* probes.crash(id)
    })
  return { probes, root, scope, states, decisions, wear }
})

const web = { web: { policy: whenSpent("fallback", "sorry") }, sorry: { autoStart: false } }

describe.for(["dynamic", "static"] as const)("fallback in a %s supervisor", (kind) => {
  it.effect("parks the child, runs the sibling instead, and that one ends before a person's start of the child", () =>
    Effect.gen(function* () {
      const { decisions, probes, root, states, wear } = yield* pod(web, kind)
      assert.deepStrictEqual(yield* states, { web: "running", sorry: "stopped" })
      yield* wear("web")
      assert.deepStrictEqual(yield* states, { web: "parked", sorry: "running" })
      assert.match((yield* decisions("web")).at(-1) ?? "", /^fallback: .*: it is parked, and sorry is started instead$/)
      probes.take()
      yield* root.tree.start("init/pod/web")
      assert.deepStrictEqual(probes.take(), ["hook sorry", "close sorry", "start web"])
      assert.deepStrictEqual(yield* states, { web: "running", sorry: "stopped" })
    })
  )

  it.effect("lasts over the sibling's own crashes, and over a restart of the supervisor", () =>
    Effect.gen(function* () {
      const { probes, root, states, wear } = yield* pod(web, kind)
      yield* wear("web")
      yield* probes.crash("sorry")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, { web: "parked", sorry: "running" })
      yield* root.tree.restart("init/pod")
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* states, { web: "parked", sorry: "running" })
      yield* root.tree.restart("init/pod/web")
      assert.deepStrictEqual(yield* states, { web: "running", sorry: "stopped" })
    })
  )

  it.effect("lasts over a restart of the brain", () =>
    Effect.gen(function* () {
      const journal = yield* Journal.makeMemory
      yield* Effect.gen(function* () {
        const first = yield* pod(web, kind)
        yield* first.wear("web")
        yield* first.root.end("release")
        const second = yield* pod(web, kind)
        assert.deepStrictEqual(yield* second.states, { web: "parked", sorry: "running" })
        // What a person stops does not come back by itself.
        yield* second.root.tree.stop("init/pod/sorry")
        yield* second.root.end("release")
        const third = yield* pod(web, kind)
        assert.deepStrictEqual(yield* third.states, { web: "parked", sorry: "stopped" })
      }).pipe(Effect.provideService(Journal.Journal, journal))
    })
  )

  it.effect("ends with the child when a person stops that", () =>
    Effect.gen(function* () {
      const { probes, root, states, wear } = yield* pod(web, kind)
      yield* wear("web")
      probes.take()
      yield* root.tree.stop("init/pod/web")
      assert.deepStrictEqual(yield* states, { web: "stopped", sorry: "stopped" })
      assert.deepStrictEqual(probes.take(), ["hook sorry", "close sorry"])
    })
  )

  it.effect("leaves alone a sibling that a person has taken in hand", () =>
    Effect.gen(function* () {
      const { root, states, wear } = yield* pod(web, kind)
      yield* wear("web")
      yield* root.tree.restart("init/pod/sorry")
      yield* root.tree.start("init/pod/web")
      assert.deepStrictEqual(yield* states, { web: "running", sorry: "running" })
    })
  )

  it.effect("of two that fall back to each other ends with both parked", () =>
    Effect.gen(function* () {
      const { decisions, states, wear } = yield* pod(
        { a: { policy: whenSpent("fallback", "b") }, b: { policy: whenSpent("fallback", "a"), autoStart: false } },
        kind
      )
      yield* wear("a")
      assert.deepStrictEqual(yield* states, { a: "parked", b: "running" })
      yield* wear("b")
      assert.deepStrictEqual(yield* states, { a: "parked", b: "parked" })
      assert.match((yield* decisions("b")).at(-1) ?? "", /but a is parked itself$/)
    })
  )

  it.effect("says so when the sibling runs already, and keeps it when the child is back", () =>
    Effect.gen(function* () {
      const { decisions, root, states, wear } = yield* pod({ web: web.web, sorry: {} }, kind)
      yield* wear("web")
      assert.match((yield* decisions("web")).at(-1) ?? "", /but sorry is running already$/)
      yield* root.tree.start("init/pod/web")
      assert.deepStrictEqual(yield* states, { web: "running", sorry: "running" })
    })
  )
})

it.effect("fallback to a sibling that is not there parks, and says so", () =>
  Effect.gen(function* () {
    const { decisions, states, wear } = yield* pod({ web: web.web }, "dynamic")
    yield* wear("web")
    assert.deepStrictEqual(yield* states, { web: "parked" })
    assert.match((yield* decisions("web")).at(-1) ?? "", /but sorry is no sibling$/)
  })
)

it.effect("fallback to itself, which a policy can say that was changed later, parks, and takes nobody along", () =>
  Effect.gen(function* () {
    const { decisions, root, states, wear } = yield* pod(
      { web: { policy: whenSpent("fallback", "web") }, other: {} },
      "dynamic"
    )
    yield* root.tree.restart("init/pod")
    yield* Effect.yieldNow
    yield* wear("web")
    assert.deepStrictEqual(yield* states, { web: "parked", other: "running" })
    assert.match((yield* decisions("web")).at(-1) ?? "", /but web is the one that failed$/)
  })
)

describe.for(["dynamic", "static"] as const)("restart-group in a %s supervisor", (kind) => {
  const group = { a: {}, b: { policy: whenSpent("restart-group") }, c: {}, off: { autoStart: false } }

  it.effect("ends all siblings and starts them anew with the child, after its back-off", () =>
    Effect.gen(function* () {
      const { decisions, probes, root, states, wear } = yield* pod(group, kind)
      yield* wear("b")
      assert.deepStrictEqual(yield* states, { a: "waiting", b: "backing-off", c: "waiting", off: "stopped" })
      assert.match((yield* decisions("b")).at(-1) ?? "", /^restart-group: .*: the whole group restarts in 1 s$/)
      probes.take()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, { a: "running", b: "running", c: "running", off: "stopped" })
      assert.deepStrictEqual(probes.take(), ["start a", "start b", "start c"])
      assert.deepInclude(yield* root.tree.get("init/pod/a"), { incarnation: 2, restarts: 1 })
      assert.deepInclude(yield* root.resources, { timers: 0 })
    })
  )

  it.effect("takes along siblings that are backing off, and those that crash meanwhile", () =>
    Effect.gen(function* () {
      const slow = RestartPolicy.make({ backoff: { initial: 60_000, jitter: 0 } })
      const { probes, root, states, wear } = yield* pod({ ...group, c: { policy: slow } }, kind)
      yield* probes.crash("c")
      yield* wear("b")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, { a: "running", b: "running", c: "running", off: "stopped" })
      assert.deepInclude(yield* root.resources, { timers: 0 })
      yield* TestClock.adjust("2 minutes")
      assert.deepInclude(yield* root.tree.get("init/pod/c"), { incarnation: 2 })
    })
  )

  it.effect("spends the supervisor's intensity, which ends it", () =>
    Effect.gen(function* () {
      const { probes, root, wear } = yield* pod(group, kind)
      yield* wear("b")
      for (let time = 0; time < 3; time++) {
        yield* TestClock.adjust("1 second")
        yield* probes.crash("b")
      }
      const { lastExit } = yield* root.tree.get("init/pod")
      assert.deepInclude(lastExit, { tag: "RestartIntensityReached" })
    })
  )

  it.effect("is over at once for a person who starts the child", () =>
    Effect.gen(function* () {
      const { root, states, wear } = yield* pod(group, kind)
      yield* wear("b")
      const start = yield* Effect.forkScoped(root.tree.start("init/pod/b"))
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* states, { a: "running", b: "running", c: "running", off: "stopped" })
      assert.isDefined(start.pollUnsafe())
    })
  )

  it.effect("goes on past a child that fails to start, which has its own back-off", () =>
    Effect.gen(function* () {
      let broken = false
      const a = { failing: () => (broken ? "not now" : undefined) }
      const { states, wear } = yield* pod({ ...group, a }, kind)
      broken = true
      yield* wear("b")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, { a: "backing-off", b: "running", c: "running", off: "stopped" })
      broken = false
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, { a: "running", b: "running", c: "running", off: "stopped" })
    })
  )
})

it.effect("restart-group ends one that is bound to the child when its turn comes, and as it ends the others", () =>
  Effect.gen(function* () {
    const probes = new Probes()
    const all = RestartPolicy.make({ backoff: at1s, maxConsecutive: 1, whenSpent: "restart-group" })
    const children = [
      probes.make("a", { policy: all }),
      probes.make("bound", { policy: plain, dependencies: { bindsTo: ["a"] } }),
      probes.make("slow", { policy: plain, finalizer: Effect.sleep(100) })
    ]
    const root = yield* Root.start(Supervisor.make("init", { children }))
    // The very first sleep under a TestClock can be interrupted even in a finalizer (it forks a warning); none is first now.
    yield* TestClock.adjust(0)
    probes.take()
    yield* probes.crash("a")
    assert.deepStrictEqual(probes.take(), ["close a", "close slow"])
    yield* TestClock.adjust(100)
    assert.deepStrictEqual(probes.take(), ["close bound"])
    yield* TestClock.adjust("1 second")
    assert.deepStrictEqual(probes.take(), ["start a", "start bound", "start slow"])
    assert.deepInclude(yield* root.resources, { timers: 0 })
    yield* Effect.forkScoped(root.end("release"))
    yield* TestClock.adjust(100)
  })
)

describe("reboot-host", () => {
  it.effect("tells who can reboot, once, and leaves the rest to run until that ends them", () =>
    Effect.gen(function* () {
      const wishes: Array<Root.RebootWish> = []
      const rebootHost = { claim: () => undefined, reboot: (wish: Root.RebootWish) => void wishes.push(wish) }
      const { decisions, states, wear } = yield* pod({ a: {}, b: { policy: whenSpent("reboot-host") } }, "static", {
        rebootHost
      })
      yield* wear("b")
      assert.deepStrictEqual(yield* states, { a: "running", b: "failed" })
      assert.deepStrictEqual(
        wishes.map(({ path }) => path),
        ["init/pod/b"]
      )
      assert.match((yield* decisions("b")).at(-1) ?? "", /^reboot-host: .*: the host reboots$/)
    })
  )

  it.effect("parks when the host must not, and says why", () =>
    Effect.gen(function* () {
      const rebootHost = { claim: () => "it has done so all day", reboot: () => assert.fail("it was refused") }
      const { decisions, states, wear } = yield* pod({ a: {}, b: { policy: whenSpent("reboot-host") } }, "static", {
        rebootHost
      })
      yield* wear("b")
      assert.deepStrictEqual(yield* states, { a: "running", b: "parked" })
      const told = /^park: .*: the host reboots; but it has done so all day: it is parked until somebody starts it$/
      assert.match((yield* decisions("b")).at(-1) ?? "", told)
    })
  )

  it.effect("escalates where nobody can, and says why", () =>
    Effect.gen(function* () {
      const { root, wear } = yield* pod({ a: {}, b: { policy: whenSpent("reboot-host") } }, "static")
      yield* wear("b")
      const entries = yield* root.tree.history("init/pod/b")
      const entry = entries.find(({ decision }) => decision === "escalate")
      assert.match(entry?.reason ?? "", /Ironwood is not its init; the supervisor gives up instead$/)
      assert.deepInclude((yield* root.tree.get("init/pod")).lastExit, { tag: "RestartIntensityReached" })
    })
  )
})
