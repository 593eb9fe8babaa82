/** Presets and the dry run on the command line, against the gateway's own answers. */
import { create, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import { parse } from "yaml"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { type RestartPolicy, RestartPolicySchema } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { PlannedExitSchema, PolicyService } from "../../proto/generated/ironwood/v1/policy_service_pb.ts"
import * as ExitPlan from "../../src/cli/ExitPlan.ts"
import * as PolicyText from "../../src/cli/PolicyText.ts"
import * as Policy from "../../src/gateway/Policy.ts"
import { explainPolicy, listPresets } from "../../src/gateway/PolicyService.ts"
import { ironwood, reading } from "./CommandLine.ts"
import { serve, unary } from "./FakeServer.ts"

const answering = [
  ...reading,
  unary(PolicyService.method.listPresets, listPresets),
  unary(PolicyService.method.explainPolicy, (request) => Effect.runSync(explainPolicy(request)))
]

const run = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const address = yield* serve(...answering)
  return yield* ironwood(["--address", address, "policy", ...args])
})

describe("a list of exits", () => {
  const read = (text: string): ReadonlyArray<JsonValue> =>
    Result.getOrThrow(ExitPlan.parse(text)).map((exit) => toJson(PlannedExitSchema, exit))

  it("is times and what happens then", () => {
    assert.deepStrictEqual(read("1s:code=1 x2, 500ms:signal=kill, @2m:oom, ok, 0:probe=liveness+unready"), [
      { after: "1s", facts: { exitCode: 1 } },
      { after: "1s", facts: { exitCode: 1 } },
      { after: "0.500s", facts: { signal: "SIGKILL" } },
      { at: "120s", facts: { outOfMemory: true } },
      { exitClass: "EXIT_CLASS_NORMAL", facts: {} },
      { after: "0s", beforeReady: true, facts: { probe: "liveness" } }
    ])
    assert.deepStrictEqual(read("tag=ImageMissing, 1s:class=defect+tag=TypeError"), [
      { tag: "ImageMissing", facts: {} },
      { after: "1s", tag: "TypeError", exitClass: "EXIT_CLASS_DEFECT", facts: {} }
    ])
  })
  it("says what would have been right", () => {
    for (const [text, words] of [
      ["", "[TIME:]WHAT"],
      ["1:ok", "has no unit"],
      ["1s:code=x", "0 to 255"],
      ["1s:crash", "[TIME:]WHAT"],
      ["1s:oom=yes", "[TIME:]WHAT"],
      ["1s:class=bad", "not-started"],
      ["ok x1001", "at most 1000"]
    ] as const) {
      const result = ExitPlan.parse(text)
      assert.isTrue(Result.isFailure(result), text)
      if (Result.isFailure(result)) assert.include(result.failure, words)
    }
  })
})

describe("policy explain", () => {
  it.effect("shows a timeline with reasons, and where it ends", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run("explain", "--preset", "systemd", "--exits", "1s:code=1 x4, 0:oom, 1s:ok")
      assert.strictEqual(code, 0, err)
      assert.strictEqual(
        out,
        `restart   transient (restarted when it fails)
rule 1    SIGHUP or SIGINT or SIGTERM or SIGPIPE, not out of memory: it is over, as after a normal end
back-off  100ms up to 1m
healthy   after 10s up
budget    5 starts in each 10s, then parked until a person starts it

  AT  RUN  UP  EXIT                           DECISION  DELAY  NEXT START  LEFT  WHY
  1s    1  1s  exited with code 1             restart   100ms        1.1s     3  it ended (ContainerExited), consecutive end number 1; transient: restart in 100 ms
2.1s    2  1s  exited with code 1             restart   100ms        2.2s     2  it ended (ContainerExited), consecutive end number 2; transient: restart in 100 ms
3.2s    3  1s  exited with code 1             restart   100ms        3.3s     1  it ended (ContainerExited), consecutive end number 3; transient: restart in 100 ms
4.3s    4  1s  exited with code 1             restart   100ms        4.4s     0  it ended (ContainerExited), consecutive end number 4; transient: restart in 100 ms
4.4s    5  0s  killed because memory was out  park                            0  it ended (ContainerOomKilled); its budget of 5 starts in 10 s is spent: it is parked until somebody starts it
5.4s    5      ended normally                 –                               0  it was not running: parked

In the end: parked until somebody starts it.
`
      )
    })
  )
  it.effect("takes the policy of a container, of a file, and of nobody", () =>
    Effect.gen(function* () {
      const { out } = yield* run("explain", "hello", "--exits", "1s:code=1")
      assert.include(out, "5 restarts in 10m, then parked")
      assert.include(out, "400ms–600ms")
      assert.include((yield* run("explain")).out, "In the end: backing off; run 9 is next")

      const files = yield* FileSystem.FileSystem
      const directory = yield* files.makeTempDirectoryScoped()
      const file = `${directory}/policy.yaml`
      yield* files.writeFileString(file, "restart: transient\nmaxConsecutive: 2\nwhenSpent: park\n")
      assert.include((yield* run("explain", "-f", file)).out, "that is 2 ends in a row")
      yield* files.writeFileString(
        file,
        "kind: Container\nname: a\nimage: x\nrestart: { preset: kubernetes }\n---\nkind: Vm\nname: b\nrestart: { maxConsecutive: 1 }\n"
      )
      assert.include((yield* run("explain", "-f", file, "a")).out, "first 0s, then 10s × 2 each time up to 5m")
      assert.include((yield* run("explain", "-f", file, "b")).out, "1 end without a healthy run")
      const unnamed = yield* run("explain", "-f", file)
      assert.deepStrictEqual([unnamed.code, unnamed.err.includes("Name one: a, b")], [2, true])
      yield* files.writeFileString(file, "restart: transient\nmaxConsecutiv: 2\n")
      const wrong = yield* run("explain", "-f", file)
      assert.include(wrong.err, `${file}:2: no field "maxConsecutiv"; did you mean "maxConsecutive"?`)
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )
  it.effect("is the API's answer for programs", () =>
    Effect.gen(function* () {
      const { out } = yield* run("explain", "--preset", "permanent", "--intensity", "1/5s", "-o", "yaml")
      const answer: unknown = parse(out)
      assert.deepInclude(answer, {
        state: "ACTOR_STATE_FAILED",
        summary: "failed; its supervisor gives up and fails too"
      })
    })
  )
  it.effect("says what is wrong with the command line", () =>
    Effect.gen(function* () {
      for (const [args, words] of [
        [["--preset", "kubernets"], 'Did you mean "kubernetes"?'],
        [["--preset", "docker", "hello"], "--preset is a policy of its own"],
        [["--exits", "soon"], "[TIME:]WHAT"],
        [["--intensity", "5"], "5/10m"]
      ] as const) {
        const { code, err } = yield* run("explain", ...args)
        assert.strictEqual(code, 2, err)
        assert.include(err, words)
      }
    })
  )
})

it.effect("policy presets lists names and what they do", () =>
  Effect.gen(function* () {
    const { out } = yield* run("presets")
    assert.match(out, /^PRESET +WHAT IT DOES\npermanent +Erlang/)
    assert.include(out, "kubernetes")
  })
)

it.effect("policy set takes a preset, and what is said beside it", () =>
  Effect.gen(function* () {
    let sent: RestartPolicy | undefined
    const address = yield* serve(
      ...answering,
      unary(ContainerService.method.setContainerPolicy, ({ policy }) => {
        sent = policy
        return {}
      })
    )
    const line =
      "policy set hello --preset systemd --curve linear --factor 2 --max-consecutive 9 --when-spent fallback --fallback spare --remember-stop false"
    const { code, err, out } = yield* ironwood(["--address", address, ...line.split(" ")])
    assert.strictEqual(code, 0, err)
    const policy = yield* Policy.fromProto(sent)
    assert.deepInclude(policy, { restart: "transient", maxConsecutive: 9, fallback: "spare", rememberStop: false })
    assert.strictEqual(policy.backoff.curve, "linear")
    assert.include(out, "100ms + 100ms each time up to 1m")
    assert.include(out, "9 ends without a healthy run, then parked, and spare started in its place (fallback)")
    assert.include(out, "a person's is forgotten when Ironwood restarts")
  })
)

it("rules are told in words", () => {
  const lines = PolicyText.lines(
    fromJson(RestartPolicySchema, {
      restart: "RESTART_TYPE_TEMPORARY",
      whenSpent: "WHEN_SPENT_PARK",
      rules: [
        { on: { outOfMemory: true }, then: "RULE_ACTION_RESTART", consecutive: 3 },
        {
          on: { tags: ["ImageMissing"], classes: ["EXIT_CLASS_FAILURE"] },
          counts: false,
          backoff: { initial: "10s", curve: "BACKOFF_CURVE_FIBONACCI", max: "300s" }
        },
        { on: { exitCodes: [1, 2], probeFailed: false }, then: "RULE_ACTION_REBOOT_HOST" }
      ]
    })
  )
  assert.deepStrictEqual(lines.slice(0, 4), [
    ["restart", "temporary (never restarted)"],
    ["rule 1", "out of memory: restarted, at most 3 times in a row, then parked until a person starts it"],
    ["rule 2", "ImageMissing, a failure: restarted, 10s × 1, 1, 2, 3, 5 … up to 5m, which does not count"],
    ["rule 3", "exit code 1 or 2, no failed probe: the host reboots"]
  ])
  assert.deepStrictEqual(PolicyText.lines(create(RestartPolicySchema, { restart: 3 })), [
    ["restart", "temporary (never restarted)"]
  ])
})
