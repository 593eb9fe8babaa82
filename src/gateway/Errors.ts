/**
 * The one place where the domain's errors become gRPC statuses: a code, the error's own message, and details of
 * google.rpc in the trailer `grpc-status-details-bin`.
 *
 * Every status has an `ErrorInfo` whose reason is the error's tag and whose domain is `ironwood`: the name that programs
 * match. Its metadata has the `hint` that the message ends with, if there is one, and for a name that is taken the `fields`
 * of the spec that differ, separated by commas. What is about a thing has a `ResourceInfo`; what is wrong in the request a `BadRequest` naming every field; what
 * must be changed first a `PreconditionFailure`; what may pass by itself a `RetryInfo`.
 *
 * A new error in the domain does not compile until it has its line in {@link describe}.
 *
 * Trap: some clients take no more than 8 KiB of trailers (gRPC's C core), so messages and details are cut to fit; what is
 * left out is said.
 */
import { create, toBinary } from "@bufbuild/protobuf"
import type { DescMessage, MessageShape } from "@bufbuild/protobuf"
import { anyPack } from "@bufbuild/protobuf/wkt"
import type { Any } from "@bufbuild/protobuf/wkt"
import { Metadata, status as Code } from "@grpc/grpc-js"
import * as Match from "effect/Match"
import {
  BadRequest_FieldViolationSchema,
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailure_ViolationSchema,
  PreconditionFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema
} from "../../proto/generated/google/rpc/error_details_pb.ts"
import { StatusSchema } from "../../proto/generated/google/rpc/status_pb.ts"
import type * as Actor from "../actor/Errors.ts"
import type { ConfigError } from "../config/ConfigErrors.ts"
import type { HostFactsUnavailable } from "../host/HostFacts.ts"
import type { NoKernelLoaded } from "../host/LoadedKernel.ts"
import type * as Runtime from "../runtime/ContainerError.ts"
import type * as Volumes from "../storage/Volumes.ts"
import type { SecretNotKept } from "../runtime/Secrets.ts"
import type { UserNotFound } from "../runtime/ContainerUser.ts"
import type * as Content from "../storage/ContentError.ts"
import type * as Registry from "../storage/registry/RegistryError.ts"
import type * as State from "../storage/StateErrors.ts"
import type { UpgradeError } from "../upgrade/UpgradeErrors.ts"
import type { ProcessGone, SignalRefused } from "../taproot/Processes.ts"
import type { HypervisorMissing } from "../vmm/Hypervisor.ts"
import type * as Snapshot from "../vmm/SnapshotError.ts"
import type * as Vmm from "../vmm/VmError.ts"
import type { GrpcStatus } from "./EffectGrpc.ts"
import type { ServiceUnknown } from "./HealthService.ts"
import type { InvalidRequest, Violation } from "./Request.ts"
import { wireMillis } from "./Time.ts"

/** Every error that a service of the gateway may fail with. */
export type GatewayError =
  | InvalidRequest
  | ConfigError
  | UpgradeError
  | ServiceUnknown
  | HostFactsUnavailable
  | NoKernelLoaded
  | Actor.NoSuchActor
  | Actor.NotSupervised
  | Actor.StartFailed
  | Actor.SupervisorDown
  | Content.ImageError
  | Content.ImageInUse
  | Content.ImageNotFound
  | Content.ReferenceInvalid
  | Content.StorageFailed
  | Content.StoreDamaged
  | Content.UnpackFailed
  | Registry.PullNotAllowed
  | Registry.RegistryError
  | Registry.RemoteImageInvalid
  | State.StateConflict
  | State.StateFailure
  | State.StateValueInvalid
  | Runtime.CleanupFailed
  | Runtime.ContainerAlreadyExists
  | Runtime.ContainerNotFound
  | Runtime.ControlFailed
  | Runtime.ExecFailed
  | Runtime.ExecProgramMissing
  | Runtime.ExecProgramRefused
  | UserNotFound
  | Runtime.LogUnreadable
  | Runtime.SandboxAlreadyExists
  | Runtime.SandboxInUse
  | Runtime.SandboxNotFound
  | Runtime.SecretInUse
  | Runtime.SecretNotFound
  | SecretNotKept
  | Volumes.VolumeAlreadyExists
  | Volumes.VolumeInUse
  | Volumes.VolumeNotFound
  | Runtime.WrongState
  | Vmm.ConsoleUnreadable
  | Vmm.VmAlreadyExists
  | Vmm.VmControlFailed
  | Vmm.VmDeviceKept
  | Vmm.VmDeviceMissing
  | Vmm.VmNotFound
  | Vmm.VmWrongState
  | Snapshot.SnapshotAlreadyExists
  | Snapshot.SnapshotFailed
  | Snapshot.SnapshotNoRoom
  | Snapshot.SnapshotNotFound
  | Snapshot.SnapshotUnusable
  | Snapshot.VmCannot
  | Snapshot.VmHasSnapshots
  | HypervisorMissing
  | ProcessGone
  | SignalRefused

/** What a status says beside the error's message. */
interface Description {
  readonly code: Code
  /** What it is about. */
  readonly resource?: readonly [type: string, name: string]
  /** The fields of the request that are wrong. */
  readonly fields?: ReadonlyArray<Violation>
  /** Of a name that is taken: the fields of the spec that differ. */
  readonly differing?: ReadonlyArray<string>
  /** What must be changed first. */
  readonly blockers?: ReadonlyArray<{ readonly type: string; readonly subject: string; readonly description: string }>
  /** It may pass by itself: milliseconds to wait before a repetition. */
  readonly retryAfter?: number
}

const notFound = (type: string, name: string): Description => ({ code: Code.NOT_FOUND, resource: [type, name] })

/** The image in the file is not one that can be taken: the request's `path` is wrong. */
const badImage = ({ message }: { readonly message: string }): Description => ({
  code: Code.INVALID_ARGUMENT,
  fields: [{ field: "path", description: message }]
})

const registry = (name: string): readonly [string, string] => ["registry", name]

/** What must be another one first for an image of a registry to be used. */
const blockedBy = (type: string, name: string, description: string): Description => ({
  code: Code.FAILED_PRECONDITION,
  resource: [type, name],
  blockers: [{ type, subject: `${type} ${name}`, description }]
})

/** How often a call that met a passing trouble is worth repeating. */
const soon = 1_000

const fullDisk: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"])
const notAllowed: ReadonlySet<string> = new Set(["EACCES", "EPERM", "EROFS"])

/** The state of the machine config, which must be another one first. */
const configState = (type: string, description: string): Description => ({
  code: Code.FAILED_PRECONDITION,
  resource: ["config", "machine"],
  blockers: [{ type, subject: "config machine", description }]
})

const describe = Match.typeTags<GatewayError, Description>()({
  InvalidRequest: ({ violations }) => ({ code: Code.INVALID_ARGUMENT, fields: violations }),
  ConfigInvalid: ({ violations }) => ({
    code: Code.INVALID_ARGUMENT,
    fields: violations.map(({ description, field }) => ({
      field: field === "" ? "document" : `document.${field}`,
      description
    }))
  }),
  ConfigOnTrial: ({ message }) => configState("trial", message),
  NothingOnTrial: ({ message }) => configState("no-trial", message),
  RevisionMoved: ({ message }) => configState("revision", message),
  RevisionNotFound: ({ revision }) => notFound("config revision", String(revision)),
  BundleInvalid: ({ field, problem }) => ({
    code: Code.INVALID_ARGUMENT,
    fields: [{ field: field === "digest" ? "start.digest" : field, description: problem }]
  }),
  SignatureRefused: ({ problem }) => ({
    code: Code.PERMISSION_DENIED,
    fields: [{ field: "start.signature", description: problem }]
  }),
  BrainIncompatible: ({ problem, version }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["brain", version],
    blockers: [{ type: "incompatible", subject: `brain ${version}`, description: problem }]
  }),
  BrainNotInstalled: ({ brain }) => notFound("brain", brain),
  UpgradeInProgress: ({ what }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["brain", "trial"],
    blockers: [{ type: "trial", subject: "brain", description: what }]
  }),
  ServiceUnknown: ({ service }) => notFound("service", service),
  HostFactsUnavailable: ({ file }) => ({ code: Code.UNAVAILABLE, resource: ["file", file] }),
  NoKernelLoaded: ({ message }) => ({
    code: Code.FAILED_PRECONDITION,
    blockers: [{ type: "kernel", subject: "kernel", description: message }]
  }),

  NoSuchActor: ({ path }) => notFound("actor", path),
  NotSupervised: ({ path }) => ({ code: Code.FAILED_PRECONDITION, resource: ["actor", path] }),
  StartFailed: ({ exit, path }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["actor", path],
    blockers: [{ type: exit.tag, subject: path, description: exit.message }]
  }),
  SupervisorDown: ({ id }) => ({ code: Code.UNAVAILABLE, resource: ["actor", id], retryAfter: soon }),

  SourceInvalid: badImage,
  DocumentInvalid: badImage,
  BlobMissing: badImage,
  BlobCorrupt: badImage,
  MediaTypeUnsupported: badImage,
  PlatformMissing: badImage,
  LayerRefused: badImage,
  ReferenceInvalid: () => ({ code: Code.INVALID_ARGUMENT }),
  ImageNotFound: ({ reference }) => notFound("image", reference),
  ImageInUse: ({ reference, users }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["image", reference],
    blockers: users.map((user) => ({ type: "in-use", subject: user, description: `uses image ${reference}` }))
  }),
  StoreDamaged: () => ({ code: Code.DATA_LOSS }),
  StorageFailed: ({ code, path }) => ({
    code: fullDisk.has(code)
      ? Code.RESOURCE_EXHAUSTED
      : code === "EEXIST"
        ? Code.ALREADY_EXISTS
        : notAllowed.has(code)
          ? Code.FAILED_PRECONDITION
          : Code.INTERNAL,
    resource: ["file", path]
  }),
  UnpackFailed: ({ layer }) => ({ code: Code.INTERNAL, resource: ["layer", layer] }),

  RegistryUnreachable: ({ passing, registry: name }) => ({
    code: Code.UNAVAILABLE,
    resource: registry(name),
    ...(passing ? { retryAfter: soon } : {})
  }),
  RegistryStalled: ({ registry: name }) => ({ code: Code.UNAVAILABLE, resource: registry(name), retryAfter: soon }),
  RegistryUnavailable: ({ registry: name }) => ({ code: Code.UNAVAILABLE, resource: registry(name), retryAfter: soon }),
  RegistryBusy: ({ registry: name, retryAfterSeconds }) => ({
    code: Code.UNAVAILABLE,
    resource: registry(name),
    retryAfter: retryAfterSeconds * 1000
  }),
  CredentialsRefused: ({ registry: name }) => ({ code: Code.PERMISSION_DENIED, resource: registry(name) }),
  RemoteImageNotFound: ({ reference }) => notFound("image", reference),
  PullNotAllowed: ({ reference }) => notFound("image", reference),
  RegistryAnswerInvalid: ({ message, registry: name }) => blockedBy("registry", name, message),
  RedirectRefused: ({ message, registry: name }) => blockedBy("registry", name, message),
  RemoteImageInvalid: ({ problem, reference }) => blockedBy("image", reference, problem),

  StateUnavailable: ({ path, reason }) =>
    reason === "DiskFull"
      ? { code: Code.RESOURCE_EXHAUSTED, resource: ["file", path] }
      : { code: Code.UNAVAILABLE, resource: ["file", path], retryAfter: soon },
  StateConflict: ({ kind, name }) => ({ code: Code.ABORTED, resource: [kind, name], retryAfter: soon }),
  StateCorrupt: ({ path }) => ({ code: Code.DATA_LOSS, resource: ["file", path] }),
  StateForeign: ({ path }) => ({ code: Code.FAILED_PRECONDITION, resource: ["file", path] }),
  StateValueInvalid: ({ kind, name, stored }) => ({
    code: stored ? Code.DATA_LOSS : Code.INTERNAL,
    resource: [kind, name]
  }),

  ContainerNotFound: ({ name }) => notFound("container", name),
  SandboxNotFound: ({ name }) => notFound("sandbox", name),
  ContainerAlreadyExists: ({ fields, name }) => ({
    code: Code.ALREADY_EXISTS,
    resource: ["container", name],
    differing: fields
  }),
  SandboxAlreadyExists: ({ fields, name }) => ({
    code: Code.ALREADY_EXISTS,
    resource: ["sandbox", name],
    differing: fields
  }),
  SandboxInUse: ({ containers, name }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["sandbox", name],
    blockers: containers.map((container) => ({
      type: "in-use",
      subject: `container ${container}`,
      description: `is in sandbox ${name}`
    }))
  }),
  SecretNotFound: ({ name }) => ({ code: Code.NOT_FOUND, resource: ["secret", name] }),
  SecretNotKept: ({ name }) => ({ code: Code.RESOURCE_EXHAUSTED, resource: ["secret", name] }),
  SecretInUse: ({ containers, name }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["secret", name],
    blockers: containers.map((container) => ({
      type: "in-use",
      subject: `container ${container}`,
      description: `needs secret ${name}`
    }))
  }),
  VolumeNotFound: ({ name }) => notFound("volume", name),
  VolumeAlreadyExists: ({ fields, name }) => ({
    code: Code.ALREADY_EXISTS,
    resource: ["volume", name],
    differing: fields
  }),
  VolumeInUse: ({ name, users }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["volume", name],
    blockers: users.map((user) => ({ type: "in-use", subject: user, description: `has volume ${name}` }))
  }),
  WrongState: ({ hint, name, state }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["container", name],
    blockers: [{ type: "state", subject: `container ${name}`, description: `is ${state}: ${hint}` }]
  }),
  ControlFailed: ({ name }) => ({ code: Code.FAILED_PRECONDITION, resource: ["container", name] }),
  ExecProgramMissing: ({ program }) => notFound("program", program),
  ExecProgramRefused: ({ program }) => ({ code: Code.FAILED_PRECONDITION, resource: ["program", program] }),
  ExecFailed: ({ name }) => ({ code: Code.FAILED_PRECONDITION, resource: ["exec", name] }),
  UserNotFound: ({ message }) => ({
    code: Code.INVALID_ARGUMENT,
    fields: [{ field: "start.user", description: message }]
  }),
  CleanupFailed: ({ name }) => ({ code: Code.INTERNAL, resource: ["container", name] }),
  LogUnreadable: ({ path }) => ({ code: Code.INTERNAL, resource: ["file", path] }),
  VmNotFound: ({ name }) => notFound("vm", name),
  VmAlreadyExists: ({ fields, name }) => ({ code: Code.ALREADY_EXISTS, resource: ["vm", name], differing: fields }),
  VmWrongState: ({ hint, name, state }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["vm", name],
    blockers: [{ type: "state", subject: `vm ${name}`, description: `is ${state}: ${hint}` }]
  }),
  SnapshotNotFound: ({ name, snapshot }) => notFound("snapshot", `${name}/${snapshot}`),
  SnapshotAlreadyExists: ({ name, snapshot }) => ({
    code: Code.ALREADY_EXISTS,
    resource: ["snapshot", `${name}/${snapshot}`]
  }),
  SnapshotUnusable: ({ name, problem, snapshot }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["snapshot", `${name}/${snapshot}`],
    blockers: [{ type: "snapshot", subject: `snapshot ${snapshot} of vm ${name}`, description: problem }]
  }),
  SnapshotNoRoom: ({ directory, message, name }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["vm", name],
    blockers: [{ type: "room", subject: directory, description: message }]
  }),
  SnapshotFailed: ({ name }) => ({ code: Code.ABORTED, resource: ["vm", name] }),
  VmCannot: ({ name, problem }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["vm", name],
    blockers: [{ type: "capability", subject: `vm ${name}`, description: problem }]
  }),
  VmHasSnapshots: ({ hint, name, snapshots }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["vm", name],
    blockers: snapshots.map((one) => ({ type: "snapshot", subject: `snapshot ${one}`, description: hint }))
  }),
  VmControlFailed: ({ name }) => ({ code: Code.FAILED_PRECONDITION, resource: ["vm", name] }),
  VmDeviceMissing: ({ device }) => notFound("vm device", device),
  VmDeviceKept: ({ detail, name }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["vm", name],
    blockers: [{ type: "guest", subject: `vm ${name}`, description: detail }]
  }),
  ConsoleUnreadable: ({ path }) => ({ code: Code.INTERNAL, resource: ["file", path] }),
  HypervisorMissing: ({ message }) => ({
    code: Code.FAILED_PRECONDITION,
    resource: ["hypervisor", "any"],
    blockers: [{ type: "missing", subject: "hypervisor", description: message }]
  }),

  ProcessGone: ({ label }) => ({ code: Code.FAILED_PRECONDITION, resource: ["process", label] }),
  SignalRefused: ({ label }) => ({ code: Code.INTERNAL, resource: ["process", label] })
})

/** Bytes of the details before base64, and characters of a message, that fit in 8 KiB of trailers. */
const mostDetailBytes = 4_096
const mostMessage = 1_024
const mostName = 256

const cut = (text: string, most: number): string =>
  (text.length <= most ? text : `${text.slice(0, most - 1)}…`).toWellFormed()

/** As many of `all` as fit in `budget` bytes, and how many do not. */
const fitting = <M extends DescMessage>(
  schema: M,
  all: ReadonlyArray<MessageShape<M>>,
  budget: number
): { readonly kept: ReadonlyArray<MessageShape<M>>; readonly left: number } => {
  const kept: Array<MessageShape<M>> = []
  let size = 0
  for (const message of all) {
    size += toBinary(schema, message).length + 4
    if (size > budget) break
    kept.push(message)
  }
  return { kept, left: all.length - kept.length }
}

/** What the error's message advises at its end, if it says so: clients that know better leave it out. */
const hintOf = (error: GatewayError): Record<string, string> => ("hint" in error ? { hint: error.hint } : {})

const detailsOf = (error: GatewayError, described: Description): ReadonlyArray<Any> => {
  const { blockers = [], differing, fields = [], resource, retryAfter } = described
  const metadata = { ...hintOf(error), ...(differing === undefined ? {} : { fields: differing.join(",") }) }
  const info = create(ErrorInfoSchema, { reason: error._tag, domain: "ironwood", metadata })
  const details = [anyPack(ErrorInfoSchema, info)]
  if (resource !== undefined) {
    const [resourceType, name] = resource
    details.push(
      anyPack(ResourceInfoSchema, create(ResourceInfoSchema, { resourceType, resourceName: cut(name, mostName) }))
    )
  }
  if (retryAfter !== undefined) {
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: wireMillis(retryAfter) })))
  }
  if (fields.length > 0) {
    const { kept, left } = fitting(
      BadRequest_FieldViolationSchema,
      fields.map(({ description, field }) =>
        create(BadRequest_FieldViolationSchema, {
          field: cut(field, mostName),
          description: cut(description, mostName)
        })
      ),
      mostDetailBytes
    )
    const more = left === 0 ? [] : [{ field: "", description: `${left} more are wrong` }]
    details.push(anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations: [...kept, ...more] })))
  }
  if (blockers.length > 0) {
    const { kept, left } = fitting(
      PreconditionFailure_ViolationSchema,
      blockers.map(({ description, subject, type }) =>
        create(PreconditionFailure_ViolationSchema, {
          type,
          subject: cut(subject, mostName),
          description: cut(description, mostName)
        })
      ),
      mostDetailBytes
    )
    const more = left === 0 ? [] : [{ type: "", subject: "", description: `${left} more` }]
    details.push(
      anyPack(PreconditionFailureSchema, create(PreconditionFailureSchema, { violations: [...kept, ...more] }))
    )
  }
  return details
}

/** The status of an error. */
export const statusOf = (error: GatewayError): GrpcStatus => {
  const described = describe(error)
  const message = cut(error.message, mostMessage)
  const metadata = new Metadata()
  const status = create(StatusSchema, {
    code: described.code,
    message,
    details: [...detailsOf(error, described)]
  })
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)))
  return { code: described.code, details: message, metadata }
}
