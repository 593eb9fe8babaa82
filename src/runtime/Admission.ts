/**
 * Whether a container or a sandbox can be made here: whether its name is free (or has what is asked for already), whether
 * all that it refers to is there, and whether this host can and may do what it wants. All that is wrong is told in one
 * answer, before anything is made. Changes nothing.
 *
 * Trap: in a check (`validate`) a sandbox that is not there may be one that the caller makes next: what depends on its kind
 * is left to the creation.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Content } from "../storage/Content.ts"
import { State } from "../storage/State.ts"
import type { FieldProblem, StateFailure } from "../storage/StateErrors.ts"
import { Volumes } from "../storage/Volumes.ts"
import { differences } from "../storage/Workload.ts"
import { ContainerAlreadyExists, SandboxAlreadyExists, SpecInvalid } from "./ContainerError.ts"
import { type ContainerSpec, limitProblemsOf } from "./ContainerSpec.ts"
import * as HostPaths from "./HostPaths.ts"
import * as Isolation from "./Isolation.ts"
import * as MicroVms from "./microvm/MicroVms.ts"
import * as Refusals from "./microvm/Refusals.ts"
import { gatewayProblem } from "./NameFiles.ts"
import { collide, listenerOf, portsOf } from "./PublishedPorts.ts"
import * as Records from "./Records.ts"
import * as References from "./References.ts"
import { HOST_GATEWAY, type SandboxSpec } from "./SandboxSpec.ts"
import { Secrets } from "./Secrets.ts"
import { Systems } from "./System.ts"
import * as UserRanges from "./UserRanges.ts"

export const make = Effect.gen(function* () {
  const records = yield* Records.open(yield* State)
  const allowance = yield* Isolation.Allowance
  const microVms = yield* MicroVms.MicroVms
  const secrets = yield* Secrets
  const systems = yield* Systems
  const volumes = yield* Volumes
  const lookUp = References.make(records, yield* Content)

  /** The container that has the name, if it is what `spec` says. */
  const sameContainer = Effect.fnUntraced(function* (spec: ContainerSpec) {
    const present = yield* records.containers.get(spec.name)
    if (Option.isNone(present)) return Option.none()
    const fields = differences(present.value.value.spec, spec)
    if (fields.length > 0) return yield* new ContainerAlreadyExists({ name: spec.name, fields })
    return present
  })

  /** Whether its volumes are of the kind that it can have. */
  const volumeProblems = Effect.fnUntraced(function* (spec: ContainerSpec, sandbox: SandboxSpec | undefined) {
    if (spec.volumes.length === 0) return []
    const own = spec.sandbox ?? spec.name
    const { records: all } = yield* records.containers.partition
    const found = yield* Effect.forEach(
      spec.volumes,
      Effect.fnUntraced(function* ({ name }, index) {
        const volume = yield* Effect.option(volumes.get(name))
        const others = all.filter(
          ({ value }) => value.sandbox !== own && value.spec.volumes.some((one) => one.name === name)
        )
        const isDisk = Option.isSome(volume) && volume.value.spec.sizeBytes !== undefined
        const problem = Refusals.volumeProblem(
          name,
          {
            isDisk,
            isThere: Option.isSome(volume),
            machines: Option.isSome(volume) ? volume.value.users.filter((user) => !user.startsWith("container ")) : []
          },
          sandbox?.isolation === "microvm",
          others.map(({ value }) => value.sandbox)
        )
        return problem === undefined ? [] : [{ field: `volumes[${index}].name`, problem }]
      })
    )
    return found.flat()
  })

  const secretProblems = Effect.fnUntraced(function* (spec: ContainerSpec) {
    if (spec.secrets.length === 0) return []
    const there = new Set((yield* secrets.list).map(({ name }) => name))
    return spec.secrets.flatMap(({ name }, index): ReadonlyArray<FieldProblem> => {
      const problem = `there is no secret "${name}": make it with \`ironwood secret create\``
      return there.has(name) ? [] : [{ field: `secrets[${index}].name`, problem }]
    })
  })

  /** What a container of the kind that its sandbox makes it cannot have. None: the sandbox that it gets for itself. */
  const sandboxedProblems = Effect.fnUntraced(function* (spec: ContainerSpec, sandbox: SandboxSpec | undefined) {
    return [
      ...(sandbox?.isolation === "microvm" ? Refusals.containerProblems(spec, microVms.sharesNothing) : []),
      ...UserRanges.problemsOf(spec, sandbox?.userNamespace ?? "host"),
      ...(yield* volumeProblems(spec, sandbox))
    ]
  })

  /**
   * What a container's spec refers to; fails when any of it is not so, or when this host does not allow what it wants. With
   * `check` nothing is made, and all that is `assumed` counts.
   */
  const admit = Effect.fnUntraced(function* (
    spec: ContainerSpec,
    assumed: References.Assumed,
    { check }: { readonly check: boolean }
  ) {
    const found = yield* lookUp(References.referencesOf(spec), assumed, { check })
    const sandbox = Option.getOrUndefined(found.sandbox)?.value.spec
    const refusal = References.refusalOf([
      ...found.problems,
      ...limitProblemsOf(spec),
      ...Isolation.problemsOf(spec.security, { privileged: allowance.privileged() }),
      ...HostPaths.problemsOf(spec, allowance),
      ...(check && sandbox === undefined ? [] : yield* sandboxedProblems(spec, sandbox)),
      ...(yield* secretProblems(spec))
    ])
    return Option.isSome(refusal) ? yield* refusal.value : found
  })

  /** The sandbox that has the name, if it is what `spec` says. */
  const sameSandbox = Effect.fnUntraced(function* (spec: SandboxSpec) {
    const present = yield* records.sandboxes.get(spec.name)
    if (Option.isNone(present)) return Option.none()
    const { implicit, spec: other } = present.value.value
    const fields = implicit ? ["implicit"] : differences(other, spec)
    if (fields.length > 0) return yield* new SandboxAlreadyExists({ name: spec.name, fields })
    return present
  })

  /** What is in the way of a sandbox's own network, and of its ports. */
  const networkProblems = Effect.fnUntraced(function* (
    spec: SandboxSpec
  ): Effect.fn.Return<ReadonlyArray<FieldProblem>, StateFailure> {
    const { name, network, ports } = spec
    if (network !== "user") {
      return ports.length === 0 ? [] : [{ field: "ports", problem: "only a sandbox with network: user can have any" }]
    }
    const { lacking } = systems.userNetworks
    if (lacking !== undefined) return [{ field: "network", problem: lacking }]
    const { records: all } = yield* records.sandboxes.partition
    const others = all.flatMap(({ value }) =>
      value.spec.name === name ? [] : portsOf(value).map((port) => ({ owner: `sandbox ${value.spec.name}`, port }))
    )
    return ports.flatMap((port, index) => {
      const before = ports.slice(0, index).map((one) => ({ owner: "it", port: one }))
      const holder = [...others, ...before].find((one) => collide(one.port, port))
      if (holder === undefined) return []
      const problem = `${holder.owner} has ${listenerOf(holder.port)} already`
      return [{ field: `ports[${index}].hostPort`, problem }]
    })
  })

  /** What it asks for with names, and its network cannot answer. */
  const nameProblems = ({ dns, hosts, network }: SandboxSpec): ReadonlyArray<FieldProblem> => [
    ...hosts.flatMap(({ address }, index) => {
      const problem = address === HOST_GATEWAY ? gatewayProblem(network) : undefined
      return problem === undefined ? [] : [{ field: `hosts[${index}].address`, problem: `${HOST_GATEWAY}: ${problem}` }]
    }),
    ...(["servers", "search", "options"] as const).flatMap((field) =>
      network === "none" && dns[field].length > 0
        ? [{ field: `dns.${field}`, problem: "without a network nobody is asked for names: it is host or user" }]
        : []
    )
  ]

  /** Fails when this host cannot do what a sandbox wants. */
  const admitSandbox = Effect.fnUntraced(function* (spec: SandboxSpec) {
    const usersLacking =
      spec.userNamespace === "private" && spec.isolation !== "microvm" ? yield* systems.users.lacking : undefined
    const problems = [
      ...Refusals.sandboxProblems(spec, spec.isolation === "microvm" ? yield* microVms.lacking(spec.microvm) : {}),
      ...(usersLacking === undefined
        ? []
        : [{ field: "userNamespace", problem: `this host cannot do it: ${usersLacking}; leave it out` }]),
      ...(yield* networkProblems(spec)),
      ...nameProblems(spec)
    ]
    if (problems.length > 0) return yield* new SpecInvalid({ what: "sandbox", problems })
  })

  return { sameContainer, admit, lookUp, sameSandbox, admitSandbox }
})
