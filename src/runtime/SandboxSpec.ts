/**
 * What a person asks for when they ask for a sandbox: the place where containers that belong together run. They share
 * its network and IPC namespaces, `/dev/shm` and its cgroup; where it says so, also the numbers of their processes.
 *
 * A container that names no sandbox gets one of its own, called like the container, without network, gone with it.
 *
 * Traps: names of sandboxes and containers are DNS labels, so that they can be path segments, cgroup names and host
 * names as they are. `network: "host"` shares the host's network without any isolation; `network: "user"` reaches what the
 * host reaches, and is reached by the ports that are published.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { isIP } from "node:net"
import { GracePeriod, Labels, WorkloadName } from "../storage/Workload.ts"

/** `none`: a network namespace with nothing but loopback; `host`: the host's own network; `user`: see `UserNetworks.ts`. */
export const NetworkMode = Schema.Literals(["none", "host", "user"])
export type NetworkMode = typeof NetworkMode.Type

const port = (minimum: number, expected: string) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum: 65_535 }, { expected })))

/** A port of the host that leads into a sandbox. */
export const PublishedPort = Schema.Struct({
  protocol: Schema.Literals(["tcp", "udp"]).pipe(Schema.withDecodingDefaultKey(Effect.succeed("tcp" as const))),
  /** Where the host listens; all of its addresses by default. */
  hostAddress: Schema.String.pipe(
    Schema.check(Schema.isPattern(/^(\d{1,3}\.){3}\d{1,3}$/, { expected: "an IPv4 address of this host" })),
    Schema.withDecodingDefaultKey(Effect.succeed("0.0.0.0"))
  ),
  /** 0: one that is free as the sandbox is made, and is its own from then on. */
  hostPort: port(0, "a port from 0 to 65535 (0: one that is free)").pipe(
    Schema.withDecodingDefaultKey(Effect.succeed(0))
  ),
  containerPort: port(1, "a port from 1 to 65535")
})
export type PublishedPort = typeof PublishedPort.Type

/** In the place of an address: this host, as the containers of the sandbox reach it. */
export const HOST_GATEWAY = "host-gateway"

const text = (pattern: RegExp, expected: string) =>
  Schema.String.pipe(Schema.check(Schema.isPattern(pattern, { expected })))

const address = (others: ReadonlyArray<string>, expected: string) =>
  Schema.String.pipe(
    Schema.check(
      Schema.makeFilter((one: string) =>
        (isIP(one) !== 0 && !one.includes("%")) || others.includes(one) ? undefined : `Expected ${expected}`
      )
    )
  )

/** A line of `/etc/hosts`. */
export const HostEntry = Schema.Struct({
  name: text(/^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?$/, "a host name of at most 254 characters"),
  address: address([HOST_GATEWAY], `an IP address, or ${HOST_GATEWAY} for this host`)
})
export type HostEntry = typeof HostEntry.Type

const several = <S extends Schema.Top>(one: S, most: number, what: string) =>
  Schema.Array(one).pipe(Schema.check(Schema.isMaxLength(most, { expected: `at most ${most} ${what}` })))

/** What `/etc/resolv.conf` says, where not as the network has it (resolv.conf(5)). */
export const Resolver = Schema.Struct({
  /** More than three are asked by nobody. */
  servers: several(address([], "an IP address"), 3, "servers").pipe(Schema.withDecodingDefaultKey(Effect.succeed([]))),
  search: several(
    text(/^(?:\.|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?)$/, "a domain of at most 254 characters"),
    32,
    "domains"
  ).pipe(Schema.withDecodingDefaultKey(Effect.succeed([]))),
  options: several(
    text(/^[a-z][a-z0-9-]{0,31}(?::\d{1,9})?$/, "an option of resolv.conf(5), like ndots:2"),
    16,
    "options"
  ).pipe(Schema.withDecodingDefaultKey(Effect.succeed([])))
})
export type Resolver = typeof Resolver.Type

const asTheNetwork: Resolver = { servers: [], search: [], options: [] }

/** `namespace`: on the host, in namespaces of its own; `microvm`: in a virtual machine of its own, with a kernel of its own. */
export const IsolationMode = Schema.Literals(["namespace", "microvm"])
export type IsolationMode = typeof IsolationMode.Type

/** Of a microVM; absent: what its containers need. */
export const MicroVmSize = Schema.Struct({
  /** Memory of the whole guest in bytes; from 128 MiB. */
  memoryBytes: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(
        Schema.isBetween(
          { minimum: 128 * 1024 * 1024, maximum: 2 ** 42 },
          { expected: "a number of bytes from 134217728 (128 MiB) to 2^42" }
        )
      )
    )
  ),
  cpus: Schema.optionalKey(
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 64 }, { expected: "a number from 1 to 64" })))
  ),
  /** A file of the host with the kernel that it boots; absent: the one that comes with Ironwood. */
  kernel: Schema.optionalKey(
    Schema.String.pipe(
      Schema.check(
        Schema.isPattern(/^\/[^\0]+$/, { expected: "an absolute path" }),
        Schema.isMaxLength(4095, { expected: "at most 4095 characters" })
      )
    )
  ),
  /**
   * Bytes of a disk for what its containers write, which then lasts as long as they do; absent: that is in the guest's memory, and
   * lasts as long as the microVM.
   */
  diskBytes: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(
        Schema.isBetween(
          { minimum: 64 * 1024 * 1024, maximum: 2 ** 44 },
          { expected: "a number of bytes from 67108864 (64 MiB) to 2^44" }
        )
      )
    )
  )
})
export type MicroVmSize = typeof MicroVmSize.Type
/** `own`: each container sees its own processes, the first as number 1; `shared`: all see those of all. */
export const ProcessMode = Schema.Literals(["own", "shared"])
export type ProcessMode = typeof ProcessMode.Type

/** `host`: users inside are those of the host; `private`: users of their own, root among them, who are nobody on the host. */
export const UserNamespaceMode = Schema.Literals(["host", "private"])
export type UserNamespaceMode = typeof UserNamespaceMode.Type

export class SandboxSpec extends Schema.Class<SandboxSpec>("ironwood/SandboxSpec")({
  name: WorkloadName,
  network: NetworkMode.pipe(Schema.withDecodingDefaultKey(Effect.succeed("none" as const))),
  isolation: IsolationMode.pipe(
    Schema.withConstructorDefault(Effect.succeed("namespace" as const)),
    Schema.withDecodingDefaultKey(Effect.succeed("namespace" as const))
  ),
  microvm: MicroVmSize.pipe(
    Schema.withConstructorDefault(Effect.succeed({})),
    Schema.withDecodingDefaultKey(Effect.succeed({}))
  ),
  /** What `hostname` says inside; default: the container's name. With the host's network it is the host's. */
  hostname: Schema.optionalKey(WorkloadName),
  processes: ProcessMode.pipe(
    Schema.withConstructorDefault(Effect.succeed("own" as const)),
    Schema.withDecodingDefaultKey(Effect.succeed("own" as const))
  ),
  userNamespace: UserNamespaceMode.pipe(
    Schema.withConstructorDefault(Effect.succeed("host" as const)),
    Schema.withDecodingDefaultKey(Effect.succeed("host" as const))
  ),
  /** Of the host, for `network: "user"`. */
  ports: Schema.Array(PublishedPort).pipe(
    Schema.check(Schema.isMaxLength(64, { expected: "at most 64 ports" })),
    Schema.withConstructorDefault(Effect.succeed([])),
    Schema.withDecodingDefaultKey(Effect.succeed([]))
  ),
  /** Names that its containers know besides. */
  hosts: several(HostEntry, 64, "names").pipe(
    Schema.withConstructorDefault(Effect.succeed([])),
    Schema.withDecodingDefaultKey(Effect.succeed([]))
  ),
  dns: Resolver.pipe(
    Schema.withConstructorDefault(Effect.succeed(asTheNetwork)),
    Schema.withDecodingDefaultKey(Effect.succeed(asTheNetwork))
  ),
  /** In what time all its containers together stop when it is stopped; default: the longest that one of them has. */
  stopGracePeriod: Schema.optionalKey(GracePeriod),
  labels: Labels.pipe(Schema.withDecodingDefaultKey(Effect.succeed({})))
}) {}
