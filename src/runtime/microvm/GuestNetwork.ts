/**
 * The network of a microVM's guest: a card behind which its QEMU, in the network namespace of its sandbox, opens connections as any
 * program there does; and behind that `UserNetworks.ts`, as for any sandbox. The addresses are always the same.
 *
 * A published port leads to QEMU first, which cannot listen on ports below 1024: so each has one in between.
 *
 * Trap: a kernel of one's own has no modules here, so it must have virtio-net built in.
 */
import * as Effect from "effect/Effect"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import type { Nic } from "../../vmm/Machine.ts"
import { MicroVmFailed } from "../ContainerExit.ts"
import type { SandboxRecord } from "../Records.ts"
import type { System } from "../System.ts"
import * as GuestModules from "./GuestModules.ts"
import type { Place } from "../NameFiles.ts"
import { betweenPort, PLACE as OUTSIDE } from "../UserNetworks.ts"

/** QEMU's user-mode network: its guest is the fifteenth, itself the second. */
const ADDRESSES = "10.0.3.0/24"
const ADDRESS = "10.0.3.15"
const MASK = "255.255.255.0"
const GATEWAY = "10.0.3.2"

/** Of QEMU's range, for nobody else is on its network. */
const MAC = "52:54:00:12:34:56"

/** The card, with what leads to the containers. */
export const nicOf = ({ spec }: SandboxRecord): Nic => ({
  id: "net0",
  mac: MAC,
  addresses: ADDRESSES,
  restricted: false,
  forwards: spec.ports.map(({ containerPort, protocol }, index) => ({
    protocol,
    hostAddress: "0.0.0.0",
    hostPort: betweenPort(index),
    guestPort: containerPort
  }))
})

/** Starts the card in a guest that has just come up. `kernel`: its release. */
export const start = Effect.fnUntraced(function* (name: string, system: System, kernel: string) {
  const failed = (detail: string) => new MicroVmFailed({ name, detail: `its network: ${detail}` })
  yield* Effect.mapError(GuestModules.load(system, kernel, "network"), failed)
  const { exit, stderr } = yield* Effect.mapError(
    system.processes.run({ label: "link", argv: ["/usr/lib/ironwood/link", "eth0", ADDRESS, MASK, GATEWAY] }),
    ({ message }) => failed(message)
  )
  if (ProcessExit.isSuccess(exit)) return
  const said = Buffer.from(stderr).toString().trim().slice(0, 200)
  return yield* failed(said === "" ? ProcessExit.describe(exit) : said)
})

/** Where its containers are; they ask whom others ask. */
export const PLACE: Place = { address: ADDRESS, server: OUTSIDE.server }
