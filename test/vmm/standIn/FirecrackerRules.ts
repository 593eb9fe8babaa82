/**
 * Firecracker's API as a state machine, without Firecracker: what it takes, when, and what it says. From its description
 * (`src/firecracker/swagger/firecracker.yaml`) and `src/vmm/src/rpc_interface.rs`, with the same words in refusals.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import {
  BootSource,
  Drive,
  InstanceAction,
  type InstanceInfo,
  requests,
  VmStateChange
} from "../../../src/vmm/firecracker/Api.ts"
import type { Answer, Rules, World } from "./Rules.ts"

const BEFORE = "The requested operation is not supported before starting the microVM."
const AFTER = "The requested operation is not supported after starting the microVM."

const fault = (message: string): Answer => ({ status: 400, body: { fault_message: message } })
const done: Answer = { status: 204 }

export const make = (id: string, world: World): Rules => {
  let state: InstanceInfo["state"] = "Not started"
  let commandLine: string | undefined
  const drives = new Set<string>()

  const decode = <A>(schema: Schema.Codec<A, unknown>, text: string | undefined) =>
    Result.mapError(
      Schema.decodeUnknownResult(Schema.fromJsonString(schema), { onExcessProperty: "error" })(text),
      ({ message }) => fault(`An error occurred when deserializing the json body of a request: ${message}.`)
    )

  const act = (action: (typeof InstanceAction.Type)["action_type"]): Answer => {
    if (action === "SendCtrlAltDel") {
      if (state === "Not started") return fault(BEFORE)
      world.press()
      return done
    }
    if (state !== "Not started") return fault(AFTER)
    if (commandLine === undefined) {
      return fault("Start microvm error: Cannot start microvm without kernel configuration.")
    }
    state = "Running"
    world.boot(commandLine)
    return done
  }

  return {
    answer: (method, path, text) => {
      if (method === "GET" && path === "/") {
        return { status: 200, body: { app_name: "Firecracker", id, state, vmm_version: "1.17.0-dev" } }
      }
      const request = requests.find((one) => one.method === method && one.path.test(path))
      if (request === undefined) return fault(`Invalid request method and/or path: ${method} ${path}.`)
      const found = decode<unknown>(request.body, text)
      if (Result.isFailure(found)) return found.failure
      if (request.when === "before" && state !== "Not started") return fault(AFTER)
      if (request.when === "after" && state === "Not started") return fault(BEFORE)
      if (Schema.is(InstanceAction)(found.success)) return act(found.success.action_type)
      if (Schema.is(VmStateChange)(found.success)) {
        state = found.success.state === "Paused" ? "Paused" : "Running"
        world.halt(state === "Paused")
        return done
      }
      if (Schema.is(BootSource)(found.success) && path === "/boot-source") commandLine = found.success.boot_args ?? ""
      if (path.startsWith("/drives/")) {
        const drive = path.slice("/drives/".length)
        if (Schema.is(Drive)(found.success) && found.success.drive_id !== drive) {
          return fault("The id from the path [] does not match the id from the body []!")
        }
        drives.add(drive)
      }
      return done
    }
  }
}
