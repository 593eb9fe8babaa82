/** `ironwood stats`: what containers use, as it changes. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  ContainerService,
  type ContainerStats,
  type Pressure,
  StreamContainerStatsResponseSchema
} from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import { OutputSetting, style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Output from "../Output.ts"
import { durationFlag, secondsOrDuration, toProto } from "../QuantityFlags.ts"
import { Screen } from "../Screen.ts"
import * as Table from "../Table.ts"
import * as Target from "../Target.ts"
import * as Text from "../Text.ts"

const columns: ReadonlyArray<Table.Column> = [
  { title: "NAME" },
  { title: "CPU %", align: "right" },
  { title: "MEMORY", align: "right" },
  { title: "LIMIT", align: "right" },
  { title: "MEM %", align: "right" },
  { title: "READ", align: "right" },
  { title: "WRITTEN", align: "right" },
  { title: "PIDS", align: "right" },
  { title: "WAITS FOR", optional: true }
]

const percent = (part: number): string => `${(part * 100).toFixed(1)}%`

const waits = (name: string, pressure: Pressure | undefined): ReadonlyArray<string> =>
  pressure === undefined || pressure.some < 1 ? [] : [`${name} ${pressure.some.toFixed(0)}%`]

const row = (stats: ContainerStats): ReadonlyArray<string> => {
  const limit = stats.memoryLimitBytes
  return [
    Text.clean(stats.name),
    stats.cpus === undefined ? "-" : percent(stats.cpus),
    HumanText.size(stats.workingSetBytes),
    limit === undefined ? "-" : HumanText.size(limit),
    limit === undefined || limit === 0n ? "-" : percent(Number(stats.workingSetBytes) / Number(limit)),
    HumanText.size(stats.readBytes),
    HumanText.size(stats.writtenBytes),
    String(stats.pids),
    [
      ...waits("cpu", stats.cpuPressure),
      ...waits("memory", stats.memoryPressure),
      ...waits("io", stats.ioPressure)
    ].join(", ")
  ]
}

export const stats = Command.make(
  "stats",
  {
    once: Flag.Boolean("no-stream").pipe(
      Flag.withDescription("Two looks, an interval apart, and the end"),
      Flag.withDefault(false)
    ),
    interval: durationFlag("interval", secondsOrDuration).pipe(
      Flag.withDescription("From look to look (default: 1s)"),
      Flag.withDefault({ seconds: 1n, nanos: 0 })
    ),
    names: Argument.String("NAME").pipe(
      Argument.withDescription("Containers (default: all that run)"),
      Argument.variadic()
    )
  },
  Effect.fnUntraced(function* ({ interval, names: words, once }) {
    const client = yield* Client
    const screen = yield* Screen
    const style = yield* currentStyle
    const format = yield* OutputSetting
    const names = yield* Effect.forEach(words, Target.container)
    let drawn = 0
    const all = client.stream(ContainerService.method.streamContainerStats, { names, interval: toProto(interval) })
    // the first look has no rates yet
    const shown = Stream.drop(all, 1)
    yield* Stream.runForEach(
      once ? Stream.take(shown, 1) : shown,
      Effect.fnUntraced(function* (response) {
        if (format !== "table") return yield* Output.item(StreamContainerStatsResponseSchema, response, () => [])
        const size = yield* screen.size
        const lines = Table.render(columns, response.stats.map(row), {
          heading: style.dim,
          ...(size === undefined ? {} : { width: size.columns })
        })
        if (!screen.isTerminal || once) return yield* Output.lines(lines)
        const home = drawn > 0 ? `\u001B[${drawn}A\r` : ""
        drawn = lines.length
        return yield* screen.write(`${home}${lines.map((line) => `${line}\u001B[K\n`).join("")}\u001B[J`)
      })
    )
  })
).pipe(
  describe({
    short: "Show what containers use, as it changes",
    long: [
      "CPU % of one processor; MEMORY without the cache of files that the kernel takes back first. WAITS FOR says, where the kernel has",
      "it (cgroup2), what keeps its processes waiting, in percent of the last ten seconds. Ctrl-C ends it."
    ],
    examples: [
      ["ironwood stats", "All that run"],
      ["ironwood stats --no-stream -o json web", "One look, for a program"]
    ]
  })
)
