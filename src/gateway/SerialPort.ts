/**
 * The API at a virtio-serial port named `org.ironwood.api`, where the hypervisor gives the machine one: it answers there without
 * any network. taproot's `relay` carries the bytes to the unix socket; it outlives the brain, as the port's other end does.
 *
 * Whoever is at the other end is the hypervisor, which owns the machine, so nobody is asked who he is.
 */
import { readdir, readFile } from "node:fs/promises"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Actor from "../actor/Actor.ts"
import { describe } from "../taproot/ProcessExit.ts"
import { Processes } from "../taproot/Processes.ts"

export const portName = "org.ironwood.api"

const ports = "/sys/class/virtio-ports"
const relay = "/usr/lib/ironwood/relay"

/** What carries the bytes has ended. */
export class RelayEnded extends Schema.TaggedError<RelayEnded>()("RelayEnded", { problem: Schema.String }) {
  override get message(): string {
    return `the API is not at the hypervisor's port: ${this.problem}`
  }
}

/** Its device, where the machine has one. */
export const find: Effect.Effect<string | undefined> = Effect.promise(async () => {
  for (const port of await readdir(ports).catch((): ReadonlyArray<string> => [])) {
    if ((await readFile(`${ports}/${port}/name`, "utf8").catch(() => "")).trim() === portName) return `/dev/${port}`
  }
  return undefined
})

export const serialPort = (device: string, socketPath: string) =>
  Actor.make(
    "serial-port",
    { kind: "gateway", description: "the API at a port of the hypervisor" },
    Effect.gen(function* () {
      const processes = yield* Processes
      const label = `relay:${device}`
      const found = yield* processes.take(label)
      const process = Option.isSome(found)
        ? found.value
        : yield* Effect.mapError(
            processes.spawn({ label, argv: [relay, device, socketPath], stderr: { _tag: "Inherit" } }),
            ({ message }) => new RelayEnded({ problem: message })
          )
      yield* Actor.onStop(Effect.andThen(process.signal("SIGTERM"), process.acknowledge))
      yield* Actor.ready({ port: device, name: portName })
      const exit = yield* process.exit
      yield* process.acknowledge
      return yield* new RelayEnded({ problem: `its relay ${describe(exit)}` })
    })
  )
