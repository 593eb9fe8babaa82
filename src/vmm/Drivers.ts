/** All drivers that there are: the real `Hypervisor`. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { choosing } from "./Driver.ts"
import { Hypervisor } from "./Hypervisor.ts"
import * as Qemu from "./qemu/Qemu.ts"

export interface Options {
  /** For what is tried; made when it is not there. */
  readonly directory: string
  /** Default `qemu-system-x86_64`. */
  readonly qemu?: string
}

export const layer = ({ directory, qemu }: Options) =>
  Layer.effect(
    Hypervisor,
    Effect.map(Qemu.driver({ directory, ...(qemu === undefined ? {} : { binary: qemu }) }), (first) =>
      choosing([first])
    )
  )
