/** Partitions: as many copies as asked for, a router that never changes its mind, and an ordinary supervisor around. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Actor from "../../src/actor/Actor.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as Mailbox from "../../src/actor/Mailbox.ts"
import * as PartitionSupervisor from "../../src/actor/PartitionSupervisor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const permanent = { policy: RestartPolicy.permanent }

describe("the router", () => {
  it("sends a key to the same partition for ever", () => {
    const keys = ["", "a", "b", "web", "init/runtime/web", "größe", "容器", "🌲"]
    assert.deepStrictEqual(
      keys.map(PartitionSupervisor.hashOf),
      [2872998923, 2448022055, 135196497, 702233521, 821548167, 419985943, 169680164, 1625765413]
    )
    assert.deepStrictEqual(
      [0, 1, 7, 8, 9, -1, -9, 2 ** 53 - 1].map((key) => PartitionSupervisor.partitionOf(key, 8)),
      [0, 1, 7, 0, 1, 1, 1, 7]
    )
    for (const key of [1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60]) {
      assert.strictEqual(PartitionSupervisor.partitionOf(key, 8), PartitionSupervisor.partitionOf(String(key), 8))
    }
  })

  it("spreads texts that look alike evenly", () => {
    for (const partitions of [2, 3, 7, 8, 16, 100]) {
      for (const [kind, keyOf] of [
        ["names", (index: number) => `container-${index}`],
        ["numbers in text", (index: number) => String(index)],
        ["paths", (index: number) => `init/runtime/${index.toString(16).padStart(8, "0")}/main`]
      ] as const) {
        const perPartition = 1_000
        const counts = Array.from({ length: partitions }, () => 0)
        for (let index = 0; index < partitions * perPartition; index++) {
          const partition = PartitionSupervisor.partitionOf(keyOf(index), partitions)
          counts[partition] = (counts[partition] ?? 0) + 1
        }
        // Chi-squared: its mean is the degrees of freedom, its deviation the root of twice as many.
        const freedom = partitions - 1
        const squared = counts.reduce((sum, count) => sum + (count - perPartition) ** 2 / perPartition, 0)
        assert.isBelow(squared, freedom + 5 * Math.sqrt(2 * freedom), `${kind} among ${partitions}`)
      }
    }
  })
})

describe("a partitioned supervisor", () => {
  it.effect("runs its copies as an ordinary supervisor runs children", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const workers = yield* PartitionSupervisor.make("workers", {
        partitions: 3,
        strategy: "one_for_all",
        intensity: 1,
        ...permanent,
        copy: (index) => Effect.succeed({ spec: probes.make(`probe ${index}`, permanent) })
      })
      const root = yield* Root.start(Supervisor.make("init", { children: [workers.spec] }))
      const children = () =>
        Effect.map(root.tree.children("init/workers"), (nodes) =>
          nodes.map(({ path, incarnation }) => `${path} ${incarnation}`)
        )
      assert.deepStrictEqual(yield* children(), ["init/workers/0 1", "init/workers/1 1", "init/workers/2 1"])
      yield* probes.crash("probe 1")
      assert.deepStrictEqual(yield* children(), ["init/workers/0 2", "init/workers/1 2", "init/workers/2 2"])
      yield* probes.crash("probe 0")
      assert.deepInclude((yield* root.tree.get("init/workers")).lastExit, { tag: "RestartIntensityReached" })
      assert.deepInclude(yield* root.tree.get("init/workers/2"), { incarnation: 3, state: "running" })
    })
  )

  it.effect("hands out the copy in charge of a key, also while that is down", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const counters = yield* PartitionSupervisor.make("counters", {
        partitions: 4,
        copy: (index) =>
          Effect.gen(function* () {
            const mailbox = yield* Mailbox.make<string>({ capacity: 10 })
            const run = mailbox.serve((message) => Effect.sync(() => seen.push(`${index} ${message}`)))
            return { spec: Actor.make("counter", { mailbox }, Effect.andThen(Actor.ready(), run)), mailbox }
          })
      })
      const root = yield* Root.start(Supervisor.make("init", { children: [counters.spec] }))
      const web = counters.partition("web")
      yield* root.tree.stop(`init/counters/${web}`)
      yield* counters.get("web").mailbox.cast("1")
      assert.deepStrictEqual((yield* root.tree.moment(`init/counters/${web}`)).mailbox, {
        mailboxDepth: 1,
        oldestMessageAt: 0
      })
      yield* root.tree.start(`init/counters/${web}`)
      for (const message of ["2", "3"]) yield* counters.get("web").mailbox.cast(message)
      yield* Effect.repeat(Effect.yieldNow, { times: 5 })
      assert.deepStrictEqual(
        seen,
        ["1", "2", "3"].map((message) => `${web} ${message}`)
      )
    })
  )

  it.effect("takes dynamic supervisors as they are", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const pools = yield* PartitionSupervisor.make("pools", {
        partitions: 2,
        copy: () => DynamicSupervisor.make("pool", { children: Effect.succeed([]) })
      })
      yield* Root.start(Supervisor.make("init", { children: [pools.spec] }))
      const paths = yield* Effect.forEach([0, 1, 2], (key) => pools.get(key).startChild(probes.make(`child-${key}`)))
      assert.deepStrictEqual(paths, ["init/pools/0/child-0", "init/pools/1/child-1", "init/pools/0/child-2"])
    })
  )

  it.effect("has at least one partition", () =>
    Effect.gen(function* () {
      for (const partitions of [0, -1, 2.5, Number.NaN]) {
        const copy = () => Effect.succeed({ spec: new Probes().make("a") })
        const exit = yield* Effect.exit(PartitionSupervisor.make("workers", { partitions, copy }))
        assert.isTrue(Exit.hasDies(exit))
      }
    })
  )
})
