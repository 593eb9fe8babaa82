/**
 * What a person asks for when they ask for a container: the image, what to run in it, its limits and its restart policy.
 * The same schema decodes requests and stores the desired state.
 *
 * Use {@link decodeContainerSpec} (and its twin for sandboxes) at the border: it names *every* wrong field with its path.
 *
 * Traps: `entrypoint` and `command` follow the image specification: giving an entrypoint drops the image's command.
 * An empty list is not "not given": `command: []` runs the entrypoint without arguments. Durations are stored as
 * milliseconds. What is not given here comes from the image.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { RestartPolicy } from "../actor/RestartPolicy.ts"
import { parseSignal } from "../taproot/Signals.ts"
import { ProbesSpec } from "./ProbeSpec.ts"
import type { FieldProblem } from "../storage/StateErrors.ts"
import { SpecInvalid } from "./ContainerError.ts"
import * as Capabilities from "./Capabilities.ts"
import { GracePeriod, Labels, WorkloadName } from "../storage/Workload.ts"
import { LogRetention } from "../storage/logs/LogRetention.ts"
import { VolumeName } from "../storage/Volumes.ts"
import { SandboxSpec } from "./SandboxSpec.ts"

const noNul = (maximum: number) =>
  Schema.String.pipe(
    Schema.check(
      Schema.makeFilter((text: string) =>
        text.includes("\0")
          ? "must hold no NUL byte"
          : text.length > maximum
            ? `must have at most ${maximum} characters`
            : undefined
      )
    )
  )

/** Arguments of a program: at most 1,024, each at most 128 KiB (the kernel's limit for one). */
export const Arguments = Schema.Array(noNul(131_071)).pipe(
  Schema.check(Schema.isMaxLength(1024, { expected: "at most 1024 arguments" }))
)

export const Environment = Schema.Record(
  Schema.String.pipe(
    Schema.check(Schema.isPattern(/^[^=\0]{1,256}$/, { expected: "a variable name of 1 to 256 characters without =" }))
  ),
  noNul(131_071)
).pipe(Schema.check(Schema.isMaxProperties(1024, { expected: "at most 1024 variables" })))

/** The limits of one container; absent: unlimited (but for what the sandbox and the host have). */
export const Resources = Schema.Struct({
  /** Bytes of memory, swap included; the kernel kills the container's largest process at it. At least 6 MiB (the runtime itself needs them to start). */
  memoryBytes: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(
        Schema.isBetween(
          { minimum: 6 * 1024 * 1024, maximum: 2 ** 50 },
          { expected: "a number of bytes from 6291456 (6 MiB) to 2^50" }
        )
      )
    )
  ),
  /** Share of processor time in CPUs: 0.5 is half of one, 2 is two. */
  cpus: Schema.optionalKey(
    Schema.Finite.pipe(
      Schema.check(
        Schema.isBetween({ minimum: 0.01, maximum: 4096 }, { expected: "a number of CPUs from 0.01 to 4096" })
      )
    )
  ),
  /** Processes and threads at a time. Absent: what keeps the host alive, see `ProcessLimits.ts`. */
  pids: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(Schema.isBetween({ minimum: 1, maximum: 4_194_304 }, { expected: "a number from 1 to 4194304" }))
    )
  )
})
export type Resources = typeof Resources.Type

const limit = Schema.Int.pipe(
  Schema.check(
    Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }, { expected: "a number from 0 to 2^53-1" })
  )
)

/** What each of its processes may use of a resource: setrlimit(2), in its units. */
const ProcessLimit = Schema.Struct({
  resource: Schema.Literals([
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack"
  ]),
  soft: limit,
  hard: limit
})

/** An absolute directory. */
export const WorkingDirectory = noNul(4095).pipe(
  Schema.check(Schema.isStartingWith("/", { expected: "an absolute path" }))
)

/** An absolute path without `.` and `..`, and not `/`. */
const HostPath = Schema.String.pipe(
  Schema.check(
    // the names are those that are neither . nor .., said without looking ahead
    Schema.isPattern(/^(?:\/(?:[^/.\0]|\.[^/.\0]|\.\.[^/\0])[^/\0]*)+$/, {
      expected: "an absolute path without . and .., and not /"
    }),
    Schema.isMaxLength(4095)
  )
)

/** Where something can be mounted in a container. */
const TargetPath = HostPath.pipe(
  Schema.check(
    Schema.makeFilter((path: string) =>
      /^\/(proc|sys|dev)(\/|$)/.test(path) && path !== "/dev/shm"
        ? "must not be in /proc, /sys or /dev (but for /dev/shm)"
        : undefined
    )
  )
)

/** `user`, `uid`, `user:group`, `uid:gid`, names being those of the container's own `/etc/passwd` and `/etc/group`. */
export const User = noNul(256)
/** What it may do beyond, or short of, what every container may. Anything beyond it the host must allow; see `Isolation.ts`. */
export const Security = Schema.Struct({
  /** Privileges of root that it has besides the usual ones. */
  addCapabilities: Capabilities.List,
  /** Those of the usual ones that it does not have. */
  dropCapabilities: Capabilities.List,
  /** It may make every system call. */
  seccompUnconfined: Schema.Boolean.pipe(
    Schema.withConstructorDefault(Effect.succeed(false)),
    Schema.withDecodingDefaultKey(Effect.succeed(false))
  ),
  /** All capabilities, system calls and devices, and `/proc` and `/sys` as the host sees them: root of the host in all but name. */
  privileged: Schema.Boolean.pipe(
    Schema.withConstructorDefault(Effect.succeed(false)),
    Schema.withDecodingDefaultKey(Effect.succeed(false))
  )
})
export type Security = typeof Security.Type

/** Names of other containers. */
const Names = Schema.Array(WorkloadName).pipe(
  Schema.check(Schema.isMaxLength(64, { expected: "at most 64 names" })),
  Schema.withConstructorDefault(Effect.succeed([])),
  Schema.withDecodingDefaultKey(Effect.succeed([]))
)

/** As people write it: SIGTERM, term or 15. */
export const StopSignal = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter((text: string) =>
      Option.isSome(parseSignal(text)) ? undefined : "must be a signal such as SIGTERM, INT or 15"
    )
  )
)

export class ContainerSpec extends Schema.Class<ContainerSpec>("ironwood/ContainerSpec")({
  /** Unique on the host, over all sandboxes. */
  name: WorkloadName,
  /** An existing sandbox; default: one of its own. */
  sandbox: Schema.optionalKey(WorkloadName),
  /** A reference or digest. Resolved once, at creation or when it is pulled: a tag that moves later changes nothing. */
  image: Schema.String.pipe(
    Schema.check(Schema.isBetweenLength(1, 512, { expected: "an image reference of 1 to 512 characters" }))
  ),
  /** When a start pulls the image. Default: never, it must be here. */
  imagePull: Schema.optionalKey(Schema.Literals(["always", "if-not-present", "never"])),
  entrypoint: Schema.optionalKey(Arguments),
  command: Schema.optionalKey(Arguments),
  /** Added to the image's; the same name replaces. */
  environment: Environment.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  workingDirectory: Schema.optionalKey(WorkingDirectory),
  user: Schema.optionalKey(User),
  /** Default: the image's, else SIGTERM. */
  stopSignal: Schema.optionalKey(StopSignal),
  /** Time between the stop signal and SIGKILL; default 10 s. */
  stopGracePeriod: GracePeriod.pipe(
    Schema.withConstructorDefault(Effect.succeed(Duration.seconds(10))),
    Schema.withDecodingDefaultKey(Effect.succeed(10_000))
  ),
  resources: Resources.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  restart: RestartPolicy.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  labels: Labels.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  readonlyRootfs: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  security: Security.pipe(
    Schema.withConstructorDefault(Effect.succeed(Security.make({}))),
    Schema.withDecodingDefaultKey(Effect.succeed({}))
  ),
  /** Its first process has a terminal as standard input, output and error. */
  terminal: Schema.Boolean.pipe(
    Schema.withConstructorDefault(Effect.succeed(false)),
    Schema.withDecodingDefaultKey(Effect.succeed(false))
  ),
  /** Its first process is given a standard input, which can be written to by whoever attaches; else it is at its end. */
  stdin: Schema.Boolean.pipe(
    Schema.withConstructorDefault(Effect.succeed(false)),
    Schema.withDecodingDefaultKey(Effect.succeed(false))
  ),
  /** Its first process is an init of ours, which runs its program, hands on signals and reaps orphans. */
  init: Schema.Boolean.pipe(
    Schema.withConstructorDefault(Effect.succeed(false)),
    Schema.withDecodingDefaultKey(Effect.succeed(false))
  ),
  /** Those left out are those of the process that starts it; of one that is there twice the last counts. */
  processLimits: Schema.Array(ProcessLimit).pipe(
    Schema.withConstructorDefault(Effect.succeed([])),
    Schema.withDecodingDefaultKey(Effect.succeed([]))
  ),
  /** File systems in memory, by where they are mounted; what is in them is gone with each run. */
  tmpfs: Schema.Record(
    TargetPath,
    Schema.Struct({
      /** How much fits, in bytes; default 64 MiB. Counts as its memory. */
      sizeBytes: Schema.Int.pipe(
        Schema.check(
          Schema.isBetween({ minimum: 4096, maximum: 2 ** 50 }, { expected: "a number of bytes from 4096" })
        ),
        Schema.withDecodingDefaultKey(Effect.succeed(64 * 1024 * 1024))
      )
    })
  ).pipe(
    Schema.check(Schema.isMaxProperties(64, { expected: "at most 64 of them" })),
    Schema.withConstructorDefault(Effect.succeed({})),
    Schema.withDecodingDefaultKey(Effect.succeed({}))
  ),
  /** Directories and files of the host that it has, where the host allows it; see `HostPaths.ts`. */
  mounts: Schema.Array(
    Schema.Struct({
      source: HostPath,
      target: TargetPath,
      readOnly: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
      /** In a private user namespace: what is root's on the host is root's inside. Else it is nobody's. */
      mapIds: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false)))
    })
  ).pipe(
    Schema.check(Schema.isMaxLength(64, { expected: "at most 64 of them" })),
    Schema.withConstructorDefault(Effect.succeed([])),
    Schema.withDecodingDefaultKey(Effect.succeed([]))
  ),
  /** Device files of the host that it has, where the host allows it. */
  devices: Schema.Array(
    Schema.Struct({
      path: HostPath,
      /** Default: the same path. */
      target: Schema.optionalKey(HostPath),
      /** It may read, write, and make it by itself. */
      access: Schema.Literals(["r", "w", "m", "rw", "rm", "wm", "rwm"]).pipe(
        Schema.withDecodingDefaultKey(Effect.succeed("rwm" as const))
      )
    })
  ).pipe(
    Schema.check(Schema.isMaxLength(64, { expected: "at most 64 of them" })),
    Schema.withConstructorDefault(Effect.succeed([])),
    Schema.withDecodingDefaultKey(Effect.succeed([]))
  ),
  /** Secrets that it finds as files that only its user may read; see `Secrets.ts`. */
  secrets: Schema.Array(
    Schema.Struct({
      name: WorkloadName,
      /** Default: `/run/secrets/` and the name. */
      target: Schema.optionalKey(TargetPath)
    })
  ).pipe(
    Schema.check(Schema.isMaxLength(64, { expected: "at most 64 of them" })),
    Schema.withConstructorDefault(Effect.succeed([])),
    Schema.withDecodingDefaultKey(Effect.succeed([]))
  ),
  /** Volumes that it has; those that are not there are made with it. See `Volumes.ts`. */
  volumes: Schema.Array(
    Schema.Struct({
      name: VolumeName,
      target: TargetPath,
      readOnly: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false)))
    })
  ).pipe(
    Schema.check(Schema.isMaxLength(64, { expected: "at most 64 of them" })),
    Schema.withConstructorDefault(Effect.succeed([])),
    Schema.withDecodingDefaultKey(Effect.succeed([]))
  ),
  /** How it is asked whether it is well; default: not at all. */
  probes: ProbesSpec.pipe(
    Schema.withConstructorDefault(Effect.succeed({})),
    Schema.withDecodingDefaultKey(Effect.succeed({}))
  ),
  log: LogRetention.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  /** What it needs of the other containers of its sandbox; see `Dependencies.ts`. */
  after: Names,
  afterSuccess: Names,
  requires: Names,
  bindsTo: Names
}) {}

const fieldPath = (path: ReadonlyArray<PropertyKey>): string =>
  path.reduce<string>(
    (text, key) =>
      typeof key === "number"
        ? `${text}[${key}]`
        : /^[A-Za-z_]\w*$/.test(String(key))
          ? `${text}${text === "" ? "" : "."}${String(key)}`
          : `${text}[${JSON.stringify(String(key))}]`,
    ""
  )

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** What is wrong with the limits of its processes, which are right one by one. */
export const limitProblemsOf = ({ processLimits }: ContainerSpec): ReadonlyArray<FieldProblem> =>
  processLimits.flatMap(({ hard, soft }, index) =>
    soft > hard ? [{ field: `processLimits[${index}].soft`, problem: "must not be more than the hard limit" }] : []
  )

const decoder = <A, I>(schema: Schema.Codec<A, I>, what: "container" | "sandbox") => {
  const decode = Schema.decodeUnknownEffect(schema, { errors: "all", onExcessProperty: "error" })
  return (input: unknown): Effect.Effect<A, SpecInvalid> =>
    Effect.mapError(decode(input), ({ issue }) => {
      const problems = format(issue).issues.map(({ message, path }) => ({
        field: fieldPath((path ?? []).map((part) => (typeof part === "object" ? part.key : part))),
        problem: message
      }))
      return new SpecInvalid({ what, problems })
    })
}

/** Decodes a container spec from plain data; the error lists all that is wrong, each with its field. */
export const decodeContainerSpec = decoder(ContainerSpec, "container")

/** Decodes a sandbox spec from plain data; the error lists all that is wrong, each with its field. */
export const decodeSandboxSpec = decoder(SandboxSpec, "sandbox")
