/** A `SpawnRequest` as the frame that goes to taproot: defaults filled in, names turned into the kernel's numbers. */
import { constants } from "node:fs"
import type { ErrorStdio, FileStdio, InputStdio, OutputStdio, RlimitEntry, SpawnFrame } from "./BrainFrame.ts"
import type { Rlimit, SpawnRequest, Stdio } from "./Processes.ts"

/** What a program gets when the request names no environment. */
export const defaultEnvironment = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }

/** RLIMIT_*, in the order of their numbers (asm-generic/resource.h). */
const rlimitResources = [
  "cpu",
  "fsize",
  "data",
  "stack",
  "core",
  "rss",
  "nproc",
  "nofile",
  "memlock",
  "as",
  "locks",
  "sigpending",
  "msgqueue",
  "nice",
  "rtprio",
  "rttime"
] as const

const infinity = 0xffff_ffff_ffff_ffffn

export const spawnFrame = (request: number, spawn: SpawnRequest): SpawnFrame => ({
  _tag: "Spawn",
  request,
  label: spawn.label,
  argv: spawn.argv,
  environment: Object.entries(spawn.environment ?? defaultEnvironment).map(([name, value]) => `${name}=${value}`),
  directory: spawn.directory ?? "",
  identity: spawn.identity,
  rlimits: rlimits(spawn.rlimits ?? {}),
  cgroups: spawn.cgroups ?? [],
  session: spawn.session ?? false,
  stdin: stdin(spawn.stdin ?? nothing),
  stdout: stdout(spawn.stdout ?? nothing),
  stderr: stderr(spawn.stderr ?? nothing)
})

const nothing = { _tag: "Null" } as const

const rlimits = (wanted: NonNullable<SpawnRequest["rlimits"]>): Array<RlimitEntry> =>
  rlimitResources.flatMap((name, resource) => {
    const limit = wanted[name]
    return limit === undefined ? [] : [{ resource, soft: bytes(limit.soft), hard: bytes(limit.hard) }]
  })

const bytes = (limit: Rlimit["soft"]): bigint => (limit === "infinity" ? infinity : limit)

const file = (stdio: Extract<Stdio, { readonly _tag: "File" }>, flags: number): FileStdio => ({
  _tag: "File",
  flags: stdio.flags ?? flags,
  mode: stdio.mode ?? 0o600,
  path: stdio.path
})

const stdin = (stdio: NonNullable<SpawnRequest["stdin"]>): InputStdio =>
  stdio._tag === "File" ? file(stdio, constants.O_RDONLY) : stdio

const stdout = (stdio: NonNullable<SpawnRequest["stdout"]>): OutputStdio =>
  stdio._tag === "File" ? file(stdio, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND) : stdio

const stderr = (stdio: Stdio): ErrorStdio => (stdio._tag === "Stdout" ? stdio : stdout(stdio))
