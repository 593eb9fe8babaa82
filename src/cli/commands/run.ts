/** `ironwood run`: a container from an image, with the flags docker people type. */
import * as Effect from "effect/Effect"
import * as Command from "effect/cli/Command"
import { ContainerSchema } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { createContainer } from "../CreateContainer.ts"
import { keysOf } from "../DetachKeys.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import { attach } from "../Foreground.ts"
import { describe } from "../Help.ts"
import { Keyboard } from "../Keyboard.ts"
import * as Output from "../Output.ts"
import { containerArguments, runFlags } from "../RunFlags.ts"

export const run = Command.make(
  "run",
  {
    ...runFlags,
    ...containerArguments
  },
  Effect.fnUntraced(function* (flags) {
    const { interactive, terminal } = flags
    if (!flags.detach && interactive && terminal && !(yield* Keyboard).isTerminal) {
      return yield* failure("-t needs a terminal to type on, and standard input is none", {
        exitCode: exitCodes.usage,
        next: "Leave out -t to pipe something in"
      })
    }
    const container = yield* createContainer("run", flags)
    if (flags.detach)
      return yield* Output.answer(ContainerSchema, container, Effect.succeed([container.spec?.name ?? ""]))
    return yield* attach(container, {
      remove: flags.remove,
      input: interactive,
      terminal,
      detachKeys: keysOf(flags.detachKeys)
    })
  })
).pipe(
  describe({
    short: "Run a container from an image",
    long: [
      "An image that is not here is pulled (see `ironwood image pull`). In the foreground its output is shown, Ctrl-C stops it, and the",
      "exit code is its own (128 + N when signal N ended it). One whose program is not there is removed again. Flags come before",
      "IMAGE: what stands behind it is the container's command. With -d it is supervised from then on: it comes back by its",
      "restart policy, also after a restart of Ironwood."
    ],
    examples: [
      ["ironwood run --rm hello", "See what an image does"],
      ["ironwood run -it --rm hello sh", "A shell in it; Ctrl-P Ctrl-Q leaves it running"],
      ["ironwood run -d --name web --memory 64MiB --restart always web:latest", "A service that is kept up"],
      ["ironwood run --rm --entrypoint /bin/sh hello -c 'id; env'", "Another program of the image"],
      [
        "ironwood run -d --restart on-failure:3 -e JOB=7 worker ./run --once",
        "Tried again at most 3 times, then parked"
      ]
    ]
  })
)
