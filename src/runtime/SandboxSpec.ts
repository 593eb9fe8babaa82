/**
 * What a person asks for when they ask for a sandbox: the place where containers that belong together run. They share
 * its network namespace and its cgroup.
 *
 * A container that names no sandbox gets one of its own, called like the container, without network, gone with it.
 *
 * Traps: names of sandboxes and containers are DNS labels, so that they can be path segments, cgroup names and host
 * names as they are. `network: "host"` shares the host's network without any isolation.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Labels, WorkloadName } from "../storage/Workload.ts"

/** `none`: a network namespace with nothing but loopback; `host`: the host's own network. */
export const NetworkMode = Schema.Literals(["none", "host"])
export type NetworkMode = typeof NetworkMode.Type

export class SandboxSpec extends Schema.Class<SandboxSpec>("ironwood/SandboxSpec")({
  name: WorkloadName,
  network: NetworkMode.pipe(Schema.withDecodingDefaultKey(Effect.succeed("none" as const))),
  /** What `hostname` says inside; default: the container's name. With the host's network it is the host's. */
  hostname: Schema.optionalKey(WorkloadName),
  labels: Labels.pipe(Schema.withDecodingDefaultKey(Effect.succeed({})))
}) {}
