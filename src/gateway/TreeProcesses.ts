/**
 * The processes beneath actors on their way out: for a page of the tree, and for a watch, which tells what has changed.
 *
 * Traps:
 * - Nothing tells when a process comes or goes, so a watch looks every {@link every}; it rests for {@link rest} times as long as it
 *   looked, so that a large host does not spend its time on who watches it.
 * - What a process uses of the processor is left out of what counts as a change: it is different each time.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { Tree, type TreeNode } from "../actor/Tree.ts"
import { Containers } from "../runtime/Containers.ts"
import type { Beneath, Which } from "../runtime/ProcessesBeneath.ts"
import { processToProto } from "./StatsMessages.ts"
import { uint32 } from "./Time.ts"

/** What a request asks for; undefined: nothing. A selection of a newer client is the widest there is. */
const whichOf = (selection: Proto.ProcessSelection): Which | undefined =>
  selection === Proto.ProcessSelection.UNSPECIFIED
    ? undefined
    : selection === Proto.ProcessSelection.GUESTS
      ? "guests"
      : "all"

/** Characters of a command: a tree of thousands has a line for each. */
const MOST_COMMAND = 256

const listToProto = ({ omitted, problem = "", processes }: Beneath, now: number): Proto.ProcessList =>
  create(Proto.ProcessListSchema, {
    processes: processes.map((process) =>
      processToProto({ ...process, command: process.command.slice(0, MOST_COMMAND) }, now)
    ),
    omitted: uint32(omitted),
    problem
  })

/** Those beneath some actors, by their paths. Costs nothing when none are asked for. */
export const beneath = Effect.fnUntraced(function* (
  nodes: ReadonlyArray<TreeNode>,
  selection: Proto.ProcessSelection
): Effect.fn.Return<ReadonlyMap<string, Proto.ProcessList>, never, Containers> {
  const which = whichOf(selection)
  if (which === undefined) return new Map()
  const found = yield* (yield* Containers).processes(nodes, which)
  const now = yield* Clock.currentTimeMillis
  return new Map([...found].map(([path, list]) => [path, listToProto(list, now)]))
})

/** Milliseconds. */
const every = 2_000
const rest = 4

/** What of a list a watcher would see. */
const seen = ({ omitted, problem, processes }: Beneath): string =>
  JSON.stringify([omitted, problem, processes.map(({ command, memoryBytes, pid }) => [pid, command, memoryBytes])])

/** What has changed beneath the actors that `isWithin` has, from a first look on. Nothing when none are asked for. */
export const changes = (
  selection: Proto.ProcessSelection,
  isWithin: (path: string) => boolean
): Stream.Stream<MessageInitShape<typeof Proto.WatchTreeResponseSchema>, never, Containers | Tree> =>
  Stream.suspend(() => {
    const which = whichOf(selection)
    if (which === undefined) return Stream.empty
    let told = new Map<string, string>()
    let pause = 0
    const look = Effect.gen(function* () {
      yield* Effect.sleep(Duration.millis(pause))
      const tree = yield* Tree
      const containers = yield* Containers
      const begun = yield* Clock.currentTimeMillis
      const { nodes } = yield* Effect.orElseSucceed(tree.snapshot(), () => ({ nodes: [] }))
      const found = yield* containers.processes(
        nodes.filter(({ path }) => isWithin(path)),
        which
      )
      const now = yield* Clock.currentTimeMillis
      pause = Math.max(every, rest * (now - begun))
      const before = told
      told = new Map([...found].map(([path, list]) => [path, seen(list)]))
      const changed = [...found].filter(([path]) => told.get(path) !== before.get(path))
      const gone = [...before.keys()].filter((path) => !found.has(path))
      return [
        ...changed.map(([path, list]) => ({ path, processes: listToProto(list, now) })),
        ...gone.map((path) => ({ path }))
      ].map((value) => ({ event: { case: "processes" as const, value } }))
    })
    return Stream.flattenIterable(Stream.fromEffectRepeat(look))
  })
