/**
 * Cloud Hypervisor's API as a state machine, without Cloud Hypervisor: what it takes, when, and what it says. From its description
 * (`vmm/src/api/openapi/cloud-hypervisor.yaml`), the states of `vmm/src/vm.rs`, `resize` of `cpu.rs` and `memory_manager.rs`, and the
 * bodies of errors of `vmm/src/api/http/mod.rs`. A real one passes over fields that it does not know; this one refuses them.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import {
  DiskConfig,
  MEMORY_BLOCK,
  RestoreConfig,
  ROOT,
  snapshotFiles,
  VmConfig,
  type VmInfo,
  VmRemoveDevice,
  VmResize,
  VmResizeDisk,
  VmSnapshotConfig
} from "../../../src/vmm/cloud-hypervisor/Api.ts"
import { ofMachine, problemOf, Restored } from "./CloudHypervisorConfig.ts"
import type { Answer, Rules, World } from "./Rules.ts"

const done: Answer = { status: 204 }
const error = (status: number, ...chain: ReadonlyArray<string>): Answer => ({ status, body: chain })
const api = (what: string, why: string, status = 500): Answer => error(status, "Error from API", what, why)

const State = Schema.fromJsonString(Schema.Struct({ devices: Schema.Array(Schema.String), vcpus: Schema.Int }))

const decode = <A>(schema: Schema.Codec<A, string>, text: string) =>
  Schema.decodeResult(schema, { onExcessProperty: "error" })(text)

/** `ended`: the world's to call when the guest has switched itself off or begun anew. */
export interface CloudHypervisorRules extends Rules {
  readonly poweredOff: () => void
  readonly rebooted: () => void
}

export const make = (noShutdown: boolean, world: World): CloudHypervisorRules => {
  let config: VmConfig | undefined
  /** Undefined: none is booted. */
  let running: "Running" | "Paused" | undefined
  /** The devices that the guest has, also those on their way out. */
  let tree = new Set<string>()
  let plugged = 0
  /** The processors that the guest has. */
  let vcpus = 0
  let leaving = false

  const boot = (): string | undefined => {
    if (config === undefined) return undefined
    const problem = ofMachine(config).flatMap(([path, writes]) => world.open(path, writes) ?? [])[0]
    if (problem !== undefined) return problem
    world.event("vm", "booting")
    running = "Running"
    tree = new Set((config.disks ?? []).map(({ id }) => id))
    vcpus = config.cpus.boot_vcpus
    leaving = false
    world.event("vm", "booted")
    world.boot(config.payload.cmdline ?? "")
    return undefined
  }
  const shutDown = (): void => {
    running = undefined
    world.halt(true)
    world.event("vm", "shutdown")
  }
  const end = (): void => {
    if (running !== undefined) shutDown()
    world.event("vmm", "shutdown")
    world.exit(0)
  }
  const reboot = (): void => {
    world.event("vm", "rebooting")
    shutDown()
    boot()
    world.event("vm", "rebooted")
  }

  /** A request to a machine that is booted. */
  const act = (what: string, run: (config: VmConfig) => Answer): Answer =>
    config === undefined
      ? api(what, "VM is not created", 404)
      : running === undefined
        ? api(what, "VM is not running")
        : run(config)

  const commands: Readonly<Record<string, () => Answer>> = {
    "/vm.boot": () => {
      if (config === undefined) return api("The VM could not boot", "VM is not created", 404)
      if (running !== undefined) return api("The VM could not boot", "Invalid VM state transition")
      const problem = boot()
      return problem === undefined ? done : api("The VM could not boot", problem)
    },
    "/vm.pause": () =>
      act("The VM could not be paused", () => {
        if (running !== "Running") return api("The VM could not be paused", "Invalid VM state transition")
        world.event("vm", "pausing")
        running = "Paused"
        world.halt(true)
        world.event("vm", "paused")
        return done
      }),
    "/vm.resume": () =>
      act("The VM could not resume", () => {
        if (running !== "Paused") return api("The VM could not resume", "Invalid VM state transition")
        running = "Running"
        world.halt(false)
        world.event("vm", "resumed")
        return done
      }),
    "/vm.reboot": () =>
      act("The VM could not reboot", () => {
        reboot()
        return done
      }),
    "/vm.shutdown": () =>
      act("The VM could not shutdown", () => {
        shutDown()
        return done
      }),
    "/vm.power-button": () =>
      act("The power button could not be pressed", () => {
        world.press()
        return done
      }),
    "/vmm.shutdown": () => {
      end()
      return { status: 200 }
    }
  }

  const create = (found: VmConfig): Answer => {
    const what = "The VM could not be created"
    if (config !== undefined) return api(what, "VM is already created")
    const problem = problemOf(found)
    if (problem !== undefined) return api(what, problem)
    config = found
    plugged = 0
    return done
  }

  const addDisk = (disk: typeof DiskConfig.Type): Answer => {
    const what = "The disk could not be added to the VM"
    if (config === undefined) return api(what, "VM is not created", 404)
    const known = new Set([...(config.disks ?? []).map(({ id }) => id), ...tree])
    if (known.has(disk.id)) return api(what, `Identifier ${disk.id} is not unique`, 409)
    if (running === undefined) {
      config = { ...config, disks: [...(config.disks ?? []), disk] }
      return done
    }
    const problem = world.open(disk.path, !disk.readonly)
    if (problem !== undefined) return api(what, `Cannot open disk path: ${problem}`)
    config = { ...config, disks: [...(config.disks ?? []), disk] }
    tree.add(disk.id)
    return { status: 200, body: { id: disk.id, bdf: "0000:00:07.0" } }
  }

  const removeDevice = ({ id }: typeof VmRemoveDevice.Type): Answer => {
    const what = "The device could not be removed from the VM"
    if (config === undefined) return api(what, "VM is not created", 404)
    const isConfigured = (config.disks ?? []).some((disk) => disk.id === id)
    if (!tree.has(id) && !isConfigured) return api(what, `Unknown device id: ${id}`, 404)
    config = { ...config, disks: (config.disks ?? []).filter((disk) => disk.id !== id) }
    if (running !== undefined) world.ask(() => void tree.delete(id))
    return done
  }

  const resize = ({ desired_balloon, desired_ram, desired_vcpus }: typeof VmResize.Type): Answer => {
    const what = "The VM could not be resized"
    return act(what, (present) => {
      if (desired_vcpus !== undefined && desired_vcpus !== vcpus) {
        if (leaving) return error(429, "Too many requests")
        if (desired_vcpus > present.cpus.max_vcpus) return api(what, "Desired vCPU count exceeds maximum")
        if (desired_vcpus > vcpus) vcpus = desired_vcpus
        else {
          leaving = true
          world.ask(() => {
            vcpus = desired_vcpus
            leaving = false
          })
        }
        config = { ...present, cpus: { ...present.cpus, boot_vcpus: desired_vcpus } }
      }
      // less than it was started with is passed over
      if (desired_ram !== undefined && desired_ram >= present.memory.size) {
        const wanted = desired_ram - present.memory.size
        if (wanted > (present.memory.hotplug_size ?? 0)) return api(what, "Insufficient space for hotplug RAM")
        if (wanted % MEMORY_BLOCK !== 0) return api(what, "Failed to virtio-mem resize: Invalid requested size")
        plugged = wanted
      }
      if (desired_balloon !== undefined) {
        if (present.balloon === undefined) return api(what, "Missing virtio-balloon, can't proceed as expected")
        if (desired_balloon > present.memory.size + plugged) return api(what, "Requested size exceeds total RAM")
        config = { ...(config ?? present), balloon: { ...present.balloon, size: desired_balloon } }
      }
      return done
    })
  }

  const resizeDisk = ({ desired_size, id }: typeof VmResizeDisk.Type): Answer => {
    const what = "The disk could not be resized"
    return act(what, ({ disks = [] }) => {
      const disk = disks.find((one) => one.id === id)
      if (disk === undefined) return api(what, `Unknown device id: ${id}`, 404)
      if (disk.image_type !== "Raw" || disk.readonly) return api(what, "Resize is not supported")
      const problem = world.grow(disk.path, desired_size)
      return problem === undefined ? done : api(what, problem)
    })
  }

  const directoryOf = (url: string): string | undefined => /^file:\/\/(\/.*)$/.exec(url)?.[1]

  const snapshot = ({ destination_url }: typeof VmSnapshotConfig.Type): Answer => {
    const what = "The VM could not be snapshotted"
    return act(what, (present) => {
      const directory = directoryOf(destination_url)
      if (directory === undefined) return api(what, `Invalid URL: ${destination_url}`)
      if (running !== "Paused") return api(what, "Trying to snapshot while VM is running")
      world.event("vm", "snapshotting")
      const memory = { ...present.memory, ...(plugged === 0 ? {} : { hotplugged_size: plugged }) }
      const files = {
        [snapshotFiles.config]: JSON.stringify({ ...present, memory }),
        [snapshotFiles.state]: JSON.stringify({ devices: [...tree], vcpus }),
        [snapshotFiles.memory]: world.memory()
      }
      for (const [name, text] of Object.entries(files)) {
        const problem = world.write(`${directory}/${name}`, text)
        if (problem !== undefined) return api(what, problem)
      }
      world.event("vm", "snapshotted")
      return done
    })
  }

  const restore = ({ source_url }: typeof RestoreConfig.Type): Answer => {
    const what = "The VM could not be restored"
    if (config !== undefined) return api(what, "VM is already created", 404)
    const directory = directoryOf(source_url)
    if (directory === undefined) return api(what, `Invalid URL: ${source_url}`)
    const read = (name: string) => world.read(`${directory}/${name}`) ?? ""
    const found = decode(Restored, read(snapshotFiles.config))
    const state = decode(State, read(snapshotFiles.state))
    if (Result.isFailure(found) || Result.isFailure(state)) return api(what, "Failed to deserialize the snapshot")
    const { hotplugged_size = 0, ...memory } = found.success.memory
    const whole = { ...found.success, memory }
    const problem = problemOf(whole) ?? ofMachine(whole).flatMap(([path, writes]) => world.open(path, writes) ?? [])[0]
    if (problem !== undefined) return api(what, problem, 400)
    const ids = (whole.disks ?? []).map(({ id }) => id)
    if (ids.toSorted().join() !== state.success.devices.toSorted().join()) return api(what, "Missing device node")
    const text = world.read(`${directory}/${snapshotFiles.memory}`)
    if (text === undefined) return api(what, "Cannot open the memory")
    world.event("vm", "restoring")
    config = whole
    plugged = hotplugged_size
    tree = new Set(ids)
    vcpus = state.success.vcpus
    running = "Paused"
    world.recall(text)
    world.event("vm", "restored")
    return done
  }

  const info = (): Answer => {
    if (config === undefined) return api("The VM info is not available", "VM is not created", 404)
    const state: VmInfo["state"] = running ?? "Created"
    const { balloon = null, disks = null, memory } = config
    const nodes = [...tree].flatMap((id) => [
      [id, { id, resources: [], children: [], pci_bdf: null }],
      [`_virtio-pci-${id}`, { id: `_virtio-pci-${id}`, resources: [], children: [id], pci_bdf: "0000:00:07.0" }]
    ])
    const body = {
      config: { ...config, balloon, disks, memory: { ...memory, hotplugged_size: plugged === 0 ? null : plugged } },
      state,
      memory_actual_size: memory.size + plugged - (balloon?.size ?? 0),
      device_tree: running === undefined ? null : Object.fromEntries(nodes)
    }
    return { status: 200, body }
  }

  /** A PUT whose body is this. */
  const taking =
    <A, I>(schema: Schema.Codec<A, I>, run: (body: A) => Answer) =>
    (text: string): Answer => {
      const decoded = decode(Schema.fromJsonString(schema), text)
      return Result.isFailure(decoded)
        ? error(400, "Failed to deserialize JSON", decoded.failure.message)
        : run(decoded.success)
    }
  const bodies: Readonly<Record<string, (text: string) => Answer>> = {
    "/vm.create": taking(VmConfig, create),
    "/vm.add-disk": taking(DiskConfig, addDisk),
    "/vm.remove-device": taking(VmRemoveDevice, removeDevice),
    "/vm.resize": taking(VmResize, resize),
    "/vm.resize-disk": taking(VmResizeDisk, resizeDisk),
    "/vm.snapshot": taking(VmSnapshotConfig, snapshot),
    "/vm.restore": taking(RestoreConfig, restore)
  }

  return {
    answer: (method, fullPath, text) => {
      if (!fullPath.startsWith(`${ROOT}/`)) return error(404, "Not Found")
      const path = fullPath.slice(ROOT.length)
      if (path === "/vm.info") return method === "GET" ? info() : error(400, "Bad Request")
      if (path === "/vmm.ping") {
        return method === "GET"
          ? { status: 200, body: { build_version: "v53.0", version: "53.0.0", pid: process.pid, features: ["kvm"] } }
          : error(400, "Bad Request")
      }
      const taken = bodies[path]
      if (taken !== undefined) return method === "PUT" && text !== undefined ? taken(text) : error(400, "Bad Request")
      const command = commands[path]
      if (command === undefined) return error(404, "Not Found")
      return method === "PUT" && text === undefined ? command() : error(400, "Bad Request")
    },
    poweredOff: () => (noShutdown ? shutDown() : end()),
    rebooted: reboot
  }
}
