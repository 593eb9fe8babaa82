/** Processes in a picture of the tree, also those of a guest that lies about them. */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { ContainerProcessSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { ActorState, ProcessListSchema } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ProcessShape from "../../src/cli/ProcessShape.ts"
import { plain } from "../../src/cli/Style.ts"
import * as TreeModel from "../../src/cli/TreeModel.ts"
import * as TreeView from "../../src/cli/TreeView.ts"
import { WatchTreeResponseSchema } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { actors, now, past } from "./Samples.ts"

const HELLO = "init/runtime/hello/hello"
const FLAKY = "init/runtime/flaky/flaky"
const known = new Map(actors.map((actor) => [actor.path, actor]))

const processOf = (pid: number, parent: number, command: string) =>
  create(ContainerProcessSchema, {
    pid,
    innerPid: pid,
    parent,
    command,
    state: "S",
    memoryBytes: 1_572_864n,
    startTime: past(60)
  })

const listOf = (fields: MessageInitShape<typeof ProcessListSchema>) => create(ProcessListSchema, fields)

const drawn = (list: ReturnType<typeof listOf>, options: Partial<TreeView.Options> = {}) =>
  TreeView.render(known, { now, style: plain, symbols: false, processes: new Map([[HELLO, list]]), ...options })

const family = listOf({
  processes: [processOf(7, 4, "/bin/sh -c work"), processOf(9, 7, "sleep 5"), processOf(12, 7, "sleep 6")]
})

describe("processes in the tree", () => {
  it("stand below their container, each below its parent, and are not counted among the actors", () => {
    const lines = drawn(family)
    assert.match(lines[0] ?? "", /^ironwood {2}10 actors: /)
    const at = lines.findIndex((line) => line.includes("└─hello"))
    assert.deepStrictEqual(lines.slice(at, at + 4), [
      "  │ └─hello      container  running      2h12m         0  4711  hello:latest",
      "  │   └─sh       process                    1m               7  1.5MiB  /bin/sh -c work",
      "  │     ├─sleep  process                    1m               9  1.5MiB  sleep 5",
      "  │     └─sleep  process                    1m              12  1.5MiB  sleep 6"
    ])
  })

  it("are not told of somebody who does not run any more, nor where only trouble is", () => {
    const processes = new Map([[FLAKY, family]])
    assert.notInclude(drawn(family, { processes }).join("\n"), "sleep")
    assert.notInclude(drawn(family, { troubledOnly: true }).join("\n"), "sleep")
  })

  it("are the first to go where there is no room", () => {
    const five = listOf({ processes: [1, 2, 3, 4, 5].map((number) => processOf(100 + number, 4, "worker")) })
    const whole = drawn(five).length
    assert.include(drawn(five, { height: whole - 1 }).join("\n"), "3 more processes")
    const without = drawn(five, { height: whole - 3 }).join("\n")
    assert.notInclude(without, "process")
    assert.include(without, "hello:latest")
  })

  it("beyond the first dozen are counted, unless all are wanted", () => {
    const many = listOf({
      processes: Array.from({ length: 64 }, (_, index) => processOf(100 + index, 4, "worker")),
      omitted: 936
    })
    const text = drawn(many).join("\n")
    assert.strictEqual(text.match(/worker$/gm)?.length, 12)
    assert.match(text, /… +process +988 more processes/)
    const all = drawn(many, { all: true }).join("\n")
    assert.strictEqual(all.match(/worker$/gm)?.length, 64)
    assert.include(all, "936 more processes")
  })

  it("that cannot be told are said to be missing", () => {
    assert.match(
      drawn(listOf({ problem: "the guest has not answered yet" })).join("\n"),
      /└─… +process +the guest has not answered yet/
    )
  })

  it("of a liar stay on the screen: rings, depths, names", () => {
    const ring = listOf({ processes: [processOf(1, 2, "one"), processOf(2, 1, "two"), processOf(2, 2, "two again")] })
    assert.deepStrictEqual(
      ProcessShape.rowsOf(ring, "", 64).map(({ process }) => process?.command),
      ["one", "two", "two again"]
    )
    const chain = Array.from({ length: 64 }, (_, index) => processOf(10 + index, 9 + index, "deep"))
    const rails = ProcessShape.rowsOf(listOf({ processes: chain }), "", 64).map((row) => row.rails.length)
    assert.strictEqual(rails.length, 64)
    assert.strictEqual(Math.max(...rails), 2 * ProcessShape.DEEPEST)
    const named = `\u001B[2J${"x".repeat(200)} \u001B]0;title\u0007\u202Egnp\n`
    const text = drawn(listOf({ processes: [processOf(3, 1, named)] })).join("\n")
    for (const harmful of ["\u001B", "\u0007", "\u202E"]) assert.notInclude(text, harmful)
    assert.match(text, /└─\\x1b\[2Jx+… +process/)
  })

  it("come and go with the watch that tells of them", () => {
    const model = TreeModel.make()
    const tell = (path: string, processes?: typeof family) =>
      TreeModel.apply(
        model,
        create(WatchTreeResponseSchema, {
          event: { case: "processes", value: processes === undefined ? { path } : { path, processes } }
        })
      )
    tell(HELLO, family)
    tell(FLAKY, family)
    assert.deepStrictEqual([...model.processes.keys()], [HELLO, FLAKY])
    assert.isUndefined(model.revision, "they are no part of any revision")
    tell(FLAKY)
    assert.deepStrictEqual([...model.processes.keys()], [HELLO])
    TreeModel.apply(
      model,
      create(WatchTreeResponseSchema, {
        event: { case: "changed", value: { path: HELLO, state: ActorState.RUNNING, revision: 50n } }
      })
    )
    assert.strictEqual(model.processes.size, 1, "a change of its actor leaves them")
    TreeModel.lost(model)
    assert.strictEqual(model.processes.size, 0)
  })
})
