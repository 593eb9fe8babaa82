/**
 * The driver for Cloud Hypervisor: finds it, makes machines of it, takes hold of them by its REST API and the record of its events.
 *
 * Cloud Hypervisor runs as the machine's own user, started by `launch`: own cgroup, a network namespace of its own, no capability,
 * its filter of system calls (`--seccomp true`) and, where it has it, Landlock. Its API is a socket that it is given; its console a
 * terminal, because it takes input from nothing else. It was never run against the real program here: see docs/hypervisors.md.
 *
 * **How ends are told apart.**
 *
 * | what happened | process | API | record of events | here |
 * |---|---|---|---|---|
 * | the guest powered off | stays (`--no-shutdown`, newer versions) | `Created` | `vm.shutdown` | powered off |
 * | | exits, 0 (older versions) | | `vm.shutdown` `vmm.shutdown` | powered off |
 * | the guest rebooted | stays | `Running` | `vm.rebooted` | rebooted |
 * | the guest panicked | stays | any | `guest.panic` | panicked |
 * | it was told to end (SIGTERM) | exits, 0 | | `vmm.shutdown` last | killed; older versions: powered off |
 * | a fault of its own | exits, not 0, or a signal | | | crashed |
 *
 * Traps:
 * - Its watchdog resets the machine and tells nobody: a guest that hangs cannot be told from one that reboots. So it has none here.
 * - What a person resets is in the record like a reboot of the guest: it is counted by whoever asked for it, and passed over.
 * - What it says on standard error is on the console.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { Cgroups } from "../../host/Cgroups.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import { Processes } from "../../taproot/Processes.ts"
import * as Accelerator from "../Accelerator.ts"
import { answered, COMING_UP } from "../ComingUp.ts"
import type { Driver } from "../Driver.ts"
import {
  beyond,
  type Capabilities,
  type Control,
  ControlLost,
  type GuestEvent,
  type GuestState,
  HypervisorMissing,
  type Memory,
  PlaceFailed,
  type Refusal
} from "../Hypervisor.ts"
import * as Launching from "../Launching.ts"
import * as Lending from "../Lending.ts"
import type { Machine } from "../Machine.ts"
import * as MemoryFiles from "../MemoryFiles.ts"
import * as NeedsKvm from "../NeedsKvm.ts"
import * as RestSocket from "../RestSocket.ts"
import { Faults, ROOT, snapshotFiles, VmConfig, VmInfo, VmmPing } from "./Api.ts"
import * as Config from "./Config.ts"
import * as Events from "./Events.ts"
import * as HotPlug from "./HotPlug.ts"
import * as Resize from "./Resize.ts"
import * as Saved from "./Saved.ts"

export const capabilities: Capabilities = {
  chipsets: ["q35"],
  firmware: ["q35"],
  diskFormats: ["raw", "qcow2"],
  mostDisks: 24,
  userNetwork: false,
  ports: false,
  shares: false,
  watchdog: [],
  balloon: true,
  powerButton: true,
  pause: true,
  hotPlug: ["q35"],
  secureBoot: [],
  growth: ["q35"],
  diskSizes: true,
  diskLimits: false,
  balloonTarget: true,
  topology: true,
  hugepages: true,
  ignition: false,
  passthrough: [],
  memory: true,
  moves: false
}

/** What it cannot of what it can in general. */
const particular = ({ disks, topology }: Machine): ReadonlyArray<Refusal> => [
  ...((topology?.numaNodes ?? 1) > 1 ? [{ field: "topology", problem: "Cloud Hypervisor has one node here" }] : []),
  ...disks.flatMap(({ format, sizeBytes }, index) =>
    sizeBytes !== undefined && format !== "raw"
      ? [{ field: `disks[${index}].sizeBytes`, problem: "Cloud Hypervisor grows raw disks only" }]
      : []
  )
]

/** A machine with much memory takes its time to be started. */
const STARTING = Duration.seconds(30)

/** So does the memory of one, to a file or from it. */
const SAVING = Duration.minutes(10)

/** What it calls the files of a memory, and what they are called beside it. */
const FILES = { [snapshotFiles.memory]: "", [snapshotFiles.config]: "config", [snapshotFiles.state]: "state" }

/** What a life was made with, for whoever takes hold of it first. */
const LIFE = "life.json"
const Life = Schema.fromJsonString(
  Schema.Struct({
    config: VmConfig,
    staysWhenShutDown: Schema.Boolean,
    /** It begins with a memory: what its disks are called, in the order in which they are there. */
    incoming: Schema.optionalKey(Schema.Array(Schema.String))
  })
)

const faultOf = (body: string): string =>
  Option.match(Schema.decodeUnknownOption(Schema.fromJsonString(Faults))(body), {
    onNone: () => body,
    onSome: (chain) => chain.join(": ")
  })

const states: Readonly<Record<VmInfo["state"], GuestState>> = {
  Created: "created",
  Running: "running",
  Paused: "paused",
  Shutdown: "powered-off",
  BreakPoint: "paused"
}

/** One that is about to end (`ended`) tells by its exit what became of its guest. */
const stateOf = (info: VmInfo, { booted, ended, panicked, shutDown }: Events.Summary): GuestState =>
  panicked ? "panicked" : info.state === "Created" && booted && shutDown && !ended ? "powered-off" : states[info.state]

const controlOf = (
  api: RestSocket.RestSocket,
  record: ReturnType<typeof Events.make>,
  lending: Lending.Lending,
  /** Has it go on with the memory in a file. */
  load: Memory["load"]
): Control => {
  const info = Effect.mapError(api.ask("/vm.info", VmInfo), RestSocket.lost)
  const put = (path: string) => Effect.mapError(api.send("PUT", path, { deadline: STARTING }), RestSocket.lost)
  // the record after the API: what the API says now is in it
  const state = Effect.flatMap(info, (now) => Effect.map(record.read, (said) => stateOf(now, said)))
  /** Resets that were asked for here, and are not in the record yet. */
  let expected = 0
  let before: Events.Summary | undefined
  const since = (now: Events.Summary): ReadonlyArray<GuestEvent> => {
    const old = before ?? now
    before = now
    const reboots = Math.max(0, now.reboots - old.reboots - expected)
    expected -= Math.min(expected, now.reboots - old.reboots)
    const changed = now.panicked !== old.panicked || now.shutDown !== old.shutDown || now.ended !== old.ended
    return [
      ...Array.from({ length: Math.min(reboots, 16) }, (): GuestEvent => ({ _tag: "Rebooted" })),
      // what was on its way out is gone, also what its guest had kept
      ...(now.reboots === old.reboots ? [] : [{ _tag: "Unplugged" } as const]),
      ...(changed ? [{ _tag: "Changed" } as const] : [])
    ]
  }
  const resume = Effect.flatMap(state, (now) => put(now === "created" ? "/vm.boot" : "/vm.resume"))
  const pause = put("/vm.pause")
  const write = (directory: string) =>
    Effect.mapError(
      api.send("PUT", "/vm.snapshot", { body: { destination_url: `file://${directory}` }, deadline: SAVING }),
      RestSocket.lost
    )
  const model = Effect.map(info, ({ config }) => ({
    type: "cloud-hypervisor",
    slots: (config.disks ?? []).flatMap(({ id }) => id ?? [])
  }))
  return {
    state,
    events: Effect.as(
      Effect.tap(record.read, (now) => Effect.sync(() => since(now))),
      record.changes.pipe(
        Stream.mapEffect(() => Effect.map(record.read, since)),
        Stream.flatMap((events) => Stream.fromIterable(events))
      )
    ),
    resume,
    pause,
    reset: Effect.gen(function* () {
      const now = yield* state
      expected++
      yield* put("/vm.reboot")
      // one that stands still goes on doing so
      if (now === "paused") yield* put("/vm.pause")
    }),
    powerButton: put("/vm.power-button"),
    memory: MemoryFiles.make({ lending, names: FILES, state, pause, resume, write }, { load, model }),
    lost: Effect.never,
    ...HotPlug.make({ api, lending }),
    shape: Resize.make(api)
  }
}

export const driver = Effect.fnUntraced(function* (
  options: NeedsKvm.Options
): Effect.fn.Return<Driver, never, Processes | Cgroups> {
  const processes = yield* Processes
  const launching = yield* Launching.make

  const { facts, sees } = NeedsKvm.examine(processes, launching, options, {
    name: "cloud-hypervisor",
    capabilities,
    trial: (path, sees) =>
      launching.trial(
        join(options.directory, "cloud-hypervisor"),
        [Accelerator.KERNEL],
        [path, "--kernel", Launching.nameOf(3), "--memory", "size=64M", "--serial", "tty", "--console", "off"],
        sees
      )
  })

  /** What of its options it has, by what it says itself. */
  const optionsOf = (path: string) =>
    Effect.match(launching.versionOf(path, "--help"), {
      onFailure: () => ({ landlock: false, noShutdown: false }),
      onSuccess: (help) => ({
        landlock: help.includes("--landlock"),
        noShutdown: help.includes("--no-shutdown")
      })
    })

  const lifeOf = (directory: string) =>
    Effect.flatMap(
      Effect.tryPromise(() => fs.readFile(join(directory, LIFE), "utf8")),
      Schema.decodeUnknownEffect(Life)
    )

  const lifeFor = (directory: string, command: string) =>
    Effect.mapError(lifeOf(directory), ({ message }) => new ControlLost({ command, detail: message }))

  const load =
    (api: RestSocket.RestSocket, lending: Lending.Lending, directory: string): Memory["load"] =>
    (file) =>
      Effect.gen(function* () {
        const { config, incoming = [] } = yield* lifeFor(directory, "vm.restore")
        const lost = (error: unknown) => new ControlLost({ command: "vm.restore", detail: String(error) })
        const read = (suffix: string) =>
          Effect.tryPromise({ try: () => fs.readFile(`${file}${suffix}`, "utf8"), catch: lost })
        const saved = { config: yield* read("config"), state: yield* read("state") }
        const texts = yield* Saved.forLife(saved, config, incoming)
        const write = (name: string, text: string) =>
          Effect.mapError(Launching.write({ directory }, name, text), ({ detail }) => lost(detail))
        yield* write(snapshotFiles.config, texts.config)
        yield* write(snapshotFiles.state, texts.state)
        const files = {
          [snapshotFiles.config]: join(directory, snapshotFiles.config),
          [snapshotFiles.state]: join(directory, snapshotFiles.state),
          [snapshotFiles.memory]: file
        }
        yield* MemoryFiles.load(lending, files, (from) =>
          Effect.mapError(
            api.send("PUT", "/vm.restore", { body: { source_url: `file://${from}` }, deadline: SAVING }),
            RestSocket.lost
          )
        )
      })

  return {
    name: "cloud-hypervisor",
    facts,
    refusals: (machine) => {
      const { boot } = machine
      const firmware =
        boot._tag === "Kernel"
          ? undefined
          : boot.code === undefined
            ? "Cloud Hypervisor has no BIOS: firmware uefi, or a kernel"
            : Config.FIRMWARE.some((path) => existsSync(path))
              ? undefined
              : `there is no firmware of Cloud Hypervisor's: ${Config.FIRMWARE[0]} or ${Config.FIRMWARE[1]}`
      return [
        ...beyond("Cloud Hypervisor", capabilities, machine),
        ...particular(machine),
        ...(firmware === undefined ? [] : [{ field: "boot", problem: firmware }])
      ]
    },
    launch: Effect.fn("CloudHypervisor.launch")(function* (request) {
      const { path, problem } = yield* facts
      if (problem !== undefined) return yield* new HypervisorMissing({ detail: problem })
      const { machine, place } = request
      const can = yield* optionsOf(path)
      const firmware = Config.FIRMWARE.find((candidate) => existsSync(candidate))
      const events = join(place.directory, Config.EVENTS)
      const lent = Lending.seen[Lending.wayOf(sees())]
      const { config, files, words } = Config.make(machine, { ...can, lent }, events, firmware)
      yield* Effect.tryPromise({
        try: async () => {
          await fs.rm(events, { force: true })
          await fs.rm(join(place.directory, Config.CONTROL_SOCKET), { force: true })
        },
        catch: (error) => new PlaceFailed({ detail: String(error) })
      })
      yield* Launching.write(place, Config.EVENTS, "")
      const incoming = request.incoming === undefined ? {} : { incoming: request.incoming.model.slots }
      const life = { config, staysWhenShutDown: can.noShutdown, ...incoming }
      yield* Launching.write(place, LIFE, Schema.encodeSync(Life)(life))
      return yield* launching.spawn(request, {
        files,
        network: "none",
        byName: true,
        sees: sees(),
        terminal: true,
        words: [path, ...words]
      })
    }),
    control: Effect.fn("CloudHypervisor.control")(function* (directory, process) {
      const api = RestSocket.make({ path: join(directory, Config.CONTROL_SOCKET), root: ROOT, fault: faultOf })
      yield* answered(process, api.ask("/vmm.ping", VmmPing, { deadline: COMING_UP }), RestSocket.lost)
      const record = Events.make(join(directory, Config.EVENTS))
      const known = yield* Effect.result(api.ask("/vm.info", VmInfo))
      // one that an earlier brain started and did not get to make, or none did yet
      if (known._tag === "Failure" && known.failure.reason === "refused" && !(yield* record.read).booted) {
        const { config, incoming } = yield* lifeFor(directory, "vm.create")
        if (incoming === undefined) {
          yield* Effect.mapError(api.send("PUT", "/vm.create", { body: config, deadline: STARTING }), RestSocket.lost)
        }
      }
      const lending = Lending.make(processes, directory, process)
      return controlOf(api, record, lending, load(api, lending, directory))
    }),
    endOf: (directory, exit) =>
      Effect.gen(function* () {
        const { ended, panicked, shutDown } = yield* Events.make(join(directory, Config.EVENTS)).read
        if (panicked) return Option.some<GuestState>("panicked")
        if (!ProcessExit.isSuccess(exit) || !shutDown) return Option.none<GuestState>()
        const stays = yield* Effect.match(lifeOf(directory), {
          onFailure: () => false,
          onSuccess: ({ staysWhenShutDown }) => staysWhenShutDown
        })
        // one that stays was told to end; its guest may have been gone before
        return stays && ended ? Option.none() : Option.some<GuestState>("powered-off")
      }),
    release: launching.release
  }
})
