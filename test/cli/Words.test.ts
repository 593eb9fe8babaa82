/** The small word-handling parts: did-you-mean, cutting text, where a container's command begins, policies in a word. */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { RestartPolicySchema, RestartType, WhenSpent } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { ActorSchema, ActorState } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "../../src/cli/ActorText.ts"
import { run } from "../../src/cli/commands/run.ts"
import { generateName } from "../../src/cli/Names.ts"
import { parseRestart, withRestart } from "../../src/cli/PolicyFlags.ts"
import { separate, valueFlags } from "../../src/cli/RunArguments.ts"
import { colored } from "../../src/cli/Style.ts"
import { nearest } from "../../src/cli/Suggest.ts"
import * as Table from "../../src/cli/Table.ts"
import * as Text from "../../src/cli/Text.ts"

describe("did you mean", () => {
  it("finds what is near and keeps quiet about the rest", () => {
    assert.strictEqual(nearest("helo", ["hello", "web"]), "hello")
    assert.strictEqual(nearest("imgae", ["image", "name"]), "image")
    assert.strictEqual(nearest("WEB", ["web"]), "web")
    assert.strictEqual(nearest("zzz", ["hello", "web"]), undefined)
    assert.strictEqual(nearest("a", []), undefined)
  })
})

describe("text", () => {
  it("makes strangers' text harmless", () => {
    assert.strictEqual(Text.clean("a\u001B[31mb\nc\td\u202Ee\u0007"), "a\\x1b[31mb c d\\u202ee\\x07")
  })

  it("cuts by cells and closes colours", () => {
    assert.strictEqual(Text.fit("hello", 5), "hello")
    assert.strictEqual(Text.fit("hello world", 8), "hello w…")
    assert.strictEqual(Text.fit("ファイル", 5), "ファ…")
    assert.strictEqual(Text.fit(colored.red("hello world"), 6), "\u001B[31mhello…\u001B[0m")
  })

  it.effect.prop(
    "never exceeds its cells",
    { text: Schema.String, cells: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 40 }))) },
    ({ cells, text }) => Effect.sync(() => assert.isAtMost(Text.width(Text.fit(Text.clean(text), cells)), cells))
  )
})

describe("tables", () => {
  const columns = [
    { title: "NAME", shrinkTo: 4 },
    { title: "N", align: "right" },
    { title: "GONE", optional: true },
    { title: "NOTE", shrinkTo: 6 }
  ] as const
  const rows = [
    ["a-long-name", "1", "", "short"],
    ["b", "100", "", "a rather long note"]
  ]

  it("aligns, leaves out empty columns, and cuts nothing without a width", () => {
    assert.deepStrictEqual(Table.render(columns, rows), [
      "NAME           N  NOTE",
      "a-long-name    1  short",
      "b            100  a rather long note"
    ])
  })

  it("shrinks the widest columns to fit", () => {
    const lines = Table.render(columns, rows, { width: 26 })
    for (const line of lines) assert.isAtMost(Text.width(line), 26)
    assert.include(lines[2] ?? "", "…")
  })
})

describe("ironwood run's words", () => {
  const globals = new Set(["address", "output", "o"])
  const own = valueFlags(run)
  const split = (line: string) => separate(line.split(" "), globals, { run: own, create: own }).join(" ")

  it("ends the flags at the image", () => {
    assert.strictEqual(split("run hello ls -la"), "run hello -- ls -la")
    assert.strictEqual(split("run -d --name web hello --name x"), "run -d --name web hello -- --name x")
    assert.strictEqual(split("-o json run -m 64m hello"), "-o json run -m 64m hello --")
    assert.strictEqual(split("--address unix:/x run --rm hello -- sh"), "--address unix:/x run --rm hello -- sh")
    assert.strictEqual(split("run --memory=64m -e A=B hello -d"), "run --memory=64m -e A=B hello -- -d")
    assert.strictEqual(split("run -eA=B hello sh -cx"), "run -e A=B hello -- sh -cx")
    assert.strictEqual(split("run -dm 64m hello"), "run -dm 64m hello --")
    assert.strictEqual(split("run --help"), "run --help")
    assert.strictEqual(split("ps -a run hello"), "ps -a run hello")
  })

  it("knows which of its flags take a value", () => {
    for (const name of [
      "name",
      "env",
      "e",
      "memory",
      "m",
      "restart",
      "entrypoint",
      "stop-timeout",
      "label",
      "l",
      "cpus"
    ]) {
      assert.isTrue(own.has(name), name)
    }
    for (const name of ["detach", "d", "rm", "read-only"]) assert.isFalse(own.has(name), name)
  })

  it("makes names the server takes", () => {
    for (const value of [0, 0.5, 0.999999])
      assert.match(
        generateName(() => value),
        /^[a-z][a-z0-9-]{0,61}[a-z0-9]$/
      )
  })
})

describe("a mailbox in a word", () => {
  it("is how much waits, and for how long", () => {
    const told = (mailboxDepth?: number, sent?: number) =>
      ActorText.mailbox(
        create(ActorSchema, {
          ...(mailboxDepth === undefined ? {} : { mailboxDepth }),
          ...(sent === undefined ? {} : { oldestMessageTime: timestampFromMs(sent) })
        }),
        10_000
      )
    assert.deepStrictEqual(
      [told(), told(0), told(1, 8_000), told(40, 9_500)],
      ["", "0 messages waiting", "1 message waiting, the oldest for 2s", "40 messages waiting, the oldest for 500ms"]
    )
  })
})

describe("one that waits, in a word", () => {
  it("says for whom, or on whose account it is down", () => {
    const told = (given: MessageInitShape<typeof ActorSchema>) =>
      ActorText.troubles(create(ActorSchema, { path: "init/a", state: ActorState.WAITING, ...given }), 10_000)
    assert.deepStrictEqual(told({}), [])
    assert.deepStrictEqual(told({ waitingFor: ["init/b", "init/c"], because: "init/b" }), ["waits for b, c"])
    assert.deepStrictEqual(told({ because: "init/b" }), ["down because of init/b"])
    assert.deepStrictEqual(told({ because: "init/b", state: ActorState.RUNNING }), [])
  })
})

describe("restart policies in a word", () => {
  const type = (word: string) =>
    Result.getOrElse(
      Result.map(parseRestart(word), (found) => found.type),
      () => -1
    )

  it("takes OTP's words and docker's", () => {
    assert.deepStrictEqual(["permanent", "always", "unless-stopped"].map(type), [1, 1, 1])
    assert.deepStrictEqual(["transient", "on-failure", "on-failure:3"].map(type), [2, 2, 2])
    assert.deepStrictEqual(["temporary", "no"].map(type), [3, 3])
    assert.deepStrictEqual(["sometimes", "always:3", "on-failure:x", ""].map(type), [-1, -1, -1, -1])
  })

  it("makes a budget of docker's count, and then parks", () => {
    const policy = withRestart(create(RestartPolicySchema), { type: RestartType.TRANSIENT, restarts: 3 })
    assert.strictEqual(policy.budget?.restarts, 3)
    assert.strictEqual(policy.budget?.within?.seconds, 3600n)
    assert.strictEqual(policy.whenSpent, WhenSpent.PARK)
  })
})
