/**
 * Firecracker's API as a state machine, without Firecracker: what it takes, when, and what it says. From its description
 * (`src/firecracker/swagger/firecracker.yaml`), `src/vmm/src/rpc_interface.rs` and docs/snapshotting, with the same words in refusals.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import {
  Balloon,
  BalloonUpdate,
  BootSource,
  Drive,
  InstanceAction,
  type InstanceInfo,
  MachineConfiguration,
  PartialDrive,
  requests,
  SnapshotCreate,
  SnapshotLoad,
  VmStateChange
} from "../../../src/vmm/firecracker/Api.ts"
import type { Answer, Rules, World } from "./Rules.ts"

const BEFORE = "The requested operation is not supported before starting the microVM."
const AFTER = "The requested operation is not supported after starting the microVM."
const NOT_FIRST = "Loading a microVM snapshot not allowed after configuring boot-specific resources."

const fault = (message: string): Answer => ({ status: 400, body: { fault_message: message } })
const done: Answer = { status: 204 }

/** What it writes of a machine; a real one does so in bytes of its own. */
const Machine = Schema.fromJsonString(
  Schema.Struct({ drives: Schema.Array(Drive), balloon: Schema.NullOr(Balloon), config: MachineConfiguration })
)

export const make = (id: string, world: World): Rules => {
  let state: InstanceInfo["state"] = "Not started"
  let source: BootSource | undefined
  let config: MachineConfiguration = { vcpu_count: 1, mem_size_mib: 128 }
  let balloon: Balloon | undefined
  const drives = new Map<string, Drive>()
  let isConfigured = false

  const decode = <A>(schema: Schema.Codec<A, unknown>, text: string | undefined) =>
    Result.mapError(
      Schema.decodeUnknownResult(Schema.fromJsonString(schema), { onExcessProperty: "error" })(text),
      ({ message }) => fault(`An error occurred when deserializing the json body of a request: ${message}.`)
    )

  /** Why a drive cannot be opened. */
  const opened = ({ is_read_only, path_on_host }: Drive) => world.open(path_on_host, !is_read_only)

  const act = (action: (typeof InstanceAction.Type)["action_type"]): Answer => {
    if (action === "SendCtrlAltDel") {
      if (state === "Not started") return fault(BEFORE)
      world.press()
      return done
    }
    if (state !== "Not started") return fault(AFTER)
    if (source === undefined) {
      return fault("Start microvm error: Cannot start microvm without kernel configuration.")
    }
    state = "Running"
    world.boot(source.boot_args ?? "")
    return done
  }

  const create = ({ mem_file_path, snapshot_path }: typeof SnapshotCreate.Type): Answer => {
    if (state !== "Paused") {
      return fault("Create snapshot error: Cannot perform a snapshot while the microVM is running.")
    }
    const text = Schema.encodeSync(Machine)({ drives: [...drives.values()], balloon: balloon ?? null, config })
    const problem = world.write(snapshot_path, text) ?? world.write(mem_file_path, world.memory())
    return problem === undefined ? done : fault(`Create snapshot error: ${problem}`)
  }

  /** One that fails ends it. */
  const load = ({ mem_backend, resume_vm, snapshot_path }: typeof SnapshotLoad.Type): Answer => {
    const lost = (why: string): Answer => {
      world.exit(1)
      return fault(`Load snapshot error: ${why}`)
    }
    const found = Schema.decodeResult(Machine)(world.read(snapshot_path) ?? "")
    if (Result.isFailure(found)) return lost("Failed to restore from snapshot: Failed to get snapshot state from file")
    const memory = world.read(mem_backend.backend_path)
    if (memory === undefined) return lost("Failed to load guest memory")
    if (found.success.config.huge_pages === "2M")
      return lost("Cannot restore hugetlbfs backed snapshot by mapping the memory file.")
    for (const drive of found.success.drives) {
      const problem = opened(drive)
      if (problem !== undefined) return lost(`Unable to open the backing file: ${problem}`)
      drives.set(drive.drive_id, drive)
    }
    balloon = found.success.balloon ?? undefined
    config = found.success.config
    state = resume_vm ? "Running" : "Paused"
    world.recall(memory)
    world.halt(!resume_vm)
    return done
  }

  const put = (path: string, body: unknown): Answer => {
    isConfigured = true
    if (path === "/boot-source" && Schema.is(BootSource)(body)) source = body
    if (path === "/machine-config" && Schema.is(MachineConfiguration)(body)) {
      if (body.huge_pages === "2M" && body.mem_size_mib % 2 !== 0) {
        return fault("The memory size (MiB) is invalid: it is no multiple of the size of its pages.")
      }
      config = body
    }
    if (path === "/balloon" && Schema.is(Balloon)(body)) balloon = body
    if (path.startsWith("/drives/") && Schema.is(Drive)(body)) {
      if (body.drive_id !== path.slice("/drives/".length)) {
        return fault("The id from the path [] does not match the id from the body []!")
      }
      const problem = opened(body)
      if (problem !== undefined) return fault(`Unable to create the block device: ${problem}`)
      drives.set(body.drive_id, body)
    }
    return done
  }

  const patch = (path: string, body: unknown): Answer => {
    if (Schema.is(PartialDrive)(body)) {
      const drive = drives.get(body.drive_id)
      if (drive === undefined || path !== `/drives/${body.drive_id}`) {
        return fault("Unable to patch the block device: Device not found.")
      }
      const next = { ...drive, path_on_host: body.path_on_host }
      const problem = opened(next)
      if (problem !== undefined) return fault(`Unable to patch the block device: ${problem}`)
      drives.set(body.drive_id, next)
      return done
    }
    if (Schema.is(BalloonUpdate)(body)) {
      if (balloon === undefined) return fault("No balloon device found.")
      if (body.amount_mib > config.mem_size_mib) return fault("Amount of pages requested is too large.")
      balloon = { ...balloon, amount_mib: body.amount_mib }
    }
    return done
  }

  return {
    answer: (method, path, text) => {
      if (method === "GET" && path === "/") {
        return { status: 200, body: { app_name: "Firecracker", id, state, vmm_version: "1.17.0-dev" } }
      }
      if (method === "GET" && path === "/balloon") {
        return balloon === undefined ? fault("No balloon device found.") : { status: 200, body: balloon }
      }
      const request = requests.find((one) => one.method === method && one.path.test(path))
      if (request === undefined) return fault(`Invalid request method and/or path: ${method} ${path}.`)
      const found = decode<unknown>(request.body, text)
      if (Result.isFailure(found)) return found.failure
      const body = found.success
      if ((request.when === "before" || request.when === "first") && state !== "Not started") return fault(AFTER)
      if (request.when === "first" && isConfigured) return fault(NOT_FIRST)
      if (request.when === "after" && state === "Not started") return fault(BEFORE)
      if (path === "/actions" && Schema.is(InstanceAction)(body)) return act(body.action_type)
      if (Schema.is(SnapshotLoad)(body)) return load(body)
      if (Schema.is(SnapshotCreate)(body)) return create(body)
      if (Schema.is(VmStateChange)(body)) {
        state = body.state === "Paused" ? "Paused" : "Running"
        world.halt(state === "Paused")
        return done
      }
      return method === "PUT" ? put(path, body) : patch(path, body)
    }
  }
}
