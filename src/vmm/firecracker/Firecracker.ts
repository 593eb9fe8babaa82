/**
 * The driver for Firecracker: finds it, makes machines of it, takes hold of them by its REST API.
 *
 * Firecracker runs as the machine's own user, started by `launch` instead of its jailer: own cgroup, a network namespace of its
 * own, no capability; its filter of system calls is its own and on by default. Its console is its standard input and output.
 * It was never run against the real program here: see docs/hypervisors.md.
 *
 * **How ends are told apart.** Firecracker ends with its guest, and its exit code is all there is:
 *
 * | what happened | process | here |
 * |---|---|---|
 * | the guest reset the machine: `reboot`, Ctrl-Alt-Del, a panic with `panic=` | exits, 0 | powered off |
 * | the guest powered off (`poweroff`) | goes on, processors halted | nothing: use `reboot` |
 * | it was told wrong things, or a fault of its own (1, 2, 148 to 157: `FcExitCode`) | exits, that code | crashed |
 * | somebody killed it | signal | killed |
 *
 * Traps:
 * - A guest that panics is not told from one that powers off: there is no pvpanic. A machine whose policy depends on it wants another
 *   driver.
 * - There is no reset: a guest that reboots ends its machine, whatever `onReboot` says, and its restart policy judges.
 * - The power button is Ctrl-Alt-Del, which a guest must have a keyboard driver for (`CONFIG_SERIO_I8042`, `CONFIG_KEYBOARD_ATKBD`).
 * - It makes its socket itself, in a directory that it can write to. Before any guest runs, root moves the socket to where only
 *   root can reach it, and takes the directory away from it ({@link secure}).
 * - Its messages of errors are on the console.
 * - The state that it writes of a machine has the names of its files in it: descriptors, which are the same for the same machine.
 * - A memory of huge pages does not come back from a file (docs/hugepages.md): it has none to be written.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { closeSync, constants, existsSync, openSync, readSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { Cgroups } from "../../host/Cgroups.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import { Processes } from "../../taproot/Processes.ts"
import * as Accelerator from "../Accelerator.ts"
import { answered } from "../ComingUp.ts"
import { type Driver, noHotPlug, plainShape } from "../Driver.ts"
import {
  beyond,
  type Capabilities,
  type Control,
  ControlLost,
  type GuestState,
  HypervisorMissing,
  type Place,
  PlaceFailed
} from "../Hypervisor.ts"
import * as Launching from "../Launching.ts"
import * as Lending from "../Lending.ts"
import * as MemoryFiles from "../MemoryFiles.ts"
import * as NeedsKvm from "../NeedsKvm.ts"
import * as RestSocket from "../RestSocket.ts"
import { ConfigFile, Fault, InstanceInfo, MachineConfiguration, PartialDrive } from "./Api.ts"
import * as Requests from "./Requests.ts"
import * as Resize from "./Resize.ts"

export const capabilities: Capabilities = {
  chipsets: ["microvm"],
  firmware: [],
  diskFormats: ["raw"],
  mostDisks: 16,
  userNetwork: false,
  ports: false,
  shares: false,
  watchdog: [],
  balloon: true,
  powerButton: true,
  pause: true,
  hotPlug: [],
  ...plainShape,
  diskSizes: true,
  balloonTarget: true,
  hugepages: true,
  memory: true,
  moves: false
}

/** `MAX_SUPPORTED_VCPUS`. */
const MOST_CPUS = 32
/** Bytes. */
const HUGE_PAGE = 2 * 1024 ** 2
/** A machine with much memory takes its time to be started. */
const STARTING = Duration.seconds(30)

/** So does the memory of one, to a file or from it. */
const SAVING = Duration.minutes(10)

/** What it is told to call the files of a memory, and what they are called beside it. */
const FILES = { memory: "", state: "state" }

/** In the machine's directory: a directory of the program's own, with the socket that it makes; and where that is moved to. */
const OWN = "run"
const SOCKET = "api"
const CONTROL = "firecracker.sock"
/** What is still to be asked of one that was just started, for whoever takes hold of it first. */
const REQUESTS = "requests.json"
/** That it begins with a memory instead: nothing is to be asked of it before. */
const INCOMING = "incoming"

const Stored = Schema.fromJsonString(
  Schema.Array(Schema.Struct({ method: Schema.Literals(["PUT", "PATCH"]), path: Schema.String, body: Schema.Unknown }))
)

type Stored = typeof Stored.Type

/** By which paths a machine opens its drives. */
const pathsOf = (stored: Stored): ReadonlyMap<string, string> =>
  new Map(
    stored.flatMap(({ body }) =>
      Option.match(Schema.decodeUnknownOption(PartialDrive)(body), {
        onNone: () => [],
        onSome: ({ drive_id, path_on_host }) => [[drive_id, path_on_host] as const]
      })
    )
  )

/** Whether its memory is of huge pages, which come back from no file. */
const hasHugePages = (stored: Stored): boolean =>
  stored.some(({ body }) =>
    Option.exists(Schema.decodeUnknownOption(MachineConfiguration)(body), ({ huge_pages }) => huge_pages === "2M")
  )

const states: Readonly<Record<InstanceInfo["state"], GuestState>> = {
  "Not started": "created",
  Running: "running",
  Paused: "paused"
}

const faultOf = (body: string): string =>
  Option.match(Schema.decodeUnknownOption(Schema.fromJsonString(Fault))(body), {
    onNone: () => body,
    onSome: ({ fault_message }) => fault_message
  })

/** Whether a file is an ELF one: the only kernels that it boots on this architecture. One that cannot be read is told of elsewhere. */
const isKernel = (path: string): boolean => {
  if (process.arch !== "x64") return true
  try {
    const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const start = Buffer.alloc(4)
      return readSync(file, start, 0, 4, 0) < 4 || start.toString("latin1") === "\x7fELF"
    } finally {
      closeSync(file)
    }
  } catch {
    return true
  }
}

/** Its socket to where it can reach it no more. Done twice, or where there is none yet, it is nothing. */
const secure = (directory: string): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    const own = join(directory, OWN)
    const control = join(directory, CONTROL)
    const isSocket = (path: string) =>
      fs.lstat(path).then(
        (stat) => stat.isSocket(),
        () => false
      )
    if (await isSocket(join(own, SOCKET))) await fs.rename(join(own, SOCKET), control)
    if (!(await isSocket(control))) return false
    if (Launching.isRoot) await fs.chown(own, 0, 0)
    return true
  })

const controlOf = (api: RestSocket.RestSocket, stored: Stored, lending: Lending.Lending): Control => {
  const state = Effect.map(Effect.mapError(api.ask("/", InstanceInfo), RestSocket.lost), ({ state }) => states[state])
  const change = (to: "Paused" | "Resumed") =>
    Effect.mapError(api.send("PATCH", "/vm", { body: { state: to }, deadline: STARTING }), RestSocket.lost)
  const act = (action: "InstanceStart" | "SendCtrlAltDel") =>
    Effect.mapError(api.send("PUT", "/actions", { body: { action_type: action }, deadline: STARTING }), RestSocket.lost)
  const resume = Effect.flatMap(state, (now) => (now === "created" ? act("InstanceStart") : change("Resumed")))
  const pause = change("Paused")
  const ask = (path: string, body: unknown) =>
    Effect.mapError(api.send("PUT", path, { body, deadline: SAVING }), RestSocket.lost)
  const write = (directory: string) =>
    ask("/snapshot/create", {
      snapshot_type: "Full",
      snapshot_path: `${directory}/state`,
      mem_file_path: `${directory}/memory`
    })
  const load = (file: string) =>
    MemoryFiles.load(lending, { memory: file, state: `${file}state` }, (directory) =>
      ask("/snapshot/load", {
        snapshot_path: `${directory}/state`,
        mem_backend: { backend_path: `${directory}/memory`, backend_type: "File" },
        resume_vm: false
      })
    )
  const model = Effect.succeed({ type: "firecracker", slots: [] })
  return {
    state,
    // it says nothing by itself, and ends with its guest
    events: Effect.succeed(Stream.never),
    resume,
    pause,
    reset: Effect.fail(new ControlLost({ command: "reset", detail: "Firecracker cannot reset a machine" })),
    powerButton: act("SendCtrlAltDel"),
    memory: hasHugePages(stored)
      ? undefined
      : MemoryFiles.make({ lending, names: FILES, state, pause, resume, write }, { load, model }),
    lost: Effect.never,
    ...noHotPlug("Firecracker"),
    shape: Resize.make(api, pathsOf(stored))
  }
}

export const driver = Effect.fnUntraced(function* (
  options: NeedsKvm.Options
): Effect.fn.Return<Driver, never, Processes | Cgroups> {
  const processes = yield* Processes
  const launching = yield* Launching.make

  const { facts, sees } = NeedsKvm.examine(processes, launching, options, {
    name: "firecracker",
    capabilities,
    trial: (path, sees) =>
      launching.trial(
        join(options.directory, "firecracker"),
        [
          Accelerator.KERNEL,
          Buffer.from(
            JSON.stringify(
              Schema.encodeSync(ConfigFile)({
                "boot-source": { kernel_image_path: Launching.nameOf(3) },
                "machine-config": { vcpu_count: 1, mem_size_mib: 64 },
                drives: []
              })
            )
          )
        ],
        [path, "--no-api", "--config-file", Launching.nameOf(4), "--level", "Error"],
        sees
      )
  })

  const prepared = ({ directory, user }: Place, isIncoming: boolean) =>
    Effect.tryPromise({
      try: async () => {
        await fs.rm(join(directory, INCOMING), { force: true })
        if (isIncoming) await fs.writeFile(join(directory, INCOMING), "", { mode: 0o600 })
        const own = join(directory, OWN)
        await fs.rm(own, { recursive: true, force: true })
        await fs.rm(join(directory, CONTROL), { force: true })
        await fs.mkdir(own, { recursive: true, mode: 0o700 })
        if (Launching.isRoot) await fs.chown(own, user, user)
        return own
      },
      catch: (error) => new PlaceFailed({ detail: String(error) })
    })

  return {
    name: "firecracker",
    facts,
    refusals: (machine) => [
      ...beyond("Firecracker", capabilities, machine),
      ...(machine.boot._tag === "Kernel" && !isKernel(machine.boot.kernel)
        ? [{ field: "boot", problem: "Firecracker boots no compressed kernel: give a vmlinux (ELF)" }]
        : []),
      ...(machine.hugepageBytes !== undefined && machine.hugepageBytes !== HUGE_PAGE
        ? [{ field: "hugepages", problem: "Firecracker has those of 2 MiB alone" }]
        : []),
      ...(machine.cpus > MOST_CPUS ? [{ field: "cpus", problem: `Firecracker has at most ${MOST_CPUS}` }] : []),
      ...machine.disks.flatMap(({ serial }, index) =>
        serial === undefined ? [] : [{ field: `disks[${index}].serial`, problem: "Firecracker has none of one's own" }]
      )
    ],
    launch: Effect.fn("Firecracker.launch")(function* (request) {
      const { path, problem } = yield* facts
      if (problem !== undefined) return yield* new HypervisorMissing({ detail: problem })
      const { machine, place } = request
      const { files, requests } = Requests.make(machine)
      yield* Launching.write(place, REQUESTS, Schema.encodeSync(Stored)(requests))
      const descriptor = 3 + files.length
      const handed = [
        ...files,
        { descriptor, path: yield* prepared(place, request.incoming !== undefined), kind: "dir" } as const
      ]
      const socket = `${Launching.nameOf(descriptor)}/${SOCKET}`
      const words = [path, "--id", machine.name, "--api-sock", socket, "--level", "Error"]
      return yield* launching.spawn(request, { files: handed, network: "none", byName: true, sees: sees(), words })
    }),
    control: Effect.fn("Firecracker.control")(function* (directory, process) {
      const api = RestSocket.make({ path: join(directory, CONTROL), fault: faultOf })
      const reached = Effect.flatMap(secure(directory), (made) =>
        made
          ? api.ask("/", InstanceInfo)
          : new RestSocket.RestFailed({ request: "GET /", reason: "unreachable", detail: "it has made no socket" })
      )
      const info = yield* answered(process, reached, RestSocket.lost)
      const stored = yield* Effect.tryPromise(() => fs.readFile(join(directory, REQUESTS), "utf8")).pipe(
        Effect.flatMap(Schema.decodeUnknownEffect(Stored)),
        Effect.mapError(({ message }) => new ControlLost({ command: "configure", detail: message }))
      )
      if (info.state === "Not started" && !existsSync(join(directory, INCOMING))) {
        // asking for the same again is fine: each replaces what was asked for before
        for (const { body, method, path } of stored)
          yield* Effect.mapError(api.send(method, path, { body }), RestSocket.lost)
      }
      return controlOf(api, stored, Lending.make(processes, directory, process))
    }),
    endOf: (_directory, exit) =>
      Effect.succeed(ProcessExit.isSuccess(exit) ? Option.some<GuestState>("powered-off") : Option.none()),
    release: launching.release
  }
})
