/**
 * Checks that dependencies between the folders of `src/` point one way (DESIGN section 5) and that the command line
 * knows the server only through the protos. Prints every import that does not, and exits 1.
 */
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"

/** What each folder may import besides itself and packages; `.` is the files directly in `src/`, where the tree is put together. */
const allowed: Readonly<Record<string, ReadonlyArray<string>>> = {
  actor: [],
  taproot: [],
  host: ["taproot", "actor"],
  storage: ["taproot", "actor"],
  network: ["storage", "host", "taproot", "actor"],
  config: ["storage", "network", "host", "taproot", "actor"],
  upgrade: ["storage", "host", "taproot", "actor"],
  runtime: ["vmm", "storage", "network", "host", "taproot", "actor"],
  vmm: ["storage", "network", "host", "taproot", "actor"],
  gateway: ["config", "upgrade", "runtime", "vmm", "network", "storage", "host", "taproot", "actor", "proto"],
  cli: ["proto"],
  ".": ["gateway", "config", "upgrade", "runtime", "vmm", "network", "storage", "host", "taproot", "actor"]
}

const files = readdirSync("src", { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"))
const imports = /(?:^|\n)\s*(?:import|export)\b[^"'`;]*?["']([^"']+)["']|import\(\s*["']([^"']+)["']\s*\)/g

const problems: Array<string> = []
for (const file of files) {
  const from = file.includes("/") ? file.slice(0, file.indexOf("/")) : "."
  const rule = allowed[from]
  if (rule === undefined) {
    problems.push(`src/${file}: the folder ${from} has no rule in scripts/check-dependencies.ts`)
    continue
  }
  for (const match of readFileSync(join("src", file), "utf8").matchAll(imports)) {
    const specifier = match[1] ?? match[2] ?? ""
    if (!specifier.startsWith(".") || specifier.endsWith("/package.json")) continue
    const target = relative(".", join("src", dirname(file), specifier))
    const to = target.startsWith("proto/")
      ? "proto"
      : target.startsWith("src/")
        ? target.split("/").length > 2
          ? (target.split("/")[1] ?? "")
          : "."
        : target
    if (to !== from && !rule.includes(to)) problems.push(`src/${file}: ${from} may not import ${to} (${specifier})`)
  }
}
for (const problem of problems) process.stderr.write(`${problem}\n`)
if (problems.length > 0) process.exit(1)
