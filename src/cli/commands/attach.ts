/** `ironwood attach`: the standard streams of a container's first process, here. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  type AttachContainerRequestSchema,
  ContainerService
} from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import { detachKeys, keysOf } from "../DetachKeys.ts"
import { exitCodes } from "../ExitCode.ts"
import { wrongFlags } from "../FlagProblems.ts"
import { ContainerEnded } from "../Foreground.ts"
import { describe } from "../Help.ts"
import * as Interactive from "../Interactive.ts"
import { Keyboard } from "../Keyboard.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import * as Target from "../Target.ts"

type Request = MessageInitShape<typeof AttachContainerRequestSchema>

export const attach = Command.make(
  "attach",
  {
    noInput: Flag.Boolean("no-stdin").pipe(Flag.withDescription("Only look"), Flag.withDefault(false)),
    tail: Flag.Int("tail").pipe(
      Flag.withAlias("n"),
      Flag.withMetavar("N"),
      Flag.withDescription("Begin with the last N lines of its log (default: 10)"),
      Flag.withDefault(10)
    ),
    detachKeys,
    name: Argument.String("NAME").pipe(Argument.withDescription("The container"))
  },
  Effect.fnUntraced(function* ({ detachKeys: keys, name: word, noInput, tail }) {
    if (Option.isSome(keys) && Result.isFailure(keys.value)) {
      return yield* wrongFlags("attach", [keys.value.failure], "Nothing was done")
    }
    const client = yield* Client
    const screen = yield* Screen
    const keyboard = yield* Keyboard
    const name = yield* Target.container(word)
    const { container } = yield* client.call(ContainerService.method.getContainer, { name })
    const terminal = container?.spec?.terminal ?? false
    const input = !noInput && (terminal || container?.spec?.stdin === true)
    const size = yield* Interactive.windowSize
    const start: Request = {
      request: {
        case: "start",
        value: { name, tail: Math.max(0, tail), ...(terminal && screen.isTerminal ? { terminal: size } : {}) }
      }
    }
    const typing = input && terminal && keyboard.isTerminal
    const said = yield* Interactive.said({
      input,
      terminal: terminal && screen.isTerminal,
      detachable: typing && keysOf(keys)
    })
    const requests = Stream.concat(
      Stream.make<[Request]>(start),
      Stream.map(said, (request): Request => ({ request }))
    )
    let code: number | undefined
    let left = false
    yield* client.exchange(ContainerService.method.attachContainer, requests).pipe(
      Stream.runForEach(({ response }) => {
        switch (response.case) {
          case "attached":
            return typing ? keyboard.raw : Effect.void
          case "stdout":
            return screen.write(response.value)
          case "stderr":
            return screen.writeError(response.value)
          case "exited":
            return Effect.sync(() => void (code = response.value.code))
          default:
            return Effect.void
        }
      }),
      Effect.catchTags({
        Detached: () => Effect.sync(() => void (left = true)),
        Impatient: () => new ContainerEnded({ code: exitCodes.interrupted })
      })
    )
    if (left) return yield* Output.remark(`detached; \`ironwood attach ${name}\` comes back to it`)
    return yield* code === 0 ? Effect.void : new ContainerEnded({ code: code ?? exitCodes.failed })
  }, Effect.scoped)
).pipe(
  describe({
    short: "Connect to the standard streams of a container",
    long: [
      "What it wrote last, and what it writes now; what is typed or piped here goes to it, if it was made with -i or -t. On a",
      "terminal Ctrl-P Ctrl-Q leaves and lets it run; without one the first Ctrl-C is passed on to it, the second leaves. When it",
      "ends, its exit code becomes ours."
    ],
    examples: [
      ["ironwood attach shell", "Back to a container made with `ironwood run -it`"],
      ["ironwood attach --no-stdin --tail 100 web", "Only look"]
    ]
  })
)
