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
import { type Actor, ActorSchema, ActorState, ActorType, Strategy } from "../../proto/generated/ironwood/v1/tree_pb.ts"

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
