/**
 * What the host calls itself and whom it asks for names, as the links were told: the kernel's host name, and
 * `/run/ironwood/resolv.conf`, which is an image's `/etc/resolv.conf`. A step of a machine's start, see `host/Step.ts`.
 */
import * as Effect from "effect/Effect"
import { rename, writeFile } from "node:fs/promises"
import type { LinkAddress } from "../../host/IpParameter.ts"
import { step, StepFailed } from "../../host/Step.ts"

const resolvConf = "/run/ironwood/resolv.conf"

/** The lines of resolv.conf(5) for these servers: three at most are asked. */
export const linesOf = (addresses: ReadonlyArray<LinkAddress>): string => {
  const servers = [...new Set(addresses.flatMap(({ nameServers }) => nameServers))]
  return servers
    .slice(0, 3)
    .map((server) => `nameserver ${server}\n`)
    .join("")
}

const write = (what: string, promise: () => Promise<void>): Effect.Effect<void, StepFailed> =>
  Effect.tryPromise({
    try: promise,
    catch: (cause) => new StepFailed({ step: "resolver", problem: `${what}: ${String(cause)}` })
  })

export const resolver = (addresses: ReadonlyArray<LinkAddress>) =>
  step(
    "resolver",
    { description: "the host's name and its name servers", deadline: "10 seconds" },
    Effect.gen(function* () {
      const hostname = addresses.find((address) => address.hostname !== undefined)?.hostname
      if (hostname !== undefined) {
        yield* write("the host's name", () => writeFile("/proc/sys/kernel/hostname", hostname))
      }
      const lines = linesOf(addresses)
      yield* write(resolvConf, async () => {
        await writeFile(`${resolvConf}.new`, lines)
        await rename(`${resolvConf}.new`, resolvConf)
      })
      const servers = lines.replaceAll("nameserver ", "").trim().replaceAll("\n", " ")
      return {
        facts: {
          ...(hostname === undefined ? {} : { hostname }),
          ...(servers === "" ? {} : { "name servers": servers })
        }
      }
    })
  )
