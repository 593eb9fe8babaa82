/** What cannot be in a microVM, by field: told when it is asked for, before anything is touched. Pure. */
import type { FieldProblem } from "../../storage/StateErrors.ts"
import type { ContainerSpec } from "../ContainerSpec.ts"
import type { SandboxSpec } from "../SandboxSpec.ts"

/** What this host has not: that any microVM takes, and this one's disk. */
export interface Lacking {
  readonly machine?: string | undefined
  readonly disk?: string | undefined
}

export const sandboxProblems = (spec: SandboxSpec, lacking: Lacking): ReadonlyArray<FieldProblem> => {
  if (spec.isolation !== "microvm") {
    return Object.values(spec.microvm).every((setting) => setting === undefined)
      ? []
      : [{ field: "microvm", problem: "only a sandbox with isolation: microvm has one" }]
  }
  return [
    ...(lacking.machine === undefined ? [] : [{ field: "isolation", problem: lacking.machine }]),
    ...(lacking.disk === undefined ? [] : [{ field: "microvm.diskBytes", problem: lacking.disk }]),
    ...(spec.network === "host" ? [{ field: "network", problem: "a microVM does not have the host's network" }] : []),
    ...(spec.userNamespace === "private"
      ? [{ field: "userNamespace", problem: "users of a microVM are nobody on the host anyway: leave it out" }]
      : []),
    ...(spec.processes === "shared"
      ? [{ field: "processes", problem: "containers of a microVM do not see each other's processes yet" }]
      : [])
  ]
}

/** Of a container in it: it has nothing of the host. */
export const containerProblems = ({ devices, mounts, secrets, volumes }: ContainerSpec): ReadonlyArray<FieldProblem> =>
  [
    ...(mounts.length > 0 ? ["mounts"] : []),
    ...(devices.length > 0 ? ["devices"] : []),
    ...(secrets.length > 0 ? ["secrets"] : []),
    ...(volumes.length > 0 ? ["volumes"] : [])
  ].map((field) => ({ field, problem: "its sandbox is a microVM, which has nothing of the host" }))
