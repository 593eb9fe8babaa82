/**
 * `ironwood.v1.TreeService`: the supervision tree over gRPC. Parts, pages and watches first, then the service.
 *
 * Traps: revisions are numbers inside and 64-bit integers outside; a path that is no path is simply nobody's. A snapshot
 * of a large tree does not fit in one message, so it is sent in parts ({@link snapshotParts}).
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Match from "effect/Match"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { Self } from "../actor/Actor.ts"
import { ActorPath } from "../actor/ActorPath.ts"
import { NoSuchActor } from "../actor/Errors.ts"
import { Tree } from "../actor/Tree.ts"
import type { TreeEvent, TreeNode } from "../actor/Tree.ts"
import * as Why from "../actor/Why.ts"
import { actorToProto, entryToProto } from "./ActorMessages.ts"
import { serverStreaming, service, unary } from "./EffectGrpc.ts"
import { fitting, keyIn, sizeOf, tokenAfter } from "./Page.ts"
import * as Policy from "./Policy.ts"
import { invalid } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import * as Steering from "./Steering.ts"
import * as TreeProcesses from "./TreeProcesses.ts"
import { whyToProto } from "./WhyMessages.ts"

const isPath = Schema.is(ActorPath)

/** True for the actor at `top` and those below it; for everybody when `top` is empty. */
const isWithin = (top: string, path: string): boolean => top === "" || path === top || path.startsWith(`${top}/`)

/** Actors per message of a snapshot and per page of `GetTree`: a message is written in one turn, and that is to be short. */
export const actorsPerPart = 250
const pageLimits = { byDefault: actorsPerPart, most: actorsPerPart }
const historyLimits = { byDefault: 100, most: 1_000 }

/** A message of a watch. */
type Heard = MessageInitShape<typeof Proto.WatchTreeResponseSchema>

/** A snapshot in parts; at least one, also when there is nobody. */
export const snapshotParts = (revision: number, nodes: ReadonlyArray<TreeNode>): ReadonlyArray<Heard> =>
  Array.from({ length: Math.max(1, Math.ceil(nodes.length / actorsPerPart)) }, (_, part) => ({
    event: {
      case: "snapshot" as const,
      value: {
        revision: BigInt(revision),
        actors: nodes.slice(part * actorsPerPart, (part + 1) * actorsPerPart).map((node) => actorToProto(node)),
        first: part === 0,
        last: (part + 1) * actorsPerPart >= nodes.length
      }
    }
  }))

/** What a watcher of `top` hears of an event: nothing when it happened elsewhere. */
const heardAt = (top: string, event: TreeEvent): ReadonlyArray<Heard> =>
  Match.valueTags(event, {
    Snapshot: ({ revision, snapshot }): ReadonlyArray<Heard> =>
      snapshotParts(
        revision,
        snapshot.nodes.filter(({ path }) => isWithin(top, path))
      ),
    Changed: ({ entry, node }): ReadonlyArray<Heard> =>
      isWithin(top, node.path)
        ? [{ event: { case: "changed", value: actorToProto(node) }, ...(entry && { entry: entryToProto(entry) }) }]
        : [],
    Removed: ({ path, revision }): ReadonlyArray<Heard> =>
      isWithin(top, path) ? [{ event: { case: "removed", value: { path, revision: BigInt(revision) } } }] : []
  })

/** How often a watch that hears nothing is told how far the tree has come. */
const bookmarkEvery = Duration.seconds(10)

/** The messages of a watch of `top`. */
const watch = (top: string, events: Stream.Stream<TreeEvent>): Stream.Stream<Heard> =>
  Stream.suspend(() => {
    let passed = 0
    let told = 0
    const bookmark = (): ReadonlyArray<Heard> =>
      passed === told ? [] : [{ event: { case: "bookmark", value: { revision: BigInt(passed) } } }]
    // The ticks are merged before revisions are counted, or a bookmark could overtake a change.
    return Stream.merge(
      events,
      Stream.map(Stream.tick(bookmarkEvery), () => undefined)
    ).pipe(
      Stream.map((event) => {
        const heard = event === undefined ? bookmark() : heardAt(top, event)
        if (event !== undefined) passed = event.revision
        if (heard.length > 0) told = passed
        return heard
      }),
      Stream.flattenIterable
    )
  })

/** An actor as of this moment. One that has just gone is told as it was. */
const asOfNow = (tree: Tree["Service"], node: TreeNode, processes?: Proto.ProcessList) =>
  Effect.match(tree.moment(node.path), {
    onFailure: () => actorToProto(node, undefined, processes),
    onSuccess: (moment) => actorToProto(node, moment, processes)
  })

/** The actor at a path, for answers. */
const actorAt = (path: string) =>
  Effect.flatMap(Tree, (tree) => Effect.flatMap(tree.get(path), (node) => asOfNow(tree, node)))

/**
 * Carries out what ends an actor, and gives it for the answer. An actor that this very call is served by cannot end before
 * the call is answered: then it is done behind the answer, in a fiber that outlives the gateway, and shown as it was.
 */
const afterEnd = <E, R>(node: TreeNode, end: Effect.Effect<unknown, E, R>) =>
  Effect.gen(function* () {
    const { path: own } = yield* Self
    // nobody can end the root: that is told
    const servesThis = isWithin(node.path, own) && node.path.includes("/")
    if (!servesThis) return yield* Effect.andThen(end, actorAt(node.path))
    yield* Effect.forkDetach(
      Effect.tapCause(end, (cause) => Effect.logError(`${node.path} was to end behind an answer`, cause))
    )
    return actorToProto(node)
  })

/** One page of the tree. The token holds where the page before ended: position and, should that have moved, path. */
const getTree = Effect.fn("TreeService.getTree")(function* (request: Proto.GetTreeRequest) {
  const tree = yield* Tree
  if (request.path !== "" && !isPath(request.path)) return yield* new NoSuchActor({ path: request.path })
  const snapshot = yield* tree.snapshot(request.path === "" ? undefined : request.path)
  const filters = { path: request.path }
  const after = Option.getOrUndefined(yield* keyIn("tree", filters, request.pageToken))
  let start = 0
  if (after !== undefined) {
    const cut = after.indexOf(" ")
    const position = Number(after.slice(0, cut))
    const path = after.slice(cut + 1)
    const found =
      snapshot.nodes[position]?.path === path ? position : snapshot.nodes.findIndex((node) => node.path === path)
    start = found < 0 ? position : found + 1
  }
  const wanted = snapshot.nodes.slice(start, start + sizeOf(request.pageSize, pageLimits))
  const beneath = yield* TreeProcesses.beneath(wanted, request.processes)
  const actors = yield* fitting(Proto.ActorSchema, wanted, (node) => asOfNow(tree, node, beneath.get(node.path)))
  const end = start + actors.length
  const last = snapshot.nodes[end - 1]
  return {
    revision: BigInt(snapshot.revision),
    actors,
    nextPageToken:
      last === undefined || end >= snapshot.nodes.length ? "" : tokenAfter("tree", filters, `${end - 1} ${last.path}`)
  }
})

const getActorHistory = Effect.fn("TreeService.getActorHistory")(function* (request: Proto.GetActorHistoryRequest) {
  const tree = yield* Tree
  const entries = (yield* tree.history(request.path)).toReversed()
  const filters = { path: request.path }
  const before = Option.getOrUndefined(yield* keyIn("history", filters, request.pageToken))
  const rest = before === undefined ? entries : entries.filter(({ revision }) => revision < Number(before))
  const page = rest.slice(0, sizeOf(request.pageSize, historyLimits))
  const last = page.at(-1)
  return {
    entries: page.map(entryToProto),
    nextPageToken:
      last === undefined || page.length === rest.length ? "" : tokenAfter("history", filters, String(last.revision))
  }
})

/** The service. One value remembers request ids for as long as it lives: make it once per brain. */
export const makeTreeService = () => {
  const { method } = Proto.TreeService
  return service(Proto.TreeService, {
    getTree: unary(method.getTree, getTree),
    watchTree: serverStreaming(method.watchTree, (request) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const tree = yield* Tree
          const from = request.fromRevision
          if (from !== undefined && from > BigInt(Number.MAX_SAFE_INTEGER)) {
            return yield* invalid("from_revision", "is no revision of this tree")
          }
          const heard = watch(request.path, tree.watch(from === undefined ? undefined : Number(from)))
          const processes = TreeProcesses.changes(request.processes, (path) => isWithin(request.path, path))
          return Stream.merge(heard, processes, { haltStrategy: "left" })
        })
      )
    ),
    getActor: unary(method.getActor, ({ path }) => Effect.map(actorAt(path), (actor) => ({ actor }))),
    getActorHistory: unary(method.getActorHistory, getActorHistory),
    explainActor: unary(
      method.explainActor,
      Effect.fn("TreeService.explainActor")(function* ({ path }) {
        const now = yield* Clock.currentTimeMillis
        return whyToProto(yield* Why.of(yield* Tree, path, now))
      })
    ),
    restartActor: unaryOnce(
      method.restartActor,
      Effect.fn("TreeService.restartActor")(function* ({ path }) {
        const node = yield* (yield* Tree).get(path)
        return { actor: yield* afterEnd(node, Steering.restart(node)) }
      })
    ),
    stopActor: unaryOnce(
      method.stopActor,
      Effect.fn("TreeService.stopActor")(function* ({ path }) {
        const node = yield* (yield* Tree).get(path)
        return { actor: yield* afterEnd(node, Steering.stop(node)) }
      })
    ),
    startActor: unaryOnce(
      method.startActor,
      Effect.fn("TreeService.startActor")(function* ({ path }) {
        yield* Steering.start(yield* (yield* Tree).get(path))
        return { actor: yield* actorAt(path) }
      })
    ),
    setActorPolicy: unaryOnce(
      method.setActorPolicy,
      Effect.fn("TreeService.setActorPolicy")(function* ({ path, policy }) {
        const node = yield* (yield* Tree).get(path)
        yield* Steering.setPolicy(node, yield* Policy.fromProto(policy))
        return { actor: yield* actorAt(path) }
      })
    )
  })
}
