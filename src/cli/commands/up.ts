/** `ironwood up`: starts an Ironwood on this machine. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Address from "../Address.ts"
import * as Apply from "../Apply.ts"
import { Client, type Connection } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure, render } from "../Failure.ts"
import { OutputSetting } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as Instance from "../Instance.ts"
import * as LiveTree from "../LiveTree.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import { Signals } from "../Signals.ts"
import * as SpecCheck from "../SpecCheck.ts"
import * as SpecFiles from "../SpecFiles.ts"

export const up = Command.make(
  "up",
  {
    stateDirectory: Flag.String("state-dir").pipe(
      Flag.withMetavar("DIRECTORY"),
      Flag.withDescription("Where its state is kept (default: ./.ironwood)"),
      Flag.withDefault(Address.defaultStateDirectory)
    ),
    files: Flag.String("file").pipe(
      Flag.withAlias("f"),
      Flag.withMetavar("SPEC"),
      Flag.withDescription("A spec file to apply once it is up; may be repeated"),
      Flag.atLeast(0)
    ),
    follow: Flag.Boolean("follow").pipe(
      Flag.withDescription("Show the tree as it changes (a line per event when this is not a terminal)"),
      Flag.withDefault(false)
    ),
    detach: Flag.Boolean("detach").pipe(
      Flag.withAlias("d"),
      Flag.withDescription("Return once it is up, and let it run; `ironwood down` ends it"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ detach, files, follow, stateDirectory }) {
    if (detach && follow) {
      return yield* failure("--detach and --follow contradict each other", {
        exitCode: exitCodes.usage,
        next: "Detach, and look with `ironwood tree --watch`"
      })
    }
    const specs = yield* SpecFiles.read(files)
    yield* SpecCheck.refuseProblems(specs)
    const screen = yield* Screen
    // claimed before the start: a Ctrl-C from here on ends in order what there is by then
    const signals = yield* (yield* Signals).claim
    const stopAsked = Effect.flatMap(Queue.take(signals), () => Effect.forkScoped(explain(signals)))
    const instance = yield* Effect.raceFirst(
      Effect.asSome(Instance.start({ stateDirectory, lifeline: !detach })),
      Effect.as(stopAsked, Option.none())
    )
    if (Option.isNone(instance)) return yield* Effect.void
    const { address, connection, ended, release, stop } = instance.value
    const work = Effect.gen(function* () {
      yield* Apply.apply(specs, { replace: false }).pipe(
        Effect.provideService(Client, connection),
        // what is up stays up: a spec that does not work is no reason to take the rest down
        Effect.catchTag("Failure", (error) => Output.remark(`ironwood: ${render(error)}`))
      )
      yield* screen.write(`ready ${address}\n`)
      if (detach) return yield* Effect.as(release, "done")
      const view = follow ? show(connection) : Effect.never
      yield* Effect.raceFirst(view, Effect.flatMap(ended, endedByItself))
      return "done"
    })
    const why = yield* Effect.raceFirst(work, Effect.as(stopAsked, "asked to stop"))
    return yield* why === "done" ? Effect.void : stop
  }, Effect.scoped)
).pipe(
  describe({
    short: "Start an Ironwood on this machine",
    long: [
      "Starts taproot with its brain, waits until the API answers, applies the spec files and prints a line `ready ADDRESS`. Then it",
      "stays in the foreground until Ctrl-C, which stops everything in order and leaves nothing; what was asked for stays on",
      "disk, and the next `up` brings it back. Needs root, for containers do. A second one on the same state directory is",
      "refused (exit code 4)."
    ],
    examples: [
      ["ironwood up --file examples/hello.yaml --follow", "What `npm start` does"],
      ["ironwood up --detach --state-dir /var/lib/ironwood", "In the background"]
    ]
  })
)

/**
 * The live tree on a terminal, a line per event elsewhere. Never ends by itself, whatever happens to the view: containers
 * depend on this command.
 */
const show = Effect.fnUntraced(function* (connection: Connection) {
  const screen = yield* Screen
  const picture = screen.isTerminal && (yield* OutputSetting) === "table"
  const view = picture
    ? LiveTree.picture(connection, "")
    : LiveTree.events(connection, { path: "", showSnapshot: true })
  yield* view.pipe(
    Effect.catchTag("Failure", (error) => Output.remark(`ironwood: the view has ended: ${render(error)}`)),
    Effect.catchDefect((defect) => Output.remark(`ironwood: the view has ended: ${String(defect)}`))
  )
  return yield* Effect.never
})

const endedByItself = (how: Instance.Ended) =>
  how.code === 0
    ? Output.remark("ironwood: stopped")
    : failure(
        how.signal === null ? `taproot ended with exit code ${how.code ?? "?"}` : `taproot was ended by ${how.signal}`,
        { next: "brain.log in the state directory tells why; start it again with `ironwood up`" }
      )

/** Answers every further Ctrl-C while everything is being stopped. */
const explain = (signals: Queue.Dequeue<unknown>) =>
  Effect.forever(
    Effect.andThen(
      Queue.take(signals),
      Output.remark(
        "ironwood: still stopping in order; containers have their grace period (10s by default), then they are killed. " +
          "To stop waiting, end this command with SIGKILL: the stop goes on by itself."
      )
    )
  )
