/**
 * The flags of `ironwood run`, docker's as far as they mean the same, and the spec they make.
 *
 * What cannot be read is left out of the spec and told beside it ({@link read}).
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import type { ContainerSpecSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { RestartPolicySchema, RestartType } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { IsolationMode, NetworkMode, UserNamespaceMode } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { check, type Checked, checked, type FlagProblem } from "./FlagProblems.ts"
import { detachKeys } from "./DetachKeys.ts"
import { foreignFlags } from "./ForeignFlags.ts"
import { parsePair } from "./Labels.ts"
import { networkFields, networkFlags, readNetwork } from "./NetworkFlags.ts"
import { parseDevice, parseMount, parseSecret, parseTmpfs, parseVolume } from "./MountFlags.ts"
import { parseRestart, withRestart } from "./PolicyFlags.ts"
import { parseBytes } from "./Quantity.ts"
import { secondsOrDuration, toProto } from "./QuantityFlags.ts"
import { parseUlimit } from "./UlimitFlag.ts"

export const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.withDefault(""))

export const yes = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false))

const names = (name: string, description: string, metavar = "NAME") =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.atLeast(0))

const positive = (text: string): Result.Result<number, string> =>
  /^\d*\.?\d+$/.test(text) && Number(text) > 0 ? Result.succeed(Number(text)) : Result.fail("a number above 0")

const positiveInteger = (text: string): Result.Result<number, string> =>
  /^\d{1,9}$/.test(text) && Number(text) > 0 ? Result.succeed(Number(text)) : Result.fail("a whole number above 0")

export const isolations: ReadonlyMap<string, IsolationMode> = new Map([
  ["namespace", IsolationMode.NAMESPACE],
  ["microvm", IsolationMode.MICROVM]
])

/** docker knows `host` alone; `auto` is podman's word for a private one that nobody else has. */
export const userNamespaces: ReadonlyMap<string, UserNamespaceMode> = new Map([
  ["host", UserNamespaceMode.HOST],
  ["private", UserNamespaceMode.PRIVATE],
  ["auto", UserNamespaceMode.PRIVATE]
])

export const parseUserNamespace = (text: string): Result.Result<UserNamespaceMode, string> =>
  Result.fromOption(Option.fromUndefinedOr(userNamespaces.get(text)), () => "host or private")

export const parseIsolation = (text: string): Result.Result<IsolationMode, string> =>
  Result.fromOption(Option.fromUndefinedOr(isolations.get(text)), () => [...isolations.keys()].join(" or "))

const pulls = ["always", "missing", "never"] as const
/** When the image is pulled. */
export type Pull = (typeof pulls)[number]

const parsePull = (text: string): Result.Result<Pull, string> =>
  Result.fromOption(Option.fromUndefinedOr(pulls.find((one) => one === text)), () => pulls.join(" or "))

/** As docker has them; `no-new-privileges` is so anyway. */
const parseSecurityOption = (text: string): Result.Result<"confined" | "unconfined", string> =>
  text === "seccomp=unconfined"
    ? Result.succeed("unconfined")
    : text === "no-new-privileges" || text === "no-new-privileges=true"
      ? Result.succeed("confined")
      : Result.fail("seccomp=unconfined (no-new-privileges is always so)")

/** As docker's json-file has them. */
interface LogOption {
  readonly maxBytes?: bigint
  readonly maxFiles?: number
}

const parseLogOption = (text: string): Result.Result<LogOption, string> => {
  const [, name, word = ""] = /^(max-size|max-file)=(.+)$/.exec(text) ?? []
  if (name === "max-size") return Result.map(parseBytes(word), (maxBytes) => ({ maxBytes }))
  return name === "max-file"
    ? Result.map(positiveInteger(word), (maxFiles) => ({ maxFiles }))
    : Result.fail("max-size=10m, or max-file=3")
}

/** As docker's storage drivers that can limit it have it. */
export const parseStorageOption = (text: string): Result.Result<bigint, string> => {
  const [, size] = /^size=(.+)$/.exec(text) ?? []
  return size === undefined ? Result.fail("size=SIZE, like size=4g") : parseBytes(size)
}

/** The disk of a microVM. */
export const storageOption = checked("storage-opt", "size=SIZE", parseStorageOption).pipe(
  Flag.withDescription(
    "A disk of this size for what is written in its microVM, and kept (default: that is in its memory, and lost with it)"
  ),
  Flag.optional
)

/** The limits of a container. */
export const limitFlags = {
  memory: checked("memory", "SIZE", parseBytes).pipe(
    Flag.withAlias("m"),
    Flag.withDescription("Most memory, e.g. 64MiB or 64m"),
    Flag.optional
  ),
  cpus: checked("cpus", "N", positive).pipe(
    Flag.withDescription("Most processor time, in cores, e.g. 0.5"),
    Flag.optional
  ),
  pids: checked("pids-limit", "N", positiveInteger).pipe(
    Flag.withDescription("Most processes and threads (default: 4096)"),
    Flag.optional
  )
}

/** Variables of a program's environment. */
export const environmentFlags = {
  environment: Flag.String("env").pipe(
    Flag.withAlias("e"),
    Flag.withMetavar("NAME=VALUE"),
    Flag.withDescription("An environment variable; NAME alone takes the value from here; may be repeated"),
    Flag.atLeast(0)
  ),
  environmentFiles: Flag.String("env-file").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Environment variables from a file, a NAME=VALUE per line; may be repeated"),
    Flag.atLeast(0)
  )
}

/** The flags; RunArguments.ts needs to know which of them take a value. */
export const runFlags = {
  name: text("name", "NAME", "Its name (default: two words)"),
  detach: yes("detach", "Print the name and return, instead of showing its output until it ends").pipe(
    Flag.withAlias("d")
  ),
  ...environmentFlags,
  workingDirectory: text("workdir", "DIRECTORY", "Where it starts").pipe(Flag.withAlias("w")),
  user: text("user", "USER[:GROUP]", "Who it runs as, by name or number").pipe(Flag.withAlias("u")),
  entrypoint: Flag.String("entrypoint").pipe(
    Flag.withMetavar("PROGRAM"),
    Flag.withDescription("What to execute instead of the image's entrypoint; COMMAND becomes its arguments"),
    Flag.optional
  ),
  ...limitFlags,
  restart: checked("restart", "POLICY", parseRestart).pipe(
    Flag.withDescription(
      "permanent, transient or temporary; always, on-failure[:N], no (default: permanent with -d, else temporary)"
    ),
    Flag.optional
  ),
  ...networkFlags,
  publishAll: yes("publish-all", "Every port that its image names, on ports of the host that are free").pipe(
    Flag.withAlias("P")
  ),
  isolation: checked("isolation", [...isolations.keys()].join("|"), parseIsolation).pipe(
    Flag.withDescription(
      "What keeps it from the host: namespaces, or a virtual machine of its own (default: namespace)"
    ),
    Flag.optional
  ),
  userNamespace: checked("userns", "host|private", parseUserNamespace).pipe(
    Flag.withDescription(
      "Its users are the host's, or users of its own that nobody else on the host is (default: host)"
    ),
    Flag.optional
  ),
  storage: storageOption,
  sandbox: text("sandbox", "NAME", "Run in this pod, with the containers there (default: one of its own)").pipe(
    Flag.withAlias("pod")
  ),
  after: names("after", "Start it once this container of its sandbox has come up or failed; may be repeated"),
  afterSuccess: names(
    "after-success",
    "Start it once this container of its sandbox has run to its end with success; may be repeated"
  ),
  requires: names("requires", "It needs this container of its sandbox: starts only while that runs; may be repeated"),
  bindsTo: names("binds-to", "As --requires, and it ends whenever that one ends; may be repeated"),
  stopSignal: text("stop-signal", "SIGNAL", "The signal that asks it to end"),
  stopTimeout: checked("stop-timeout", "DURATION", secondsOrDuration).pipe(
    Flag.withDescription("How long it may take to end before it is killed: 30s, or seconds (default: 10s)"),
    Flag.optional
  ),
  labels: checked("label", "NAME=VALUE", parsePair).pipe(
    Flag.withAlias("l"),
    Flag.withDescription("A label; may be repeated"),
    Flag.atLeast(0)
  ),
  pull: checked("pull", "always|missing|never", parsePull).pipe(
    Flag.withDescription("When to pull the image from its registry (default: missing)"),
    Flag.optional
  ),
  addCapabilities: names(
    "cap-add",
    "A capability that containers usually lack, like NET_ADMIN; may be repeated",
    "CAPABILITY"
  ),
  dropCapabilities: names("cap-drop", "A capability that it shall not have, or ALL; may be repeated", "CAPABILITY"),
  securityOptions: checked("security-opt", "OPTION", parseSecurityOption).pipe(
    Flag.withDescription("seccomp=unconfined: it may make every system call; may be repeated"),
    Flag.atLeast(0)
  ),
  privileged: yes("privileged", "Keep nothing from it: root of the host in all but name"),
  terminal: yes("tty", "Give it a terminal").pipe(Flag.withAlias("t")),
  interactive: yes("interactive", "Give it what is typed or piped here as its standard input").pipe(
    Flag.withAlias("i")
  ),
  init: yes("init", "An init as its first process, which hands on signals and reaps orphans"),
  tmpfs: checked("tmpfs", "PATH[:size=SIZE]", parseTmpfs).pipe(
    Flag.withDescription("A file system in memory there, 64MiB unless it says otherwise; may be repeated"),
    Flag.atLeast(0)
  ),
  volumes: checked("volume", "SOURCE:TARGET[:ro]", parseVolume).pipe(
    Flag.withAlias("v"),
    Flag.withDescription(
      "A volume, made when it is not there, or a path of the host, if the machine config allows it (containers.allowMounts); may be repeated"
    ),
    Flag.atLeast(0)
  ),
  mounts: checked("mount", "type=volume|bind|tmpfs,…", parseMount).pipe(
    Flag.withDescription("The same as --volume or --tmpfs, in more words; may be repeated"),
    Flag.atLeast(0)
  ),
  devices: checked("device", "PATH[:TARGET][:rwm]", parseDevice).pipe(
    Flag.withDescription(
      "A device of the host, if the machine config allows it (containers.allowDevices); may be repeated"
    ),
    Flag.atLeast(0)
  ),
  secrets: checked("secret", "NAME[:PATH]", parseSecret).pipe(
    Flag.withDescription("A secret as a file, in /run/secrets unless it says otherwise; may be repeated"),
    Flag.atLeast(0)
  ),
  ulimits: checked("ulimit", "RESOURCE=SOFT[:HARD]", parseUlimit).pipe(
    Flag.withDescription(
      "What each of its processes may use, e.g. nofile=1024:4096; -1 is no limit (default: as the process that starts it); may be repeated"
    ),
    Flag.atLeast(0)
  ),
  sharedMemory: checked("shm-size", "SIZE", parseBytes).pipe(
    Flag.withDescription("A /dev/shm of its own, of this size (default: 64MiB)"),
    Flag.optional
  ),
  logOptions: checked("log-opt", "max-size=SIZE|max-file=N", parseLogOption).pipe(
    Flag.withDescription(
      "How large a file of its log becomes (default: 10MiB), and how many there are (3); may be repeated"
    ),
    Flag.atLeast(0)
  ),
  healthCommand: text(
    "health-cmd",
    "COMMAND",
    "Ask it by this shell command in it whether it is well; when it is not, it ends, and its restart policy decides"
  ),
  healthInterval: checked("health-interval", "DURATION", secondsOrDuration).pipe(
    Flag.withDescription("From one time to the next (default: 10s)"),
    Flag.optional
  ),
  healthTimeout: checked("health-timeout", "DURATION", secondsOrDuration).pipe(
    Flag.withDescription("How long it may take (default: 1s)"),
    Flag.optional
  ),
  healthRetries: checked("health-retries", "N", positiveInteger).pipe(
    Flag.withDescription("So many failures in a row (default: 3)"),
    Flag.optional
  ),
  healthStartPeriod: checked("health-start-period", "DURATION", secondsOrDuration).pipe(
    Flag.withDescription("Not before it has run for so long"),
    Flag.optional
  ),
  readonlyRootfs: yes("read-only", "Its root filesystem read-only"),
  detachKeys,
  hostname: text("hostname", "NAME", "What it is called inside (default: its name)"),
  /** What docker's and podman's users type and is not to be had. */
  foreign: foreignFlags,
  remove: yes("rm", "Remove it when it has ended (not with -d)")
}

/** The words after the flags. */
export const containerArguments = {
  image: Argument.String("IMAGE").pipe(Argument.withDescription("The image: a name with an optional tag, or a digest")),
  command: Argument.String("COMMAND").pipe(
    Argument.withDescription("Instead of the image's command; all words after IMAGE belong to it"),
    Argument.variadic()
  )
}

/** Which flag, or which word, a field of the request comes from. */
export const flagOfField: ReadonlyMap<string, string> = new Map([
  ["spec.name", "--name"],
  ["spec.sandbox", "--sandbox"],
  ["spec.image", "IMAGE"],
  ["spec.entrypoint", "--entrypoint"],
  ["spec.command", "COMMAND"],
  ["spec.environment", "--env"],
  ["spec.working_directory", "--workdir"],
  ["spec.user", "--user"],
  ["spec.resources.memory_bytes", "--memory"],
  ["spec.resources.cpus", "--cpus"],
  ["spec.resources.pids", "--pids-limit"],
  ["spec.security.add_capabilities", "--cap-add"],
  ["spec.security.drop_capabilities", "--cap-drop"],
  ["spec.security.seccomp_unconfined", "--security-opt"],
  ["spec.security.privileged", "--privileged"],
  ["spec.hostname", "--hostname"],
  ...networkFields,
  ["spec.restart", "--restart"],
  ["spec.stop_signal", "--stop-signal"],
  ["spec.after", "--after"],
  ["spec.after_success", "--after-success"],
  ["spec.requires", "--requires"],
  ["spec.binds_to", "--binds-to"],
  ["spec.stop_grace_period", "--stop-timeout"],
  ["spec.labels", "--label"],
  ["spec.process_limits", "--ulimit"],
  ["spec.tmpfs", "--tmpfs"],
  ["spec.log", "--log-opt"],
  ["spec.mounts", "--volume"],
  ["spec.volumes", "--volume"],
  ["spec.devices", "--device"],
  ["spec.secrets", "--secret"],
  ["spec.isolation", "--isolation"],
  ["spec.microvm.disk_bytes", "--storage-opt"],
  ["spec.probes.liveness.period", "--health-interval"],
  ["spec.probes.liveness.timeout", "--health-timeout"],
  ["spec.probes.liveness.failure_threshold", "--health-retries"],
  ["spec.probes.liveness.initial_delay", "--health-start-period"]
])

type Value<F> =
  F extends Flag.Flag<infer A> ? A : F extends ReadonlyArray<Flag.Flag<infer A>> ? ReadonlyArray<A> : never
/** What was typed. */
export type RunFlags = { readonly [K in keyof typeof runFlags]: Value<(typeof runFlags)[K]> } & {
  readonly image: string
  readonly command: ReadonlyArray<string>
}

/** The specs of the container and of a sandbox of its own as far as they could be read, without their names, and what is wrong. */
export const read = Effect.fnUntraced(function* (flags: RunFlags) {
  const problems: Array<FlagProblem> = flags.foreign.flat()
  const value = <A>(found: Checked<A>): ReadonlyArray<A> => {
    if (Result.isSuccess(found)) return [found.success]
    problems.push(found.failure)
    return []
  }
  const given = <A>(found: Option.Option<Checked<A>>): A | undefined =>
    Option.match(found, { onNone: () => undefined, onSome: (one) => value(one)[0] })

  const variables = yield* environmentOf(flags.environment, flags.environmentFiles)
  const [memory, cpus, pids, grace] = [
    given(flags.memory),
    given(flags.cpus),
    given(flags.pids),
    given(flags.stopTimeout)
  ]
  const [interval, timeout, retries, startPeriod] = [
    given(flags.healthInterval),
    given(flags.healthTimeout),
    given(flags.healthRetries),
    given(flags.healthStartPeriod)
  ]
  const sharedMemory = given(flags.sharedMemory)
  const mounts = flags.mounts.flatMap(value)
  const sources = [...flags.volumes.flatMap(value), ...mounts]
  const asked = [interval, timeout, retries, startPeriod].some((setting) => setting !== undefined)
  if (asked && flags.healthCommand === "") {
    problems.push({ flag: "--health-cmd", text: "is missing: the other --health flags say how it is run" })
  }
  const liveness = {
    exec: { command: ["/bin/sh", "-c", flags.healthCommand] },
    ...(interval === undefined ? {} : { period: toProto(interval) }),
    ...(timeout === undefined ? {} : { timeout: toProto(timeout) }),
    ...(retries === undefined ? {} : { failureThreshold: retries }),
    ...(startPeriod === undefined ? {} : { initialDelay: toProto(startPeriod) })
  }
  const restart = given(flags.restart) ?? { type: flags.detach ? RestartType.PERMANENT : RestartType.TEMPORARY }
  const spec: MessageInitShape<typeof ContainerSpecSchema> = {
    image: flags.image,
    entrypoint: Option.match(flags.entrypoint, { onNone: () => [], onSome: (program) => [program] }),
    command: [...flags.command],
    environment: Object.fromEntries(variables.flatMap(value)),
    workingDirectory: flags.workingDirectory,
    user: flags.user,
    stopSignal: flags.stopSignal,
    after: [...flags.after],
    afterSuccess: [...flags.afterSuccess],
    requires: [...flags.requires],
    bindsTo: [...flags.bindsTo],
    labels: Object.fromEntries(flags.labels.flatMap(value)),
    readonlyRootfs: flags.readonlyRootfs,
    security: {
      addCapabilities: [...flags.addCapabilities],
      dropCapabilities: [...flags.dropCapabilities],
      seccompUnconfined: flags.securityOptions.flatMap(value).includes("unconfined"),
      privileged: flags.privileged
    },
    tmpfs: Object.fromEntries([
      ...(sharedMemory === undefined ? [] : [["/dev/shm", { sizeBytes: sharedMemory }] as const]),
      ...flags.tmpfs.flatMap(value),
      ...mounts.flatMap((one) => ("tmpfs" in one ? [one.tmpfs] : []))
    ]),
    mounts: sources.flatMap((one) => ("bind" in one ? [one.bind] : [])),
    volumes: sources.flatMap((one) => ("volume" in one ? [one.volume] : [])),
    devices: flags.devices.flatMap(value),
    secrets: flags.secrets.flatMap(value),
    processLimits: flags.ulimits.flatMap(value),
    log: flags.logOptions.flatMap(value).reduce<LogOption>((all, one) => ({ ...all, ...one }), {}),
    init: flags.init,
    ...(flags.healthCommand === "" ? {} : { probes: { liveness } }),
    terminal: flags.terminal,
    stdin: flags.interactive,
    restart: withRestart(create(RestartPolicySchema), restart),
    resources: {
      ...(memory === undefined ? {} : { memoryBytes: memory }),
      ...(cpus === undefined ? {} : { cpus }),
      ...(pids === undefined ? {} : { pids })
    },
    ...(grace === undefined ? {} : { stopGracePeriod: toProto(grace) })
  }
  const pull: Pull = given(flags.pull) ?? "missing"
  const { spec: ofNetwork, typed } = readNetwork(flags, value, flags.publishAll)
  const { network } = ofNetwork
  if (flags.sandbox !== "") {
    const text = "belongs to the sandbox, which is there already: leave out one of them"
    problems.push(...typed.map((flag) => ({ flag, text })))
  }
  const isolation = given(flags.isolation) ?? IsolationMode.NAMESPACE
  if (flags.sandbox !== "" && isolation === IsolationMode.MICROVM) {
    problems.push({
      flag: "--isolation",
      text: "belongs to the sandbox, which is there already: leave out one of them"
    })
  }
  if (network === NetworkMode.HOST && isolation === IsolationMode.MICROVM) {
    problems.push({ flag: "--network", text: "a microVM does not have the host's network: leave out one of them" })
  }
  const userNamespace = given(flags.userNamespace) ?? UserNamespaceMode.HOST
  if (flags.sandbox !== "" && userNamespace === UserNamespaceMode.PRIVATE) {
    problems.push({ flag: "--userns", text: "belongs to the sandbox, which is there already: leave out one of them" })
  }
  const diskBytes = given(flags.storage)
  if (diskBytes !== undefined && isolation !== IsolationMode.MICROVM) {
    problems.push({ flag: "--storage-opt", text: "belongs to a microVM: give --isolation microvm, too" })
  }
  if (flags.detach && flags.remove) {
    problems.push({ flag: "--rm", text: "needs the foreground: leave out -d, or remove it later with `ironwood rm`" })
  }
  const microvm = diskBytes === undefined ? {} : { microvm: { diskBytes } }
  given(flags.detachKeys)
  if (flags.sandbox !== "" && flags.hostname !== "") {
    problems.push({ flag: "--hostname", text: "belongs to the sandbox, which is there already: leave out one of them" })
  }
  const sandbox = { ...ofNetwork, isolation, userNamespace, hostname: flags.hostname, ...microvm }
  return { spec, sandbox, pull, problems }
})

/** Variables of the files, then those of the flags; later ones win. `NAME` alone is taken from our own environment. */
export const environmentOf = Effect.fnUntraced(function* (pairs: ReadonlyArray<string>, files: ReadonlyArray<string>) {
  const system = yield* FileSystem.FileSystem
  const variable = (flag: string) => (word: string) => {
    if (word.includes("=")) return [check(flag, parsePair)(word)]
    const inherited = process.env[word]
    return inherited === undefined ? [] : [Result.succeed([word, inherited] as const)]
  }
  const found: Array<Checked<readonly [string, string]>> = []
  for (const file of files) {
    const content = yield* Effect.option(system.readFileString(file))
    if (Option.isNone(content)) found.push(Result.fail({ flag: "--env-file", text: `${file} cannot be read` }))
    const lines = Option.getOrElse(content, () => "").split("\n")
    const words = lines.map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"))
    found.push(...words.flatMap(variable(`--env-file ${file}`)))
  }
  return [...found, ...pairs.flatMap(variable("--env"))]
})
