/** `ironwood ps`: the containers, as `docker ps` shows them. */
import * as Effect from "effect/Effect"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { ListContainersResponseSchema } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { create } from "@bufbuild/protobuf"
import * as ActorText from "../ActorText.ts"
import * as ContainerText from "../ContainerText.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import { labelFlag } from "../Labels.ts"
import * as Listing from "../Listing.ts"
import { portText } from "../NetworkFlags.ts"
import * as Output from "../Output.ts"
import * as Table from "../Table.ts"
import * as Target from "../Target.ts"
import * as Text from "../Text.ts"

const columns: ReadonlyArray<Table.Column> = [
  { title: "NAME" },
  { title: "IMAGE", shrinkTo: 12 },
  { title: "COMMAND", shrinkTo: 10, optional: true },
  { title: "CREATED" },
  { title: "STATUS", shrinkTo: 24 },
  { title: "RESTARTS", align: "right" },
  { title: "PID", align: "right", optional: true },
  { title: "PORTS", shrinkTo: 24, optional: true },
  { title: "SANDBOX", shrinkTo: 8, optional: true }
]

export const ps = Command.make(
  "ps",
  {
    all: Flag.Boolean("all").pipe(
      Flag.withAlias("a"),
      Flag.withDescription("Those too that are down because they were stopped or have finished"),
      Flag.withDefault(false)
    ),
    quiet: Flag.Boolean("quiet").pipe(Flag.withAlias("q"), Flag.withDescription("Names only"), Flag.withDefault(false)),
    labels: labelFlag("Only those with this label, NAME=VALUE; may be repeated"),
    sandbox: Flag.String("sandbox").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("Only those in this sandbox"),
      Flag.withDefault("")
    )
  },
  Effect.fnUntraced(function* ({ all, labels, quiet, sandbox }) {
    const everything = yield* Target.allContainers({ sandbox, labels })
    const containers = all ? everything : everything.filter((container) => !ContainerText.isDown(container))
    if (quiet) return yield* Output.lines(containers.map(({ spec }) => spec?.name ?? ""))
    return yield* Output.answer(
      ListContainersResponseSchema,
      create(ListContainersResponseSchema, { containers }),
      Listing.table(columns, (now, style) =>
        containers.map((container) => {
          const { createTime, spec, status } = container
          const created = ActorText.momentOf(createTime)
          const name = spec?.name ?? ""
          const inSandbox = spec?.sandbox ?? ""
          return [
            Text.clean(name),
            Text.clean(spec?.image ?? ""),
            ContainerText.commandText(container),
            created === undefined ? "" : HumanText.ago(created, now),
            ContainerText.statusText(container, now, style),
            String(status?.restarts ?? 0),
            status?.pid === undefined ? "" : String(status.pid),
            container.ports.map(portText).join(", "),
            inSandbox === name ? "" : Text.clean(inSandbox)
          ]
        })
      )
    )
  })
).pipe(
  describe({
    short: "List containers",
    long: [
      "Without -a: those that are up, starting, or waiting for their next start, and those in trouble (parked, failed).",
      "STATUS says how the container last ended and when it is tried again. A column nobody fills is left out."
    ],
    examples: [
      ["ironwood ps", "What is running, and what keeps failing"],
      ["ironwood ps -a -o json | jq -r '.containers[].spec.name'", "All names, for a program"],
      ["ironwood ps -q -l team=web", "The names of those with a label"]
    ]
  })
)
