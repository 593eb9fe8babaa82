/**
 * The brain dies, taproot and the workers do not: nothing that a worker printed is lost or doubled, no worker runs
 * twice, every exit is known. The brain is `test/support/adoptingBrain.ts`; it dies at every point where an order of
 * storing and confirming could be wrong, and at random moments.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import { BrainLine, type Fault, Plan } from "../support/adoptionPlan.ts"
import { eventually } from "../support/eventually.ts"
import * as Taproot from "../support/taproot.ts"

const brainProgram = fileURLToPath(new URL("../support/adoptingBrain.ts", import.meta.url))

/** A worker that prints so many numbered lines in so many bursts, and how it ends. */
interface Worker {
  readonly lines: number
  readonly bursts: number
  readonly pause: number
  readonly code: number
}

/** One with many bursts ends only when the file `go` is in the directory, so that the last brain has something to do. */
const script = (directory: string, { bursts, code, lines, pause }: Worker): string =>
  `for burst in $(seq 0 ${bursts - 1}); do
     seq $((burst * ${lines / bursts} + 1)) $(((burst + 1) * ${lines / bursts}))
     sleep ${pause}
   done
   ${bursts > 1 ? `until test -e ${directory}/go; do sleep 0.02; done` : ""}
   exit ${code}`

// One that is long gone when the first brain dies, one that floods its pipe, two that print all the time.
const workers: ReadonlyArray<Worker> = [
  { lines: 10, bursts: 1, pause: 0, code: 0 },
  { lines: 100_000, bursts: 1, pause: 0, code: 3 },
  { lines: 20_000, bursts: 100, pause: 0.02, code: 4 },
  { lines: 1_000, bursts: 250, pause: 0.01, code: 5 }
]

const numbers = (count: number): string => Array.from({ length: count }, (_, index) => `${index + 1}\n`).join("")

/** Runs the plan to its end. `meanwhile` gets a way to look for the brain's pid. */
const live = <E>(
  faults: ReadonlyArray<Fault>,
  options: Taproot.Options,
  meanwhile: (directory: string) => Effect.Effect<void, E> = () => Effect.void
) =>
  Effect.gen(function* () {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-adoption-"))),
      (made) => Effect.sync(() => rmSync(made, { recursive: true }))
    )
    const read = (name: string): string =>
      existsSync(join(directory, name)) ? readFileSync(join(directory, name), "utf8") : ""
    const plan = yield* Schema.encodeEffect(Schema.fromJsonString(Plan))({
      workers: workers.map((worker) => script(directory, worker)),
      faults
    })
    yield* Effect.sync(() => writeFileSync(join(directory, "plan.json"), plan))

    const taproot = yield* Taproot.startWithBrain([process.execPath, brainProgram, directory], options)
    yield* meanwhile(directory)
    yield* Effect.sync(() => writeFileSync(join(directory, "go"), ""))
    const ended = yield* Effect.timeoutOption(taproot.ended, "50 seconds")
    const log = yield* taproot.log
    assert.deepStrictEqual(ended, Option.some(0), `${log}\n${read("brains")}\n${read("exits")}`)

    assert.strictEqual(read("problems"), "", log)
    workers.forEach(({ lines }, index) => {
      // Not compared by assert: a difference would be a megabyte of text.
      if (read(`${index}.out`) !== numbers(lines)) assert.fail(`the output of worker ${index} differs\n${log}`)
    })
    const exits = read("exits").split("\n").slice(0, -1)
    assert.deepStrictEqual(
      exits.map((line) => line.replace(/^(\d+) \d+/, "$1")).sort(),
      workers.map(({ code }, index) => `${index} Exited ${code}`)
    )
    // Started once each. A brain that dies right behind a spawn has not noted it, but the next one found the process.
    const spawns = read("spawns").split("\n").slice(0, -1)
    for (const line of spawns)
      assert.isTrue(
        exits.some((exit) => exit.startsWith(`${line} `)),
        `${line} was not the only one`
      )
    return yield* Effect.forEach(read("brains").split("\n").slice(0, -1), (line) =>
      Schema.decodeEffect(Schema.fromJsonString(BrainLine))(line)
    )
  })

const suite = (name: string, program: string): void =>
  void describe(name, () => {
    it.live(
      "a brain that dies before it stores output, before it confirms, before it acknowledges, before it notes a spawn",
      () =>
        Effect.gen(function* () {
          const faults: ReadonlyArray<Fault> = [
            { at: "spawned", after: 1, by: "kill" },
            { at: "stored", after: 0, by: "kill" },
            { at: "received", after: 10, by: "exit" },
            { at: "exit-stored", after: 0, by: "kill" },
            { at: "hello", after: 0, by: "kill" }
          ]
          const brains = yield* live(faults, { program })
          assert.deepStrictEqual(
            brains.map(({ last, starts }) => `${starts} ${last}`),
            ["1 none", "2 signaled", "3 signaled", "4 exited", "5 signaled", "6 signaled"]
          )
          assert.strictEqual(new Set(brains.map(({ instance }) => instance)).size, 1)
          assert.include(brains[1]?.adoptable ?? [], "worker/1")
        })
    )

    it.live("a brain that is killed at random moments", () =>
      Effect.gen(function* () {
        const kills = 5
        const brains = yield* live([], { program }, (directory) =>
          Effect.gen(function* () {
            let last = ""
            for (let kill = 0; kill < kills; kill += 1) {
              const current = () =>
                existsSync(join(directory, "brain.pid")) ? readFileSync(join(directory, "brain.pid"), "utf8") : ""
              yield* eventually("a new brain is there", () => current() !== last)
              last = current()
              yield* Effect.sleep(yield* Random.nextIntBetween(0, 150))
              yield* Effect.sync(() => process.kill(Number(last), "SIGKILL"))
            }
          })
        )
        assert.strictEqual(brains.length, kills + 1)
      })
    )

    it.live("a brain whose loop hangs misses its heartbeat and is replaced", () =>
      Effect.gen(function* () {
        const brains = yield* live([{ at: "stored", after: 3, by: "hang" }], {
          program,
          options: ["--heartbeat", "3000"]
        })
        assert.deepStrictEqual(
          brains.map(({ last }) => last),
          ["none", "missed-heartbeat"]
        )
      })
    )
  })

suite("adoption on taproot", Taproot.binary)
if (Taproot.sanitized !== undefined) suite("adoption on the sanitized taproot", Taproot.sanitized)
