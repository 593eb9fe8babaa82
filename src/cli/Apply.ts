/**
 * Making what spec files say: all of it is checked first ({@link check}), and one mistake anywhere means that nothing is done.
 *
 * Then images come before sandboxes, sandboxes before containers, and virtual machines last, each kind in the order of the files, but a container
 * after those that it needs. A container that differs from the file only in what can be set while it runs (its restart
 * policy) is changed so: the file is what is wanted, also where somebody has set a policy since. What fails all the same (a full disk, a layer that is cut short, somebody else at work) leaves nothing half made of itself, does not stop the
 * others of its kind, and lets no later kind begin: containers are not started beside an import that failed.
 */
import { create as createMessage, type DescMessage, type MessageShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import { ContainerService, CreateContainerResponseSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { ImportImageResponseSchema } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { CreateSandboxResponseSchema, SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { CreateVmResponseSchema, VmService } from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { assumedOf } from "./Assumed.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import { exitCodes } from "./ExitCode.ts"
import { type Failure, failure } from "./Failure.ts"
import { answered, type Done } from "./ForEach.ts"
import { style as currentStyle } from "./Globals.ts"
import { importImages, nameOf } from "./ImageImport.ts"
import * as Manifest from "./Manifest.ts"
import * as Needs from "./Needs.ts"
import * as Output from "./Output.ts"
import { removeContainer, stopTimeout } from "./Remove.ts"
import { requestId } from "./RequestId.ts"
import { check, isLive, nextAfter, titled } from "./SpecCheck.ts"
import { labelOf, type Specs } from "./SpecFiles.ts"

/** How to apply. */
export interface Options {
  /** Containers that differ in what cannot be set live are stopped in order, removed and made anew; else a conflict. */
  readonly replace: boolean
}

/** What became of an object. */
type Outcome = "created" | "unchanged" | "changed" | "replaced" | "imported"

const line = Effect.fnUntraced(function* (object: Manifest.ManifestObject, name: string, outcome: Outcome) {
  const style = yield* currentStyle
  const color = outcome === "unchanged" ? style.dim : style.green
  return `${labelOf({ ...object, name })}  ${color(outcome)}`
})

/** Makes one object; gives what is to be printed: for programs, the answer of the API. A path can hold several images. */
const make = Effect.fnUntraced(function* (object: Manifest.ManifestObject, specs: Specs, { replace }: Options) {
  const done = <D extends DescMessage>(name: string, outcome: Outcome, schema: D, answer: MessageShape<D>) =>
    Effect.map(line(object, name, outcome), (line): Done => answered(line, schema, answer))
  switch (object.kind) {
    case "Image": {
      const imported = yield* importImages(object.path, object.as)
      return yield* Effect.forEach(imported, ({ image, unchanged }) =>
        done(
          nameOf(image),
          unchanged ? "unchanged" : "imported",
          ImportImageResponseSchema,
          createMessage(ImportImageResponseSchema, { event: { case: "image", value: image }, unchanged })
        )
      )
    }
    case "Sandbox": {
      const { name, spec } = object
      const client = yield* Client
      const there = yield* exists(client.call(SandboxService.method.getSandbox, { name }))
      const answer = yield* client.call(SandboxService.method.createSandbox, { spec, requestId: requestId() })
      return [yield* done(name, there ? "unchanged" : "created", CreateSandboxResponseSchema, answer)]
    }
    case "Container": {
      const { answer, outcome } = yield* makeContainer(object, specs, replace)
      return [yield* done(object.name, outcome, CreateContainerResponseSchema, answer)]
    }
    case "Vm": {
      const { answer, outcome } = yield* makeVm(object, replace)
      return [yield* done(object.name, outcome, CreateVmResponseSchema, answer)]
    }
  }
})

/** A machine that differs in more than its policy is stopped in order, removed and made anew, where that is wanted. */
const makeVm = Effect.fnUntraced(function* (
  { name, notStarted, spec }: Extract<Manifest.ManifestObject, { readonly kind: "Vm" }>,
  replace: boolean
) {
  const client = yield* Client
  const patience = { timeout: "5 minutes" } as const
  const there = yield* exists(client.call(VmService.method.getVm, { name }))
  const as = (outcome: Outcome) =>
    Effect.map(
      client.call(VmService.method.createVm, { spec, notStarted, requestId: requestId() }, patience),
      (answer) => ({ answer, outcome })
    )
  const changeLive = client
    .call(VmService.method.setVmPolicy, { name, policy: spec.restart ?? {}, requestId: requestId() })
    .pipe(
      Effect.map(({ vm }) => ({
        answer: createMessage(CreateVmResponseSchema, vm === undefined ? {} : { vm }),
        outcome: "changed" as const
      }))
    )
  const remove = client
    .call(VmService.method.stopVm, { name, requestId: requestId() }, { timeout: stopTimeout })
    .pipe(Effect.andThen(client.call(VmService.method.removeVm, { name, requestId: requestId() }, patience)))
  return yield* as(there ? "unchanged" : "created").pipe(
    orElseStatus(status.alreadyExists, (error) => {
      if (isLive(error)) return changeLive
      return there && replace ? Effect.andThen(remove, as("replaced")) : error
    })
  )
})

const makeContainer = Effect.fnUntraced(function* (
  { name, notStarted, spec }: Extract<Manifest.ManifestObject, { readonly kind: "Container" }>,
  specs: Specs,
  replace: boolean
) {
  const client = yield* Client
  const assumed = assumedOf(specs.objects, [])
  const create = Effect.suspend(() =>
    client.call(
      ContainerService.method.createContainer,
      { spec, notStarted, requestId: requestId(), assumed },
      { timeout: "5 minutes" }
    )
  )
  const there = yield* exists(client.call(ContainerService.method.getContainer, { name }))
  const as = (outcome: Outcome) => Effect.map(create, (answer) => ({ answer, outcome }))
  const changeLive = client
    .call(ContainerService.method.setContainerPolicy, { name, policy: spec.restart ?? {}, requestId: requestId() })
    .pipe(
      Effect.map(({ container }) => ({
        answer: createMessage(CreateContainerResponseSchema, container === undefined ? {} : { container }),
        outcome: "changed" as const
      }))
    )
  return yield* as(there ? "unchanged" : "created").pipe(
    orElseStatus(status.alreadyExists, (error) => {
      if (isLive(error)) return changeLive
      return there && replace ? Effect.andThen(removeContainer(name, true), as("replaced")) : error
    })
  )
})

const exists = <A, R>(call: Effect.Effect<A, Failure, R>): Effect.Effect<boolean, Failure, R> =>
  call.pipe(
    Effect.as(true),
    orElseStatus(status.notFound, () => Effect.succeed(false))
  )

const kinds = ["Image", "Sandbox", "Container", "Vm"] as const

interface Failed {
  readonly object: Manifest.ManifestObject
  readonly error: Failure
}

/** Makes one object and prints what became of it; gives its failure. */
const tryOne = Effect.fnUntraced(function* (object: Manifest.ManifestObject, specs: Specs, options: Options) {
  yield* Output.progress(`${labelOf(object)}…`)
  const made = yield* Effect.result(make(object, specs, options))
  yield* Output.progressDone
  if (made._tag === "Success") {
    yield* Effect.forEach(made.success, ({ json, lines }) => Output.value(json, lines), { discard: true })
    return []
  }
  // nobody answers: the others would only say the same
  if (made.failure.exitCode === exitCodes.unavailable) return yield* made.failure
  const style = yield* currentStyle
  yield* Output.people([`${labelOf(object)}  ${style.red("failed")}`])
  return [{ object, error: nextAfter(made.failure, object) } satisfies Failed]
})

/** Checks everything, then makes the objects, a printed line each; fails at the end when some failed all the same. */
export const apply = Effect.fnUntraced(function* (specs: Specs, options: Options) {
  const changing = yield* check(specs, options)
  // those that are there and only change come last: one may fall back to what the files bring along
  const objects = specs.objects.toSorted((one, other) => Number(changing.has(one)) - Number(changing.has(other)))
  for (const kind of kinds) {
    const failures: Array<Failed> = []
    for (const object of Needs.inOrder(objects.filter((object) => object.kind === kind))) {
      failures.push(...(yield* tryOne(object, specs, options)))
    }
    const [first, second] = failures
    if (first === undefined) continue
    if (second === undefined) return yield* titled(first.error, first.object)
    const { exitCode } = first.error
    return yield* failure(`${failures.length} of ${specs.objects.length} objects failed`, {
      exitCode: failures.every(({ error }) => error.exitCode === exitCode) ? exitCode : exitCodes.failed,
      details: failures.flatMap(({ error, object }) => titled(error, object).message.split("\n"))
    })
  }
})
