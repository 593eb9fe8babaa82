/** `ironwood.v1.ConfigService`: the machine config over gRPC. Mapping functions first, then the service. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Proto from "../../proto/generated/ironwood/v1/config_pb.ts"
import type { Change } from "../config/Changes.ts"
import { ConfigInvalid } from "../config/ConfigErrors.ts"
import { configSchema } from "../config/ConfigSchema.ts"
import { type Document, parse, patched, read, type Violation } from "../config/Document.ts"
import { type Applied, type ApplyOptions, MachineConfigs } from "../config/MachineConfigs.ts"
import type { Reach } from "../config/Reach.ts"
import type { Fate, Head, Revision } from "../config/Revisions.ts"
import { service, unary } from "./EffectGrpc.ts"
import { invalid } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import { millisOf, timestamp, wireMillis } from "./Time.ts"

const reaches = {
  live: Proto.ConfigReach.LIVE,
  reboot: Proto.ConfigReach.REBOOT,
  overridden: Proto.ConfigReach.OVERRIDDEN,
  elsewhere: Proto.ConfigReach.ELSEWHERE
} as const satisfies Record<Reach, Proto.ConfigReach>

const fates = {
  applied: Proto.ConfigFate.APPLIED,
  trying: Proto.ConfigFate.TRYING,
  confirmed: Proto.ConfigFate.CONFIRMED,
  reverted: Proto.ConfigFate.REVERTED
} as const satisfies Record<Fate, Proto.ConfigFate>

const json = (value: unknown): string => (value === undefined ? "" : JSON.stringify(value))

const changeToProto = (change: Change): MessageInitShape<typeof Proto.ConfigChangeSchema> => ({
  field: change.field,
  before: json(change.before),
  after: json(change.after),
  reach: reaches[change.reach],
  note: change.note
})

const problemsToProto = (violations: ReadonlyArray<Violation>) => violations.map((violation) => ({ ...violation }))

const trialToProto = Effect.fnUntraced(function* ({ trial }: Head) {
  const left = yield* (yield* MachineConfigs).trialLeft
  return trial === undefined || left === undefined
    ? {}
    : { trial: { previousRevision: BigInt(trial.previous), timeLeft: wireMillis(left) } }
})

const appliedToProto = Effect.fnUntraced(function* ({ changes, head, problems }: Applied) {
  return {
    revision: BigInt(head.current),
    changes: changes.map(changeToProto),
    problems: problemsToProto(problems),
    ...(yield* trialToProto(head))
  }
})

const revisionToProto = (
  { at, fate, number, origin }: Revision,
  current: number
): MessageInitShape<typeof Proto.ConfigRevisionSchema> => ({
  number: BigInt(number),
  applyTime: timestamp(at),
  origin,
  fate: fates[fate],
  current: number === current
})

const decided = <A>(result: Result.Result<A, ReadonlyArray<Violation>>): Effect.Effect<A, ConfigInvalid> =>
  Result.match(result, {
    onSuccess: (value) => Effect.succeed(value),
    onFailure: (violations) => Effect.fail(new ConfigInvalid({ violations }))
  })

const shortestTrial = 1_000
const longestTrial = 86_400_000

/** What ApplyConfig and PatchConfig have in common. */
const optionsOf = Effect.fnUntraced(function* (
  request: Pick<Proto.ApplyConfigRequest, "expectedRevision" | "tryFor" | "validateOnly">
) {
  const millis = request.tryFor && millisOf(request.tryFor)
  if (millis !== undefined && !(millis >= shortestTrial && millis <= longestTrial)) {
    return yield* invalid("try_for", "must be from 1 second to 1 day")
  }
  return {
    origin: "the API",
    tryFor: millis === undefined ? undefined : Duration.millis(millis),
    expect: request.expectedRevision === undefined ? undefined : Number(request.expectedRevision),
    validateOnly: request.validateOnly
  } satisfies ApplyOptions
})

/** The document that ApplyConfig is to apply. */
const documentOf = Effect.fnUntraced(function* ({ from }: Proto.ApplyConfigRequest) {
  switch (from.case) {
    case "document":
      return yield* decided(read(from.value))
    case "revision": {
      const { text } = yield* (yield* MachineConfigs).revision(Number(from.value))
      return yield* decided(read(text))
    }
    case undefined:
      return yield* invalid("document", "must be set, or revision")
  }
})

const apply = Effect.fnUntraced(function* (document: Document, options: ApplyOptions) {
  return yield* appliedToProto(yield* (yield* MachineConfigs).apply(document, options))
})

const getConfig = Effect.fn("ConfigService.getConfig")(function* ({ revision }: Proto.GetConfigRequest) {
  const configs = yield* MachineConfigs
  if (revision !== undefined) {
    return { document: (yield* configs.revision(Number(revision))).text, revision }
  }
  const { document, head, problem } = yield* configs.current
  const source = yield* configs.source
  return {
    document: document.text,
    revision: BigInt(head.current),
    ...(yield* trialToProto(head)),
    source: { name: source.name, digest: source.digest, problems: problemsToProto(source.violations) },
    problems: problemsToProto([
      ...(problem === "" ? [] : [{ field: "", description: problem }]),
      ...(yield* configs.problems)
    ])
  }
})

/** The service. One value remembers request ids for as long as it lives: make it once per brain. */
export const makeConfigService = () => {
  const { method } = Proto.ConfigService
  return service(Proto.ConfigService, {
    getConfig: unary(method.getConfig, getConfig),
    validateConfig: unary(
      method.validateConfig,
      Effect.fn("ConfigService.validateConfig")(function* ({ document }) {
        const { changes } = yield* (yield* MachineConfigs).plan(yield* decided(read(document)))
        return { changes: changes.map(changeToProto) }
      })
    ),
    applyConfig: unaryOnce(
      method.applyConfig,
      Effect.fn("ConfigService.applyConfig")(function* (request) {
        const options = yield* optionsOf(request)
        return yield* apply(yield* documentOf(request), options)
      })
    ),
    patchConfig: unaryOnce(
      method.patchConfig,
      Effect.fn("ConfigService.patchConfig")(function* (request) {
        const options = yield* optionsOf(request)
        const patch = parse(request.patch)
        if (Result.isFailure(patch)) return yield* invalid("patch", patch.failure)
        const { document, head } = yield* (yield* MachineConfigs).current
        const next = yield* decided(patched(document, patch.success))
        // what it was made from is what it must replace
        const result = yield* apply(next, { ...options, expect: options.expect ?? head.current })
        return { result, document: next.text }
      })
    ),
    confirmConfig: unary(
      method.confirmConfig,
      Effect.fn("ConfigService.confirmConfig")(function* () {
        const { head } = yield* (yield* MachineConfigs).confirm
        return { revision: BigInt(head.current) }
      })
    ),
    revertConfig: unary(
      method.revertConfig,
      Effect.fn("ConfigService.revertConfig")(function* () {
        return { result: yield* appliedToProto(yield* (yield* MachineConfigs).revert("revert")) }
      })
    ),
    listConfigRevisions: unary(
      method.listConfigRevisions,
      Effect.fn("ConfigService.listConfigRevisions")(function* () {
        const configs = yield* MachineConfigs
        const { head } = yield* configs.current
        return { revisions: (yield* configs.history).map((revision) => revisionToProto(revision, head.current)) }
      })
    ),
    getConfigSchema: unary(method.getConfigSchema, () => Effect.sync(() => ({ schema: configSchema() })))
  })
}
