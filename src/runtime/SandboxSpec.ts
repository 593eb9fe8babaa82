/**
 * What a person asks for when they ask for a sandbox: the place where containers that belong together run. They share
 * its network and IPC namespaces, `/dev/shm` and its cgroup; where it says so, also the numbers of their processes.
 *
 * A container that names no sandbox gets one of its own, called like the container, without network, gone with it.
 *
 * Traps: names of sandboxes and containers are DNS labels, so that they can be path segments, cgroup names and host
 * names as they are. `network: "host"` shares the host's network without any isolation.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { GracePeriod, Labels, WorkloadName } from "../storage/Workload.ts"

/** `none`: a network namespace with nothing but loopback; `host`: the host's own network. */
export const NetworkMode = Schema.Literals(["none", "host"])
export type NetworkMode = typeof NetworkMode.Type

/** `own`: each container sees its own processes, the first as number 1; `shared`: all see those of all. */
export const ProcessMode = Schema.Literals(["own", "shared"])
export type ProcessMode = typeof ProcessMode.Type

export class SandboxSpec extends Schema.Class<SandboxSpec>("ironwood/SandboxSpec")({
  name: WorkloadName,
  network: NetworkMode.pipe(Schema.withDecodingDefaultKey(Effect.succeed("none" as const))),
  /** What `hostname` says inside; default: the container's name. With the host's network it is the host's. */
  hostname: Schema.optionalKey(WorkloadName),
  processes: ProcessMode.pipe(
    Schema.withConstructorDefault(Effect.succeed("own" as const)),
    Schema.withDecodingDefaultKey(Effect.succeed("own" as const))
  ),
  /** In what time all its containers together stop when it is stopped; default: the longest that one of them has. */
  stopGracePeriod: Schema.optionalKey(GracePeriod),
  labels: Labels.pipe(Schema.withDecodingDefaultKey(Effect.succeed({})))
}) {}
