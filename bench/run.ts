/**
 * `npm run bench [-- NAME…]`: runs the benchmarks of this folder, each in a process of its own, prints a table with the
 * ratio of Ironwood to each peer, and writes every sample to build/bench/results.json.
 */
import { spawn } from "node:child_process"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import * as Schema from "effect/Schema"
import { median, quantile, type Row } from "./Measure.ts"

const here = dirname(fileURLToPath(import.meta.url))
const names = readdirSync(here)
  .filter((name) => /^[a-z].*\.ts$/.test(name) && name !== "run.ts")
  .map((name) => name.slice(0, -3))

const RowSchema = Schema.Struct({
  question: Schema.String,
  subject: Schema.String,
  unit: Schema.String,
  samples: Schema.Array(Schema.Finite),
  aim: Schema.optionalKey(Schema.String),
  note: Schema.optionalKey(Schema.String)
})
const decodeRow = Schema.decodeUnknownSync(Schema.fromJsonString(RowSchema))

const chosen = process.argv.slice(2)
for (const name of chosen) {
  if (names.includes(name)) continue
  process.stderr.write(`bench: there is no ${name}; there are ${names.join(", ")}\n`)
  process.exit(2)
}

const rows: Array<Row> = []
let failed = 0
for (const name of chosen.length > 0 ? chosen : names) {
  const child = spawn(
    process.execPath,
    ["--expose-gc", "--disable-warning=ExperimentalWarning", join(here, `${name}.ts`)],
    {
      stdio: ["ignore", "pipe", "inherit"]
    }
  )
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith("{")) rows.push(decodeRow(line))
  }
  const code = child.exitCode ?? (await new Promise<number | null>((resolve) => child.once("exit", resolve)))
  if (code !== 0) {
    failed++
    process.stderr.write(`bench: ${name} ended with ${code}\n`)
  }
}

const figure = (value: number): string =>
  Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2)
const ours = (subject: string): boolean => subject.startsWith("ironwood")

const cells = [["question", "subject", "median", "min", "max", "n", "ironwood / it"]]
for (const question of new Set(rows.map((row) => row.question))) {
  const group = rows.filter((row) => row.question === question)
  const reference = group.find((row) => ours(row.subject))
  for (const [index, row] of group.entries()) {
    const value = median(row.samples)
    const ratio =
      reference === undefined || ours(row.subject) ? "" : `${(median(reference.samples) / value).toFixed(2)}×`
    cells.push([
      index === 0 ? question : "",
      row.subject,
      `${figure(value)} ${row.unit}`,
      figure(quantile(row.samples, 0)),
      figure(quantile(row.samples, 1)),
      String(row.samples.length),
      ratio
    ])
  }
  const aim = group.find((row) => row.aim !== undefined)?.aim
  if (aim !== undefined) cells.push(["", `aim: ${aim}`, "", "", "", "", ""])
}
const widths =
  cells[0]?.map((_, column) =>
    Math.max(
      ...cells.map((row) => ((row[1] ?? "").startsWith("aim:") && column === 1 ? 0 : (row[column] ?? "").length))
    )
  ) ?? []
for (const row of cells) {
  process.stdout.write(
    `${row
      .map((cell, column) => (column >= 2 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
      .join("  ")
      .trimEnd()}\n`
  )
}
mkdirSync(join(here, "../build/bench"), { recursive: true })
writeFileSync(join(here, "../build/bench/results.json"), `${JSON.stringify(rows, null, 1)}\n`)
process.stdout.write("\nEvery sample: build/bench/results.json\n")
process.exit(failed === 0 ? 0 : 1)
