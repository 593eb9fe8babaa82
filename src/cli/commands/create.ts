/** `ironwood create`: a container that is there, and down until something starts it. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Struct from "effect/Struct"
import * as Command from "effect/cli/Command"
import { ContainerSchema } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { createContainer } from "../CreateContainer.ts"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"
import { containerArguments, runFlags } from "../RunFlags.ts"

export const create = Command.make(
  "create",
  { ...Struct.omit(runFlags, ["detach", "detachKeys", "remove"]), ...containerArguments },
  Effect.fnUntraced(function* (flags) {
    const asked = { ...flags, detach: true, detachKeys: Option.none(), remove: false }
    const container = yield* createContainer("create", asked, { notStarted: true })
    return yield* Output.answer(ContainerSchema, container, Effect.succeed([container.spec?.name ?? ""]))
  })
).pipe(
  describe({
    short: "Create a container and leave it down",
    long: [
      "As `ironwood run -d`, but it is not started: `ironwood start` does that, or the restart policy of a container in the",
      "same sandbox that falls back to it."
    ],
    examples: [
      ["ironwood create --name nightly worker ./run --all", "One that `ironwood start nightly` starts"],
      ["ironwood create --name sorry --sandbox shop sorry-page", "Runs while another one of the sandbox cannot"]
    ]
  })
)
