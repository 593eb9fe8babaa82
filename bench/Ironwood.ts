/**
 * Ironwood under measurement: an instance of its own (`./ironwood up --detach`) on the benchmark's workspace, spoken to
 * over one gRPC connection, as an orchestrator would.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { ContainerService } from "../proto/generated/ironwood/v1/container_pb.ts"
import { ImageService } from "../proto/generated/ironwood/v1/image_pb.ts"
import { RestartType } from "../proto/generated/ironwood/v1/policy_pb.ts"
import { ActorState, TreeService } from "../proto/generated/ironwood/v1/tree_pb.ts"
import * as Client from "../src/cli/Client.ts"
import { memory } from "./Measure.ts"
import { command, type Peer, saying } from "./Peers.ts"
import { readStall, requireProbe, type Stall } from "./Stall.ts"

const checkout = fileURLToPath(new URL("..", import.meta.url))

/** The instance as a peer among peers, and what only it is asked. */
export interface Subject extends Peer {
  /** `entrypoint`: what it runs, instead of a sleep. */
  readonly start: (id: string, entrypoint?: ReadonlyArray<string>) => Promise<void>
  /** Starts one that runs to its end, and keeps all that it writes. */
  readonly write: (id: string, entrypoint: ReadonlyArray<string>) => Promise<void>
  readonly taprootPid: number
  /** Rss of the brain as soon as it was up, in MiB. */
  readonly restMebibytes: number
  readonly brainPid: () => number
  /** Names of the containers that run, with their pids; asked over a connection of its own, which has no back-off. */
  readonly running: () => Promise<Map<string, number>>
  /** Waits until `id` runs with another pid than `old`; the new one. */
  readonly runningAnew: (id: string, old: number) => Promise<number>
  /** The longest stall of the brain's event loop since the last call. */
  readonly stall: () => Promise<Stall>
}

const processNamed = (word: string, stateDirectory: string): number => {
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue
    try {
      const line = readFileSync(`/proc/${name}/cmdline`, "utf8")
      if (line.includes(stateDirectory) && line.split("\0")[0]?.endsWith(word) === true) return Number(name)
    } catch {
      // it ended while we looked
    }
  }
  return -1
}

/** Starts an instance on `space` with the sample image; without `probe` nothing is loaded into its brain, and `stall` never answers. */
export const ironwood = async (
  space: string,
  { probe = true }: { readonly probe?: boolean } = {}
): Promise<Subject> => {
  const state = join(space, "ironwood")
  const stallFile = join(space, "stall")
  process.env["IRONWOOD_BENCH_STALL"] = stallFile
  if (probe) process.env["NODE_OPTIONS"] = requireProbe
  await command(join(checkout, "ironwood"), ["up", "--detach", "--state-dir", state])
  delete process.env["NODE_OPTIONS"]
  const restMebibytes = memory(processNamed("bin/node", state), "Rss")

  const scope = Scope.makeUnsafe()
  const connection = await Effect.runPromise(
    Client.make(`unix:${state}/ironwood.sock`).pipe(Effect.provideService(Scope.Scope, scope))
  )
  await Effect.runPromise(
    Stream.runDrain(connection.stream(ImageService.method.importImage, { path: join(checkout, "build/sample-image") }))
  )

  // one watch for all: what a client would do that wants to know
  const pids = new Map<string, number>()
  const watchers = new Set<() => void>()
  const follow = Stream.runForEach(connection.stream(TreeService.method.watchTree, {}), ({ event }) =>
    Effect.sync(() => {
      const actors = event.case === "snapshot" ? event.value.actors : event.case === "changed" ? [event.value] : []
      for (const actor of actors) {
        if (actor.kind !== "container") continue
        const name = actor.path.split("/").at(-1) ?? ""
        const pid = Number(actor.annotations["pid"] ?? "0")
        if (actor.state === ActorState.RUNNING && pid > 0) pids.set(name, pid)
        else pids.delete(name)
      }
      for (const wake of watchers) wake()
    })
  )
  let closing = false
  const watching = Effect.runFork(Effect.forever(Effect.andThen(Effect.ignore(follow), Effect.sleep("5 millis"))))
  const seen = <A>(look: () => A | undefined): Promise<A> =>
    new Promise((resolve, reject) => {
      const give = setTimeout(() => reject(new Error("waited for a minute")), 60_000)
      const wake = () => {
        const value = look()
        if (value === undefined) return
        clearTimeout(give)
        watchers.delete(wake)
        resolve(value)
      }
      watchers.add(wake)
      wake()
    })

  return {
    restMebibytes,
    taprootPid: processNamed("taproot", state),
    brainPid: () => processNamed("bin/node", state),
    start: async (id, entrypoint = ["/bin/busybox", "sleep", "100000"]) => {
      await Effect.runPromise(
        connection.call(ContainerService.method.createContainer, {
          spec: {
            name: id,
            image: "hello:latest",
            entrypoint: [...entrypoint],
            restart: { backoff: { initial: { seconds: 0n, nanos: 0 } } }
          }
        })
      )
      await seen(() => pids.get(id))
    },
    write: async (id, entrypoint) => {
      await Effect.runPromise(
        connection.call(ContainerService.method.createContainer, {
          spec: {
            name: id,
            image: "hello:latest",
            entrypoint: [...entrypoint],
            restart: { restart: RestartType.TEMPORARY },
            log: { maxBytes: 1n << 30n }
          }
        })
      )
    },
    exec: (id) =>
      Effect.runPromise(
        Effect.suspend(() => {
          const begun = performance.now()
          let took = Number.NaN
          const request = { request: { case: "start", value: { name: id, command: saying } } } as const
          return connection
            .exchange(ContainerService.method.execContainer, Stream.make<[typeof request]>(request))
            .pipe(
              Stream.runForEach(({ response }) =>
                Effect.sync(() => {
                  if (response.case === "stdout") took = performance.now() - begun
                })
              ),
              Effect.map(() => took)
            )
        })
      ),
    remove: async (id) => {
      await Effect.runPromise(connection.call(ContainerService.method.removeContainer, { name: id, force: true }))
    },
    pid: (id) => seen(() => pids.get(id)),
    running: async () => {
      const list = Effect.flatMap(Client.make(`unix:${state}/ironwood.sock`), (fresh) =>
        fresh.call(ContainerService.method.listContainers, { pageSize: 1000 }, { timeout: "2 seconds" })
      )
      const { containers } = await Effect.runPromise(Effect.scoped(list))
      return new Map(
        containers.flatMap(({ spec, status }) =>
          spec !== undefined && status?.pid !== undefined ? [[spec.name, status.pid] as const] : []
        )
      )
    },
    runningAnew: (id, old) =>
      seen(() => {
        const pid = pids.get(id)
        return pid === undefined || pid === old ? undefined : pid
      }),
    stall: () => readStall(processNamed("bin/node", state), stallFile),
    close: async () => {
      if (closing) return
      closing = true
      watching.interruptUnsafe()
      await Effect.runPromise(Scope.close(scope, Exit.void))
      await command(join(checkout, "ironwood"), ["--address", `unix:${state}/ironwood.sock`, "down"])
    }
  }
}
