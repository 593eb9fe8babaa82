/**
 * The command `ironwood` as a whole: its subcommands, the flags they share, and how a run of it ends.
 *
 * {@link run} takes the words of a command line and gives the exit code, having printed everything that is to be printed: the
 * one place where failures become text and numbers. Tests call it with a screen of their own.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import * as CliConfig from "effect/cli/CliConfig"
import type * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Client from "./Client.ts"
import { apply } from "./commands/apply.ts"
import { attach } from "./commands/attach.ts"
import { config } from "./commands/config.ts"
import { completions } from "./commands/completions.ts"
import { cp } from "./commands/cp.ts"
import { create } from "./commands/create.ts"
import { down } from "./commands/down.ts"
import { exec } from "./commands/exec.ts"
import { events } from "./commands/events.ts"
import { history } from "./commands/history.ts"
import { host } from "./commands/host.ts"
import { image } from "./commands/image.ts"
import { inspect } from "./commands/inspect.ts"
import { kill } from "./commands/kill.ts"
import { logs } from "./commands/logs.ts"
import { pause } from "./commands/pause.ts"
import { policy } from "./commands/policy.ts"
import { port } from "./commands/port.ts"
import { ps } from "./commands/ps.ts"
import { resume } from "./commands/resume.ts"
import { restart } from "./commands/restart.ts"
import { rm } from "./commands/rm.ts"
import { run as runCommand } from "./commands/run.ts"
import { sandbox } from "./commands/sandbox.ts"
import { secret } from "./commands/secret.ts"
import { start } from "./commands/start.ts"
import { stats } from "./commands/stats.ts"
import { stop } from "./commands/stop.ts"
import { top } from "./commands/top.ts"
import { tree } from "./commands/tree.ts"
import { up } from "./commands/up.ts"
import { update } from "./commands/update.ts"
import { upgrade } from "./commands/upgrade.ts"
import { version } from "./commands/version.ts"
import { vm } from "./commands/vm.ts"
import { volume } from "./commands/volume.ts"
import { wait } from "./commands/wait.ts"
import { why } from "./commands/why.ts"
import { exitCodeHelp, exitCodes } from "./ExitCode.ts"
import { Failure, ReaderGone } from "./Failure.ts"
import { ContainerEnded } from "./Foreground.ts"
import { insteadOf } from "./ForeignCommands.ts"
import { settings } from "./Globals.ts"
import { foreignValueFlags } from "./ForeignFlags.ts"
import { describe } from "./Help.ts"
import * as RunArguments from "./RunArguments.ts"
import { Screen } from "./Screen.ts"
import { version as ownVersion } from "./Version.ts"

/** The whole command. */
export const root = Command.make("ironwood").pipe(
  Command.withSubcommands([
    { group: "Look", commands: [tree, why, ps, port, inspect, logs, stats, top, events, history] },
    {
      group: "Run",
      commands: [
        apply,
        runCommand,
        create,
        start,
        stop,
        restart,
        kill,
        pause,
        resume,
        update,
        exec,
        attach,
        wait,
        cp,
        rm,
        policy
      ]
    },
    { group: "Virtual machines", commands: [vm] },
    { group: "Images, pods, volumes and secrets", commands: [image, sandbox, volume, secret] },
    {
      group: "Ironwood itself",
      commands: [up, down, host, config, upgrade, version, completions((): Command.Command.Any => root)]
    }
  ]),
  Command.provide(Client.layer),
  Command.withGlobalFlags(settings),
  describe({
    short: "Run and watch a supervision tree of containers and services",
    long: [
      "An actor is named by its path (init/runtime/web/web) or by a name only one has (web).",
      "",
      "Exit codes:",
      ...exitCodeHelp.map((line) => `  ${line}`)
    ],
    examples: [
      ["ironwood up --follow", "Start one here and watch it"],
      ["ironwood run -d --name web --restart always web:latest", "A container that is kept up"],
      ["ironwood tree --watch", "What runs, what keeps failing, when it is tried again"],
      ["ironwood why web", "Why one of them is as it is, and what to do about it"]
    ]
  })
)

/** Flags before the command that take a value. */
const globalValueFlags: ReadonlySet<string> = new Set(["address", "output", "o"])

const words = (args: ReadonlyArray<string>): ReadonlyArray<string> =>
  RunArguments.separate(args, globalValueFlags, {
    run: new Set([...RunArguments.valueFlags(runCommand), ...foreignValueFlags]),
    create: new Set([...RunArguments.valueFlags(create), ...foreignValueFlags]),
    exec: RunArguments.valueFlags(exec)
  })

/** Help goes to standard output when asked for; a wrong command line gets one line and where to read on. */
const presenter = (screen: Screen["Service"], colors: boolean, typed: ReadonlyArray<string>) => {
  const formatter = CliOutput.defaultFormatter({ colors, globalFlags: "summary" })
  return Layer.merge(
    CliOutput.layer(formatter),
    CliOutput.layerPresenter({
      present: (event) => {
        if (event._tag === "Help") return Effect.ignore(screen.write(`${formatter.formatHelpDoc(event.helpDoc)}\n`))
        if (event._tag === "Version") return Effect.ignore(screen.write(`ironwood ${event.version}\n`))
        const known = event.errors.flatMap((error) => foreign(error, typed) ?? [])
        const problems = known.length > 0 ? known : event.errors.map(({ message }) => oneLine(message))
        const errors = problems.map((problem) => `ironwood: ${problem}\n`)
        const command = event.commandPath.join(" ")
        return screen.writeError(
          `${errors.join("")}Usage: ${event.helpDoc.usage}\n\`${command} --help\` explains it.\n`
        )
      }
    })
  )
}

/** A command that people know from elsewhere, and what it is here. */
const foreign = (error: CliError.CliError, typed: ReadonlyArray<string>): string | undefined => {
  if (error._tag !== "UnknownSubcommand" || (error.parent?.length ?? 0) > 1) return undefined
  const advice = insteadOf(error.subcommand, typed.slice(typed.indexOf(error.subcommand) + 1))
  return advice === undefined ? undefined : `there is no command ${error.subcommand}: ${advice}`
}

/** The parser's message in one line: its suggestions stand on lines of their own, one-letter ones among them. */
const oneLine = (message: string): string => {
  const [problem = "", ...rest] = message.trim().split(/\s*\n+\s*/)
  const suggestions = rest.filter((line) => !line.startsWith("Did you mean") && !/^-\w$/.test(line))
  return suggestions.length === 0 ? problem : `${problem}. Did you mean ${suggestions.join(" or ")}?`
}

/** Runs a command line; the exit code. Whatever is to be said has been printed then. */
export const run = Effect.fnUntraced(function* (args: ReadonlyArray<string>) {
  const screen = yield* Screen
  const colors = screen.canColor && !args.includes("--no-color")
  return yield* Command.runWith(root, { version: ownVersion })(words(args)).pipe(
    Effect.as<number>(exitCodes.ok),
    Effect.catchCause((cause) => exitCodeOf(cause, screen)),
    Effect.provide(
      Layer.merge(presenter(screen, colors, args), CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version] }))
    )
  )
})

const exitCodeOf = Effect.fnUntraced(function* (cause: Cause.Cause<unknown>, screen: Screen["Service"]) {
  if (Cause.hasInterruptsOnly(cause)) return exitCodes.interrupted
  const error = Cause.squash(cause)
  if (error instanceof ReaderGone) return exitCodes.ok
  if (error instanceof ContainerEnded) return error.code
  if (error instanceof Failure) {
    yield* screen.writeError(`ironwood: ${error.message}\n`)
    return error.exitCode
  }
  // a wrong command line has been presented already; help that was asked for is no error
  if (isShowHelp(error)) return Runtime.getErrorExitCode(error) === 0 ? exitCodes.ok : exitCodes.usage
  yield* screen.writeError(
    `ironwood: this is a bug of the command line. Please report it with what follows.\n${Cause.pretty(cause)}\n`
  )
  return exitCodes.failed
})

const isShowHelp = (error: unknown): boolean =>
  typeof error === "object" && error !== null && "_tag" in error && error._tag === "ShowHelp"
