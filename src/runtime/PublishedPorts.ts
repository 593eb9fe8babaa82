/**
 * The ports of the host that lead into sandboxes: which they are, which exclude each other, and which are given to a sandbox that
 * leaves the choice to its host. Such a one is found as the sandbox is made, is stored with it, and stays the same.
 *
 * Trap: a port that is free now may be somebody else's by the time that it is listened on. Then the sandbox's network says so.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as dgram from "node:dgram"
import { createServer } from "node:net"
import type { StateFailure } from "../storage/StateErrors.ts"
import { SpecInvalid } from "./ContainerError.ts"
import type { Records, SandboxRecord } from "./Records.ts"
import type { PublishedPort, SandboxSpec } from "./SandboxSpec.ts"

/** As they are: those of the spec, with what was found for them. */
export const portsOf = ({ hostPorts, spec }: Pick<SandboxRecord, "hostPorts" | "spec">): ReadonlyArray<PublishedPort> =>
  spec.ports.map((port, index) => ({ ...port, hostPort: hostPorts?.[index] ?? port.hostPort }))

/** `0.0.0.0:8080/tcp` */
export const listenerOf = ({ hostAddress, hostPort, protocol }: PublishedPort): string =>
  `${hostAddress}:${hostPort}/${protocol}`

/** They cannot both be had: the same port, of addresses that overlap. */
export const collide = (one: PublishedPort, other: PublishedPort): boolean =>
  one.hostPort !== 0 &&
  one.protocol === other.protocol &&
  one.hostPort === other.hostPort &&
  (one.hostAddress === other.hostAddress || [one.hostAddress, other.hostAddress].includes("0.0.0.0"))

/** One where nobody listens just now; 0: the address is none of this host. */
const free = ({ hostAddress, protocol }: PublishedPort): Effect.Effect<number> =>
  Effect.callback<number>((resume) => {
    const found = (port: number) => resume(Effect.succeed(port))
    if (protocol === "udp") {
      const socket = dgram.createSocket("udp4")
      socket.once("error", () => {
        socket.close()
        found(0)
      })
      socket.bind(0, hostAddress, () => {
        const { port } = socket.address()
        socket.close(() => found(port))
      })
      return
    }
    const server = createServer()
    server.once("error", () => found(0))
    server.listen(0, hostAddress, () => {
      const address = server.address()
      server.close(() => found(typeof address === "object" && address !== null ? address.port : 0))
    })
  })

/** So often a port that is free turns out to be promised to somebody whose network is down. */
const TRIES = 64

/** Nobody looks for one before another has stored the one it has found. */
const turn = Semaphore.makeUnsafe(1)

/** Runs `store` with the ports that a sandbox of this spec gets, while nobody else is given any. */
export const withHostPorts = <A, E, R>(
  { sandboxes }: Pick<Records, "sandboxes">,
  spec: SandboxSpec,
  store: (ports: Pick<SandboxRecord, "hostPorts">) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | SpecInvalid | StateFailure, R> => {
  if (spec.ports.every(({ hostPort }) => hostPort !== 0)) return store({})
  return turn.withPermit(
    Effect.gen(function* () {
      const { records } = yield* sandboxes.partition
      const promised = [...records.flatMap(({ value }) => portsOf(value)), ...spec.ports]
      const hostPorts: Array<number> = []
      for (const [index, port] of spec.ports.entries()) {
        let hostPort = port.hostPort
        for (let tries = 0; hostPort === 0; tries++) {
          const one = { ...port, hostPort: yield* free(port) }
          if (one.hostPort === 0 || tries === TRIES) {
            const problem = `no port of ${port.hostAddress} is free, or it is no address of this host`
            const problems = [{ field: `ports[${index}].hostAddress`, problem }]
            return yield* new SpecInvalid({ what: "sandbox", problems })
          }
          if (promised.some((other) => collide(other, one))) continue
          promised.push(one)
          hostPort = one.hostPort
        }
        hostPorts.push(hostPort)
      }
      return yield* store({ hostPorts })
    })
  )
}
