/**
 * A whole Ironwood for end-to-end tests: `./ironwood up --detach` on a state directory of its own, spoken to with the
 * command line like a person would, and ended in order when the scope closes. What it leaves behind is looked for by
 * `leftovers`.
 *
 * Trap: it runs what is in `build/`; `npm test` builds first, a test runner started by hand does not.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs"
import { createHash } from "node:crypto"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

export const checkout = fileURLToPath(new URL("../..", import.meta.url))

/** What a command printed and how it ended. */
export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs `./ironwood` with these words; never fails, the code says how it went. */
export const ironwood = (
  args: ReadonlyArray<string>,
  input = "",
  environment: Readonly<Record<string, string>> = {}
): Effect.Effect<Ran> =>
  Effect.callback((resume) => {
    const child = spawn(join(checkout, "ironwood"), args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", ...environment }
    })
    let stdout = ""
    let stderr = ""
    child.stdout.on("data", (chunk) => (stdout += String(chunk)))
    child.stderr.on("data", (chunk) => (stderr += String(chunk)))
    child.stdin.on("error", () => {})
    child.stdin.end(input)
    child.once("close", (code) => resume(Effect.succeed({ code: code ?? -1, stdout, stderr })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

export class CommandFailed extends Data.TaggedError("CommandFailed")<{ readonly command: string; readonly ran: Ran }> {
  override get message() {
    return `${this.command} ended with ${this.ran.code}\n${this.ran.stdout}${this.ran.stderr}`
  }
}

/** One running Ironwood. */
export interface Instance {
  readonly stateDirectory: string
  readonly address: string
  /** Runs a command against it; never fails. */
  readonly try: (...args: ReadonlyArray<string>) => Effect.Effect<Ran>
  /** Runs a command against it; its output. */
  readonly run: (...args: ReadonlyArray<string>) => Effect.Effect<string, CommandFailed>
  /** The same with `-o json`, decoded. */
  readonly json: <A>(
    schema: Schema.Codec<A, unknown>,
    ...args: ReadonlyArray<string>
  ) => Effect.Effect<A, CommandFailed | Schema.SchemaError>
  /** Applies YAML; with flags. */
  readonly apply: (yaml: string, ...flags: ReadonlyArray<string>) => Effect.Effect<Ran>
  readonly brainPid: Effect.Effect<number>
  readonly taprootPid: Effect.Effect<number>
}

const cgroupName = (stateDirectory: string) =>
  `ironwood-${createHash("sha256").update(realpathSync(stateDirectory)).digest("hex").slice(0, 8)}`

/** The command line of a process, its words ended by NUL; empty when it has ended, which it may do at any moment. */
export const commandLineOf = (pid: number | string): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8")
  } catch {
    return ""
  }
}

/** Pids whose command line holds `text`. */
export const processesWith = (text: string): ReadonlyArray<number> =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => commandLineOf(name).includes(text))
    .map(Number)

/** Pids that live in a cgroup of this name, under whatever controller. */
const processesIn = (cgroup: string): ReadonlyArray<number> =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        return readFileSync(`/proc/${name}/cgroup`, "utf8").includes(`/${cgroup}/`)
      } catch {
        return false
      }
    })
    .map(Number)

/** Everything of an instance that is still on the host: processes, mounts, cgroups; empty when it left nothing. */
export const leftovers = (stateDirectory: string, cgroup: string): ReadonlyArray<string> => {
  const found = [...new Set([...processesWith(stateDirectory), ...processesIn(cgroup)])].map((pid) => `process ${pid}`)
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    if (line.includes(stateDirectory)) found.push(`mount ${line}`)
  }
  const root = "/sys/fs/cgroup"
  for (const name of ["", ...readdirSync(root)]) {
    if (existsSync(join(root, name, cgroup))) found.push(`cgroup ${join(root, name, cgroup)}`)
  }
  return found
}

export class NotYet extends Data.TaggedError("NotYet")<{ readonly waitingFor: string; readonly last: unknown }> {
  override get message() {
    return `still waiting for ${this.waitingFor}; last seen: ${JSON.stringify(this.last, null, 1)}`
  }
}

/** Looks again and again until what it sees is right; fails with what it saw last after `seconds`. */
export const eventually = <A, E, R>(
  waitingFor: string,
  look: Effect.Effect<A, E, R>,
  right: (value: A) => boolean,
  seconds = 30
): Effect.Effect<A, E | NotYet, R> =>
  Effect.filterOrFail(look, right, (last) => new NotYet({ waitingFor, last })).pipe(
    Effect.retry(Schedule.max([Schedule.spaced("100 millis"), Schedule.recurs(seconds * 10)]))
  )

/**
 * Starts an instance; stopped, checked for leftovers and removed with the scope. `parent` is where its state directory goes,
 * `environment` what brain and taproot have of their own.
 */
export const start = (options?: {
  readonly args?: ReadonlyArray<string>
  readonly parent?: string
  readonly environment?: Readonly<Record<string, string>>
}) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const stateDirectory = mkdtempSync(join(options?.parent ?? tmpdir(), "ironwood-test-"))
      const address = `unix:${stateDirectory}/ironwood.sock`
      const up = ["up", "--detach", "--state-dir", stateDirectory, ...(options?.args ?? [])]
      const ran = yield* ironwood(up, "", options?.environment)
      if (ran.code !== 0) {
        const log = join(stateDirectory, "brain.log")
        const tail = existsSync(log) ? readFileSync(log, "utf8").slice(-4000) : ""
        return yield* new CommandFailed({ command: up.join(" "), ran: { ...ran, stderr: `${ran.stderr}${tail}` } })
      }
      const attempt = (...args: ReadonlyArray<string>) => ironwood(["--address", address, ...args])
      const run = (...args: ReadonlyArray<string>) =>
        Effect.flatMap(attempt(...args), (result) =>
          result.code === 0
            ? Effect.succeed(result.stdout)
            : Effect.fail(new CommandFailed({ command: args.join(" "), ran: result }))
        )
      // A client of this instance is a Node with its directory on the command line too.
      // Between two brains there is none for a moment: that is waited for, since -1 would be everybody to who kills it.
      const pidOf = (program: string, argument: string) =>
        Effect.map(
          eventually(
            `a process of ${program}`,
            Effect.sync(() =>
              processesWith(stateDirectory).find((pid) => {
                const argv = commandLineOf(pid).split("\0")
                return argv[0]?.endsWith(program) === true && argv.some((word) => word.endsWith(argument))
              })
            ),
            (pid) => pid !== undefined
          ),
          (pid = Number.NaN) => pid
        ).pipe(Effect.orDie)
      const instance: Instance = {
        stateDirectory,
        address,
        try: attempt,
        run,
        json: (schema, ...args) =>
          Effect.flatMap(run(...args, "-o", "json"), (text) => Schema.decodeUnknownEffect(schema)(JSON.parse(text))),
        apply: (yaml, ...flags) => ironwood(["--address", address, "apply", "-f", "-", ...flags], yaml),
        brainPid: pidOf("bin/node", "/brain.cjs"),
        taprootPid: pidOf("taproot", "taproot")
      }
      return instance
    }),
    (instance) =>
      Effect.gen(function* () {
        const cgroup = cgroupName(instance.stateDirectory)
        const down = yield* instance.try("down")
        yield* eventually(
          "nothing of the instance to be left",
          Effect.sync(() => leftovers(instance.stateDirectory, cgroup)),
          (left) => left.length === 0
        ).pipe(
          Effect.tapError(() =>
            Effect.sync(() => processesWith(instance.stateDirectory).forEach((pid) => process.kill(pid, "SIGKILL")))
          ),
          Effect.mapError((error) => new CommandFailed({ command: `down (${error.message})`, ran: down })),
          Effect.ensuring(Effect.sync(() => rmSync(instance.stateDirectory, { recursive: true, force: true }))),
          Effect.orDie
        )
      })
  )
