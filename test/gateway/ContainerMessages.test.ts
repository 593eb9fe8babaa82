/** A container as its protobuf message. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Proto from "../../proto/generated/ironwood/v1/container_pb.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as ExitView from "../../src/actor/ExitView.ts"
import {
  ContainerExited,
  ContainerOomKilled,
  ContainerSignaled,
  ProgramNotExecutable,
  ProgramNotFound
} from "../../src/runtime/ContainerExit.ts"
import { decodeContainerSpec } from "../../src/runtime/ContainerSpec.ts"
import { exitToProto, invalidSpec, specFromProto, specToProto } from "../../src/gateway/ContainerMessages.ts"
import { SignalName, signalNames } from "../../src/taproot/Signals.ts"

/** Over the wire as bytes. */
const overTheWire = (spec: ReturnType<typeof specToProto>) =>
  fromBinary(Proto.ContainerSpecSchema, toBinary(Proto.ContainerSpecSchema, create(Proto.ContainerSpecSchema, spec)))

const text = (pattern: RegExp) => Schema.String.pipe(Schema.check(Schema.isPattern(pattern)))
const between = (minimum: number, maximum: number) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const Name = text(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/)
const Word = text(/^[ -~äöü€]{0,20}$/)
const Words = Schema.Array(Word).pipe(Schema.check(Schema.isBetweenLength(1, 4)))
const some = Schema.optionalKey

/** Specs as a person writes them: every field there or not. */
const Written = Schema.Struct({
  name: Name,
  sandbox: some(Name),
  image: text(/^[a-z0-9]{1,20}(:[a-z0-9]{1,9})?$/),
  entrypoint: some(Words),
  command: some(Words),
  after: some(Schema.Array(Name)),
  requires: some(Schema.Array(Name)),
  bindsTo: some(Schema.Array(Name)),
  environment: some(Schema.Record(text(/^[A-Z_]{1,9}$/), Word)),
  workingDirectory: some(text(/^\/[ -~]{0,20}$/)),
  user: some(text(/^[a-z0-9]{1,8}(:[a-z0-9]{1,8})?$/)),
  stopSignal: some(SignalName),
  stopGracePeriod: some(between(0, 86_400_000)),
  resources: some(
    Schema.Struct({
      memoryBytes: some(between(6 * 1024 * 1024, 2 ** 50)),
      cpus: some(Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 0.01, maximum: 4096 })))),
      pids: some(between(1, 4_194_304))
    })
  ),
  restart: some(Schema.Struct({ restart: some(RestartPolicy.RestartType) })),
  labels: some(Schema.Record(text(/^[a-z]{1,9}$/), Word)),
  readonlyRootfs: some(Schema.Boolean),
  log: some(Schema.Struct({ maxBytes: some(between(65_536, 2 ** 40)), maxFiles: some(between(1, 100)) }))
})

describe("ContainerMessages", () => {
  it.effect.prop("a spec goes over the wire and comes back the same", { written: Written }, ({ written }) =>
    Effect.gen(function* () {
      const decoded = yield* decodeContainerSpec(written)
      assert.deepStrictEqual(yield* specFromProto(overTheWire(specToProto(decoded))), decoded)
    })
  )

  it.effect("every wrong field is named, by the names of the request", () =>
    Effect.gen(function* () {
      const { violations } = yield* Effect.flip(
        specFromProto(
          create(Proto.ContainerSpecSchema, {
            name: "Not A Name",
            image: "hello",
            environment: { "A=B": "" },
            resources: { memoryBytes: 1n, cpus: -1 },
            restart: { backoff: { factor: 0.5 } },
            labels: { "two words": "" },
            stopSignal: "SIGNONSENSE"
          })
        )
      )
      assert.deepStrictEqual(violations.map(({ field }) => field).sort(), [
        "spec.environment[A=B]",
        "spec.labels[two words]",
        "spec.name",
        "spec.resources.cpus",
        "spec.resources.memory_bytes",
        "spec.restart.backoff.factor",
        "spec.stop_signal"
      ])
      for (const { description } of violations) assert.notStrictEqual(description, "")
    })
  )

  it.effect("a missing spec is one wrong field", () =>
    Effect.gen(function* () {
      const { violations } = yield* Effect.flip(specFromProto(undefined))
      assert.deepStrictEqual(violations, [{ field: "spec", description: "must be set" }])
    })
  )

  it("code and signal of an exit are read from what the runtime says", () => {
    const view = (failure: Error) => exitToProto(ExitView.fromExit(5, Exit.failCause(Cause.fail(failure)), false))
    assert.deepInclude(view(new ContainerExited({ name: "a", code: 137 })), {
      tag: "ContainerExited",
      code: 137,
      signal: ""
    })
    for (const signal of signalNames) {
      assert.deepInclude(view(new ContainerSignaled({ name: "a", signal, coreDumped: true })), {
        tag: "ContainerSignaled",
        code: undefined,
        signal
      })
    }
    assert.deepInclude(view(new ContainerOomKilled({ name: "a", kills: 1 })), { code: undefined, signal: "SIGKILL" })
    assert.deepInclude(view(new ProgramNotFound({ name: "a", program: "b" })), { code: 127, signal: "" })
    assert.deepInclude(view(new ProgramNotExecutable({ name: "a", program: "b", detail: "" })), { code: 126 })
    assert.deepInclude(exitToProto(ExitView.fromExit(5, Exit.void, false)), { code: 0, signal: "" })
  })

  it("names of needed containers that are wrong are told by the request's fields", () => {
    assert.deepStrictEqual(
      invalidSpec([
        { field: "after[0]", problem: "one" },
        { field: "bindsTo[12]", problem: "other" }
      ]).violations,
      [
        { field: "spec.after[0]", description: "one" },
        { field: "spec.binds_to[12]", description: "other" }
      ]
    )
  })
})
