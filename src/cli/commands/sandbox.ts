/**
 * `ironwood pod` (or `sandbox`): what containers share, and all of them together. Containers are put in by `run --pod`, or with
 * it by `apply`; one that names none gets one of its own.
 */
import { create as make, type MessageInitShape } from "@bufbuild/protobuf"
import type { DurationSchema } from "@bufbuild/protobuf/wkt"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  IsolationMode,
  ListSandboxesResponseSchema,
  ProcessMode,
  type Sandbox,
  SandboxSchema,
  SandboxService,
  UserNamespaceMode
} from "../../../proto/generated/ironwood/v1/sandbox_pb.ts"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { resolve } from "node:path"
import * as ActorText from "../ActorText.ts"
import { type Checked, checked, flagOf, wrongFlags } from "../FlagProblems.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { withNext } from "../Failure.ts"
import { answered, forEach } from "../ForEach.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import { parsePair } from "../Labels.ts"
import * as Listing from "../Listing.ts"
import { networkFields, networkFlags, networkText, readNetwork } from "../NetworkFlags.ts"
import * as Output from "../Output.ts"
import { parseBytes } from "../Quantity.ts"
import { durationFlag, secondsOrDuration, toProto } from "../QuantityFlags.ts"
import { stopTimeout } from "../Remove.ts"
import { requestId } from "../RequestId.ts"
import { isolations, parseIsolation, parseUserNamespace, storageOption, text, yes } from "../RunFlags.ts"
import * as Text from "../Text.ts"

/** Processors of a machine: whole ones. */
const parseProcessors = (text: string): Result.Result<number, string> =>
  /^[1-9]\d?$/.test(text) ? Result.succeed(Number(text)) : Result.fail("a whole number")

const ls = Command.make(
  "ls",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const sandboxes = yield* Listing.allPages(
      (pageToken) => client.call(SandboxService.method.listSandboxes, { pageToken }),
      (page) => page.sandboxes
    )
    return yield* Output.answer(
      ListSandboxesResponseSchema,
      make(ListSandboxesResponseSchema, { sandboxes }),
      Listing.table(
        [
          { title: "NAME" },
          { title: "NETWORK" },
          { title: "PROCESSES" },
          { title: "ISOLATION" },
          { title: "USERS" },
          { title: "CREATED" },
          { title: "CONTAINERS", shrinkTo: 20 }
        ],
        (now) =>
          sandboxes.map((one) => {
            const { containers, createTime, firstUser, spec } = one
            const created = ActorText.momentOf(createTime)
            return [
              Text.clean(spec?.name ?? ""),
              networkText(one),
              spec?.processes === ProcessMode.SHARED ? "shared" : "own",
              spec?.isolation === IsolationMode.MICROVM ? "microvm" : "namespace",
              firstUser === 0 ? "host" : `from ${firstUser} on`,
              created === undefined ? "" : HumanText.ago(created, now),
              containers.map(Text.clean).join(", ")
            ]
          })
      )
    )
  })
).pipe(
  Command.withAlias("list"),
  describe({ short: "List the pods with their containers", examples: [["ironwood pod ls", "All of them"]] })
)

const rm = Command.make(
  "rm",
  {
    force: Flag.Boolean("force").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Remove its containers too; those that are up are stopped first, in order"),
      Flag.withDefault(false)
    ),
    names: Argument.String("NAME").pipe(Argument.withDescription("Sandboxes"), Argument.variadic({ min: 1 }))
  },
  Effect.fnUntraced(function* ({ force, names }) {
    const client = yield* Client
    yield* forEach(
      names,
      Effect.fnUntraced(function* (name) {
        const { sandbox } = yield* client
          .call(SandboxService.method.getSandbox, { name })
          .pipe(orElseStatus(status.notFound, (error) => withNext(error, "`ironwood pod ls` lists those there are")))
        if (force) {
          yield* Effect.asVoid(stopAll(name, undefined)).pipe(orElseStatus(status.notFound, () => Effect.void))
        }
        const request = { name, force, requestId: requestId() }
        yield* client
          .call(SandboxService.method.removeSandbox, request, { timeout: "10 minutes" })
          .pipe(
            Effect.mapError((error) =>
              error.exitCode === exitCodes.conflict && !force
                ? withNext(error, `Remove them first, or \`ironwood pod rm -f ${name}\``)
                : error
            )
          )
        return answered(name, SandboxSchema, sandbox ?? make(SandboxSchema, { spec: { name } }))
      })
    )
  })
).pipe(
  describe({
    short: "Remove pods that have no container; with -f, with their containers",
    examples: [["ironwood pod rm -f web", "The sandbox and everything in it"]]
  })
)

const flagOfField: ReadonlyMap<string, string> = new Map([
  ["spec.name", "NAME"],
  ["spec.hostname", "--hostname"],
  ["spec.labels", "--label"],
  ["spec.stop_grace_period", "--stop-timeout"],
  ["spec.isolation", "--isolation"],
  ["spec.microvm.memory_bytes", "--memory"],
  ["spec.microvm.cpus", "--cpus"],
  ["spec.microvm.disk_bytes", "--storage-opt"],
  ["spec.microvm.kernel", "--kernel"],
  ["spec.processes", "--share-processes"],
  ...networkFields,
  ["spec.user_namespace", "--userns"]
])

const create = Command.make(
  "create",
  {
    ...networkFlags,
    isolation: checked("isolation", [...isolations.keys()].join("|"), parseIsolation).pipe(
      Flag.withDescription("What keeps it from the host: namespaces, or a virtual machine (default: namespace)"),
      Flag.optional
    ),
    userNamespace: checked("userns", "host|private", parseUserNamespace).pipe(
      Flag.withDescription(
        "Its users are the host's, or users of its own that nobody else on the host is (default: host)"
      ),
      Flag.optional
    ),
    memory: checked("memory", "SIZE", parseBytes).pipe(
      Flag.withDescription("Memory of its microVM, like 512MiB (default: what its containers may have)"),
      Flag.optional
    ),
    cpus: checked("cpus", "NUMBER", parseProcessors).pipe(
      Flag.withDescription("Processors of its microVM (default: what its containers may use)"),
      Flag.optional
    ),
    storage: storageOption,
    kernel: text("kernel", "FILE", "The kernel that its microVM boots (default: the one that comes with Ironwood)"),
    hostname: text("hostname", "NAME", "The hostname that its containers see (default: each its own name)"),
    shareProcesses: yes("share-processes", "Its containers see each other's processes"),
    stopTimeout: checked("stop-timeout", "DURATION", secondsOrDuration).pipe(
      Flag.withDescription("In what time all of them together stop (default: the longest that one of them has)"),
      Flag.optional
    ),
    labels: checked("label", "NAME=VALUE", parsePair).pipe(
      Flag.withAlias("l"),
      Flag.withDescription("A label; may be repeated"),
      Flag.atLeast(0)
    ),
    name: Argument.String("NAME").pipe(Argument.withDescription("Its name"))
  },
  Effect.fnUntraced(function* (flags) {
    const { cpus, hostname, isolation, kernel, labels, memory, name, network, shareProcesses, stopTimeout } = flags
    const { storage, userNamespace } = flags
    const client = yield* Client
    const problem = (found: Checked<unknown>) => (Result.isFailure(found) ? [found.failure] : [])
    const problems = [
      ...Option.toArray(network).flatMap(problem),
      ...[isolation, userNamespace, memory, cpus, storage].flatMap((found) =>
        Option.toArray<Checked<unknown>>(found).flatMap(problem)
      ),
      ...Option.toArray(stopTimeout).flatMap(problem),
      ...[...flags.publish, ...flags.addHosts].flatMap((found: Checked<unknown>) => problem(found)),
      ...labels.flatMap(problem)
    ]
    if (problems.length > 0) return yield* wrongFlags("pod create", problems)
    const value = <A>(found: Option.Option<Checked<A>>) =>
      Option.getOrUndefined(Option.flatMap(found, Result.getSuccess))
    const grace = value(stopTimeout)
    const [memoryBytes, processors, diskBytes] = [value(memory), value(cpus), value(storage)]
    const spec = {
      name,
      ...readNetwork(flags, (found) => Option.toArray(Result.getSuccess(found))).spec,
      hostname,
      processes: shareProcesses ? ProcessMode.SHARED : ProcessMode.OWN,
      isolation: value(isolation) ?? IsolationMode.NAMESPACE,
      userNamespace: value(userNamespace) ?? UserNamespaceMode.HOST,
      microvm: {
        ...(memoryBytes === undefined ? {} : { memoryBytes }),
        ...(processors === undefined ? {} : { cpus: processors }),
        ...(diskBytes === undefined ? {} : { diskBytes }),
        kernel: kernel === "" ? "" : resolve(kernel)
      },
      labels: Object.fromEntries(labels.flatMap((label) => Option.toArray(Result.getSuccess(label)))),
      ...(grace === undefined ? {} : { stopGracePeriod: toProto(grace) })
    }
    const { sandbox } = yield* client.call(SandboxService.method.createSandbox, { spec, requestId: requestId() }).pipe(
      Effect.mapError((error) =>
        error.violations === undefined
          ? error
          : wrongFlags(
              "pod create",
              error.violations.map((violation) => flagOf(violation, flagOfField))
            )
      )
    )
    return yield* Output.answer(SandboxSchema, sandbox ?? make(SandboxSchema, { spec }), Effect.succeed([name]))
  })
).pipe(
  describe({
    short: "Make one, for `run --pod`",
    examples: [["ironwood pod create -p 8080:80 web", "An empty one; containers come with `ironwood run --pod web …`"]]
  })
)

const named = Argument.String("NAME").pipe(Argument.withDescription("Pods"), Argument.variadic({ min: 1 }))

const stopAll = Effect.fnUntraced(function* (name: string, time: MessageInitShape<typeof DurationSchema> | undefined) {
  const client = yield* Client
  const request = { name, requestId: requestId(), ...(time === undefined ? {} : { gracePeriod: time }) }
  return yield* client.call(SandboxService.method.stopSandbox, request, { timeout: stopTimeout })
})

const startAll = Effect.fnUntraced(function* (name: string) {
  const client = yield* Client
  const request = { name, requestId: requestId() }
  return yield* client.call(SandboxService.method.startSandbox, request, { timeout: "1 hour" })
})

const done = (name: string, sandbox: Sandbox | undefined) =>
  answered(name, SandboxSchema, sandbox ?? make(SandboxSchema, { spec: { name } }))

const time = durationFlag("time", secondsOrDuration).pipe(
  Flag.withAlias("t"),
  Flag.withDescription("In what time all of them together, before the rest is killed: 30s, or seconds"),
  Flag.optional
)

const stop = Command.make("stop", { time, names: named }, ({ names, time }) =>
  forEach(names, (name) =>
    Effect.map(stopAll(name, Option.isSome(time) ? toProto(time.value) : undefined), ({ sandbox }) =>
      done(name, sandbox)
    )
  )
).pipe(
  describe({
    short: "Stop all containers of a pod, within one time for all, and keep them down",
    long: ["Those that need others stop before those. When the time is over the rest is killed."],
    examples: [["ironwood pod stop -t 30s web", "Half a minute for all of them together"]]
  })
)

const start = Command.make("start", { names: named }, ({ names }) =>
  forEach(names, (name) => Effect.map(startAll(name), ({ sandbox }) => done(name, sandbox)))
).pipe(
  describe({
    short: "Start the containers of a pod that are down, in the order of their needs",
    long: ["While none of them is up, its init containers run again first."],
    examples: [["ironwood pod start web", "All of it"]]
  })
)

const restart = Command.make("restart", { time, names: named }, ({ names, time }) =>
  forEach(names, (name) =>
    stopAll(name, Option.isSome(time) ? toProto(time.value) : undefined).pipe(
      Effect.andThen(startAll(name)),
      Effect.map(({ sandbox }) => done(name, sandbox))
    )
  )
).pipe(
  describe({
    short: "Stop all containers of a pod, then start them, init containers first",
    examples: [["ironwood pod restart web", "All of it anew"]]
  })
)

export const sandbox = Command.make("pod").pipe(
  Command.withAlias("sandbox"),
  Command.withSubcommands([ls, create, start, stop, restart, rm]),
  describe({
    short: "Make, stop, start, list and remove pods: containers that share a sandbox",
    examples: [["ironwood apply -f examples/pod.yaml", "Pods with their containers are best written down"]]
  })
)
