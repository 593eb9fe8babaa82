/** `ironwood volume`: directories and disks that outlive the containers and virtual machines which have them. */
import { create as make } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  ListVolumesResponseSchema,
  type Volume,
  VolumeSchema,
  VolumeService
} from "../../../proto/generated/ironwood/v1/volume_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { type Failure, withNext } from "../Failure.ts"
import { check, flagOf, type FlagProblem, wrongFlags } from "../FlagProblems.ts"
import { answered, forEach } from "../ForEach.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import { parsePair } from "../Labels.ts"
import * as Output from "../Output.ts"
import { requestId } from "../RequestId.ts"
import { parseStorageOption } from "../RunFlags.ts"
import * as Table from "../Table.ts"
import * as Text from "../Text.ts"

const flagOfField: ReadonlyMap<string, string> = new Map([
  ["spec.name", "NAME"],
  ["spec.labels", "--label"],
  ["spec.size_bytes", "--opt"]
])

const wanted = Argument.String("NAME").pipe(Argument.withDescription("Volumes"), Argument.variadic({ min: 1 }))

const orNotThere = <A, R>(call: Effect.Effect<A, Failure, R>) =>
  call.pipe(orElseStatus(status.notFound, (error) => withNext(error, "`ironwood volume ls` lists those there are")))

const create = Command.make(
  "create",
  {
    name: Argument.String("NAME").pipe(Argument.withDescription("Its name")),
    labels: Flag.String("label").pipe(
      Flag.withAlias("l"),
      Flag.withMetavar("NAME=VALUE"),
      Flag.withDescription("A label; may be repeated"),
      Flag.map(check("--label", parsePair)),
      Flag.atLeast(0)
    ),
    options: Flag.String("opt").pipe(
      Flag.withAlias("o"),
      Flag.withMetavar("size=SIZE"),
      Flag.withDescription(
        "A disk of this size, for containers in microVMs and for virtual machines (default: a directory, for those on this host's kernel)"
      ),
      Flag.map(check("--opt", parseStorageOption)),
      Flag.atLeast(0)
    )
  },
  Effect.fnUntraced(function* ({ labels, name, options }) {
    const problems: ReadonlyArray<FlagProblem> = [
      ...labels.flatMap((label) => (Result.isFailure(label) ? [label.failure] : [])),
      ...options.flatMap((option) => (Result.isFailure(option) ? [option.failure] : []))
    ]
    if (problems.length > 0) return yield* wrongFlags("volume create", problems)
    const client = yield* Client
    const pairs = labels.flatMap((label) => (Result.isSuccess(label) ? [label.success] : []))
    const [sizeBytes] = options.flatMap((option) => (Result.isSuccess(option) ? [option.success] : []))
    const spec = { name, labels: Object.fromEntries(pairs), ...(sizeBytes === undefined ? {} : { sizeBytes }) }
    const { volume } = yield* client.call(VolumeService.method.createVolume, { spec, requestId: requestId() }).pipe(
      Effect.mapError((error) =>
        error.violations === undefined
          ? error
          : wrongFlags(
              "volume create",
              error.violations.map((violation) => flagOf(violation, flagOfField))
            )
      )
    )
    return yield* Output.answer(VolumeSchema, volume ?? make(VolumeSchema), Effect.succeed([Text.clean(name)]))
  })
).pipe(
  describe({
    short: "Make a volume",
    long: [
      "A container that names a volume which is not there makes it, so this is needed only for a disk, for labels, or to have it early.",
      "The first container that has it fills it with what its image has at that place; a disk is an empty file system."
    ],
    examples: [
      ["ironwood volume create data", "One without labels"],
      ["ironwood volume create -o size=4g data", "A disk, for a microVM or a virtual machine"],
      ["ironwood run -d -v data:/var/lib/db db:latest", "Who uses it (and would have made it)"]
    ]
  })
)

const ls = Command.make(
  "ls",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const found = yield* client.call(VolumeService.method.listVolumes, {})
    return yield* Output.answer(
      ListVolumesResponseSchema,
      found,
      Effect.gen(function* () {
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        return Table.render(
          [{ title: "NAME" }, { title: "CREATED" }, { title: "IN USE BY" }],
          found.volumes.map(({ createTime, spec, users }) => {
            const created = ActorText.momentOf(createTime)
            return [
              Text.clean(spec?.name ?? ""),
              created === undefined ? "" : HumanText.ago(created, now),
              users.map(Text.clean).join(", ")
            ]
          }),
          { heading: style.dim }
        )
      })
    )
  })
).pipe(
  Command.withAlias("list"),
  describe({ short: "List the volumes, and who has them", examples: [["ironwood volume ls", "All of them"]] })
)

const facts = ({ createTime, filled, path, spec, uid, users }: Volume, now: number) => {
  const created = ActorText.momentOf(createTime)
  const labels = Object.entries(spec?.labels ?? {}).map(([name, value]) => Text.clean(`${name}=${value}`))
  const rows = [
    ["path", filled ? Text.clean(path) : `${Text.clean(path)}, once something has had it`],
    [
      "disk",
      spec?.sizeBytes === undefined ? "" : `${HumanText.size(spec.sizeBytes)}, for a microVM or a virtual machine`
    ],
    ["in use by", users.length === 0 ? "nothing" : users.map(Text.clean).join(", ")],
    ["labels", labels.sort().join(", ")],
    ["created", created === undefined ? "" : HumanText.ago(created, now)],
    ["uid", uid]
  ] as const
  return rows.filter(([, value]) => value !== "")
}

const inspect = Command.make("inspect", { names: wanted }, ({ names }) =>
  forEach(
    names,
    Effect.fnUntraced(function* (name) {
      const client = yield* Client
      const { volume = make(VolumeSchema) } = yield* orNotThere(client.call(VolumeService.method.getVolume, { name }))
      const style = yield* currentStyle
      const now = yield* Clock.currentTimeMillis
      const lines = [
        style.bold(`volume ${Text.clean(name)}`),
        ...facts(volume, now).map(([key, value]) => `  ${style.dim(key.padEnd(10))} ${value}`)
      ]
      return { ...answered("", VolumeSchema, volume), lines }
    })
  )
).pipe(
  describe({
    short: "Say where volumes are, and who has them",
    examples: [["ironwood volume inspect data", "Its directory, labels and users"]]
  })
)

const rm = Command.make("rm", { names: wanted }, ({ names }) =>
  forEach(
    names,
    Effect.fnUntraced(function* (name) {
      const client = yield* Client
      yield* orNotThere(
        client.call(VolumeService.method.removeVolume, { name, requestId: requestId() }, { timeout: "5 minutes" })
      )
      return answered(name, VolumeSchema, make(VolumeSchema, { spec: { name } }))
    })
  )
).pipe(
  describe({
    short: "Remove volumes that no container has, and all that is in them",
    examples: [["ironwood volume rm data", "There is no way back"]]
  })
)

export const volume = Command.make("volume").pipe(
  Command.withSubcommands([create, ls, inspect, rm]),
  describe({
    short: "Directories that outlive the containers which have them",
    examples: [["ironwood run -d -v data:/var/lib/db db:latest", "A container with one"]]
  })
)
