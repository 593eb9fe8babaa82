/** Event lines: live ones, and those that tell what happened while nobody could. */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import {
  type Actor,
  ActorSchema,
  ActorState,
  type HistoryEntrySchema,
  WatchTreeResponseSchema
} from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { EventText } from "../../src/cli/EventText.ts"
import { plain } from "../../src/cli/Style.ts"
import { now, past } from "./Samples.ts"

const web = (revision: bigint, seconds: number, more: MessageInitShape<typeof ActorSchema> = {}) =>
  create(ActorSchema, {
    path: "init/web",
    kind: "container",
    state: ActorState.RUNNING,
    since: past(seconds),
    revision,
    ...more
  })

const changed = (actor: Actor, entry?: MessageInitShape<typeof HistoryEntrySchema>) =>
  create(WatchTreeResponseSchema, {
    event: { case: "changed", value: actor },
    ...(entry === undefined ? {} : { entry })
  })

const snapshot = (revision: bigint, ...actors: ReadonlyArray<Actor>) =>
  create(WatchTreeResponseSchema, {
    event: { case: "snapshot", value: { actors: [...actors], revision, first: true, last: true } }
  })

const reader = () => {
  const text = new EventText({ style: plain, symbols: false, showSnapshot: true })
  /** Revision, word and path of each line. */
  return (...events: ReadonlyArray<Parameters<EventText["lines"]>[0]>) =>
    events.flatMap((event) => text.lines(event, now)).map((line) => line.replace(/^\S+ +/, "").replace(/ {2,}/g, " "))
}

describe("event lines", () => {
  it("after the death of a brain are of what happened meanwhile, each once, and repeat nobody", () => {
    const lines = reader()
    assert.deepStrictEqual(lines(snapshot(5n, web(4n, 60))).at(0), "r4 running init/web")
    const ended = {
      time: past(9),
      revision: 10n,
      event: "ended",
      exit: { message: "killed by SIGKILL" },
      decision: "restart",
      reason: "it ended (ContainerSignaled): restart at once"
    }
    const started = { time: past(8), revision: 12n, event: "started", reason: "incarnation 2 is ready" }
    const present = web(12n, 8)
    const from = web(5n, 8)
    const told = lines(changed(from, ended), changed(from, started), snapshot(13n, present))
    assert.deepStrictEqual(told.slice(0, -1), [
      "r10 ended init/web killed by SIGKILL, it ended (ContainerSignaled): restart at once",
      "r12 started init/web incarnation 2 is ready"
    ])
    assert.match(told.at(-1) ?? "", /^r13 snapshot /)
    assert.strictEqual(lines(changed(from, ended)).length, 0, "nothing comes twice")
  })

  it("of one that a person stopped say why it is stopped, not how it once ended", () => {
    const stopped = web(7n, 1, {
      state: ActorState.STOPPED,
      reason: "somebody asked for it",
      lastExit: { message: "killed by SIGKILL" }
    })
    assert.deepStrictEqual(reader()(changed(stopped)), ["r7 stopped init/web somebody asked for it"])
  })
})
