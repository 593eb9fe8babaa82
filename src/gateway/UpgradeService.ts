/**
 * `ironwood.v1.UpgradeService`: another brain over gRPC. Mapping functions first, then the service.
 *
 * Trap: a brain that is being sent is held in memory until it is known to be right, so only one is at a time.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/upgrade_pb.ts"
import { MachineState } from "../host/MachineState.ts"
import { maximumBytes } from "../upgrade/Bundle.ts"
import { builtIn, type Fault, type Attempt, type Reason } from "../upgrade/Record.ts"
import { signatureBytes } from "../upgrade/Signature.ts"
import { BrainNotInstalled, UpgradeInProgress } from "../upgrade/UpgradeErrors.ts"
import { type Status, Upgrades, usualPatienceMillis } from "../upgrade/Upgrades.ts"
import { clientStreaming, service, unary } from "./EffectGrpc.ts"
import { Instance } from "./Instance.ts"
import { invalid } from "./Request.ts"
import { millisOf, timestamp } from "./Time.ts"

const fates = {
  trying: Proto.UpgradeFate.TRYING,
  confirmed: Proto.UpgradeFate.CONFIRMED,
  "fell-back": Proto.UpgradeFate.FELL_BACK
} as const satisfies Record<Attempt["fate"], Proto.UpgradeFate>

const reasons = {
  ended: Proto.FallBackReason.ENDED,
  unhealthy: Proto.FallBackReason.UNHEALTHY,
  protocol: Proto.FallBackReason.PROTOCOL,
  unstable: Proto.FallBackReason.UNSTABLE,
  interrupted: Proto.FallBackReason.INTERRUPTED,
  damaged: Proto.FallBackReason.DAMAGED,
  requested: Proto.FallBackReason.REQUESTED
} as const satisfies Record<Reason, Proto.FallBackReason>

const idOf = (brain: string): string => (brain === builtIn ? brain : `sha256:${brain}`)

const faultToProto = ({ at, detail, reason }: Fault): MessageInitShape<typeof Proto.FallBackSchema> => ({
  reason: reasons[reason],
  detail,
  time: timestamp(at)
})

const attemptToProto = (attempt: Attempt): MessageInitShape<typeof Proto.UpgradeSchema> => ({
  brain: idOf(attempt.brain),
  version: attempt.version,
  before: idOf(attempt.before),
  time: timestamp(attempt.at),
  fate: fates[attempt.fate],
  ...(attempt.fault === undefined ? {} : { fallBack: faultToProto(attempt.fault) })
})

const fallBackOf = ({ onTrial, record, running }: Status): string =>
  onTrial ? record.current : record.current === running ? (record.previous ?? builtIn) : builtIn

const brainsToProto = (status: Status): ReadonlyArray<MessageInitShape<typeof Proto.BrainSchema>> => {
  const { brains, proving, record, running, version } = status
  const own = {
    id: builtIn,
    version: running === builtIn ? version : record.builtIn.version,
    fault: undefined,
    problem: ""
  }
  const fallBack = fallBackOf(status)
  return [own, ...brains].map(({ fault, id, problem, version: ofIt }) => ({
    id: idOf(id),
    version: ofIt,
    running: id === running,
    fallBack: id === fallBack && id !== running,
    proving: proving && id === running,
    problem,
    ...(fault === undefined ? {} : { fault: faultToProto(fault) })
  }))
}

/** What is kept is there after the end of the machine: always, where the machine is not ours. */
const isLasting = Effect.gen(function* () {
  const { isMachine } = yield* Instance
  const { device } = yield* MachineState
  return !isMachine || device !== undefined
})

const patienceOf = (field: string, deadline: Parameters<typeof millisOf>[0] | undefined) => {
  if (deadline === undefined) return Effect.succeed(usualPatienceMillis)
  const millis = Math.ceil(millisOf(deadline))
  return millis >= 5_000 && millis <= 3_600_000
    ? Effect.succeed(millis)
    : Effect.fail(invalid(field, "must be 5 seconds to 1 hour"))
}

const digestPattern = /^sha256:([0-9a-f]{64})$/

/** What `start` announces, checked before anything is taken. */
const announced = Effect.fnUntraced(function* (request: Proto.InstallBrainRequest) {
  if (request.piece.case !== "start") return yield* invalid("start", "must come first")
  const { deadline, digest, installOnly, signature, size } = request.piece.value
  const [, hexadecimal] = digestPattern.exec(digest) ?? []
  if (hexadecimal === undefined) return yield* invalid("start.digest", "must be sha256: and 64 hexadecimal digits")
  if (size < 1n || size > BigInt(maximumBytes)) {
    return yield* invalid("start.size", `must be 1 to ${maximumBytes} bytes`)
  }
  if (signature.length !== 0 && signature.length !== signatureBytes) {
    return yield* invalid("start.signature", `must be the ${signatureBytes} bytes of an Ed25519 signature`)
  }
  return {
    digest: hexadecimal,
    size: Number(size),
    signature: signature.length === 0 ? undefined : signature,
    installOnly,
    patienceMillis: yield* patienceOf("start.deadline", deadline)
  }
})

/** All that comes: what was announced, and exactly so many bytes. */
const received = Effect.fnUntraced(function* (requests: Stream.Stream<Proto.InstallBrainRequest>) {
  let start: Effect.Success<ReturnType<typeof announced>> | undefined
  let length = 0
  const chunks: Array<Uint8Array> = []
  yield* Stream.runForEach(requests, (request) =>
    Effect.gen(function* () {
      if (start === undefined) {
        start = yield* announced(request)
        return
      }
      if (request.piece.case !== "chunk") return yield* invalid("chunk", "is all that may follow `start`")
      length += request.piece.value.length
      if (length > start.size) return yield* invalid("chunk", `more than the ${start.size} bytes that were announced`)
      chunks.push(request.piece.value)
    })
  )
  if (start === undefined) return yield* invalid("start", "must be set")
  if (length < start.size) {
    return yield* invalid("chunk", `only ${length} of the ${start.size} bytes that were announced came`)
  }
  return { ...start, bytes: Buffer.concat(chunks) }
})

const install = (keys: () => ReadonlyArray<string>) => {
  let busy = false
  return Effect.fn("UpgradeService.installBrain")(function* (requests: Stream.Stream<Proto.InstallBrainRequest>) {
    if (busy) return yield* new UpgradeInProgress({ what: "another brain is being sent" })
    busy = true
    const upgrades = yield* Upgrades
    return yield* Effect.gen(function* () {
      const upload = yield* received(requests)
      const { id, manifest, signedBy } = yield* upgrades.install({ ...upload, keys: keys() })
      const trying = upload.installOnly ? false : yield* upgrades.activate(id, upload.patienceMillis)
      return {
        brain: { id: idOf(id), version: manifest.version },
        signedBy: signedBy ?? "",
        lasting: yield* isLasting,
        trying
      }
    }).pipe(Effect.ensuring(Effect.sync(() => (busy = false))))
  })
}

/** The brain that is meant. */
const meant = Effect.fnUntraced(function* (name: string) {
  const status = yield* (yield* Upgrades).status
  if (name === builtIn) return builtIn
  if (name === "fall-back") return fallBackOf(status)
  const digits = name.replace(/^sha256:/, "")
  if (!/^[0-9a-f]{6,64}$/.test(digits)) {
    return yield* invalid("brain", "must be at least 6 digits of a sha256, `built-in`, or `fall-back`")
  }
  const found = status.brains.filter(({ id }) => id.startsWith(digits))
  if (found.length > 1) return yield* invalid("brain", `${found.length} brains begin so`)
  return found[0] === undefined ? yield* new BrainNotInstalled({ brain: digits }) : found[0].id
})

/** The service; `keys` may vouch for a brain. */
export const makeUpgradeService = (keys: () => ReadonlyArray<string>) => {
  const { method } = Proto.UpgradeService
  return service(Proto.UpgradeService, {
    getUpgrade: unary(
      method.getUpgrade,
      Effect.fn("UpgradeService.getUpgrade")(function* () {
        const status = yield* (yield* Upgrades).status
        const { attempt } = status.record
        return {
          brains: [...brainsToProto(status)],
          note: status.note,
          lasting: yield* isLasting,
          signatureRequired: keys().length > 0,
          ...(attempt === undefined ? {} : { last: attemptToProto(attempt) })
        }
      })
    ),
    installBrain: clientStreaming(method.installBrain, install(keys)),
    activateBrain: unary(
      method.activateBrain,
      Effect.fn("UpgradeService.activateBrain")(function* ({ brain, deadline }) {
        const patience = yield* patienceOf("deadline", deadline)
        const wanted = yield* meant(brain)
        const trying = yield* (yield* Upgrades).activate(wanted, patience)
        return { brain: idOf(wanted), trying }
      })
    )
  })
}
