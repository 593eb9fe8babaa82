/** Actors, histories and tree events as protobuf messages. */
import { create, toBinary } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { WatchTreeResponseSchema } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorPath from "../../src/actor/ActorPath.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import type { Moment, TreeNode } from "../../src/actor/Tree.ts"
import { actorToProto } from "../../src/gateway/ActorMessages.ts"
import { snapshotParts } from "../../src/gateway/TreeService.ts"

const node = (id: string): TreeNode => ({
  path: ActorPath.child(ActorPath.root("init"), id),
  kind: "worker",
  description: "",
  type: "worker",
  strategy: undefined,
  state: "running",
  incarnation: 1,
  restarts: 0,
  since: 1_500,
  startedAt: undefined,
  lastExit: undefined,
  nextAttemptAt: undefined,
  attempt: 0,
  policy: RestartPolicy.workload,
  budgetLeft: undefined,
  annotations: { pid: "7", degraded: "half of it" },
  waitingFor: [],
  entry: undefined,
  revision: 9
})

const moment: Moment = { attempt: 0, mailbox: undefined, budgetLeft: undefined, intensity: undefined, ruleRestarts: [] }

describe("messages of the tree", () => {
  it("a snapshot of any size goes in parts that every client takes", () => {
    for (const size of [0, 1, 249, 250, 251, 1_000, 1_234]) {
      const nodes = Array.from({ length: size }, (_, index) => node(`actor-${index}`))
      const parts = snapshotParts(7, nodes).map((part) => create(WatchTreeResponseSchema, part))
      const seen: Array<string> = []
      for (const [index, part] of parts.entries()) {
        assert.isBelow(toBinary(WatchTreeResponseSchema, part).length, 256 * 1024)
        assert(part.event.case === "snapshot")
        const { actors, first, last, revision } = part.event.value
        assert.deepStrictEqual([first, last, revision], [index === 0, index === parts.length - 1, 7n])
        seen.push(...actors.map(({ path }) => path))
      }
      assert.deepStrictEqual(
        seen,
        nodes.map(({ path }) => path)
      )
    }
  })

  it("an actor's mailbox is told where it was asked for", () => {
    const withMailbox = (mailbox: Moment["mailbox"]) => actorToProto(node("a"), { ...moment, mailbox })
    assert.deepInclude(actorToProto(node("a")), { mailboxDepth: undefined, oldestMessageTime: undefined })
    assert.deepInclude(withMailbox({ mailboxDepth: 0, oldestMessageAt: undefined }), { mailboxDepth: 0 })
    const behind = withMailbox({ mailboxDepth: 3, oldestMessageAt: 2_500 })
    assert.strictEqual(behind.mailboxDepth, 3)
    assert.deepInclude(behind.oldestMessageTime, { seconds: 2n, nanos: 500_000_000 })
  })

  it("budgets are those of the moment where it was asked for", () => {
    const told = { ...node("a"), budgetLeft: 1 }
    assert.deepInclude(actorToProto(told), { budgetLeft: 1, intensity: undefined })
    const intensity = { restarts: 3, within: 30_000, spent: 2 }
    const now = actorToProto(told, { ...moment, budgetLeft: 4, intensity })
    assert.strictEqual(now.budgetLeft, 4)
    assert.deepInclude(now.intensity, { restarts: 3, spent: 2 })
    assert.deepInclude(now.intensity?.within, { seconds: 30n })
  })

  it("an actor says why it is in its state, on whose account, and for whom it waits", () => {
    const because = ActorPath.child(ActorPath.root("init"), "b")
    const entry = { at: 1, revision: 9, event: "stopped", incarnation: 1, decision: "none", reason: "b ended" } as const
    const actor = actorToProto({ ...node("a"), waitingFor: ["b", "c"], entry: { ...entry, because } })
    assert.deepInclude(actor, { reason: "b ended", decision: "", because, waitingFor: ["init/b", "init/c"] })
  })

  it("an actor says that it is degraded in a field of its own", () => {
    const actor = actorToProto(node("a"))
    assert.deepInclude(actor, { annotations: { pid: "7" }, degraded: "half of it", revision: 9n })
    assert.deepInclude(actor.since, { seconds: 1n, nanos: 500_000_000 })
  })
})
