/** `ironwood completions`: a script that lets a shell complete commands and flags. */
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Completions from "effect/cli/Completions"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"

/** The command; `root` is asked for when it runs, for the root has this command in it. */
export const completions = (root: () => Command.Command.Any) =>
  Command.make(
    "completions",
    {
      shell: Argument.Literals("SHELL", ["bash", "zsh", "fish", "powershell"]).pipe(
        Argument.withDescription("bash, zsh, fish or powershell")
      )
    },
    Effect.fnUntraced(function* ({ shell }) {
      const command = root()
      const script = Completions.generate(command.name, shell, Completions.fromCommand(command)).trimEnd()
      // The generator writes into its head how its own flag is called, which we do not have.
      yield* Output.lines([script.replaceAll(`${command.name} --completions`, `${command.name} completions`)])
    })
  ).pipe(
    describe({
      short: "Print a script for your shell that completes commands and flags",
      examples: [
        ["source <(ironwood completions bash)", "For this shell"],
        ["ironwood completions bash > /etc/bash_completion.d/ironwood", "For good (bash)"],
        ["ironwood completions zsh > ~/.zfunc/_ironwood", "For good (zsh, with ~/.zfunc in fpath)"],
        ["ironwood completions fish > ~/.config/fish/completions/ironwood.fish", "For good (fish)"]
      ]
    })
  )
