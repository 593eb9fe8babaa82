/**
 * A small brain for tests of adoption: `taproot … -- node brain.ts STATE`, with the real services and tree. It serves the
 * containers on `STATE/brain.sock`: one line of JSON per request, one per answer.
 *
 * It can be told to kill itself with a certain step of what it does next: see `steps.ts`.
 *
 * It dies when it is killed, and ends in order when taproot asks.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { join } from "node:path"
import { decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import { ExecSpec } from "../../src/runtime/ExecSpec.ts"
import * as Steps from "./steps.ts"
import * as SmallBrain from "../support/smallBrain.ts"
import { brain, create, logText } from "./world.ts"

const Request = Schema.Struct({
  call: Schema.Literals([
    "create",
    "sandbox",
    "list",
    "start",
    "stop",
    "kill",
    "remove",
    "removeSandbox",
    "log",
    "import",
    "exec",
    "top",
    "pull",
    "images",
    "untag",
    "arm",
    "steps"
  ]),
  name: Schema.optionalKey(Schema.String),
  fields: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)),
  at: Schema.optionalKey(Schema.Int),
  stream: Schema.optionalKey(Schema.Literals(["stdout", "stderr"]))
})
const decodeExec = Schema.decodeUnknownEffect(ExecSpec)
const decode = Schema.decodeUnknownSync(Request)

const main = (state: string) =>
  Effect.gen(function* () {
    const { containers, content, root } = yield* brain(state, {
      ending: "release",
      allowance: { mounts: () => [{ path: join(state, "shared"), readOnly: false }] }
    })
    type Call = typeof Request.Type
    const calls: Readonly<Record<Call["call"], (name: string, request: Call) => Effect.Effect<unknown, unknown>>> = {
      exec: (name, { fields }) =>
        Effect.scoped(
          Effect.flatMap(
            Effect.flatMap(decodeExec(fields), (spec) => containers.exec(name, spec)),
            ({ process }) => Effect.as(process.exit, {})
          )
        ),
      top: (name) => containers.top(name),
      pull: (name) => Effect.map(content.pull(name), ({ digest }) => ({ digest })),
      images: () =>
        Effect.map(Effect.all([content.list, content.verify()]), ([images, { damages }]) => ({
          images: images.flatMap(({ references }) => references),
          damages
        })),
      untag: (name) => Effect.as(content.remove(name), {}),
      arm: (_name, { at = Number.POSITIVE_INFINITY }) => Effect.sync(() => Steps.arm(at)),
      steps: () => Effect.sync(() => Steps.count()),
      import: (name) => Effect.as(content.importFrom(name), {}),
      create: (name, { fields }) => create(containers, { ...fields, name }),
      sandbox: (name, { fields }) => Effect.flatMap(decodeSandboxSpec({ ...fields, name }), containers.createSandbox),
      removeSandbox: (name) => Effect.as(containers.removeSandbox(name, { force: true }), {}),
      list: () => containers.list,
      start: containers.start,
      stop: (name) => containers.stop(name),
      kill: (name) => containers.kill(name, "SIGKILL"),
      remove: (name) => Effect.as(containers.remove(name, { force: true }), {}),
      log: (name, { stream }) => logText(containers, name, { streams: [stream ?? "stdout"] })
    }
    const answer = (line: string) => {
      const request = decode(JSON.parse(line))
      return calls[request.call](request.name ?? "", request)
    }
    yield* SmallBrain.serve(state, root, answer)
  })

Steps.watchFiles()
await SmallBrain.run(main, Steps.watchProcesses)
