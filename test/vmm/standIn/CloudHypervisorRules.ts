/**
 * Cloud Hypervisor's API as a state machine, without Cloud Hypervisor: what it takes, when, and what it says. From its description
 * (`vmm/src/api/openapi/cloud-hypervisor.yaml`), the states of `vmm/src/vm.rs` and the bodies of errors of
 * `vmm/src/api/http/mod.rs`. A real one passes over fields that it does not know; this one refuses them.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { ROOT, VmConfig, type VmInfo } from "../../../src/vmm/cloud-hypervisor/Api.ts"
import type { Answer, Rules, World } from "./Rules.ts"

const done: Answer = { status: 204 }
const error = (status: number, ...chain: ReadonlyArray<string>): Answer => ({ status, body: chain })
const api = (what: string, why: string, status = 500): Answer => error(status, "Error from API", what, why)

const decode = Schema.decodeUnknownResult(Schema.fromJsonString(VmConfig), { onExcessProperty: "error" })

/** `ended`: the world's to call when the guest has switched itself off or begun anew. */
export interface CloudHypervisorRules extends Rules {
  readonly poweredOff: () => void
  readonly rebooted: () => void
}

export const make = (noShutdown: boolean, world: World): CloudHypervisorRules => {
  let config: VmConfig | undefined
  /** Undefined: none is booted. */
  let running: "Running" | "Paused" | undefined

  const boot = (): void => {
    if (config === undefined) return
    world.event("vm", "booting")
    running = "Running"
    world.event("vm", "booted")
    world.boot(config.payload.cmdline ?? "")
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

  /** A PUT without a body to a machine that is booted. */
  const act = (what: string, run: () => Answer): Answer =>
    config === undefined
      ? api(what, "VM is not created", 404)
      : running === undefined
        ? api(what, "VM is not running")
        : run()

  const commands: Readonly<Record<string, () => Answer>> = {
    "/vm.boot": () => {
      if (config === undefined) return api("The VM could not boot", "VM is not created", 404)
      if (running !== undefined) return api("The VM could not boot", "Invalid VM state transition")
      boot()
      return done
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

  const create = (text: string | undefined): Answer => {
    if (text === undefined) return { status: 400 }
    const decoded = decode(text)
    if (Result.isFailure(decoded)) return error(400, "Failed to deserialize JSON", decoded.failure.message)
    if (config !== undefined) return api("The VM could not be created", "VM is already created")
    const { cpus, payload } = decoded.success
    if (cpus.boot_vcpus > cpus.max_vcpus) {
      return api("The VM could not be created", "Max CPUs greater than boot CPUs")
    }
    if (payload.kernel === undefined && payload.firmware === undefined) {
      return api("The VM could not be created", "Payload configuration is not bootable")
    }
    config = decoded.success
    return done
  }

  const info = (): Answer => {
    const state: VmInfo["state"] = running ?? "Created"
    return config === undefined
      ? api("The VM info is not available", "VM is not created", 404)
      : { status: 200, body: { config, state, memory_actual_size: config.memory.size } }
  }

  return {
    answer: (method, fullPath, text) => {
      if (!fullPath.startsWith(`${ROOT}/`)) return error(404, "Not Found")
      const path = fullPath.slice(ROOT.length)
      if (path === "/vm.create") return method === "PUT" ? create(text) : error(400, "Bad Request")
      if (path === "/vm.info") return method === "GET" ? info() : error(400, "Bad Request")
      if (path === "/vmm.ping") {
        return method === "GET"
          ? { status: 200, body: { build_version: "v53.0", version: "53.0.0", pid: process.pid, features: ["kvm"] } }
          : error(400, "Bad Request")
      }
      const command = commands[path]
      if (command === undefined) return error(404, "Not Found")
      return method === "PUT" && text === undefined ? command() : error(400, "Bad Request")
    },
    poweredOff: () => (noShutdown ? shutDown() : end()),
    rebooted: reboot
  }
}
