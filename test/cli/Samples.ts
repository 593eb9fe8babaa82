/** A small host as the server would tell of it: a tree with some of everything, its containers, its history. */
import { create } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import {
  type Container,
  ContainerSchema,
  ContainerState,
  DesiredState
} from "../../proto/generated/ironwood/v1/container_pb.ts"
import { BackoffCurve, BudgetWindow, RestartType, WhenSpent } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import {
  type Actor,
  ActorSchema,
  ActorState,
  ActorType,
  type ExplainActorResponse,
  ExplainActorResponseSchema,
  Relation,
  RemedyAction,
  Strategy
} from "../../proto/generated/ironwood/v1/tree_pb.ts"

/** The moment everything is looked at. */
export const now = Date.UTC(2026, 10, 22, 14, 0, 0)

/** A moment so many seconds before {@link now}. */
export const past = (seconds: number) => timestampFromMs(now - seconds * 1000)

const duration = (milliseconds: number) => ({
  seconds: BigInt(Math.floor(milliseconds / 1000)),
  nanos: (milliseconds % 1000) * 1_000_000
})

/** A policy with every field, as responses have it. */
export const policy = {
  restart: RestartType.PERMANENT,
  backoff: {
    initial: duration(500),
    curve: BackoffCurve.EXPONENTIAL,
    factor: 2,
    max: duration(30_000),
    jitter: 0.2,
    resetAfter: duration(10_000)
  },
  budget: { restarts: 5, within: duration(600_000), window: BudgetWindow.SLIDING },
  whenSpent: WhenSpent.PARK,
  rememberStop: true
}

const supervisor = (path: string, kind: string, strategy: Strategy): Actor =>
  create(ActorSchema, {
    path,
    kind,
    type: ActorType.SUPERVISOR,
    strategy,
    state: ActorState.RUNNING,
    since: past(7980),
    startTime: past(7980),
    incarnation: 1,
    revision: 1n
  })

/** The actors, a supervisor before its children, siblings in the order of their start. */
export const actors: ReadonlyArray<Actor> = [
  supervisor("init", "root", Strategy.REST_FOR_ONE),
  supervisor("init/storage", "storage", Strategy.REST_FOR_ONE),
  create(ActorSchema, {
    path: "init/storage/state",
    kind: "state",
    type: ActorType.WORKER,
    state: ActorState.RUNNING,
    since: past(7980),
    incarnation: 1,
    revision: 2n
  }),
  supervisor("init/runtime", "runtime", Strategy.ONE_FOR_ONE),
  supervisor("init/runtime/hello", "sandbox", Strategy.ONE_FOR_ONE),
  create(ActorSchema, {
    path: "init/runtime/hello/hello",
    kind: "container",
    type: ActorType.WORKER,
    state: ActorState.RUNNING,
    since: past(7979),
    startTime: past(7979),
    incarnation: 1,
    annotations: { pid: "4711", image: "hello:latest" },
    policy,
    revision: 11n
  }),
  supervisor("init/runtime/flaky", "sandbox", Strategy.ONE_FOR_ONE),
  create(ActorSchema, {
    path: "init/runtime/flaky/flaky",
    kind: "container",
    type: ActorType.WORKER,
    state: ActorState.BACKING_OFF,
    since: past(1.2),
    incarnation: 15,
    restarts: 14,
    consecutiveFailures: 4,
    lastExit: { time: past(1.2), tag: "ContainerExited", message: "exited with code 1", detail: "" },
    nextAttemptTime: timestampFromMs(now + 2800),
    budgetLeft: 2,
    policy,
    revision: 42n
  }),
  supervisor("init/runtime/old", "sandbox", Strategy.ONE_FOR_ONE),
  create(ActorSchema, {
    path: "init/runtime/old/old",
    kind: "container",
    type: ActorType.WORKER,
    state: ActorState.PARKED,
    since: past(300),
    incarnation: 6,
    restarts: 5,
    consecutiveFailures: 6,
    lastExit: {
      time: past(300),
      tag: "OomKilled",
      message: "killed: it used more than its 64MiB of memory",
      detail: ""
    },
    policy,
    revision: 40n
  })
]

/** The containers. */
export const containers: ReadonlyArray<Container> = [
  create(ContainerSchema, {
    spec: {
      name: "flaky",
      sandbox: "flaky",
      image: "hello:latest",
      command: ["/bin/sh", "-c", "sleep 1; exit 1"],
      restart: policy
    },
    uid: "u-flaky",
    generation: 1n,
    createTime: past(7979),
    actorPath: "init/runtime/flaky/flaky",
    status: {
      state: ContainerState.BACKING_OFF,
      desired: DesiredState.RUNNING,
      since: past(1.2),
      incarnation: 15,
      restarts: 14,
      lastExit: { time: past(1.2), tag: "ContainerExited", message: "exited with code 1", code: 1 },
      nextAttemptTime: timestampFromMs(now + 2800)
    }
  }),
  create(ContainerSchema, {
    spec: {
      name: "hello",
      sandbox: "hello",
      image: "hello:latest",
      restart: policy,
      resources: { memoryBytes: 67_108_864n, cpus: 0.5 },
      stopGracePeriod: duration(10_000)
    },
    uid: "u-hello",
    generation: 1n,
    createTime: past(7979),
    actorPath: "init/runtime/hello/hello",
    status: {
      state: ContainerState.RUNNING,
      desired: DesiredState.RUNNING,
      since: past(7979),
      startTime: past(7979),
      pid: 4711,
      incarnation: 1,
      imageDigest: "sha256:0123"
    }
  }),
  create(ContainerSchema, {
    spec: { name: "old", sandbox: "old", image: "hello:latest", restart: policy },
    createTime: past(7979),
    actorPath: "init/runtime/old/old",
    status: {
      state: ContainerState.PARKED,
      desired: DesiredState.RUNNING,
      since: past(300),
      incarnation: 6,
      restarts: 5,
      lastExit: { time: past(300), tag: "OomKilled", message: "killed: it used more than its 64MiB of memory" }
    }
  }),
  create(ContainerSchema, {
    spec: { name: "quiet", sandbox: "quiet", image: "hello:latest", restart: policy },
    createTime: past(90),
    actorPath: "init/runtime/quiet/quiet",
    status: {
      state: ContainerState.STOPPED,
      desired: DesiredState.STOPPED,
      since: past(60),
      lastExit: { time: past(60), tag: "ContainerSignaled", message: "ended by SIGTERM", signal: "SIGTERM" }
    }
  })
]

const actorAt = (path: string): Actor => actors.find((actor) => actor.path === path) ?? create(ActorSchema, { path })

/** Why some of the actors are as they are, by their paths. */
export const explanations: ReadonlyMap<string, ExplainActorResponse> = new Map(
  [
    {
      actor: actorAt("init/runtime/hello/hello"),
      now: "it runs",
      story: [{ firstTime: past(7979), lastTime: past(7979), times: 1, text: "it came up" }],
      policy: ["it is permanent: started again however it ends"],
      prospects: [{ text: "if it fails now: it is started again in about 500 ms" }]
    },
    {
      actor: actorAt("init/runtime/flaky/flaky"),
      now: "it has ended, and waits for its next start",
      story: [
        {
          firstTime: past(7300),
          lastTime: past(7300),
          times: 1,
          text: "it was stopped after 9 min: somebody asked for it"
        },
        {
          firstTime: past(14),
          lastTime: past(1.2),
          times: 4,
          text: "it ended after 1 s: exited with code 1 (ContainerExited); started again in 500 ms to 4 s"
        }
      ],
      policy: ["it ended (ContainerExited), consecutive end number 4; permanent: restart in 4 s"],
      prospects: [
        { time: timestampFromMs(now + 2800), text: "incarnation 16 is started" },
        { text: "if it ends the same way again before that: it is started again in about 8 s" }
      ],
      remedies: [
        { path: "init/runtime/flaky/flaky", text: "its log has what it said before it ended" },
        {
          action: RemedyAction.READ_LOGS,
          path: "init/runtime/flaky/flaky",
          text: "shows what it said before it ended"
        },
        { action: RemedyAction.START, path: "init/runtime/flaky/flaky", text: "starts it now instead" },
        { action: RemedyAction.STOP, path: "init/runtime/flaky/flaky", text: "keeps it down" },
        { action: RemedyAction.SET_POLICY, path: "init/runtime/flaky/flaky", text: "changes when it is started" }
      ]
    },
    {
      actor: create(ActorSchema, {
        path: "init/runtime/pod/app",
        kind: "container",
        state: ActorState.WAITING,
        since: past(30),
        waitingFor: ["init/runtime/pod/cache"]
      }),
      now: 'it waits for "cache" before it starts',
      story: [
        {
          firstTime: past(30),
          lastTime: past(30),
          times: 1,
          text: 'it was stopped after 5 s: it needs "cache", which is being ended',
          because: "init/runtime/pod/cache"
        }
      ],
      prospects: [{ time: past(1), text: '"cache" is started' }, { text: "it is started as soon as these are there" }],
      involved: [
        { relation: Relation.CAUSE, path: "init/runtime/pod/cache", text: "passed it on" },
        { relation: Relation.CAUSE, path: "init/runtime/pod/db", text: "began it: disk\u001B[2J full (Crash)" },
        { relation: Relation.WAITS_FOR, path: "init/runtime/pod/cache", text: "is waiting" },
        { relation: Relation.BLOCKS, path: "init/runtime/pod/web", text: "waits for it" },
        { relation: Relation.SUPERVISOR, path: "init/runtime/pod", text: "is backing-off" },
        { relation: Relation.BELOW, path: "init/runtime/pod/app/x", text: "is failed" }
      ],
      remedies: [
        { action: RemedyAction.EXPLAIN, path: "init/runtime/pod/db", text: "tells why that one ended" },
        { action: RemedyAction.RESTART, path: "init/runtime/pod/db", text: "starts it anew" }
      ]
    }
  ].map((answer) => [answer.actor.path, create(ExplainActorResponseSchema, answer)])
)
