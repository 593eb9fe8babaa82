/**
 * All drivers that there are: the real `Hypervisor`.
 *
 * QEMU is asked first: it can do the most, and needs no KVM.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as CloudHypervisor from "./cloud-hypervisor/CloudHypervisor.ts"
import { choosing } from "./Driver.ts"
import * as Firecracker from "./firecracker/Firecracker.ts"
import { Hypervisor } from "./Hypervisor.ts"
import * as Qemu from "./qemu/Qemu.ts"

export interface Options {
  /** For what is tried; made when it is not there. */
  readonly directory: string
  /** Default `qemu-system-x86_64`. */
  readonly qemu?: string
  /** Where the programs of the other drivers are looked for. Default: where a system has its programs. */
  readonly path?: string
}

export const layer = ({ directory, path, qemu }: Options) =>
  Layer.effect(
    Hypervisor,
    Effect.gen(function* () {
      const others = { directory, ...(path === undefined ? {} : { path }) }
      return choosing([
        yield* Qemu.driver({ directory, ...(qemu === undefined ? {} : { binary: qemu }) }),
        yield* CloudHypervisor.driver(others),
        yield* Firecracker.driver(others)
      ])
    })
  )
