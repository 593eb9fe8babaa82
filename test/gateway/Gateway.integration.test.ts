/** All services over their unix socket, on a real tree; domain services that cannot run here are recorded. */
import { getOption } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { timestampMs } from "@bufbuild/protobuf/wkt"
import { status as Code } from "@grpc/grpc-js"
import type { ServiceError } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { existsSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { field_behavior, FieldBehavior } from "../../proto/generated/google/api/field_behavior_pb.ts"
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../proto/generated/grpc/health/v1/health_pb.ts"
import { ContainerService, ContainerState } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { CgroupLayout, HostService } from "../../proto/generated/ironwood/v1/host_pb.ts"
import { ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { NetworkMode, SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { RestartType } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { ActorState, Relation, RemedyAction, TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import type { Actor as ActorMessage, WatchTreeResponse } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as Actor from "../../src/actor/Actor.ts"
import * as Mailbox from "../../src/actor/Mailbox.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "../actor/Probe.ts"
import { eventually } from "../support/eventually.ts"
import { call, collect, connect, detailsOf, open } from "./client.ts"
import { socketDirectory, start } from "./fixture.ts"

const flaky = "init/runtime/flaky"
const grpc = "init/gateway/grpc"
const trees = TreeService.method
const containers = ContainerService.method

/** The actor that an event is about. */
const changedIn = ({ event }: WatchTreeResponse): ActorMessage | undefined =>
  event.case === "changed" ? event.value : undefined

const revisionOf = ({ event }: WatchTreeResponse): bigint => event.value?.revision ?? 0n

describe("Gateway", () => {
  it.live("listens where it says, for its owner alone, and leaves nothing", () =>
    Effect.gen(function* () {
      const socketPath = join(yield* socketDirectory, "api.sock")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { client } = yield* start({ socketPath })
          assert.strictEqual(statSync(socketPath).mode & 0o777, 0o600)
          const { actor } = yield* call(client, trees.getActor, { path: grpc })
          assert.strictEqual(actor?.annotations["socket"], socketPath)
          assert.strictEqual(actor?.state, ActorState.RUNNING)
        })
      )
      assert.isFalse(existsSync(socketPath))
    })
  )

  for (const path of [grpc, "init/gateway"]) {
    it.live(`answers a restart of ${path} asked for over itself, and comes back`, () =>
      Effect.gen(function* () {
        const { address, client, tree } = yield* start()
        const { actor } = yield* call(client, trees.restartActor, { path })
        assert.deepInclude(actor, { path, incarnation: 1 })
        yield* eventually(
          "it runs anew",
          Effect.map(tree.get(path), ({ incarnation, state }) => incarnation === 2 && state === "running")
        )
        const again = yield* connect(address)
        assert.strictEqual((yield* call(again, trees.getActor, { path })).actor?.incarnation, 2)
      })
    )
  }

  it.live("answers a stop asked for over itself, and refuses that of the root", () =>
    Effect.gen(function* () {
      const { client, tree } = yield* start()
      const root = yield* Effect.flip(call(client, trees.restartActor, { path: "init" }))
      assert.strictEqual(root.code, Code.FAILED_PRECONDITION)
      assert.strictEqual((yield* call(client, trees.stopActor, { path: grpc })).actor?.path, grpc)
      yield* eventually(
        "it is down",
        Effect.map(tree.get(grpc), ({ state }) => state === "stopped")
      )
    })
  )

  it.live("refuses every request that lacks what its proto calls required, naming it", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const refused: Array<string> = []
      for (const { methods } of [TreeService, ContainerService, SandboxService, ImageService, HostService]) {
        for (const method of methods) {
          const required = method.input.fields
            .filter((field) => getOption(field, field_behavior).includes(FieldBehavior.REQUIRED))
            .map(({ name }) => name)
          // what names one thing cannot do without the name
          const namesOne = /^(Get|Start|Stop|Restart|Kill|Remove|Set|Tag)/.test(method.name)
          const names = method.input.fields.filter(({ name }) => ["name", "path", "reference"].includes(name))
          if (namesOne && method.name !== "GetTree") {
            for (const { name } of names) assert.include(required, name, method.name)
          }
          if (required.length === 0) continue
          const error = yield* Effect.flip(call(client, method, {}))
          assert.strictEqual(error.code, Code.INVALID_ARGUMENT, method.name)
          assert.deepStrictEqual(
            detailsOf(error.metadata).fields.map(({ description, field }) => `${field} ${description}`),
            required.map((field) => `${field} must be set`),
            method.name
          )
          refused.push(method.name)
        }
      }
      assert.includeMembers(refused, [
        "GetContainer",
        "GetSandbox",
        "GetActor",
        "GetActorHistory",
        "StreamContainerLogs"
      ])
    })
  )

  it.live("fails in a way that its policy sees when it cannot listen", () =>
    Effect.gen(function* () {
      const socketPath = join(yield* socketDirectory, "api.sock")
      writeFileSync(socketPath, "not a socket")
      const error = yield* Effect.flip(start({ socketPath }))
      assert.strictEqual(error._tag, "RootFailed")
      assert.include(error.message, "something else than a socket")
    })
  )

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
          "init/runtime",
          flaky,
          "init/gateway",
          grpc
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
        assert.match(
          down.story[0]?.text ?? "",
          /^it ended after .*: the disk is gone \(Crash\); started again in 1 min$/
        )
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

  describe("ContainerService", () => {
    it.live("creates a container once, and names every wrong field", () =>
      Effect.gen(function* () {
        const { client, domain } = yield* start()
        const request = {
          spec: { name: "web", image: "hello:latest", restart: { restart: RestartType.TRANSIENT } },
          requestId: "create-web"
        }
        const { container } = yield* call(client, containers.createContainer, request)
        yield* call(client, containers.createContainer, request)
        assert.deepStrictEqual(domain.asked, ["create web start=true wait=true"])
        assert.strictEqual(container?.spec?.stopGracePeriod?.seconds, 10n)
        assert.deepInclude(container?.status, { state: ContainerState.RUNNING, pid: 42 })

        const wrong = yield* Effect.flip(
          call(client, containers.createContainer, {
            spec: { name: "Web!", image: "hello", stopSignal: "SIGFOO", resources: { cpus: -1 } }
          })
        )
        assert.strictEqual(wrong.code, Code.INVALID_ARGUMENT)
        assert.sameMembers(
          detailsOf(wrong.metadata).fields.map(({ field }) => field),
          ["spec.name", "spec.stop_signal", "spec.resources.cpus"]
        )
        for (const [spec, code, reason] of [
          [{ name: "other", image: "unknown" }, Code.NOT_FOUND, "ImageNotFound"],
          [{ name: "web", image: "hello:latest" }, Code.ALREADY_EXISTS, "ContainerAlreadyExists"]
        ] as const) {
          const error = yield* Effect.flip(call(client, containers.createContainer, { spec }))
          assert.deepStrictEqual([error.code, detailsOf(error.metadata).info?.reason], [code, reason])
        }
      })
    )

    it.live("only checks with validate_only, and says what would be wrong", () =>
      Effect.gen(function* () {
        const { client, domain } = yield* start()
        const spec = { name: "web", image: "hello:latest" }
        const validateOnly = true
        const made = yield* call(client, containers.createContainer, { spec, validateOnly })
        assert.strictEqual(made.container?.spec?.stopGracePeriod?.seconds, 10n)
        assert.strictEqual(made.container?.uid, "")
        const wrong = yield* Effect.flip(
          call(client, containers.createContainer, {
            spec: { ...spec, stopSignal: "SIGFOO", resources: { cpus: -1 } },
            validateOnly
          })
        )
        assert.sameMembers(
          detailsOf(wrong.metadata).fields.map(({ field }) => field),
          ["spec.stop_signal", "spec.resources.cpus"]
        )
        const unknown = yield* Effect.flip(
          call(client, containers.createContainer, { spec: { name: "web", image: "unknown" }, validateOnly })
        )
        assert.strictEqual(unknown.code, Code.NOT_FOUND)
        const sandbox = yield* call(client, SandboxService.method.createSandbox, { spec: { name: "a" }, validateOnly })
        assert.strictEqual(sandbox.sandbox?.spec?.network, NetworkMode.NONE)
        const [progress] = yield* collect(client, ImageService.method.importImage, { path: "/x", validateOnly })
        assert.isDefined(progress)
        assert.deepStrictEqual([domain.asked, domain.containers.size, domain.sandboxes.size], [[], 0, 0])
        assert.isFalse(domain.images.has("imported:latest"))
      })
    )

    it.live("lists page by page, filtered", () =>
      Effect.gen(function* () {
        const { client } = yield* start()
        for (let index = 0; index < 25; index++) {
          yield* call(client, containers.createContainer, {
            spec: {
              name: `web-${String(index).padStart(2, "0")}`,
              image: "hello:latest",
              sandbox: index % 2 === 0 ? "even" : "odd",
              labels: { third: String(index % 3) }
            },
            notStarted: true
          })
        }
        yield* call(client, containers.stopContainer, { name: "web-06" })
        const list = Effect.fnUntraced(function* (
          filter: { sandbox?: string; labels?: Record<string, string>; states?: Array<ContainerState> },
          pageSize: number
        ) {
          const names: Array<string | undefined> = []
          let pageToken = ""
          do {
            const page = yield* call(client, containers.listContainers, { ...filter, pageSize, pageToken })
            names.push(...page.containers.map(({ spec }) => spec?.name))
            pageToken = page.nextPageToken
          } while (pageToken !== "")
          return names
        })
        assert.lengthOf(yield* list({}, 7), 25)
        assert.deepStrictEqual(yield* list({ sandbox: "even", labels: { third: "0" } }, 2), [
          "web-00",
          "web-06",
          "web-12",
          "web-18",
          "web-24"
        ])
        assert.deepStrictEqual(yield* list({ states: [ContainerState.STOPPED] }, 0), ["web-06"])
        assert.deepStrictEqual(yield* list({ labels: { none: "" } }, 0), [])
      })
    )

    it.live("hands on every command, and refuses a signal that is none", () =>
      Effect.gen(function* () {
        const { client, domain } = yield* start()
        const name = "web"
        yield* call(client, containers.createContainer, { spec: { name, image: "hello:latest" }, notStarted: true })
        yield* call(client, containers.startContainer, { name })
        yield* call(client, containers.restartContainer, { name })
        yield* call(client, containers.killContainer, { name, signal: "hup" })
        yield* call(client, containers.killContainer, { name })
        const { container } = yield* call(client, containers.setContainerPolicy, {
          name,
          policy: { restart: RestartType.TEMPORARY }
        })
        assert.strictEqual(container?.spec?.restart?.restart, RestartType.TEMPORARY)
        assert.strictEqual((yield* call(client, containers.getContainer, { name })).container?.uid, "uid-web")
        const gracePeriod = { seconds: 1n, nanos: 500_000_000 }
        yield* call(client, containers.stopContainer, { name, gracePeriod, signal: "int" })
        yield* call(client, containers.removeContainer, { name, force: true })
        assert.deepStrictEqual(domain.asked, [
          "create web start=false wait=false",
          "start web",
          "restart web",
          "kill SIGHUP web",
          "kill SIGKILL web",
          "setPolicy web",
          "stop 1500 int web",
          "remove web force=true"
        ])
        const otherwise = yield* Effect.flip(
          call(client, containers.stopContainer, { name, gracePeriod: { seconds: -1n }, signal: "SIGFOO" })
        )
        assert.deepStrictEqual(
          detailsOf(otherwise.metadata).fields.map(({ field }) => field),
          ["grace_period", "signal"]
        )
        const noSignal = yield* Effect.flip(call(client, containers.killContainer, { name, signal: "SIGFOO" }))
        assert.strictEqual(detailsOf(noSignal.metadata).fields[0]?.field, "signal")
        const gone = yield* Effect.flip(call(client, containers.stopContainer, { name }))
        assert.deepInclude(detailsOf(gone.metadata).resource, { resourceType: "container", resourceName: name })
      })
    )

    it.live("streams a log, and lets go of it when the client leaves", () =>
      Effect.gen(function* () {
        const { client, domain } = yield* start()
        const name = "web"
        yield* call(client, containers.createContainer, { spec: { name, image: "hello:latest" } })
        const all = yield* collect(client, containers.streamContainerLogs, { name })
        const entries = all.flatMap((message) => message.entries)
        assert.lengthOf(entries, 1_000)
        assert.strictEqual(Buffer.from(entries[999]?.line ?? []).toString(), "line 999")
        const tail = yield* collect(
          client,
          containers.streamContainerLogs,
          { name, follow: true, tail: 4 },
          (seen) => seen.flatMap((message) => message.entries).length === 4
        )
        assert.isNotEmpty(tail)
        yield* eventually("nobody reads the log any more", () => domain.readersOfLogs === 0)
        const error = yield* Effect.flip(collect(client, containers.streamContainerLogs, { name: "nobody" }))
        assert.strictEqual(error.code, Code.NOT_FOUND)
      })
    )
  })

  it.live("SandboxService creates, lists and removes sandboxes", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { method } = SandboxService
      for (const name of ["b", "a"]) {
        yield* call(client, method.createSandbox, { spec: { name, network: NetworkMode.HOST, labels: { of: name } } })
      }
      const listed = yield* call(client, method.listSandboxes, { pageSize: 1 })
      assert.strictEqual(listed.sandboxes[0]?.spec?.name, "a")
      assert.strictEqual(listed.sandboxes[0]?.spec?.network, NetworkMode.HOST)
      assert.notStrictEqual(listed.nextPageToken, "")
      assert.lengthOf((yield* call(client, method.listSandboxes, { labels: { of: "b" } })).sandboxes, 1)
      yield* call(client, method.removeSandbox, { name: "a" })
      assert.strictEqual((yield* Effect.flip(call(client, method.getSandbox, { name: "a" }))).code, Code.NOT_FOUND)
      const wrong = yield* Effect.flip(
        call(client, method.createSandbox, { spec: { name: "", hostname: "-", labels: { "": "" } } })
      )
      assert.sameMembers(
        detailsOf(wrong.metadata).fields.map(({ field }) => field),
        ["spec.name", "spec.hostname", "spec.labels[]"]
      )
    })
  )

  it.live("ImageService imports with progress, lists, names and removes images", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { method } = ImageService
      const events = yield* collect(client, method.importImage, { path: "/image.tar" })
      assert.deepStrictEqual(
        events.map(({ event }) => (event.case === "progress" ? event.value.step : event.case)),
        ["layers", "done", "image"]
      )
      const relative = yield* Effect.flip(collect(client, method.importImage, { path: "image.tar" }))
      assert.strictEqual(detailsOf(relative.metadata).fields[0]?.field, "path")
      const truncated = yield* Effect.flip(collect(client, method.importImage, { path: "/truncated.tar" }))
      assert.strictEqual(truncated.code, Code.INVALID_ARGUMENT)
      assert.include(truncated.details, "it ends in the middle")
      assert.lengthOf((yield* call(client, method.listImages, {})).images, 2)
      const hello = yield* call(client, method.listImages, { namePrefix: "hello", labels: { made: "here" } })
      assert.deepStrictEqual(hello.images[0]?.names, ["hello:latest"])
      assert.deepInclude(hello.images[0]?.config, { stopSignal: "SIGINT", entrypoint: ["/bin/app"] })
      yield* call(client, method.tagImage, { source: "hello:latest", target: "again:1" })
      assert.strictEqual((yield* call(client, method.getImage, { reference: "again:1" })).image?.architecture, "amd64")
      yield* call(client, method.removeImage, { reference: "again:1" })
      const gone = yield* Effect.flip(call(client, method.getImage, { reference: "again:1" }))
      assert.strictEqual(gone.code, Code.NOT_FOUND)
    })
  )

  it.live("HostService tells of the host and of Ironwood, and ends it once", () =>
    Effect.gen(function* () {
      const { client, domain } = yield* start()
      const { method } = HostService
      const { facts } = yield* call(client, method.getHostFacts, {})
      assert.isAbove(facts?.cpu?.count ?? 0, 0)
      assert.strictEqual(facts?.cgroupLayout, CgroupLayout.V1)
      assert.deepStrictEqual(facts?.cgroupControllers, ["memory"])
      assert.deepInclude(facts?.ociRuntimes[0], { works: false, problem: "none was tried" })
      const version = yield* call(client, method.getVersion, {})
      assert.deepInclude(version, { version: "1.2.3", brainStarts: 2, taprootPid: 7, stateDirectory: "/state" })
      assert.strictEqual(version.brainPid, process.pid)
      yield* call(client, method.stopHost, { requestId: "stop" })
      yield* call(client, method.stopHost, { requestId: "stop" })
      assert.strictEqual(domain.stops, 1)
    })
  )

  it.live("Health follows the actors that a service stands on", () =>
    Effect.gen(function* () {
      const { client, tree } = yield* start()
      const { check, list, watch } = Health.method
      const service = "ironwood.v1.ImageService"
      const statusOf = (name: string) => Effect.map(call(client, check, { service: name }), ({ status }) => status)
      assert.strictEqual(yield* statusOf(""), Serving.SERVING)
      const seen: Array<Serving> = []
      const watching = open(client, watch, { service })
      yield* Effect.addFinalizer(() => Effect.sync(() => watching.cancel()))
      watching.on("data", ({ status }: { readonly status: Serving }) => seen.push(status))
      yield* eventually("it is told", () => seen.length === 1)
      yield* tree.stop("init/storage/content")
      yield* eventually("it is told of the change", () => seen.length === 2)
      assert.strictEqual(yield* statusOf(service), Serving.NOT_SERVING)
      assert.strictEqual(yield* statusOf(""), Serving.NOT_SERVING)
      assert.strictEqual(yield* statusOf("ironwood.v1.TreeService"), Serving.SERVING)
      assert.strictEqual((yield* call(client, list, {})).statuses[service]?.status, Serving.NOT_SERVING)
      yield* tree.start("init/storage/content")
      yield* eventually("it is told of the recovery", () => seen.length === 3)
      assert.deepStrictEqual(seen, [Serving.SERVING, Serving.NOT_SERVING, Serving.SERVING])
      assert.strictEqual((yield* Effect.flip(call(client, check, { service: "no.Such" }))).code, Code.NOT_FOUND)
      const unknown = yield* collect(client, watch, { service: "no.Such" }, (statuses) => statuses.length === 1)
      assert.strictEqual(unknown[0]?.status, Serving.SERVICE_UNKNOWN)
    })
  )
})
