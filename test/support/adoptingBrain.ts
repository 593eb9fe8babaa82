/**
 * A small brain for the crash tests: runs workers exactly once each, stores their output and exits in files, and dies
 * wherever it is told to. taproot starts it (`taproot … -- node adoptingBrain.ts DIRECTORY`) again and again until all
 * workers have ended and are acknowledged; then it ends taproot. It is also how a brain is meant to be written: look for
 * what is there before starting anything, store before confirming, store before acknowledging.
 *
 * In the directory: `plan.json` (in), `brains` (how each brain found the one before it, one JSON per line), `<n>.out`,
 * `<n>.chunks`, `exits`, `spawns`, `problems` (must not appear) and `brain.pid`.
 */
import { appendFileSync, existsSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type OutputChunk, Processes } from "../../src/taproot/Processes.ts"
import { ProcessesLive } from "../../src/taproot/ProcessesLive.ts"
import { type Fault, Plan } from "./adoptionPlan.ts"

const directory = process.argv[2] ?? "."
const file = (name: string): string => join(directory, name)
const lines = (name: string): ReadonlyArray<string> =>
  existsSync(file(name)) ? readFileSync(file(name), "utf8").split("\n").slice(0, -1) : []
const note = (name: string, line: string): void => appendFileSync(file(name), `${line}\n`)

const brain = Effect.gen(function* () {
  const processes = yield* Processes
  const plan = yield* Schema.decodeEffect(Schema.fromJsonString(Plan))(readFileSync(file("plan.json"), "utf8"))
  const { brainStarts, instance, lastBrainEnd } = processes.hello
  const fault = plan.faults[brainStarts - 1]
  let visits = 0
  const mayDie = (at: Fault["at"]): void => {
    if (fault?.at !== at || visits++ < fault.after) return
    if (fault.by === "exit") process.exit(1)
    if (fault.by === "kill") process.kill(process.pid, "SIGKILL")
    for (;;);
  }

  const adoptable = (yield* processes.adoptable).map(({ label }) => label)
  note("brains", JSON.stringify({ starts: brainStarts, instance, last: lastBrainEnd.how, adoptable }))
  writeFileSync(file("brain.pid.new"), `${process.pid}`)
  renameSync(file("brain.pid.new"), file("brain.pid"))
  mayDie("hello")

  const store = (worker: number, chunk: OutputChunk): void => {
    mayDie("received")
    const chunks = `${worker}.chunks`
    const line = JSON.stringify({ offset: `${chunk.offset}`, time: `${chunk.time}`, length: chunk.bytes.length })
    const known = lines(chunks)
    // A chunk that comes again must be the one that was known last.
    if (known.some((other) => other.includes(`{"offset":"${chunk.offset}"`))) {
      if (known.at(-1) !== line) note("problems", `worker ${worker}: ${known.at(-1)} came again as ${line}`)
    } else note(chunks, line)
    const out = file(`${worker}.out`)
    const stored = existsSync(out) ? statSync(out).size : 0
    const skip = stored - Number(chunk.offset)
    if (skip < 0) note("problems", `worker ${worker}: ${-skip} bytes are missing before ${line}`)
    appendFileSync(out, chunk.bytes.subarray(Math.max(skip, 0)))
    mayDie("stored")
  }

  const supervise = Effect.fnUntraced(function* (script: string, worker: number) {
    const label = `worker/${worker}`
    const found = yield* processes.take(label)
    const recorded = lines("exits").find((line) => line.startsWith(`${worker} `))
    if (Option.isNone(found) && recorded !== undefined) return
    const job = Option.isSome(found)
      ? found.value
      : yield* processes.spawn({ label, argv: ["bash", "-c", script], stdout: { _tag: "Stream" } })
    if (Option.isNone(found)) {
      mayDie("spawned")
      note("spawns", `${worker} ${job.pid}`)
    }
    yield* Stream.runForEach(job.output("stdout"), (chunk) =>
      // A moment between having and storing, as a real store takes: what was confirmed too early is lost here.
      Effect.andThen(
        Effect.sleep("1 millis"),
        Effect.sync(() => store(worker, chunk))
      )
    )
    const exit = yield* job.exit
    const line = `${worker} ${job.pid} ${exit._tag} ${exit._tag === "Exited" ? exit.code : ""}`
    if (recorded === undefined) note("exits", line)
    else if (recorded !== line) note("problems", `worker ${worker}: ${recorded} became ${line}`)
    mayDie("exit-stored")
    yield* job.acknowledge
  })

  yield* Effect.forEach(plan.workers, supervise, { concurrency: "unbounded", discard: true })
  const { processes: left } = yield* processes.status
  if (left > 0) note("problems", `${left} entries are left`)
  yield* processes.finish("end")
  yield* processes.lost
})

// Losing taproot ends the brain at once, whatever the fibers do.
const main = Effect.gen(function* () {
  const processes = yield* Processes
  yield* Effect.raceFirst(
    brain,
    Effect.andThen(
      processes.lost,
      Effect.sync(() => process.exit(75))
    )
  )
})

await Effect.runPromise(main.pipe(Effect.provide(ProcessesLive)))
