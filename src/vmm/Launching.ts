/**
 * What every driver does to have its program run: find it, ask it for its version, give a machine its place, and start it by
 * `launch` (C, beside taproot), which opens the machine's files and sockets and becomes the machine's own user before it becomes
 * the program.
 *
 * Traps:
 * - The machine's directory is root's, and the program cannot even look into it: what is in there is opened, connected to and
 *   taken away by root.
 * - Where we are not root all machines run as who we are, and see what we see.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { Cgroups } from "../host/Cgroups.ts"
import { helperPath } from "../taproot/Helper.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import { Processes, type RunRequest } from "../taproot/Processes.ts"
import { type DriverFacts, type LaunchRequest, type Place, PlaceFailed } from "./Hypervisor.ts"
import * as Lending from "./Lending.ts"

/**
 * A file that the machine has, as a descriptor of its program. `ro`, `rw`: one that a person named; `own`: one that was made for
 * it; `log`: the same, written at its end; `dir`: a directory of its own; `lent`: one for what it is lent (`Lending`); `socket`: a
 * unix socket that listens there, by its name in the machine's directory; `peer`: one that is connected to who listens there.
 */
export interface Handed {
  readonly descriptor: number
  readonly path: string
  readonly kind: "ro" | "rw" | "own" | "log" | "dir" | "lent" | "socket" | "peer"
}

/** The name by which a program opens what it has as a descriptor. */
export const nameOf = (descriptor: number): string => `/proc/self/fd/${descriptor}`

/** How a program is started. */
export interface Start {
  /** Whom it runs as, on a host where we may choose. */
  readonly user: number
  readonly files: ReadonlyArray<Handed>
  /** The host's, one with nothing in it, or the network namespace that a file keeps. */
  readonly network: "host" | "none" | { readonly namespace: string }
  readonly kvm: boolean
  /** It may keep all of its guest's memory where it is, as devices of the host's want it. */
  readonly pinned?: boolean
  /** What of the host's files it sees besides its own (`room.h`); undefined: what its user sees. */
  readonly sees: ReadonlyArray<string> | undefined
  /** The program opens its files once more, by {@link nameOf}: it is given the right to. Taken back by `release`. */
  readonly byName: boolean
  /** The program and its arguments. */
  readonly words: ReadonlyArray<string>
}

/** What is particular about the start of a machine. */
export interface MachineStart extends Omit<Start, "user" | "kvm"> {
  readonly kvm?: boolean
  /** Its console is a terminal, which also has what it says on standard error. Default: pipes. */
  readonly terminal?: boolean
}

/** Nobody: what is tried needs no user of its own. */
const TRIAL_USER = 65_534

const KVM = "/dev/kvm"
/** Just below the users that machines are given. */
const KVM_GROUP = 1_899_999_999

/** By which a user-mode network asks for names. */
const RESOLVER = "/etc/resolv.conf"

/** What of the host's files a program needs that brings nothing but itself. */
export const LIBRARIES = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"] as const

/** Where programs are looked for. */
export const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/** One that was not found is looked for again after this many milliseconds. */
const LOOK_AGAIN = 5_000
/** An accelerator whose trial came to nothing in time is tried again after as many. */
const TRY_AGAIN = 60_000
/** A process of a machine has a few dozen threads and never forks. */
export const MOST_PROCESSES = 1_024

/** Whether machines run as users of their own. */
export const { isRoot } = Lending

/**
 * The group that may use KVM. A device that only root may use (where no udev has been at work) is given a group of ours, in
 * which nobody is but machines.
 */
const kvmGroup = Effect.tryPromise(async (): Promise<ReadonlyArray<number>> => {
  const { gid, mode } = await fs.stat(KVM)
  if ((mode & 0o006) === 0o006) return []
  if ((mode & 0o060) === 0o060 && gid !== 0) return [gid]
  if (!isRoot) return []
  await fs.chown(KVM, 0, KVM_GROUP)
  await fs.chmod(KVM, 0o660)
  return [KVM_GROUP]
}).pipe(Effect.orElseSucceed((): ReadonlyArray<number> => []))

/** Writes a file that only root can read into a machine's directory. */
export const write = ({ directory }: Pick<Place, "directory">, name: string, content: string) =>
  Effect.tryPromise({
    try: async () => {
      await fs.mkdir(directory, { recursive: true, mode: 0o700 })
      await fs.writeFile(join(directory, name), content, { mode: 0o600 })
    },
    catch: (error) => new PlaceFailed({ detail: String(error) })
  })

const PIPES = { stdin: { _tag: "Stream" }, stdout: { _tag: "Stream" }, stderr: { _tag: "Stream" } } as const
/** As big as the serial terminals of old. */
const terminal = { _tag: "Pty", rows: 24, columns: 80 } as const
const TERMINAL = { stdin: terminal, stdout: terminal, stderr: terminal }

/** The first program of that name; one with a slash is where it says. */
export const locate = (wanted: string, path = PATH): Effect.Effect<string | undefined> =>
  Effect.promise(async () => {
    const places = wanted.includes("/") ? [wanted] : path.split(":").map((directory) => join(directory, wanted))
    for (const place of places) {
      const usable = await fs.access(place, fs.constants.X_OK).then(
        () => true,
        () => false
      )
      if (usable) return place
    }
    return undefined
  })

/** After how many milliseconds facts may have changed. */
const validFor = ({ acceleration, problem }: DriverFacts): number =>
  problem !== undefined ? LOOK_AGAIN : acceleration?.isUndecided === true ? TRY_AGAIN : Number.POSITIVE_INFINITY

/** Facts that are found once, and looked for again while there is a problem, or a trial of theirs decided nothing. */
export const remembered = (examine: Effect.Effect<DriverFacts>): Effect.Effect<DriverFacts> => {
  const search = Semaphore.makeUnsafe(1)
  let known: { readonly at: number; readonly found: DriverFacts } | undefined
  return search.withPermit(
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      if (known === undefined || now - known.at > validFor(known.found)) {
        known = { at: now, found: yield* examine }
      }
      return known.found
    })
  )
}

/** Of one host: what drivers use to start their programs. */
export const make = Effect.gen(function* () {
  const processes = yield* Processes
  const cgroups = yield* Cgroups
  const launcher = helperPath(processes.hello.taprootPid, "launch")

  const argv = ({ byName, files, kvm, network, sees, user, words }: Start) =>
    Effect.map(kvm ? kvmGroup : Effect.succeed([]), (groups): readonly [string, ...Array<string>] => [
      launcher,
      ...(network === "host" ? [] : ["--network", network === "none" ? "-" : network.namespace]),
      ...(byName ? ["--by-name"] : []),
      ...(sees === undefined || !isRoot
        ? []
        : [...words.slice(0, 1), ...sees, ...(network === "host" ? [RESOLVER] : []), ...(kvm ? [KVM] : [])].flatMap(
            (path) => ["--sees", path]
          )),
      isRoot ? String(user) : "-",
      isRoot ? [user, ...groups].join(",") : "-",
      ...files.map(({ descriptor, kind, path }) => `${descriptor}=${kind}:${path}`),
      "--",
      ...words
    ])

  const prepare = (place: Place) =>
    Effect.gen(function* () {
      yield* Effect.tryPromise({
        try: async () => {
          await fs.mkdir(place.directory, { recursive: true, mode: 0o700 })
          // an earlier Ironwood gave it to the machine's user
          if (isRoot) await fs.chown(place.directory, 0, 0)
        },
        catch: (error) => new PlaceFailed({ detail: String(error) })
      })
      return yield* cgroups.prepare(place.cgroup, { memoryBytes: place.memoryBytes, pids: MOST_PROCESSES })
    })

  return {
    /** What a program says when it is asked for its version, or what is wrong with it. */
    versionOf: Effect.fnUntraced(function* (path: string, option: string): Effect.fn.Return<string, string> {
      const asked = yield* Effect.timeoutOption(
        Effect.result(processes.run({ label: "version", argv: [path, option], environment: { PATH } })),
        "10 seconds"
      )
      if (Option.isNone(asked)) return yield* Effect.fail(`${path} ${option} does not end`)
      if (asked.value._tag === "Failure") return yield* Effect.fail(asked.value.failure.message)
      const { exit, stdout } = asked.value.success
      if (!ProcessExit.isSuccess(exit)) {
        return yield* Effect.fail(`${path} ${option} ${ProcessExit.describe(exit)}`)
      }
      return Buffer.from(stdout).toString("utf8")
    }),

    /** `sees`, if the program tells its version when it sees nothing else of the host; else undefined, and a warning in the log. */
    enough: Effect.fnUntraced(function* (path: string, option: string, sees: ReadonlyArray<string>) {
      const start = {
        user: TRIAL_USER,
        files: [],
        network: "none" as const,
        kvm: false,
        byName: false,
        sees,
        words: [path, option]
      }
      const asked = yield* Effect.result(
        processes.run({ label: "version", argv: yield* argv(start), environment: { PATH } })
      ).pipe(Effect.timeoutOption("10 seconds"))
      const said = Option.flatMap(asked, Result.getSuccess)
      if (Option.isSome(said) && ProcessExit.isSuccess(said.value.exit)) return sees
      const words = Option.match(said, {
        onNone: () => "",
        onSome: ({ stderr }) => Buffer.from(stderr).toString("utf8")
      })
      yield* Effect.logWarning(
        `${path} does not start without more of this host than ${sees.join(", ")}, so it sees what any user sees: ${words.trim()}`
      )
      return undefined
    }),

    /** A run of a program for which files are written into `directory`, to be its descriptors from 3 on. */
    trial: (
      directory: string,
      contents: ReadonlyArray<Uint8Array>,
      words: ReadonlyArray<string>,
      sees: ReadonlyArray<string> | undefined
    ): Effect.Effect<RunRequest, PlaceFailed> =>
      Effect.gen(function* () {
        const files = contents.map((_, index): Handed => ({
          descriptor: 3 + index,
          path: join(directory, `trial${index}`),
          kind: "ro"
        }))
        yield* Effect.tryPromise({
          try: async () => {
            await fs.mkdir(directory, { recursive: true, mode: 0o700 })
            for (const [index, { path }] of files.entries()) {
              await fs.writeFile(path, contents[index] ?? "", { mode: 0o644 })
            }
          },
          catch: (error) => new PlaceFailed({ detail: String(error) })
        })
        const start = { user: TRIAL_USER, files, network: "none" as const, kvm: true, byName: false, sees, words }
        return { label: "accelerator trial", argv: yield* argv(start), environment: { PATH } }
      }),

    /** Makes a machine's place and starts its program there, with its console as standard input and output. */
    spawn: ({ label, place }: LaunchRequest, start: MachineStart) =>
      Effect.gen(function* () {
        const joined = yield* prepare(place)
        if (start.byName) {
          const paths = start.files.filter(({ kind }) => kind === "ro" || kind === "rw").map(({ path }) => path)
          yield* Lending.begin(place, paths, Lending.wayOf(start.sees))
        }
        const lent =
          start.byName && Lending.wayOf(start.sees) === "directory"
            ? [{ descriptor: Lending.DESCRIPTOR, path: join(place.directory, "lent"), kind: "lent" as const }]
            : []
        const words = yield* argv({
          ...start,
          files: [...start.files, ...lent],
          kvm: start.kvm ?? true,
          user: place.user
        })
        return yield* processes.spawn({
          label,
          argv: words,
          environment: { PATH, HOME: place.directory, TMPDIR: place.directory },
          directory: place.directory,
          cgroups: joined,
          session: true,
          ...(start.pinned === true ? { rlimits: { memlock: { soft: "infinity", hard: "infinity" } } } : {}),
          ...(start.terminal === true ? TERMINAL : PIPES)
        })
      }),

    /** As `Lending.release`. */
    release: (directory: string, cgroup: string) => Lending.release(processes, directory, cgroup)
  }
})
export type Launching = Effect.Success<typeof make>
