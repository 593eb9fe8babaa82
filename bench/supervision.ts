/**
 * What does supervision cost, beside Erlang/OTP? Starting, restarting, holding, showing and stopping children, with a
 * hundred thousand of them where the number matters.
 *
 * Every group of questions is answered by a fresh process of each, in turn: `Supervised.ts` by Ironwood's core, and
 * `otp/supervised.erl` by the supervisors of Debian's `erlang-base`, so that neither heap nor compiled code of one group
 * colours another. Beside them `Bare.ts` shows what there is below: fibers that nobody supervises. A sample is what one process found: for a latency its median or its 99th percentile.
 *
 * `node bench/supervision.ts GROUP…` runs some of the groups; see also the headers of the programs.
 */
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Schema from "effect/Schema"
import { progress, report } from "./Measure.ts"
import { command } from "./Peers.ts"

const here = fileURLToPath(new URL(".", import.meta.url))
const compiled = join(here, "../build/bench/otp")

interface Question {
  readonly question: string
  readonly unit: string
  readonly aim: string
}

interface Group {
  readonly rounds: number
  readonly subjects: ReadonlyArray<Subject>
  /** By the name of the figure. */
  readonly questions: Readonly<Record<string, Question>>
}

interface Subject {
  readonly name: string
  readonly command: (group: string) => Promise<string>
}

const program = (name: string, file: string): Subject => ({
  name,
  command: (group) =>
    // as the brain runs, see Instance.ts
    command(process.execPath, [
      "--expose-gc",
      "--disable-warning=ExperimentalWarning",
      "--max-semi-space-size=2",
      join(here, file),
      group
    ])
})

const ironwood = program("ironwood", "Supervised.ts")
const bare = program("bare Effect fibers with a scope: the floor", "Bare.ts")

const otp = (kind: string): Subject => ({
  name: `OTP, ${kind}`,
  command: (group) => command("erl", ["-noshell", "-pa", compiled, "-s", "supervised", "main", group])
})

const latencies = (where: string, p50: string, p99: string): Readonly<Record<string, Question>> => ({
  p50: { question: `crash to restarted, p50, ${where}`, unit: "µs", aim: p50 },
  p99: { question: `crash to restarted, p99, ${where}`, unit: "µs", aim: p99 }
})

const oneForOne = otp("one_for_one")

const groups: Readonly<Record<string, Group>> = {
  dynamic: {
    rounds: 3,
    subjects: [ironwood, otp("simple_one_for_one"), bare],
    questions: {
      start: { question: "start 100,000 dynamic children", unit: "µs each", aim: "no slower than OTP" },
      memory: { question: "memory of a supervised idle child", unit: "bytes", aim: "at most 3,000" },
      snapshot: { question: "snapshot of 100,000 / which_children", unit: "ms", aim: "at most 40" },
      pause: {
        question: "longest pause during it, of the process / of the supervisor",
        unit: "ms",
        aim: "at most 5"
      },
      stop: { question: "stop 100,000 dynamic children", unit: "µs each", aim: "no slower than OTP" }
    }
  },
  few: {
    rounds: 3,
    // One child that crashes again and again is all in the nearest cache; whoever's turn it is among several is not.
    subjects: [ironwood, bare],
    questions: latencies("400 children in turn, nobody else", "to compare", "to compare")
  },
  static: {
    rounds: 3,
    subjects: [ironwood, oneForOne, bare],
    questions: {
      ...latencies(
        "400 in turn among 100,000 siblings",
        "that of 1 child, within 2 times",
        "that of 1 child, within 2 times"
      ),
      stop: { question: "stop 100,000 static children", unit: "µs each", aim: "no slower than OTP" }
    }
  },
  alone: {
    rounds: 5,
    subjects: [ironwood, oneForOne, bare],
    questions: latencies("1 child", "at most 15", "at most 40")
  },
  history: {
    rounds: 3,
    subjects: [ironwood, oneForOne],
    questions: latencies("30,000 restarts in the window", "that of none", "that of none")
  },
  sustained: {
    rounds: 3,
    subjects: [ironwood, oneForOne, bare],
    questions: {
      rate: { question: "sustained restarts, 1,000 children", unit: "per second", aim: "at least 100,000" }
    }
  },
  watch: {
    rounds: 3,
    // OTP's supervisors tell nobody of what happens to their children.
    subjects: [ironwood],
    questions: {
      "events 1": { question: "events watched, 1 watcher", unit: "per second", aim: "at least 100,000" },
      "events 10": { question: "events watched, 10 watchers", unit: "per second", aim: "at least 100,000" }
    }
  }
}

const decodeFigure = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Struct({ figure: Schema.String, value: Schema.Finite }))
)

/** What one process finds, by the name of the figure. */
const ask = async (subject: Subject, group: string): Promise<ReadonlyMap<string, number>> => {
  const lines = (await subject.command(group)).split("\n").filter((line) => line.startsWith("{"))
  return new Map(lines.map((line) => decodeFigure(line)).map(({ figure, value }) => [figure, value]))
}

mkdirSync(compiled, { recursive: true })
await command("erlc", ["-o", compiled, join(here, "otp/supervised.erl")])

const chosen = process.argv.slice(2)
for (const [name, { questions, rounds, subjects }] of Object.entries(groups)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue
  progress(`supervision: ${name}, ${rounds} rounds`)
  const found = subjects.map((): Array<ReadonlyMap<string, number>> => [])
  for (let round = 0; round < rounds; round++) {
    for (const [index, subject] of subjects.entries()) found[index]?.push(await ask(subject, name))
  }
  for (const [figure, question] of Object.entries(questions)) {
    for (const [index, { name }] of subjects.entries()) {
      const samples = found[index]?.flatMap((figures) => figures.get(figure) ?? []) ?? []
      // Not every question makes sense for the floor.
      if (samples.length > 0) report({ ...question, subject: name, samples })
    }
  }
}
