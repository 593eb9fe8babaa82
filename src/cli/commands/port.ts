/** `ironwood port`: where a container is reached, as `docker port` tells it. */
import { create } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { ContainerSchema, ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"
import * as Target from "../Target.ts"
import * as Text from "../Text.ts"

export const port = Command.make(
  "port",
  {
    name: Argument.String("NAME").pipe(Argument.withDescription("The container")),
    inside: Argument.String("PORT").pipe(
      Argument.withDescription("Only where this port of it is reached: 80, 53/udp"),
      Argument.optional
    )
  },
  Effect.fnUntraced(function* ({ inside, name: word }) {
    const client = yield* Client
    const name = yield* Target.container(word)
    const { container = create(ContainerSchema) } = yield* client.call(ContainerService.method.getContainer, { name })
    const wanted = Option.map(inside, (text) => (text.includes("/") ? text : `${text}/tcp`))
    const all = container.ports.map(({ containerPort, hostAddress, hostPort, protocol }) => ({
      inside: Text.clean(`${containerPort}/${protocol}`),
      outside: Text.clean(`${hostAddress}:${hostPort}`)
    }))
    const found = all.filter((one) => Option.isNone(wanted) || one.inside === wanted.value)
    if (found.length === 0 && Option.isSome(wanted)) {
      return yield* failure(`port ${Text.clean(wanted.value)} of ${Text.clean(name)} is not published`, {
        exitCode: exitCodes.notFound,
        next:
          all.length === 0
            ? `None is: a container is made with them, \`ironwood run -p ${Text.clean(wanted.value)} …\``
            : `Those that are: ${all.map((one) => one.inside).join(", ")}`
      })
    }
    const lines = found.map((one) => (Option.isSome(wanted) ? one.outside : `${one.inside} -> ${one.outside}`))
    return yield* Output.answer(ContainerSchema, container, Effect.succeed(lines))
  })
).pipe(
  describe({
    short: "Tell which ports of the host lead to a container",
    long: ["Those of its pod: its containers have one network together."],
    examples: [
      ["ironwood port web", "All of them"],
      ["ironwood port web 80", "Only the address where its port 80 is reached"]
    ]
  })
)
