/** `ironwood update`: other limits for a container, while it runs. */
import { create } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { ContainerSchema, ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import { type Checked, flagOf, type FlagProblem, wrongFlags } from "../FlagProblems.ts"
import { answered, forEach } from "../ForEach.ts"
import { describe } from "../Help.ts"
import { requestId } from "../RequestId.ts"
import { limitFlags } from "../RunFlags.ts"
import * as Target from "../Target.ts"

const flagOfField: ReadonlyMap<string, string> = new Map([
  ["resources.memory_bytes", "--memory"],
  ["resources.cpus", "--cpus"],
  ["resources.pids", "--pids-limit"]
])

const nothing = "Nothing was changed"

export const update = Command.make(
  "update",
  {
    ...limitFlags,
    names: Argument.String("NAME").pipe(Argument.withDescription("Containers"), Argument.variadic({ min: 1 }))
  },
  Effect.fnUntraced(function* (flags) {
    const client = yield* Client
    const problems: Array<FlagProblem> = []
    const given = <A>(flag: Option.Option<Checked<A>>): A | undefined => {
      if (Option.isNone(flag)) return undefined
      if (Result.isSuccess(flag.value)) return flag.value.success
      problems.push(flag.value.failure)
      return undefined
    }
    const [memoryBytes, cpus, pids] = [given(flags.memory), given(flags.cpus), given(flags.pids)]
    const resources = {
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      ...(cpus === undefined ? {} : { cpus }),
      ...(pids === undefined ? {} : { pids })
    }
    if (problems.length === 0 && Object.keys(resources).length === 0) {
      problems.push({ flag: "--memory, --cpus, --pids-limit", text: "say at least one of them" })
    }
    if (problems.length > 0) return yield* wrongFlags("update", problems, nothing)
    return yield* forEach(
      flags.names,
      Effect.fnUntraced(function* (word) {
        const name = yield* Target.container(word)
        const { container } = yield* client
          .call(ContainerService.method.updateContainer, { name, resources, requestId: requestId() })
          .pipe(
            Effect.mapError((error) => {
              const wrong = error.violations?.map((violation) => flagOf(violation, flagOfField))
              return wrong === undefined ? error : wrongFlags("update", wrong, nothing)
            })
          )
        return answered(word, ContainerSchema, container ?? create(ContainerSchema, { spec: { name } }))
      })
    )
  })
).pipe(
  describe({
    short: "Give containers other limits",
    long: [
      "At once where they run, and for good: the next start has them too. Limits that are not named stay as they are."
    ],
    examples: [["ironwood update --memory 256MiB --cpus 2 web", "More room, without a restart"]]
  })
)
