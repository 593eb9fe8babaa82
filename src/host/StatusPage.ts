/**
 * What a person sees on the console of a machine that is up: its name and addresses, where its API is, how its tree does, who
 * fails and why, its memory. Told again when something of it has changed, but calmly: a crash loop must not fill the screen.
 *
 * Plain lines and no control sequences: what is at the other end of a serial line (a terminal, a file, a hypervisor's buffer)
 * cannot be found out, and a page that repaints itself is garbage in a file. It goes through the kernel's log like all else
 * that is said, so it never waits for the console. There is nothing to type here: no shell, no login.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { freemem, hostname, totalmem } from "node:os"
import { Tree, type TreeNode } from "../actor/Tree.ts"

/** What of a node is looked at. */
export type Line = Pick<TreeNode, "annotations" | "kind" | "lastExit" | "path" | "state" | "type">

/** Until it has come to rest. */
const settling = Duration.seconds(3)

/**
 * Between two pages; twice as long each time that there was something new by then, and the shortest again after as long
 * without any: who comes and goes all day is told of now and then.
 */
const shortest = Duration.seconds(15)
const longest = Duration.minutes(10)

const mostTroubled = 5
const widest = 120

const states = ["running", "starting", "backing-off", "waiting", "parked", "failed", "stopping", "stopped", "finished"]

/** Worst first. */
const badness = ({ annotations, state }: Line): number =>
  ["failed", "parked", "backing-off"].indexOf(state) + 1 || ((annotations["degraded"] ?? "") === "" ? 0 : 4)

const cut = (text: string): string => (text.length > widest ? `${text.slice(0, widest - 1)}…` : text)

const troubleOf = (node: Line): string => {
  const why = node.state === "running" ? (node.annotations["degraded"] ?? "") : (node.lastExit?.message ?? "")
  return cut(`${node.path} ${node.state === "running" ? "degraded" : node.state}${why === "" ? "" : `: ${why}`}`)
}

const reach = ({ annotations, state }: Line): ReadonlyArray<string> => {
  if (state !== "running") return []
  const { address, authentication, name, socket } = annotations
  if (address !== undefined) return [`${address}${authentication === "none" ? " (anybody)" : ""}`]
  return socket !== undefined ? [socket] : name !== undefined ? [`serial port ${name}`] : []
}

const orNone = (found: ReadonlyArray<string>, none: string): string => (found.length === 0 ? none : found.join(", "))

/** The page of these nodes; pure. */
export const lines = (name: string, nodes: ReadonlyArray<Line>): ReadonlyArray<string> => {
  const workers = nodes.filter(({ type }) => type === "worker")
  const counts = states.flatMap((state) => {
    const count = workers.filter((node) => node.state === state).length
    return count === 0 ? [] : [`${count} ${state}`]
  })
  const others = workers.filter(({ state }) => !states.includes(state)).length
  const addresses = workers.flatMap(({ annotations: { address, device }, kind }) =>
    kind === "link" && address !== undefined ? [`${device ?? ""} ${address}`.trim()] : []
  )
  const troubled = workers
    .filter((node) => badness(node) > 0)
    .sort((one, other) => badness(one) - badness(other) || (one.path < other.path ? -1 : 1))
  return [
    `--- ${name} ---`,
    `addresses  ${orNone(addresses, "none")}`,
    `API        ${orNone(workers.filter(({ kind }) => kind === "gateway").flatMap(reach), "nowhere")}`,
    `actors     ${[...counts, ...(others === 0 ? [] : [`${others} others`])].join(", ")}`,
    ...troubled.slice(0, mostTroubled).map((node) => `trouble    ${troubleOf(node)}`),
    ...(troubled.length > mostTroubled ? [`trouble    and ${troubled.length - mostTroubled} more`] : [])
  ]
}

const mebibytes = (bytes: number): string => (bytes / 1024 / 1024).toFixed(0)

/** Changes all the time, so it is told along and is no news itself. */
const memory = (): string => `memory     ${mebibytes(freemem())} of ${mebibytes(totalmem())} MiB available`

/** Calls `say` with the lines of a page whenever there is a new one, for ever. */
export const follow = (say: (line: string) => void): Effect.Effect<never, never, Tree> =>
  Effect.scoped(
    Effect.gen(function* () {
      const tree = yield* Tree
      let moved = Deferred.makeUnsafe<void>()
      yield* Effect.forkScoped(
        Stream.runForEach(tree.watch(), () => Effect.sync(() => Deferred.doneUnsafe(moved, Effect.void)))
      )
      let shown = ""
      let pause = shortest
      for (;;) {
        const [quiet] = yield* Effect.timed(Deferred.await(moved))
        if (Duration.isGreaterThanOrEqualTo(quiet, pause)) pause = shortest
        yield* Effect.sleep(settling)
        moved = Deferred.makeUnsafe<void>()
        const nodes = yield* Effect.match(tree.snapshot(), {
          onFailure: () => [],
          onSuccess: (snapshot) => snapshot.nodes
        })
        const page = lines(hostname(), nodes)
        const text = page.join("\n")
        if (text === shown) continue
        shown = text
        for (const line of [...page, memory()]) say(`ironwood: ${line}`)
        yield* Effect.sleep(pause)
        pause = Duration.min(Duration.times(pause, 2), longest)
      }
    })
  )
