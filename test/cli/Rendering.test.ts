/** What the commands print, letter by letter, against a server with the sample host. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { TestClock } from "effect/testing"
import { parse } from "yaml"
import { create } from "@bufbuild/protobuf"
import { ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { ActorSchema, ActorState, TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { plain } from "../../src/cli/Style.ts"
import * as SvgPicture from "../../src/cli/SvgPicture.ts"
import * as Text from "../../src/cli/Text.ts"
import * as TreeView from "../../src/cli/TreeView.ts"
import { ironwood, reading } from "./CommandLine.ts"
import { serve, streaming, unary } from "./FakeServer.ts"
import { actors, now, past, policy } from "./Samples.ts"

const printed = (args: ReadonlyArray<string>, options: Parameters<typeof ironwood>[1] = {}) =>
  Effect.gen(function* () {
    yield* TestClock.setTime(now)
    const address = yield* serve(
      ...reading,
      unary(TreeService.method.getActorHistory, () => ({
        entries: [
          {
            time: past(1.2),
            revision: 42n,
            event: "ended",
            incarnation: 15,
            exit: { message: "exited with code 1", tag: "ContainerExited" },
            decision: "restart",
            reason: "it ended (ContainerExited); permanent: restart in 4 s",
            delay: { seconds: 4n }
          },
          { time: past(9), revision: 41n, event: "started", incarnation: 15 }
        ]
      }))
    )
    const ran = yield* ironwood(["--address", address, ...args], options)
    assert.strictEqual(ran.err, "")
    assert.strictEqual(ran.code, 0)
    return ran.out
  })

describe("tree", () => {
  it.effect("draws the tree, and beside what is in trouble says why and when it is tried again", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* printed(["tree"]),
        `ironwood  10 actors: 1 parked, 1 backing-off, 8 running  revision 42

ACTOR        KIND       STATE          FOR  RESTARTS   PID  NOTE
init         root       running      2h13m         0        2 in trouble below  rest_for_one
├─storage    storage    running      2h13m         0        rest_for_one
│ └─state    state      running      2h13m         0
└─runtime    runtime    running      2h13m         0        2 in trouble below  one_for_one
  ├─hello    sandbox    running      2h13m         0        one_for_one
  │ └─hello  container  running      2h12m         0  4711  hello:latest
  ├─flaky    sandbox    running      2h13m         0        one_for_one
  │ └─flaky  container  backing-off     1s        14        exited with code 1 (1s ago), next try in 2.8s, back-off 4s, 4 failures in a row, 2 restarts left
  └─old      sandbox    running      2h13m         0        one_for_one
    └─old    container  parked          5m         5        killed: it used more than its 64MiB of memory (5m ago), parked until \`ironwood start old\`, 6 failures in a row
`
      )
    })
  )

  it.effect("as a picture has every word in its colour, at its place, and harms no viewer", () =>
    Effect.gen(function* () {
      const picture = yield* printed(["tree", "--svg"])
      assert.match(picture, /^<svg [^>]*viewBox="0 0 \d+ \d+" /)
      assert.match(picture, /<text x="16" y="30" [^>]*font-weight="bold">ironwood<\/text>/)
      assert.match(picture, /fill="#9a6700"[^>]*>backing-off<\/text>/)
      // below each other: the state of init and that of its children
      const states = [...picture.matchAll(/<text x="(\d+)"[^>]*>running<\/text>/g)].map((found) => found[1])
      assert.deepStrictEqual(states.slice(1), Array(8).fill(states[1]))
      const hostile = SvgPicture.make(["\u001B[31ma<script>&\u001B[39m\u001B[2Jb"], "</title>")
      assert.strictEqual(hostile.join("").match(/<script>|<\/title><\/title>/), null)
      assert.isFalse(hostile.join("").includes("\u001B"))
      assert.match(hostile.join(""), /fill="#b42318">a&lt;script&gt;&amp;</)
    })
  )

  it.effect("on a narrow terminal keeps the note on trouble whole, below", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* printed(["tree", "init/runtime/flaky"], { columns: 72 }),
        `ironwood  2 actors: 1 backing-off, 1 running  revision 42

ACTOR      KIND       STATE          FOR  RESTARTS  PID  NOTE
● flaky    sandbox    running      2h13m         0       one_for_one
└─◑ flaky  container  backing-off     1s        14
      exited with code 1 (1s ago), next try in 2.8s, back-off 4s, 4
      failures in a row, 2 restarts left
`
      )
    })
  )

  it.effect("colours only where asked to", () =>
    Effect.gen(function* () {
      assert.notInclude(yield* printed(["tree"], { columns: 100 }), "\u001B")
      assert.include(yield* printed(["tree"], { columns: 100, color: true }), "\u001B[33mbacking-off")
      assert.notInclude(yield* printed(["tree", "--no-color"], { columns: 100, color: true }), "\u001B")
      assert.include(yield* printed(["tree", "--color"]), "\u001B[")
    })
  )

  it.effect("as JSON and YAML is the API's list, the pages put together", () =>
    Effect.gen(function* () {
      const Tree = Schema.Struct({
        revision: Schema.String,
        actors: Schema.Array(Schema.Struct({ path: Schema.String, state: Schema.String, restarts: Schema.Int }))
      })
      const json = yield* Schema.decodeUnknownEffect(Tree)(JSON.parse(yield* printed(["tree", "-o", "json"])))
      assert.strictEqual(json.revision, "42")
      assert.strictEqual(json.actors.length, actors.length)
      assert.deepStrictEqual(json.actors[7], {
        path: "init/runtime/flaky/flaky",
        state: "ACTOR_STATE_BACKING_OFF",
        restarts: 14
      })
      assert.deepStrictEqual(
        parse(yield* printed(["tree", "-o", "yaml"])),
        JSON.parse(yield* printed(["-o", "json", "tree"]))
      )
    })
  )

  it.effect("as JSON shows those in trouble alone, too, and says where a flag means nothing", () =>
    Effect.gen(function* () {
      const Tree = Schema.Struct({ actors: Schema.Array(Schema.Struct({ path: Schema.String })) })
      const json = JSON.parse(yield* printed(["tree", "--troubled", "-o", "json"]))
      assert.deepStrictEqual(
        (yield* Schema.decodeUnknownEffect(Tree)(json)).actors.map(({ path }) => path),
        [
          "init",
          "init/runtime",
          "init/runtime/flaky",
          "init/runtime/flaky/flaky",
          "init/runtime/old",
          "init/runtime/old/old"
        ]
      )
      const address = yield* serve(...reading)
      const refused = yield* ironwood(["--address", address, "tree", "--watch", "--troubled"])
      assert.strictEqual(refused.code, 2)
      assert.include(refused.err, "--troubled says how the picture of --watch is drawn")
    })
  )

  const many = new Map(
    [
      create(ActorSchema, { path: "init", kind: "root", state: ActorState.RUNNING }),
      ...Array.from({ length: 40 }, (_, index) =>
        create(ActorSchema, {
          path: `init/c${index}`,
          kind: "container",
          state: index === 30 ? ActorState.FAILED : ActorState.RUNNING
        })
      )
    ].map((actor) => [actor.path, actor])
  )

  it("when it is too high for the screen puts the healthy ones together, never those in trouble", () => {
    const lines = TreeView.render(many, { now, style: plain, symbols: true, width: 80, height: 12 })
    assert.isAtMost(lines.length, 12)
    assert.isTrue(lines.some((line) => line.includes("✗ c30")))
    assert.isTrue(lines.some((line) => line.includes("… 39 running")))
    assert.include(lines[0] ?? "", "41 actors: 1 failed, 40 running")
  })

  const drawn = (options: Partial<TreeView.Options> = {}, actors = many) =>
    TreeView.render(actors, { now, style: plain, symbols: false, ...options })

  it("puts a crowd that is well into one line, and unfolds it on demand", () => {
    assert.deepStrictEqual(drawn(), [
      "ironwood  41 actors: 1 failed, 40 running",
      "",
      "ACTOR           KIND       STATE    FOR  RESTARTS  PID  NOTE",
      "init            root       running              0       1 in trouble below",
      "├─c30           container  failed               0",
      "└─… 39 running  container  running              0       --all shows each"
    ])
    assert.lengthOf(drawn({ all: true }), 3 + 41)
  })

  it("shows those in trouble alone, with what is above them", () => {
    assert.deepStrictEqual(
      drawn({ troubledOnly: true })
        .slice(3)
        .map((line) => line.slice(0, 6).trim()),
      ["init", "└─c30"]
    )
    const well = new Map([...many].filter(([, { state }]) => state === ActorState.RUNNING))
    assert.deepStrictEqual(drawn({ troubledOnly: true }, well), [
      "ironwood  40 actors: 40 running",
      "",
      "Nothing is in trouble."
    ])
  })

  it("folds by state, with what is below, and counts restarts", () => {
    const pods = new Map(
      [
        create(ActorSchema, { path: "init", state: ActorState.RUNNING }),
        ...Array.from({ length: 24 }, (_, index) => [
          create(ActorSchema, {
            path: `init/p${index}`,
            kind: "sandbox",
            state: index % 2 === 0 ? ActorState.RUNNING : ActorState.STOPPED,
            restarts: 2
          }),
          create(ActorSchema, { path: `init/p${index}/c`, state: ActorState.RUNNING })
        ]).flat()
      ].map((actor) => [actor.path, actor])
    )
    assert.deepStrictEqual(
      drawn({}, pods)
        .slice(4)
        .map((line) => line.replaceAll(/ {2,}/g, "  ")),
      [
        "├─… 12 running  sandbox  running  24  and 12 actors below them; --all shows each",
        "└─… 12 stopped  sandbox  stopped  24  and 12 actors below them; --all shows each"
      ]
    )
  })

  it("sees a crash loop also between its crashes", () => {
    const looping = (seconds: number) =>
      create(ActorSchema, {
        path: "init",
        state: ActorState.RUNNING,
        startTime: past(seconds),
        consecutiveFailures: 4,
        lastExit: { message: "exited with code 1", time: past(seconds + 1) },
        policy
      })
    const note = (seconds: number) => drawn({}, new Map([["init", looping(seconds)]]))[3] ?? ""
    assert.include(note(3), "up again after 4 failures in a row, the last: exited with code 1")
    assert.notInclude(note(11), "failures")
    const starting = create(ActorSchema, { ...looping(3), state: ActorState.STARTING })
    const troubled = drawn({ troubledOnly: true }, new Map([["init", starting]])).join("\n")
    assert.include(troubled, "started again after 4 failures in a row, the last: exited with code 1")
    assert.notInclude(
      drawn({}, new Map([["init", create(ActorSchema, { ...starting, consecutiveFailures: 0 })]])).join("\n"),
      "started again"
    )
  })

  it("never draws beyond the screen", () => {
    for (const width of [1, 20, 40, 79, 200]) {
      for (const height of [1, 2, 5, 12, 100]) {
        const lines = TreeView.render(many, { now, style: plain, symbols: true, width, height })
        assert.isAtMost(lines.length, Math.max(2, height), `${width}×${height}`)
        for (const line of lines.slice(0, height - 1)) assert.isAtMost(Text.width(line), width)
      }
    }
  })
})

describe("ps", () => {
  it.effect("shows what is up or in trouble, as docker does", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* printed(["ps"]),
        `NAME   IMAGE         COMMAND                       CREATED    STATUS                               RESTARTS   PID
flaky  hello:latest  /bin/sh -c "sleep 1; exit 1"  2h12m ago  Exited (1) 1s ago, next try in 2.8s        14
hello  hello:latest                                2h12m ago  Up 2h12m                                    0  4711
old    hello:latest                                2h12m ago  Parked 5m ago, out of memory                5
`
      )
      assert.include(yield* printed(["ps", "-a"]), "quiet  hello:latest")
      assert.strictEqual(yield* printed(["ps", "-aq"]), "flaky\nhello\nold\nquiet\n")
    })
  )
})

describe("inspect and policy", () => {
  it.effect("tells everything of a container", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* printed(["inspect", "flaky"]),
        `init/runtime/flaky/flaky  container  backing-off for 1s

State
  trouble            exited with code 1 (1s ago), next try in 2.8s, back-off 4s, 4 failures in a row, 2 restarts left
  incarnation        15
  restarts           14
  failures in a row  4
  budget left        2 restarts

Last exit
  when     1s ago
  kind     ContainerExited
  message  exited with code 1

Container
  image      hello:latest
  command    /bin/sh -c "sleep 1; exit 1"
  sandbox    flaky
  stop       the image's signal, killed after 0s
  asked for  running
  created    2h12m ago
  uid        u-flaky

Restart policy
  restart   permanent (restarted however it ends)
  back-off  500ms × 2 each time up to 30s ± 20 %
  healthy   after 10s up
  budget    5 restarts in 10m, then parked until a person starts it

History (newest first)
  WHEN    REVISION  LIFE  EVENT    EXIT                DECISION
  1s ago        42    15  ended    exited with code 1  it ended (ContainerExited); permanent: restart in 4 s
  9s ago        41    15  started
`
      )
    })
  )

  it.effect("shows a policy as a spec file has it", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(parse(yield* printed(["policy", "get", "hello", "-o", "yaml"])), {
        restart: "RESTART_TYPE_PERMANENT",
        backoff: {
          initial: "0.500s",
          curve: "BACKOFF_CURVE_EXPONENTIAL",
          factor: 2,
          max: "30s",
          jitter: 0.2,
          resetAfter: "10s"
        },
        budget: { restarts: 5, within: "600s", window: "BUDGET_WINDOW_SLIDING" },
        whenSpent: "WHEN_SPENT_PARK",
        rules: [],
        fallback: "",
        rememberStop: true,
        preset: ""
      })
    })
  )
})

describe("events", () => {
  it.effect("prints a line per change with its revision, and JSON lines for programs", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(now)
      const address = yield* serve(
        streaming(TreeService.method.watchTree, (_, sink) => {
          sink.send({
            event: { case: "snapshot", value: { revision: 42n, actors: [...actors], first: true, last: true } }
          })
          const flaky = actors[7]
          if (flaky !== undefined) sink.send({ event: { case: "changed", value: flaky } })
          sink.send({ event: { case: "removed", value: { path: "init/runtime/old/old", revision: 43n } } })
          // the write of a fourth line meets the closed pipe
          sink.send({ event: { case: "removed", value: { path: "init/runtime/old", revision: 44n } } })
        })
      )
      const lines = (args: ReadonlyArray<string>) =>
        Effect.map(ironwood(["--address", address, "events", ...args], { closeAfter: 3 }), ({ code, out }) => {
          assert.strictEqual(code, 0)
          return out.trimEnd().split("\n")
        })
      const table = (yield* lines([])).map((line) => line.replace(/^\d\d:\d\d:\d\d\.\d{3} {2}/, ""))
      assert.deepStrictEqual(table, [
        "r42     snapshot     10 actors: 1 parked, 1 backing-off, 8 running",
        "r42     backing-off  init/runtime/flaky/flaky  exited with code 1 (0s ago), next try in 4s, back-off 4s, 4 failures in a row, 2 restarts left",
        "r43     removed      init/runtime/old/old"
      ])
      const json = (yield* lines(["-o", "json"])).map((line) => Object.keys(Object(JSON.parse(line))))
      assert.deepStrictEqual(json, [["snapshot"], ["changed"], ["removed"]])
    })
  )
})

describe("image pull", () => {
  it.effect("on a terminal draws a bar for each layer on its way, in place, and takes them away again", () =>
    Effect.gen(function* () {
      const layer = (name: string, doneBytes: bigint, done = false) => ({
        digest: `sha256:${name.repeat(64)}`,
        doneBytes,
        totalBytes: 10_485_760n,
        done
      })
      const totals = { step: "layers", image: "app:1", totalBytes: 20_971_520n, totalLayers: 2 }
      const address = yield* serve(
        streaming(ImageService.method.pullImage, (_, sink) => {
          const steps = [
            { ...totals, doneBytes: 5_242_880n, layers: [layer("a", 5_242_880n), layer("b", 0n)] },
            {
              ...totals,
              doneBytes: 15_728_640n,
              doneLayers: 1,
              layers: [layer("a", 10_485_760n, true), layer("b", 5_242_880n)]
            },
            {
              ...totals,
              doneBytes: 20_971_520n,
              doneLayers: 1,
              layers: [layer("a", 10_485_760n, true), layer("b", 10_485_760n)]
            }
          ]
          for (const value of steps) sink.send({ event: { case: "progress", value } })
          sink.send({ event: { case: "image", value: { digest: "sha256:abcdef", names: ["app:1"] } } })
          sink.end()
        })
      )
      const ran = yield* ironwood(["--address", address, "image", "pull", "app:1"], { columns: 70 })
      assert.strictEqual(ran.code, 0)
      const drawn = ran.err.replaceAll(/ {2}[\d.]+\w+\/s/g, "  SPEED").split("\u001B[J")
      assert.deepStrictEqual(drawn, [
        "\rapp:1 5MiB of 20MiB  0 of 2 layers  SPEED\u001B[K\n" +
          "  aaaaaaaaaaaa [============>           ] 5MiB of 10MiB\u001B[K\n" +
          "  bbbbbbbbbbbb [>                       ] waiting\u001B[K\n",
        "\u001B[3A\rapp:1 15MiB of 20MiB  1 of 2 layers  SPEED\u001B[K\n" +
          "  bbbbbbbbbbbb [============>           ] 5MiB of 10MiB\u001B[K\n",
        "\u001B[2A\rapp:1 20MiB of 20MiB  1 of 2 layers\u001B[K\n" +
          "  bbbbbbbbbbbb [========================] unpacking\u001B[K\n",
        "\u001B[2A\r",
        ""
      ])
    })
  )
})
