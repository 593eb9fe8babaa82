/**
 * A small brain for tests of what is left when one dies: `taproot … -- node brain.ts STATE`, with the real services and tree. It
 * serves the virtual machines on `STATE/brain.sock`: one line of JSON per request, one per answer. It can be told to kill itself with
 * a certain step of what it does next: see `../runtime/steps.ts`.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Vm } from "../../src/vmm/Vms.ts"
import { DiskSpec } from "../../src/vmm/VmSpec.ts"
import * as Steps from "../runtime/steps.ts"
import * as SmallBrain from "../support/smallBrain.ts"
import { brain, specOf } from "./world.ts"

const Request = Schema.Struct({
  call: Schema.Literals([
    "create",
    "list",
    "start",
    "stop",
    "remove",
    "snapshot",
    "snapshots",
    "restore",
    "clone",
    "migrate",
    "attach",
    "arm",
    "steps"
  ]),
  name: Schema.optionalKey(Schema.String),
  fields: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)),
  at: Schema.optionalKey(Schema.Int)
})
const decode = Schema.decodeUnknownSync(Request)
const decodeDisk = Schema.decodeUnknownEffect(DiskSpec)

const view = ({ desired, incarnation, name, pid, restarts, spec, state }: Vm) => ({
  name,
  desired,
  state,
  pid,
  incarnation,
  restarts,
  disks: spec.disks.length
})

const main = (state: string) =>
  Effect.gen(function* () {
    const { moves, restores, root, snapshots, vms } = yield* brain(state, { ending: "release" })
    type Call = typeof Request.Type
    const calls: Readonly<Record<Call["call"], (name: string, request: Call) => Effect.Effect<unknown, unknown>>> = {
      create: (name, { fields }) =>
        Effect.map(
          Effect.flatMap(specOf(name, fields), (spec) => vms.create(spec, { wait: true })),
          view
        ),
      list: () => Effect.map(vms.list, (found) => found.map(view)),
      start: (name) => Effect.map(vms.start(name), view),
      stop: (name) => Effect.map(vms.stop(name, Duration.zero), view),
      remove: (name) => Effect.as(vms.remove(name, { force: true }), {}),
      snapshot: (name) => snapshots.create(name, "good"),
      snapshots: (name) => snapshots.list(name),
      restore: (name) => Effect.map(restores.restore(name, "good"), view),
      clone: (name) => Effect.map(restores.clone(name, "good", `${name}-clone`), view),
      migrate: (name) => Effect.map(moves.migrate(name), ({ vm }) => view(vm)),
      attach: (name, { fields }) =>
        Effect.map(
          Effect.flatMap(decodeDisk(fields), (disk) => vms.attachDisk(name, disk)),
          view
        ),
      arm: (_name, { at = Number.POSITIVE_INFINITY }) => Effect.sync(() => Steps.arm(at)),
      steps: () => Effect.sync(() => Steps.count())
    }
    const answer = (line: string) => {
      const request = decode(JSON.parse(line))
      return calls[request.call](request.name ?? "", request)
    }
    yield* SmallBrain.serve(state, root, answer)
  })

Steps.watchFiles()
Steps.watchMonitors()
await SmallBrain.run(main, (processes) => Steps.watchSignals(Steps.watchProcesses(processes)))
