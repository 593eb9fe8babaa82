/** The tree over its unix socket: looking at it, watching it, steering actors. Containers, which cannot run here, are recorded. */
import { assert, describe, it } from "@effect/vitest"
import { timestampMs } from "@bufbuild/protobuf/wkt"
import { status as Code } from "@grpc/grpc-js"
import type { ServiceError } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { RestartType } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import {
  ActorState,
  ProcessSelection,
  Relation,
  RemedyAction,
  TreeService
} from "../../proto/generated/ironwood/v1/tree_pb.ts"
import type {
  Actor as ActorMessage,
  ProcessesChanged,
  WatchTreeResponse
} from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as Actor from "../../src/actor/Actor.ts"
import * as Mailbox from "../../src/actor/Mailbox.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "../actor/Probe.ts"
import { eventually } from "../support/eventually.ts"
import { call, collect, detailsOf, open } from "./client.ts"
import { start } from "./fixture.ts"

const flaky = "init/runtime/flaky"
const grpc = "init/gateway/grpc"
const trees = TreeService.method
const containers = ContainerService.method
/** The actor that an event is about. */
const changedIn = ({ event }: WatchTreeResponse): ActorMessage | undefined =>
  event.case === "changed" ? event.value : undefined
const revisionOf = ({ event }: WatchTreeResponse): bigint =>
  event.case === undefined || event.case === "processes" ? 0n : event.value.revision

describe("TreeService", () => {
  it.live("gives the tree page by page, and an actor with its policy", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const paths: Array<string> = []
      let pageToken = ""
      do {
        const page = yield* call(client, trees.getTree, { pageSize: 2, pageToken })
        assert.isAtMost(page.actors.length, 2)
        paths.push(...page.actors.map(({ path }) => path))
        pageToken = page.nextPageToken
      } while (pageToken !== "")
      assert.deepStrictEqual(paths, [
        "init",
        "init/storage",
        "init/storage/state",
        "init/storage/content",
        "init/vmm",
        "init/runtime",
        flaky,
        "init/gateway",
        grpc,
        "init/gateway/tcp"
      ])
      const below = yield* call(client, trees.getTree, { path: "init/storage" })
      assert.lengthOf(below.actors, 3)
      const { actor } = yield* call(client, trees.getActor, { path: flaky })
      assert.deepInclude(actor, { kind: "probe", description: "fails when told", budgetLeft: 3 })
      assert.strictEqual(actor?.policy?.budget?.within?.seconds, 3_600n)
    })
  )

  it.live("names what is not there", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const attempts: ReadonlyArray<Effect.Effect<unknown, ServiceError>> = [
        call(client, trees.getActor, { path: "init/nobody" }),
        call(client, trees.getTree, { path: "no path/" }),
        call(client, trees.getActorHistory, { path: "init/nobody" }),
        call(client, trees.stopActor, { path: "init/nobody" }),
        call(client, trees.setActorPolicy, { path: "init/nobody" })
      ]
      for (const attempt of attempts) {
        const error = yield* Effect.flip(attempt)
        assert.strictEqual(error.code, Code.NOT_FOUND)
        assert.strictEqual(detailsOf(error.metadata).resource?.resourceType, "actor")
        assert.strictEqual(detailsOf(error.metadata).info?.reason, "NoSuchActor")
      }
      const root = yield* Effect.flip(call(client, trees.stopActor, { path: "init" }))
      assert.strictEqual(root.code, Code.FAILED_PRECONDITION)
      const token = yield* Effect.flip(call(client, trees.getTree, { pageToken: "rubbish" }))
      assert.strictEqual(detailsOf(token.metadata).fields[0]?.field, "page_token")
    })
  )

  it.live("tells what waits in a mailbox and since when, as it is at the moment of the answer", () =>
    Effect.gen(function* () {
      const mailbox = yield* Mailbox.make<string>({ capacity: 8 })
      const until = yield* Deferred.make<void>()
      const busy = Actor.make(
        "busy",
        { mailbox },
        Effect.gen(function* () {
          yield* Actor.ready()
          return yield* mailbox.serve(() => Deferred.await(until))
        })
      )
      const { client } = yield* start({ children: [busy] })
      const path = "init/runtime/busy"
      const told = Effect.map(call(client, trees.getActor, { path }), ({ actor }) => actor)
      const idle = yield* told
      assert(idle !== undefined)
      assert.strictEqual(idle.mailboxDepth, 0)
      assert.isUndefined(idle.oldestMessageTime)
      const before = Date.now()
      for (const message of ["taken", "first", "second"]) yield* mailbox.cast(message)
      yield* eventually(
        "the first is being handled",
        Effect.map(told, (actor) => actor?.mailboxDepth === 2)
      )
      const behind = yield* told
      const sent = behind?.oldestMessageTime
      assert(sent !== undefined)
      assert.isAtLeast(timestampMs(sent), before)
      assert.isAtMost(timestampMs(sent), Date.now())
      assert.strictEqual(behind?.revision, idle.revision)
      const { actors } = yield* call(client, trees.getTree, { path: "init/runtime" })
      assert.deepStrictEqual(
        actors.map((actor) => [actor.path, actor.mailboxDepth]),
        [
          ["init/runtime", undefined],
          [flaky, undefined],
          [path, 2]
        ]
      )
      yield* Deferred.succeed(until, undefined)
      yield* eventually(
        "it has caught up",
        Effect.map(told, (actor) => actor?.mailboxDepth === 0 && actor.oldestMessageTime === undefined)
      )
    })
  )

  it.live("tells the processes beneath actors to who asks for them, with a page and as they change", () =>
    Effect.gen(function* () {
      const { client, domain } = yield* start({ containers: ["web", "idle"] })
      const path = "init/runtime/web"
      const process = (pid: number, command: string) => ({
        pid,
        innerPid: 1,
        parent: 0,
        uid: 0,
        state: "S",
        cpuMillis: 10,
        memoryBytes: 4_096,
        age: 1_000,
        command
      })
      domain.beneath.set(path, { processes: [process(98, `sh ${"x".repeat(1_000)}`)], omitted: 7 })
      const page = (processes?: ProcessSelection) =>
        Effect.map(
          call(client, trees.getTree, { path: "init/runtime", ...(processes === undefined ? {} : { processes }) }),
          ({ actors }) => actors.flatMap((actor) => (actor.processes === undefined ? [] : [actor]))
        )
      assert.deepStrictEqual(yield* page(), [])
      assert.notInclude(domain.asked.join(), "processes", "nobody has asked for any")
      const [told, ...others] = yield* page(ProcessSelection.GUESTS)
      assert.deepStrictEqual(others, [])
      assert.deepInclude(domain.asked, "processes of guests")
      assert.strictEqual(told?.path, path)
      assert.deepInclude(told?.processes, { omitted: 7, problem: "" })
      const [first] = told?.processes?.processes ?? []
      assert.deepInclude(first, { pid: 98, memoryBytes: 4_096n })
      assert.strictEqual(first?.command.length, 256)

      const heard: Array<ProcessesChanged> = []
      yield* Effect.forkScoped(
        collect(client, trees.watchTree, { path: "init/runtime", processes: ProcessSelection.ALL }, (sofar) => {
          const event = sofar.at(-1)?.event
          if (event?.case === "processes") heard.push(event.value)
          return false
        })
      )
      yield* eventually(
        "what there is has been told",
        Effect.sync(() => heard.length === 1)
      )
      domain.beneath.set(path, { processes: [process(98, "sh")], omitted: 0 })
      yield* eventually(
        "a change has been told",
        Effect.sync(() => heard.length === 2)
      )
      domain.beneath.clear()
      yield* eventually(
        "their end has been told",
        Effect.sync(() => heard.length === 3)
      )
      assert.deepStrictEqual(
        heard.map((one) => [one.path, one.processes?.processes.map(({ command }) => command.length)]),
        [
          [path, [256]],
          [path, [2]],
          [path, undefined]
        ]
      )
    })
  )

  it.live("tells why an actor is in its state, whose end began it, and what is left of budgets now", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const policy = RestartPolicy.permanent
      const fragile = Supervisor.make("fragile", {
        intensity: 1,
        children: [probes.make("one", { policy }), probes.make("other", { policy })]
      })
      const { client } = yield* start({ children: [fragile] })
      const get = (id: string) =>
        Effect.map(call(client, trees.getActor, { path: `init/runtime/${id}` }), ({ actor }) => actor)
      assert.deepInclude((yield* get("fragile"))?.intensity, { restarts: 1, spent: 0 })
      yield* probes.crash("one", "the first")
      assert.deepInclude((yield* get("fragile"))?.intensity, { restarts: 1, spent: 1 })
      yield* probes.crash("one", "the last")
      yield* eventually(
        "its supervisor is there again",
        Effect.map(get("fragile"), (actor) => actor?.incarnation === 2 && actor.state === ActorState.RUNNING)
      )
      const again = yield* get("fragile")
      assert.strictEqual(again?.intensity?.spent, 0)
      assert.deepStrictEqual(
        again?.lastExit?.causes.map(({ message, path, tag }) => [path, tag, message]),
        [["init/runtime/fragile/one", "Crash", "the last"]]
      )
      const path = "init/runtime/fragile/other"
      const { entries } = yield* call(client, trees.getActorHistory, { path })
      assert.deepStrictEqual(
        entries.map(({ because, event }) => [event, because]),
        [
          ["started", ""],
          ["released", "init/runtime/fragile/one"],
          ["started", ""]
        ]
      )
      assert.deepInclude(yield* get("fragile/other"), { reason: "incarnation 2 is ready", decision: "", because: "" })
    })
  )

  it.live("explains an actor: now, before, next, whom it has to do with, and what can be done", () =>
    Effect.gen(function* () {
      const slow = RestartPolicy.make({ backoff: { initial: "1 minute", jitter: 0 } })
      const probes = new Probes()
      const one = probes.make("one", { policy: slow, kind: "container" })
      const other = probes.make("other", { policy: slow, dependencies: { bindsTo: ["one"] } })
      const { client } = yield* start({ children: [one, other] })
      const explain = (id: string) => call(client, trees.explainActor, { path: `init/runtime/${id}` })
      const well = yield* explain("one")
      assert.deepStrictEqual([well.now, well.remedies.length, well.story.length], ["it runs", 0, 1])
      yield* probes.crash("one", "the disk is gone")
      const down = yield* explain("one")
      assert.strictEqual(down.actor?.state, ActorState.BACKING_OFF)
      assert.deepInclude(down.story[0], { times: 1, because: "" })
      assert.match(down.story[0]?.text ?? "", /^it ended after .*: the disk is gone \(Crash\); started again in 1 min$/)
      const next = down.prospects[0]?.time
      assert.isDefined(next)
      assert.deepStrictEqual(next, down.actor?.nextAttemptTime)
      assert.deepStrictEqual(
        down.remedies.map(({ action }) => action),
        [RemedyAction.READ_LOGS, RemedyAction.START, RemedyAction.STOP, RemedyAction.SET_POLICY]
      )
      const dragged = yield* explain("other")
      assert.strictEqual(dragged.now, 'it waits for "one" before it starts')
      assert.deepStrictEqual(
        dragged.involved.map(({ path, relation, state, text }) => [relation, path, state, text]),
        [
          [Relation.CAUSE, "init/runtime/one", ActorState.BACKING_OFF, "began it: the disk is gone (Crash)"],
          [Relation.WAITS_FOR, "init/runtime/one", ActorState.BACKING_OFF, "is backing-off: the disk is gone (Crash)"]
        ]
      )
      const nobody = yield* Effect.flip(explain("nobody"))
      assert.strictEqual(nobody.code, Code.NOT_FOUND)
    })
  )

  it.live("tells watchers what happens, with the event behind it", () =>
    Effect.gen(function* () {
      const { client, probes } = yield* start()
      const seen: Array<WatchTreeResponse> = []
      const watch = open(client, trees.watchTree, { path: flaky })
      yield* Effect.addFinalizer(() => Effect.sync(() => watch.cancel()))
      watch.on("data", (event: WatchTreeResponse) => seen.push(event))
      yield* eventually("the snapshot", () => seen.length === 1)
      const snapshot = seen[0]?.event
      assert(snapshot?.case === "snapshot")
      assert.deepStrictEqual(
        snapshot.value.actors.map(({ path }) => path),
        [flaky]
      )
      assert.isTrue(snapshot.value.first && snapshot.value.last)
      yield* probes.crash("flaky", "out of luck")
      yield* eventually("its next life", () =>
        seen.some((event) => changedIn(event)?.incarnation === 2 && changedIn(event)?.state === ActorState.RUNNING)
      )
      const ended = seen.find(({ entry }) => entry?.event === "ended")
      assert.deepInclude(ended?.entry?.exit, { tag: "Crash", message: "out of luck" })
      assert.strictEqual(ended?.entry?.decision, "restart")
      for (const event of seen.slice(1)) assert.strictEqual(changedIn(event)?.path, flaky)
    })
  )

  it.live("resumes a watch from a revision, and starts anew where it cannot", () =>
    Effect.gen(function* () {
      const { client, probes, tree } = yield* start()
      const [snapshot] = yield* collect(client, trees.watchTree, {}, (seen) => seen.length === 1)
      assert(snapshot !== undefined)
      const from = revisionOf(snapshot)
      yield* probes.crash("flaky")
      yield* eventually(
        "its next life",
        Effect.map(tree.get(flaky), ({ incarnation, state }) => incarnation === 2 && state === "running")
      )
      const missed = yield* collect(client, trees.watchTree, { fromRevision: from }, (seen) =>
        seen.some((event) => changedIn(event)?.incarnation === 2 && changedIn(event)?.state === ActorState.RUNNING)
      )
      for (const event of missed) {
        assert.strictEqual(event.event.case, "changed")
        assert.isTrue(revisionOf(event) > from)
      }
      const future = yield* collect(
        client,
        trees.watchTree,
        { fromRevision: from + 1_000_000_000n },
        (seen) => seen.length === 1
      )
      assert.strictEqual(future[0]?.event.case, "snapshot")
      const absurd = yield* Effect.flip(collect(client, trees.watchTree, { fromRevision: 2n ** 63n }))
      assert.strictEqual(detailsOf(absurd.metadata).fields[0]?.field, "from_revision")
    })
  )

  it.live("gives an actor's history, newest first, page by page", () =>
    Effect.gen(function* () {
      const { client, probes, tree } = yield* start()
      for (let life = 1; life <= 4; life++) {
        yield* eventually(
          `life ${life}`,
          Effect.map(tree.get(flaky), ({ incarnation, state }) => incarnation === life && state === "running")
        )
        yield* probes.crash("flaky", `death ${life}`)
      }
      yield* eventually(
        "its budget is spent",
        Effect.map(tree.get(flaky), ({ state }) => state === "parked")
      )
      const revisions: Array<bigint> = []
      const decisions: Array<string> = []
      let pageToken = ""
      do {
        const page = yield* call(client, trees.getActorHistory, { path: flaky, pageSize: 3, pageToken })
        revisions.push(...page.entries.map(({ revision }) => revision))
        decisions.push(...page.entries.filter(({ event }) => event === "ended").map(({ decision }) => decision))
        pageToken = page.nextPageToken
      } while (pageToken !== "")
      assert.deepStrictEqual(
        revisions,
        revisions.toSorted((one, other) => (one < other ? 1 : -1))
      )
      assert.deepStrictEqual(decisions, ["park", "restart", "restart", "restart"])
      const { actor } = yield* call(client, trees.getActor, { path: flaky })
      assert.deepInclude(actor, { state: ActorState.PARKED, budgetLeft: 0 })
      assert.strictEqual(actor?.lastExit?.message, "death 4")
    })
  )

  it.live("steers actors, each request id once", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const request = { path: flaky, requestId: "one" }
      assert.strictEqual((yield* call(client, trees.restartActor, request)).actor?.incarnation, 2)
      assert.strictEqual((yield* call(client, trees.restartActor, request)).actor?.incarnation, 2)
      const other = yield* Effect.flip(call(client, trees.restartActor, { path: "init/runtime", requestId: "one" }))
      assert.strictEqual(detailsOf(other.metadata).fields[0]?.field, "request_id")
      assert.strictEqual((yield* call(client, trees.restartActor, { path: flaky })).actor?.incarnation, 3)
      assert.strictEqual((yield* call(client, trees.stopActor, { path: flaky })).actor?.state, ActorState.STOPPED)
      for (let again = 0; again < 2; again++) {
        const { actor } = yield* call(client, trees.startActor, { path: flaky })
        assert.deepInclude(actor, { state: ActorState.RUNNING, incarnation: 4 })
      }
    })
  )

  it.live("steers a container's actor through its desired state, which remembers it", () =>
    Effect.gen(function* () {
      const { client, domain } = yield* start({ containers: ["web"] })
      const path = "init/runtime/web"
      yield* call(client, containers.createContainer, { spec: { name: "web", image: "hello:latest" } })
      domain.asked.length = 0
      yield* call(client, trees.restartActor, { path })
      yield* call(client, trees.stopActor, { path })
      yield* call(client, trees.startActor, { path })
      yield* call(client, trees.setActorPolicy, { path, policy: { restart: RestartType.TEMPORARY } })
      assert.deepStrictEqual(domain.asked, ["restart web", "stop web", "start web", "setPolicy web"])
    })
  )

  it.live("so it does a machine's; of a sandbox what is remembered is that its containers are down", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("guest", { kind: "vm" }), probes.make("box", { kind: "sandbox" })]
      const { client, domain } = yield* start({ children })
      for (const path of ["init/runtime/guest", "init/runtime/box"]) {
        yield* call(client, trees.stopActor, { path })
        yield* call(client, trees.startActor, { path })
        const { actor } = yield* call(client, trees.restartActor, { path })
        assert.strictEqual(actor?.incarnation, 2, path)
        yield* call(client, trees.setActorPolicy, { path, policy: { restart: RestartType.TEMPORARY } })
      }
      assert.deepStrictEqual(domain.asked, [
        "stop vm guest",
        "start vm guest",
        // wanted up, then ended and started by the tree
        "start vm guest",
        "setPolicy vm guest",
        "stop sandbox box",
        "start sandbox box"
      ])
    })
  )

  it.live("changes a policy, and names all that is wrong in one", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { actor } = yield* call(client, trees.setActorPolicy, {
        path: flaky,
        policy: { restart: RestartType.TEMPORARY, backoff: { max: { seconds: 5n } } }
      })
      assert.strictEqual(actor?.policy?.restart, RestartType.TEMPORARY)
      assert.strictEqual(actor?.policy?.backoff?.max?.seconds, 5n)
      assert.strictEqual(actor?.policy?.backoff?.factor, 2)
      const error = yield* Effect.flip(
        call(client, trees.setActorPolicy, { path: flaky, policy: { backoff: { factor: 0, jitter: 3 }, budget: {} } })
      )
      assert.deepStrictEqual(
        detailsOf(error.metadata).fields.map(({ field }) => field),
        ["policy.backoff.factor", "policy.backoff.jitter", "policy.budget.within"]
      )
    })
  )
})
