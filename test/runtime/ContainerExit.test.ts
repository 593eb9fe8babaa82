/** What restart policies can match on when a container ends. */
import { assert, it } from "@effect/vitest"
import * as Exit from "effect/Exit"
import * as ExitView from "../../src/actor/ExitView.ts"
import {
  ContainerExited,
  ContainerOomKilled,
  ContainerSignaled,
  ImageMissing
} from "../../src/runtime/ContainerExit.ts"

it("the end of a container's process tells its facts", () => {
  const factsOf = (error: unknown) => ExitView.fromExit(0, Exit.fail(error), false).facts
  assert.deepStrictEqual(factsOf(new ContainerExited({ name: "a", code: 3 })), { exitCode: 3 })
  assert.deepStrictEqual(factsOf(new ContainerSignaled({ name: "a", signal: "SIGKILL", coreDumped: false })), {
    signal: "SIGKILL"
  })
  assert.deepStrictEqual(factsOf(new ContainerOomKilled({ name: "a", kills: 1 })), { outOfMemory: true })
  assert.isUndefined(factsOf(new ImageMissing({ name: "a", image: "b" })))
})
