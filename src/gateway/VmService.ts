/** `ironwood.v1.VmService`: virtual machines over gRPC. What one looks like on the wire is in `VmMessages.ts`. */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { GracePeriod } from "../storage/Workload.ts"
import { VmSpecInvalid } from "../vmm/VmError.ts"
import { type Vm, Vms } from "../vmm/Vms.ts"
import { bidiStreaming, service, unary } from "./EffectGrpc.ts"
import { hasLabels, pageBy } from "./Page.ts"
import * as Policy from "./Policy.ts"
import { decoder, given, invalid, type InvalidRequest } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import { millisOf } from "./Time.ts"
import { memoryMethods } from "./VmMemoryMethods.ts"
import { diskFromProto, invalidSpec, nicFromProto, specFromProto, specToProto, vmToProto } from "./VmMessages.ts"
import { measureFromProto } from "./VmShapeMessages.ts"

const vm = (found: Vm) => ({ vm: vmToProto(found) })

const decodeStop = decoder(
  "",
  Proto.StopVmRequestSchema,
  Schema.Struct({ gracePeriod: Schema.optionalKey(GracePeriod) })
)

type Output = MessageInitShape<typeof Proto.StreamVmConsoleResponseSchema>

const mostInput = 65_536
const newline = Buffer.from("\n")

/** Answers the requests of one who looks at a console. */
const streamConsole = (requests: Stream.Stream<Proto.StreamVmConsoleRequest>) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const vms = yield* Vms
      const first = yield* Deferred.make<Proto.VmConsoleStart, InvalidRequest>()
      const wrongStart = invalid("start", "must come first")
      const broken = yield* Deferred.make<never, InvalidRequest | Effect.Error<ReturnType<typeof vms.attach>>>()
      let name: string | undefined
      const listen = Stream.runForEach(requests, ({ request }) =>
        Effect.gen(function* () {
          if (name === undefined) {
            if (request.case !== "start") return yield* wrongStart
            name = request.value.name
            return yield* Effect.asVoid(Deferred.succeed(first, request.value))
          }
          if (request.case !== "input") return yield* invalid("request", "must be input after the first one")
          if (request.value.length > mostInput) {
            return yield* invalid("input", `must be at most ${mostInput} bytes at a time`)
          }
          const process = yield* vms.attach(name)
          // a machine that ends meanwhile hears nothing more
          yield* Effect.ignore(process.write(request.value))
        })
      ).pipe(Effect.andThen(() => (name === undefined ? Effect.fail(wrongStart) : Effect.void)))
      yield* Effect.forkScoped(
        Effect.catch(listen, (error) =>
          name === undefined ? Deferred.fail(first, wrongStart) : Deferred.fail(broken, error)
        )
      )
      const { follow, name: wanted, tail } = yield* Deferred.await(first)
      if (wanted === "") return yield* invalid("start.name", "must be set")
      const printed = vms.console(wanted, {
        streams: ["stdout"],
        follow,
        ...(tail === undefined ? {} : { lines: tail })
      })
      return printed.pipe(
        Stream.map(({ complete, content }): Output => ({
          output: complete ? Buffer.concat([content, newline]) : content
        })),
        Stream.interruptWhen(Deferred.await(broken))
      )
    })
  ).pipe(Stream.scoped)

/** What is wrong with a spec, as fields of the request. */
const inRequest = <A, E extends { readonly _tag: string }, R>(
  message: DescMessage,
  effect: Effect.Effect<A, E | VmSpecInvalid, R>
) =>
  Effect.catchIf(
    effect,
    (error) => error instanceof VmSpecInvalid,
    (error) => Effect.fail(invalidSpec(error, "", message))
  )

/** The service. One value remembers request ids for as long as it lives: make it once per brain. */
export const makeVmService = () => {
  const { method } = Proto.VmService
  return service(Proto.VmService, {
    createVm: unaryOnce(
      method.createVm,
      Effect.fn("VmService.createVm")(function* (request) {
        const vms = yield* Vms
        const spec = yield* specFromProto(request.spec)
        const start = !request.notStarted
        const found = request.validateOnly
          ? vms.validate(spec)
          : Effect.asSome(vms.create(spec, { start, wait: start }))
        return Option.match(
          yield* Effect.catchTag(found, "VmSpecInvalid", (error) => Effect.fail(invalidSpec(error))),
          { onNone: () => ({ vm: { spec: specToProto(spec) } }), onSome: vm }
        )
      })
    ),
    getVm: unary(
      method.getVm,
      Effect.fn("VmService.getVm")(function* ({ name }) {
        return vm(yield* (yield* Vms).get(name))
      })
    ),
    listVms: unary(
      method.listVms,
      Effect.fn("VmService.listVms")(function* (request) {
        const all = yield* (yield* Vms).list
        const { labels } = request
        const { nextPageToken, page } = yield* pageBy(
          "vms",
          { labels },
          request,
          all.filter(({ spec }) => hasLabels(spec.labels, labels)),
          { schema: Proto.VmSchema, toProto: vmToProto, key: ({ name }) => name }
        )
        return { vms: page, nextPageToken }
      })
    ),
    startVm: unaryOnce(
      method.startVm,
      Effect.fn("VmService.startVm")(function* ({ name }) {
        return vm(yield* (yield* Vms).start(name))
      })
    ),
    stopVm: unaryOnce(
      method.stopVm,
      Effect.fn("VmService.stopVm")(function* (request) {
        const millis = request.gracePeriod && millisOf(request.gracePeriod)
        const { gracePeriod } = yield* decodeStop(given({ gracePeriod: millis }))
        return vm(yield* (yield* Vms).stop(request.name, gracePeriod))
      })
    ),
    resetVm: unaryOnce(
      method.resetVm,
      Effect.fn("VmService.resetVm")(function* ({ name }) {
        return vm(yield* (yield* Vms).reset(name))
      })
    ),
    pauseVm: unaryOnce(
      method.pauseVm,
      Effect.fn("VmService.pauseVm")(function* ({ name }) {
        return vm(yield* (yield* Vms).pause(name))
      })
    ),
    resumeVm: unaryOnce(
      method.resumeVm,
      Effect.fn("VmService.resumeVm")(function* ({ name }) {
        return vm(yield* (yield* Vms).resume(name))
      })
    ),
    removeVm: unaryOnce(
      method.removeVm,
      Effect.fn("VmService.removeVm")(function* ({ force, name }) {
        yield* (yield* Vms).remove(name, { force })
        return {}
      })
    ),
    setVmPolicy: unaryOnce(
      method.setVmPolicy,
      Effect.fn("VmService.setVmPolicy")(function* ({ name, policy }) {
        return vm(yield* (yield* Vms).setPolicy(name, yield* Policy.fromProto(policy)))
      })
    ),
    attachVmDisk: unaryOnce(
      method.attachVmDisk,
      Effect.fn("VmService.attachVmDisk")(function* ({ disk, name }) {
        const wanted = yield* diskFromProto(disk)
        return vm(yield* inRequest(method.attachVmDisk.input, (yield* Vms).attachDisk(name, wanted)))
      })
    ),
    detachVmDisk: unaryOnce(
      method.detachVmDisk,
      Effect.fn("VmService.detachVmDisk")(function* ({ name, path }) {
        return vm(yield* inRequest(method.detachVmDisk.input, (yield* Vms).detachDisk(name, path)))
      })
    ),
    attachVmNic: unaryOnce(
      method.attachVmNic,
      Effect.fn("VmService.attachVmNic")(function* ({ name, nic }) {
        const wanted = yield* nicFromProto(nic)
        return vm(yield* inRequest(method.attachVmNic.input, (yield* Vms).attachNic(name, wanted)))
      })
    ),
    detachVmNic: unaryOnce(
      method.detachVmNic,
      Effect.fn("VmService.detachVmNic")(function* ({ mac, name }) {
        return vm(yield* inRequest(method.detachVmNic.input, (yield* Vms).detachNic(name, mac)))
      })
    ),
    resizeVm: unaryOnce(
      method.resizeVm,
      Effect.fn("VmService.resizeVm")(function* (request) {
        const measure = yield* measureFromProto(request)
        return vm(yield* inRequest(method.resizeVm.input, (yield* Vms).resize(request.name, measure)))
      })
    ),
    streamVmConsole: bidiStreaming(method.streamVmConsole, streamConsole),
    ...memoryMethods()
  })
}
