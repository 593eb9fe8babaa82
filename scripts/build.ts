/**
 * Builds what runs from this checkout into `build/`: taproot and what unpacks layers (C), the code generated from the protos, the bundles of the
 * brain and the command line with their V8 compile caches, and the sample image. Each step is skipped when its result is
 * newer than everything that it is made from.
 *
 * With `--test` also the builds of taproot that only tests use (sanitized, small tables, fuzzed).
 *
 * Bundled because the brain must be back within a second of its death: from sources it needs 0.5 to 0.9 s to start,
 * bundled with a compile cache 0.15 s, and 60 to 80 MB less memory.
 */
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { build, type Plugin } from "esbuild"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
process.chdir(root)
mkdirSync("build", { recursive: true })

/** The newest modification time (ms) at or below any of the paths. */
const newest = (...paths: ReadonlyArray<string>): number =>
  Math.max(
    ...paths.map((path) => {
      const stat = statSync(path)
      return stat.isDirectory() ? newest(...readdirSync(path).map((name) => join(path, name))) : stat.mtimeMs
    }),
    0
  )

const fail = (message: string): never => {
  process.stderr.write(`setup: ${message}\n`)
  process.exit(1)
}

const run = (command: string, args: ReadonlyArray<string>): void => {
  const done = spawnSync(command, args, {
    encoding: "utf8",
    env: { ...process.env, PATH: `${root}/node_modules/.bin:${dirname(process.execPath)}:${process.env["PATH"] ?? ""}` }
  })
  if (done.status !== 0) {
    fail(`${command} ${args.join(" ")} failed\n${done.error?.message ?? ""}${done.stdout}${done.stderr}`)
  }
}

/** Without these most works. */
const optional: ReadonlySet<string> = new Set(["build/guest/guest.json"])

/** Runs `make` when `output` is missing or older than one of `inputs`; the time of the output is the time of the inputs. */
const step = async (title: string, output: string, inputs: ReadonlyArray<string>, make: () => void | Promise<void>) => {
  const wanted = newest(...inputs)
  if (existsSync(output) && statSync(output).mtimeMs >= wanted) return
  process.stdout.write(`setup: ${title}\n`)
  await make()
  if (!existsSync(output)) {
    if (optional.has(output)) return
    fail(`${title}: ${output} was not made`)
  }
  const now = new Date()
  utimesSync(output, now, now)
}

/**
 * Has all importers of a module of Node share it. Each that says `import * as` of it would otherwise get a copy of its own, with
 * a getter for everything in it: 44 copies of `fs/promises` alone.
 */
const shared: Plugin = {
  name: "shared",
  setup(bundling) {
    bundling.onResolve({ filter: /^node:(fs\/promises|path|os|http)$/ }, ({ namespace, path }) =>
      namespace === "shared" ? { path, external: true } : { path, namespace: "shared" }
    )
    bundling.onLoad({ filter: /.*/, namespace: "shared" }, async ({ path }) => {
      const names = Object.keys(await import(path)).filter((name) => name !== "default" && name !== "module.exports")
      return { contents: `export { ${names.join(", ")} } from "${path}"` }
    })
  }
}

/** Bundles `entry` to `outfile`: one CommonJS file for our Node. */
const bundle = (entry: string, outfile: string) =>
  build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node26",
    // Names stay as they are, for stack traces. `keepNames` would do it for minified ones, at the price of a call for every
    // closure that is made: about a sixth of the work of a burst of starts.
    minifyWhitespace: true,
    minifySyntax: true,
    sourcemap: "external",
    legalComments: "none",
    plugins: [shared],
    // of a service of grpc-js that nobody has asked for
    external: ["@grpc/proto-loader"],
    define: { "import.meta.dirname": "__dirname", "import.meta.filename": "__filename" },
    logLevel: "warning"
  })

/** Bundles a program to `build/<name>.cjs`, behind a launcher that switches the compile cache on before it loads. */
const program = async (name: string, entry: string) => {
  await bundle(entry, `build/${name}.bundle.cjs`)
  writeFileSync(
    `build/${name}.cjs`,
    `require("node:module").enableCompileCache({ directory: __dirname + "/cache", portable: true })\nrequire("./${name}.bundle.cjs")\n`
  )
}

const taprootInputs = ["src/taproot/Makefile", ...cSources("src/taproot")]
const unpackInputs = ["src/storage/unpack/Makefile", ...cSources("src/storage/unpack")]
await step("compiling taproot", "build/taproot", taprootInputs, () =>
  run("make", ["-C", "src/taproot", "BUILD=../../build"])
)
await step("compiling what unpacks layers", "build/unpack", unpackInputs, () =>
  run("make", ["-C", "src/storage/unpack", "BUILD=../../../build"])
)
if (process.argv.includes("--test")) {
  await step("compiling taproot for the tests", "build/taproot-sanitized", taprootInputs, () =>
    run("make", ["-C", "src/taproot", "BUILD=../../build", "tests"])
  )
  await step(
    "compiling what unpacks layers for the tests",
    "build/unpack-confined",
    [...unpackInputs, "test/storage/confined.c", "test/storage/unsynced.c"],
    () => run("make", ["-C", "src/storage/unpack", "BUILD=../../../build", "tests"])
  )
}
await step(
  "generating code from the protos",
  "proto/generated/.stamp",
  ["proto/ironwood", "proto/google", "proto/grpc", "test/proto", "buf.gen.yaml"].filter(existsSync),
  () => {
    rmSync("proto/generated", { recursive: true, force: true })
    mkdirSync("proto/generated", { recursive: true })
    run("buf", ["generate"])
    writeFileSync("proto/generated/.stamp", "")
  }
)
const sources = ["src", "proto/generated", "package-lock.json", "scripts/build.ts"]
await step("bundling the brain", "build/brain.cjs", sources, async () => {
  await bundle("src/storage/StateWorker.ts", "build/state-worker.cjs")
  await program("rescue", "src/rescue.ts")
  await program("brain", "src/main.ts")
  run(process.execPath, ["build/brain.cjs", "--version"])
})
const brainFiles = ["brain.cjs", "brain.bundle.cjs", "state-worker.cjs"]
await step(
  "packing the brain for upgrades",
  "build/brain.tar",
  brainFiles.map((name) => `build/${name}`),
  packBrain
)
await step("bundling the command line", "build/cli.cjs", sources, async () => {
  await program("cli", "src/cli/main.ts")
  run(process.execPath, ["build/cli.cjs", "--version"])
})
await step(
  "making the guest of microVMs",
  "build/guest/guest.json",
  ["scripts/guest.ts", "scripts/image", "build/taproot", "build/files", "build/enter", "build/init"],
  makeGuest
)
await step("making the sample image", "build/sample-image/index.json", ["scripts/sample-image.ts"], () =>
  run(process.execPath, ["scripts/sample-image.ts"])
)

/** Where its kernel cannot be had there is none, and containers can have no microVM; everything else works. */
async function makeGuest(): Promise<void> {
  const { guest } = await import("./guest.ts")
  const { ImageFailed } = await import("./image/Kernel.ts")
  try {
    guest((text) => void process.stdout.write(`setup: ${text}\n`))
  } catch (error) {
    if (!(error instanceof ImageFailed)) throw error
    process.stdout.write(`setup: no guest for microVMs: ${error.message}\n`)
    mkdirSync("build/guest", { recursive: true })
  }
}

/** The brain as one file to be sent (`src/upgrade/Bundle.ts`). The same sources give the same bytes, and so the same name. */
async function packBrain(): Promise<void> {
  const { protocolVersion, oldestProtocolVersion } = await import("../src/taproot/Wire.ts")
  const { MIGRATIONS } = await import("../src/storage/StateSchema.ts")
  const { default: manifest } = await import("../package.json", { with: { type: "json" } })
  const text = {
    format: "ironwood-brain/1",
    version: manifest.version,
    protocol: { newest: protocolVersion, oldest: oldestProtocolVersion },
    stateLayout: MIGRATIONS.length,
    node: Number.parseInt(process.versions.node, 10)
  }
  writeFileSync("build/manifest.json", `${JSON.stringify(text, null, 2)}\n`)
  const plain = ["--format=ustar", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=0644"]
  run("tar", ["-C", "build", ...plain, "-cf", "build/brain.tar", "manifest.json", ...brainFiles])
}

function cSources(directory: string): ReadonlyArray<string> {
  return readdirSync(directory)
    .filter((name) => name.endsWith(".c") || name.endsWith(".h"))
    .map((name) => join(directory, name))
}
