/** What cannot be in a microVM, by field: told when it is asked for, before anything is touched. Pure. */
import type { FieldProblem } from "../../storage/StateErrors.ts"
import type { ContainerSpec } from "../ContainerSpec.ts"
import type { SandboxSpec } from "../SandboxSpec.ts"

/** What this host has not: that any microVM takes, and this one's disk. */
export interface Lacking {
  readonly machine?: string | undefined
  readonly disk?: string | undefined
  readonly kernel?: string | undefined
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
    ...(lacking.kernel === undefined ? [] : [{ field: "microvm.kernel", problem: lacking.kernel }]),
    ...(spec.network === "host" ? [{ field: "network", problem: "a microVM does not have the host's network" }] : []),
    ...(spec.userNamespace === "private"
      ? [{ field: "userNamespace", problem: "users of a microVM are nobody on the host anyway: leave it out" }]
      : [])
  ]
}

/** Of a container in it, which has copies of what it only reads. `sharesNothing`: why it can have no directory to write to. */
export const containerProblems = (
  { devices, mounts }: ContainerSpec,
  sharesNothing: string | undefined
): ReadonlyArray<FieldProblem> => [
  ...mounts.flatMap(({ readOnly }, index) =>
    readOnly || sharesNothing === undefined
      ? []
      : [
          {
            field: `mounts[${index}]`,
            problem:
              `its sandbox is a microVM: ${sharesNothing}; with :ro it is copied as the container starts, and what is written is kept ` +
              "in a volume that has a size (`ironwood volume create -o size=4g NAME`)"
          }
        ]
  ),
  ...(devices.length > 0
    ? [{ field: "devices", problem: "its sandbox is a microVM, which has no device of the host" }]
    : [])
]

/** Of a volume that a container shall have. `others`: sandboxes that have it, too. */
export const volumeProblem = (
  name: string,
  /** `machines`: who has it besides containers. */
  volume: { readonly isDisk: boolean; readonly isThere: boolean; readonly machines: ReadonlyArray<string> },
  isMicroVm: boolean,
  others: ReadonlyArray<string>
): string | undefined => {
  if (!isMicroVm)
    return volume.isDisk ? `volume ${name} is a disk, which only containers of a microVM can have` : undefined
  if (!volume.isDisk) {
    return volume.isThere
      ? `its sandbox is a microVM, and volume ${name} is a directory of the host: it can have one that was made with a size`
      : `there is no volume ${name}, and its sandbox is a microVM: make it first, \`ironwood volume create -o size=4g ${name}\``
  }
  const [machine] = volume.machines
  if (machine !== undefined) return `volume ${name} is a disk of ${machine}, and belongs to one alone`
  const [other] = others
  return other === undefined ? undefined : `volume ${name} is a disk of microVM ${other}, and belongs to one alone`
}
