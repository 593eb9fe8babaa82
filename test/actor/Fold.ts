/** What a client does with a watch: folds events into what it knows. */
import type { TreeEvent, TreeNode, TreeSnapshot } from "../../src/actor/Tree.ts"

export class Fold {
  readonly nodes = new Map<string, TreeNode>()
  revision = 0
  snapshots = 0
  events = 0

  constructor(from?: TreeSnapshot) {
    if (from !== undefined) this.#reset(from)
  }

  #reset(snapshot: TreeSnapshot): void {
    this.nodes.clear()
    for (const node of snapshot.nodes) this.nodes.set(node.path, node)
    this.revision = snapshot.revision
  }

  readonly apply = (event: TreeEvent): void => {
    this.events++
    if (event.revision < this.revision || (event.revision === this.revision && event._tag !== "Snapshot")) {
      throw new Error(`revision ${event.revision} after ${this.revision}`)
    }
    switch (event._tag) {
      case "Snapshot":
        this.snapshots++
        return this.#reset(event.snapshot)
      case "Changed":
        this.nodes.set(event.node.path, event.node)
        break
      case "Removed":
        this.nodes.delete(event.path)
        break
    }
    this.revision = event.revision
  }

  /** What it knows, sorted by path. */
  get known(): ReadonlyArray<TreeNode> {
    return sorted(this.nodes.values())
  }
}

export const sorted = (nodes: Iterable<TreeNode>): ReadonlyArray<TreeNode> =>
  [...nodes].sort((left, right) => (left.path < right.path ? -1 : left.path > right.path ? 1 : 0))
