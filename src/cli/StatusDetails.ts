/**
 * The details a gRPC error carries beside its message: `google.rpc.Status` from the trailer `grpc-status-details-bin`.
 *
 * Only what a person can act on is read: the wrong fields (BadRequest), the unmet conditions (PreconditionFailure), the
 * resource (ResourceInfo), the hint that the message ends with and the fields in which an object of the same name differs
 * (both ErrorInfo). Bytes that are not a status give no details: the code and the message of the error stand
 * by themselves.
 */
import { fromBinary } from "@bufbuild/protobuf"
import { anyUnpack } from "@bufbuild/protobuf/wkt"
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  ResourceInfoSchema
} from "../../proto/generated/google/rpc/error_details_pb.ts"
import { StatusSchema } from "../../proto/generated/google/rpc/status_pb.ts"

/** One field of the request that is wrong, or one condition that is not met. */
export interface Violation {
  /** The field's path (`spec.resources.memory_bytes`) or the condition's subject. */
  readonly field: string
  readonly description: string
}

/** What a server said about its error. */
export interface StatusDetails {
  readonly violations: ReadonlyArray<Violation>
  /** What the error is about, e.g. type `container`, name `web`. */
  readonly resource: { readonly type: string; readonly name: string } | undefined
  /** What the message advises at its end. */
  readonly hint: string | undefined
  /** Of a name that is taken: the fields of the spec in which the one that is there differs. */
  readonly differing: ReadonlyArray<string> | undefined
}

/** The trailer's name. */
export const trailer = "grpc-status-details-bin"

/** Reads the trailer's bytes; undefined when they are no google.rpc.Status. */
export const decode = (bytes: Uint8Array): StatusDetails | undefined => {
  try {
    const status = fromBinary(StatusSchema, bytes)
    const violations: Array<Violation> = []
    let resource: StatusDetails["resource"]
    let hint: string | undefined
    let differing: ReadonlyArray<string> | undefined
    for (const any of status.details) {
      for (const violation of anyUnpack(any, BadRequestSchema)?.fieldViolations ?? []) {
        violations.push({ field: violation.field, description: violation.description })
      }
      for (const violation of anyUnpack(any, PreconditionFailureSchema)?.violations ?? []) {
        violations.push({ field: violation.subject, description: violation.description })
      }
      const metadata = anyUnpack(any, ErrorInfoSchema)?.metadata
      hint ??= metadata?.["hint"]
      differing ??= metadata?.["fields"]?.split(",")
      const about = anyUnpack(any, ResourceInfoSchema)
      if (about !== undefined) resource = { type: about.resourceType, name: about.resourceName }
    }
    return { violations, resource, hint, differing }
  } catch {
    return undefined
  }
}
