/**
 * The tree as a client knows it: actors by path, kept up to date by the events of a watch.
 *
 * Feed it every event in order with {@link apply}. A snapshot in several parts replaces the old picture with its first part;
 * `revision` is where a lost watch may be resumed, so it moves only with the last part. Processes have none: {@link lost} forgets
 * them, and a watch that is resumed tells them anew. The model is mutable: one owner.
 */
import type { Actor, ProcessList, WatchTreeResponse } from "../../proto/generated/ironwood/v1/tree_pb.ts"

/** What is known. */
export interface TreeModel {
  readonly actors: Map<string, Actor>
  /** What runs beneath them, by their paths. */
  readonly processes: Map<string, ProcessList>
  /** Resume from here; undefined before the first whole snapshot. */
  revision: bigint | undefined
}

/** Knows nothing yet. */
export const make = (): TreeModel => ({ actors: new Map(), processes: new Map(), revision: undefined })

const seen = (model: TreeModel, revision: bigint): void => {
  if (model.revision === undefined || revision > model.revision) model.revision = revision
}

/** Takes in one event. */
export const apply = (model: TreeModel, { event }: WatchTreeResponse): void => {
  switch (event.case) {
    case "snapshot":
      if (event.value.first) model.actors.clear()
      for (const actor of event.value.actors) model.actors.set(actor.path, actor)
      if (event.value.last) model.revision = event.value.revision
      return
    case "changed":
      model.actors.set(event.value.path, event.value)
      return seen(model, event.value.revision)
    case "removed":
      model.actors.delete(event.value.path)
      model.processes.delete(event.value.path)
      return seen(model, event.value.revision)
    case "bookmark":
      return seen(model, event.value.revision)
    case "processes": {
      const { path, processes } = event.value
      if (processes === undefined) model.processes.delete(path)
      else model.processes.set(path, processes)
      return
    }
    case undefined:
      return
  }
}

/** The watch is lost. */
export const lost = (model: TreeModel): void => model.processes.clear()
