/**
 * The life of the host's own actors as lines for the console and the kernel's log: who came up, with what facts, who fails
 * and why, what is degraded. Workloads are not told of: they are many and have logs of their own.
 *
 * Use on a machine that boots into Ironwood, where the console is all that a person sees when the API does not answer.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Tree, type TreeEvent, type TreeNode } from "../actor/Tree.ts"

/** What a line tells of; two nodes with the same text are one line. */
export const lineOf = ({ annotations, lastExit, path, state }: TreeNode): string => {
  const { degraded = "", ...facts } = state === "running" ? annotations : {}
  const words = Object.entries(facts).map(([key, value]) => `${key}=${value}`)
  const failed = ["backing-off", "parked", "failed"].includes(state) && lastExit !== undefined
  return [
    `ironwood: ${path} ${state}`,
    ...words,
    ...(failed ? [`(${lastExit.message})`] : []),
    ...(degraded === "" ? [] : [`degraded: ${degraded}`])
  ].join(" ")
}

const isTold = ({ path, type }: TreeNode): boolean => type === "worker" && !path.startsWith("init/runtime/")

/** Calls `say` with every new line, for ever. */
export const follow = (say: (line: string) => void): Effect.Effect<void, never, Tree> =>
  Effect.gen(function* () {
    const tree = yield* Tree
    const told = new Map<string, string>()
    const tell = (node: TreeNode): void => {
      if (!isTold(node) || node.state === "starting") return
      const line = lineOf(node)
      if (told.get(node.path) === line) return
      told.set(node.path, line)
      say(line)
    }
    yield* Stream.runForEach(tree.watch(), (event: TreeEvent) =>
      Effect.sync(() => {
        if (event._tag === "Snapshot") event.snapshot.nodes.forEach(tell)
        else if (event._tag === "Changed") tell(event.node)
        else told.delete(event.path)
      })
    )
  })
