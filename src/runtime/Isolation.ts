/**
 * What keeps a container from its host: capabilities, the system call filter, `no_new_privs`, masked paths, devices. By default
 * all of it is on; {@link of} says what a spec makes of that, {@link problemsOf} what of it this host does not allow.
 *
 * Traps: what takes rights away everybody may ask for. What gives more than the usual ones only a host whose machine config
 * allows it (`containers.allowPrivileged`): whoever may call the API is not thereby root of the host. It is looked at when
 * a container is made; one that is there stays as it is.
 */
import * as Context from "effect/Context"
import type { FieldProblem } from "../storage/StateErrors.ts"
import * as Capabilities from "./Capabilities.ts"
import type { Security } from "./ContainerSpec.ts"
import * as Seccomp from "./Seccomp.ts"

/** What this host allows to containers beyond what is usual. By default nothing. */
export interface Allowances {
  readonly privileged: () => boolean
  /** Directories and files of the host of which, and of what is in them, containers may have some. */
  readonly mounts: () => ReadonlyArray<{ readonly path: string; readonly readOnly: boolean }>
  /** Device files of the host that they may have. */
  readonly devices: () => ReadonlyArray<string>
}

export const Allowance = Context.Reference<Allowances>("ironwood/runtime/Isolation/Allowance", {
  defaultValue: () => ({ privileged: () => false, mounts: () => [], devices: () => [] })
})

/** What a container is held by. */
export interface Isolation {
  readonly capabilities: ReadonlyArray<Capabilities.Capability>
  /** Undefined: none. */
  readonly seccomp: Seccomp.Seccomp | undefined
  readonly privileged: boolean
}

/** Of a container with this spec on a host that has these capabilities to give. */
export const of = (security: Security, held: ReadonlyArray<Capabilities.Capability>): Isolation => {
  const { addCapabilities, dropCapabilities, privileged, seccompUnconfined } = security
  const base = privileged ? Capabilities.names : Capabilities.usual
  const capabilities = Capabilities.granted(base, addCapabilities, dropCapabilities).filter((name) =>
    held.includes(name)
  )
  return {
    capabilities,
    seccomp: privileged || seccompUnconfined ? undefined : Seccomp.profile(capabilities),
    privileged
  }
}

/** What of a spec this host does not allow, by field. */
export const problemsOf = (
  security: Security,
  allowance: { readonly privileged: boolean }
): ReadonlyArray<FieldProblem> => {
  if (allowance.privileged) return []
  const { addCapabilities, privileged, seccompUnconfined } = security
  const beyond = addCapabilities.filter((name) => !Capabilities.usual.some((usual) => usual === name))
  const refused = [
    ...(beyond.length > 0 ? [["security.addCapabilities", `${beyond.join(", ")} is more than containers have`]] : []),
    ...(seccompUnconfined ? [["security.seccompUnconfined", "containers are held by a filter of system calls"]] : []),
    ...(privileged ? [["security.privileged", "it would be root of the host"]] : [])
  ]
  return refused.map(([field = "", why = ""]) => ({
    field,
    problem: `${why}; this host does not allow it: set containers.allowPrivileged in its machine config`
  }))
}
