/**
 * The management calls that change a group while it runs: one more child, other specs. Each is one task of the engine's
 * queue and answers with a typed error before it has changed anything, or carries out all of it.
 */
import * as Effect from "effect/Effect"
import type * as ActorPath from "../ActorPath.ts"
import type { ChildSpec, Control, Reloaded } from "../ChildSpec.ts"
import * as Errors from "../Errors.ts"
import * as SpecProblems from "../SpecProblems.ts"
import type { Tree } from "../Tree.ts"
import type { Group } from "./Group.ts"
import type { Node } from "./Node.ts"

/** What the handle of the supervisor `node` calls. */
export const control = <R>(group: Group<R>, node: Node<R>, tree: Tree["Service"]): Control<R> => ({
  path: node.view.path,
  tree,
  count: () => group.children.count(),
  childSpec: (id) => group.children.get(id)?.spec,
  startChild: (spec, wait) =>
    Effect.callback((resume) =>
      node.engine.post(() => startChild(group, node, spec, wait, (answer) => node.engine.answer(() => resume(answer))))
    ),
  reload: (specs) =>
    Effect.callback((resume) =>
      node.engine.post(() => {
        const answer = reload(group, specs)
        node.engine.answer(() => resume(answer))
      })
    )
})

const startChild = <R>(
  group: Group<R>,
  node: Node<R>,
  spec: ChildSpec<unknown, R>,
  wait: boolean,
  answer: (answer: Effect.Effect<ActorPath.ActorPath, Errors.StartChildError>) => void
): void => {
  const { behaviour } = node.spec
  if (!group.up) return answer(Effect.fail(new Errors.SupervisorDown({ id: group.id })))
  const problems = SpecProblems.ofNewChild(spec, group.relation, (id) => group.children.get(id)?.spec.dependencies)
  if (problems.length > 0) return answer(Effect.fail(new Errors.SpecInvalid({ id: spec.id, problems })))
  const present = group.children.get(spec.id)
  if (present !== undefined) {
    const { path, state } = present.view
    const error = present.alive ? new Errors.AlreadyStarted({ path }) : new Errors.AlreadyPresent({ path, state })
    return answer(Effect.fail(error))
  }
  if (behaviour._tag === "Dynamic" && group.children.size >= behaviour.maxChildren) {
    const { path } = node.view
    return answer(Effect.fail(new Errors.MaxChildren({ path, maximum: behaviour.maxChildren })))
  }
  const child = group.add(spec)
  const { path } = child.view
  if (!wait || child.state !== "waiting") answer(Effect.succeed(path))
  else {
    child.onStarted((exit) =>
      answer(exit === undefined ? Effect.succeed(path) : Effect.fail(new Errors.StartFailed({ path, exit })))
    )
  }
  if (child.state === "waiting") group.start(child, false)
}

const reload = <R>(
  group: Group<R>,
  specs: ReadonlyArray<ChildSpec<unknown, R>>
): Effect.Effect<Reloaded, Errors.SpecInvalid> => {
  const { children } = group
  const present = children.specs()
  const problems = SpecProblems.ofChildren(specs, group.relation, "children", present)
  for (const [index, spec] of specs.entries()) {
    const type = children.get(spec.id)?.view.type
    if (type === undefined || (type === "worker") === (spec.behaviour._tag === "Worker")) continue
    problems.push({
      field: `children[${index}]`,
      problem: `"${spec.id}" is a ${type}; delete it before it becomes another`
    })
  }
  if (problems.length > 0) return Effect.fail(new Errors.SpecInvalid({ id: group.id, problems }))
  const named = new Set(specs.map((spec) => spec.id))
  const kept = present.flatMap(({ id }) => (named.has(id) ? [] : [id]))
  const replaced: Array<string> = []
  const added: Array<string> = []
  for (const spec of specs) {
    const child = children.get(spec.id)
    if (child === undefined) {
      added.push(spec.id)
      group.add({ ...spec, autoStart: false }, spec)
    } else {
      replaced.push(spec.id)
      group.replace(child, spec)
    }
  }
  return Effect.succeed({ replaced, added, kept })
}
