/**
 * Restart policies between the domain and the wire. Going out everything is filled in; coming in, what is left out takes
 * the domain's defaults and what is wrong is told field by field (see `Request`).
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import type * as Effect from "effect/Effect"
import * as Proto from "../../proto/generated/ironwood/v1/policy_pb.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import type { WhenSpent } from "../actor/RestartRule.ts"
import { decoder, given, wordOf } from "./Request.ts"
import type { InvalidRequest } from "./Request.ts"
import { millisOf, wireDuration } from "./Time.ts"

const restartTypes = {
  permanent: Proto.RestartType.PERMANENT,
  transient: Proto.RestartType.TRANSIENT,
  temporary: Proto.RestartType.TEMPORARY,
  // The wire does not have it yet.
  "on-success": Proto.RestartType.UNSPECIFIED
} as const satisfies Record<RestartPolicy.RestartType, Proto.RestartType>

const whenSpents = {
  escalate: Proto.WhenSpent.ESCALATE,
  park: Proto.WhenSpent.PARK,
  "keep-trying": Proto.WhenSpent.KEEP_TRYING,
  // The wire does not have these yet.
  fallback: Proto.WhenSpent.UNSPECIFIED,
  "restart-group": Proto.WhenSpent.UNSPECIFIED,
  "reboot-host": Proto.WhenSpent.UNSPECIFIED
} as const satisfies Record<WhenSpent, Proto.WhenSpent>

/** A policy as it goes over the wire. */
export const toProto = (policy: RestartPolicy.RestartPolicy): MessageInitShape<typeof Proto.RestartPolicySchema> => ({
  restart: restartTypes[policy.restart],
  backoff: {
    ...(policy.backoff.first === undefined ? {} : { first: wireDuration(policy.backoff.first) }),
    initial: wireDuration(policy.backoff.initial),
    factor: policy.backoff.factor,
    max: wireDuration(policy.backoff.max),
    jitter: policy.backoff.jitter,
    resetAfter: wireDuration(policy.backoff.resetAfter)
  },
  ...(policy.budget === undefined
    ? {}
    : { budget: { restarts: policy.budget.restarts, within: wireDuration(policy.budget.within) } }),
  whenSpent: whenSpents[policy.whenSpent]
})

/** The stored form of a policy from the wire, for the domain's schema to judge. */
export const encodedOf = (policy: Proto.RestartPolicy | undefined): Record<string, unknown> => {
  const { backoff, budget } = policy ?? {}
  return given({
    restart: wordOf(restartTypes, policy?.restart ?? 0),
    backoff:
      backoff &&
      given({
        first: backoff.first && millisOf(backoff.first),
        initial: backoff.initial && millisOf(backoff.initial),
        factor: backoff.factor,
        max: backoff.max && millisOf(backoff.max),
        jitter: backoff.jitter,
        resetAfter: backoff.resetAfter && millisOf(backoff.resetAfter)
      }),
    budget: budget && given({ restarts: budget.restarts, within: budget.within && millisOf(budget.within) }),
    whenSpent: wordOf(whenSpents, policy?.whenSpent ?? 0)
  })
}

const decode = decoder("policy", Proto.RestartPolicySchema, RestartPolicy.RestartPolicy)

/** The policy in the field `policy` of a request. */
export const fromProto = (
  policy: Proto.RestartPolicy | undefined
): Effect.Effect<RestartPolicy.RestartPolicy, InvalidRequest> => decode(encodedOf(policy))
