/** Runs command lines in this process against a screen that keeps what is printed. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as Cli from "../../src/cli/Cli.ts"
import { Keyboard } from "../../src/cli/Keyboard.ts"
import * as Signals from "../../src/cli/Signals.ts"
import { GrpcFailure, type Registration, unary } from "./FakeServer.ts"
import { actors, containers } from "./Samples.ts"
import * as TestScreen from "./TestScreen.ts"

/** Standard input at its end. */
const noKeyboard = Layer.succeed(Keyboard, Keyboard.of({ isTerminal: false, input: Stream.empty, raw: Effect.void }))

/** What a command printed and its exit code. */
export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** A command line being run: what it has printed so far, and signals for it. */
export const prepare = (args: ReadonlyArray<string>, options: Parameters<typeof TestScreen.make>[0] = {}) => {
  const screen = TestScreen.make(options)
  const signals = Signals.make()
  return {
    captured: screen.captured,
    deliver: signals.deliver,
    run: Cli.run(args).pipe(Effect.provide(Layer.mergeAll(screen.layer, noKeyboard, signals.layer, NodeServices.layer)))
  }
}

/** Runs a command line to its end. */
export const ironwood = (
  args: ReadonlyArray<string>,
  options: Parameters<typeof TestScreen.make>[0] = {}
): Effect.Effect<Ran> => {
  const { captured, run } = prepare(args, options)
  return Effect.map(run, (code) => ({ code, out: captured.out(), err: captured.err() }))
}

/** The samples as a server answers with them: reading the tree and the containers, two of each a page. */
export const reading: ReadonlyArray<Registration> = [
  unary(TreeService.method.getTree, ({ pageToken, path }) => {
    const below = actors.filter((actor) => path === "" || actor.path === path || actor.path.startsWith(`${path}/`))
    const from = Number(pageToken)
    return {
      revision: 42n,
      actors: below.slice(from, from + 2),
      nextPageToken: from + 2 < below.length ? String(from + 2) : ""
    }
  }),
  unary(TreeService.method.getActor, ({ path }) => {
    const actor = actors.find((one) => one.path === path)
    if (actor === undefined) throw new GrpcFailure(grpc.status.NOT_FOUND, `no actor ${path}`)
    return { actor }
  }),
  unary(ContainerService.method.getContainer, ({ name }) => {
    const container = containers.find(({ spec }) => spec?.name === name)
    if (container === undefined) throw new GrpcFailure(grpc.status.NOT_FOUND, `no container ${name}`)
    return { container }
  }),
  unary(ContainerService.method.listContainers, ({ pageToken }) => {
    const from = Number(pageToken)
    return {
      containers: containers.slice(from, from + 2),
      nextPageToken: from + 2 < containers.length ? String(from + 2) : ""
    }
  })
]
