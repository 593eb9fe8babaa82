/** `ironwood top`: the processes of a container. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { ContainerService, TopContainerResponseSchema } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client } from "../Client.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import * as Table from "../Table.ts"
import * as Target from "../Target.ts"
import * as Text from "../Text.ts"

const columns: ReadonlyArray<Table.Column> = [
  { title: "PID", align: "right" },
  { title: "INSIDE", align: "right" },
  { title: "UID", align: "right" },
  { title: "S" },
  { title: "UP", align: "right" },
  { title: "CPU TIME", align: "right" },
  { title: "MEMORY", align: "right" },
  { title: "COMMAND", shrinkTo: 10 }
]

export const top = Command.make(
  "top",
  { name: Argument.String("NAME").pipe(Argument.withDescription("The container")) },
  Effect.fnUntraced(function* ({ name: word }) {
    const client = yield* Client
    const name = yield* Target.container(word)
    const response = yield* client.call(ContainerService.method.topContainer, { name })
    return yield* Output.answer(
      TopContainerResponseSchema,
      response,
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const style = yield* currentStyle
        const size = yield* (yield* Screen).size
        const rows = response.processes.map((process) => {
          const { cpuTime, startTime } = process
          const started = ActorText.momentOf(startTime)
          const used = cpuTime === undefined ? 0 : Number(cpuTime.seconds) * 1_000 + cpuTime.nanos / 1e6
          return [
            String(process.pid),
            String(process.innerPid),
            String(process.uid),
            Text.clean(process.state),
            started === undefined ? "" : HumanText.span(now - started),
            HumanText.span(used),
            HumanText.size(process.memoryBytes),
            Text.clean(process.command)
          ]
        })
        return Table.render(columns, rows, {
          heading: style.dim,
          ...(size === undefined ? {} : { width: size.columns })
        })
      })
    )
  })
).pipe(
  describe({
    short: "List the processes of a container",
    long: ["PID as the host numbers them, or the guest of a microVM; INSIDE and UID as the container does."],
    examples: [["ironwood top web", "What runs in it"]]
  })
)
