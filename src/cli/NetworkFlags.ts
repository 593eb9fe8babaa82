/**
 * The flags that say how the containers of a sandbox reach the network, by which names, and how they are reached; and the same in
 * a list.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Flag from "effect/cli/Flag"
import {
  type HostEntrySchema,
  NetworkMode,
  type PublishedPort,
  type PublishedPortSchema,
  type Sandbox
} from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { type Checked, checked } from "./FlagProblems.ts"
import * as Text from "./Text.ts"

const networks: ReadonlyMap<string, NetworkMode> = new Map([
  ["none", NetworkMode.NONE],
  ["host", NetworkMode.HOST],
  ["user", NetworkMode.USER]
])

const parseNetwork = (text: string): Result.Result<NetworkMode, string> =>
  Result.fromOption(Option.fromUndefinedOr(networks.get(text)), () => [...networks.keys()].join(" or "))

/** `[ADDRESS:]HOST-PORT:PORT[/udp]`, as `--publish` of virtual machines has it. */
export const parsePorts = (text: string, example: string) => {
  const match = /^(?:([\d.]+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text)
  if (match === null) return Result.fail(`[ADDRESS:]HOST-PORT:PORT[/udp], such as ${example}`)
  const [, hostAddress = "", hostPort, inside, protocol = ""] = match
  return Result.succeed({ hostAddress, hostPort: Number(hostPort), inside: Number(inside), protocol })
}

type Port = MessageInitShape<typeof PublishedPortSchema>

/** `80`, `80/udp`: the image's and docker's way to name a port inside. */
const portInside = (text: string): Port | undefined => {
  const [, port, protocol = ""] = /^(\d{1,5})(?:\/(tcp|udp))?$/.exec(text) ?? []
  return port === undefined ? undefined : { containerPort: Number(port), protocol }
}

/** `8080:80`, `127.0.0.1:8080:80/udp`; `80` and `127.0.0.1::80` leave the port of the host to it. */
const parsePublish = (text: string): Result.Result<Port, string> => {
  const [, hostAddress = "", rest = ""] = /^(?:([\d.]+)::)?(.+)$/.exec(text) ?? []
  const free = portInside(rest)
  if (free !== undefined) return Result.succeed({ ...free, hostAddress })
  return Result.map(
    Result.mapError(
      parsePorts(text, "8080:80"),
      (expected) => `${expected}, or 80 for a port of the host that is free`
    ),
    ({ inside, ...host }) => ({ ...host, containerPort: inside })
  )
}

/** The ports that an image names, each to be published on one of the host that is free. Others than TCP and UDP are left out. */
export const portsOfImage = (exposed: ReadonlyArray<string>, published: ReadonlyArray<Port>): ReadonlyArray<Port> =>
  exposed.flatMap((text) => {
    const port = portInside(text)
    const isThere = published.some(
      ({ containerPort, protocol }) =>
        containerPort === port?.containerPort && (protocol || "tcp") === (port?.protocol || "tcp")
    )
    return port === undefined || isThere ? [] : [port]
  })

/** `NAME:ADDRESS`, also `NAME=ADDRESS` and `NAME:[::1]`, as docker has them. */
const parseHost = (text: string): Result.Result<MessageInitShape<typeof HostEntrySchema>, string> => {
  const [, name, address = ""] = /^([^:=]+)[:=](.+)$/.exec(text) ?? []
  return name === undefined
    ? Result.fail("NAME:ADDRESS, such as db:192.0.2.7 or host.internal:host-gateway")
    : Result.succeed({ name, address: /^\[(.*)\]$/.exec(address)?.[1] ?? address })
}

const several = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar(metavar),
    Flag.withDescription(`${description}; may be repeated`),
    Flag.atLeast(0)
  )

export const networkFlags = {
  network: checked("network", [...networks.keys()].join("|"), parseNetwork).pipe(
    Flag.withDescription(
      "Only loopback, the host's own network, or one of its own that reaches what the host reaches (default: none, with -p or --dns user)"
    ),
    Flag.optional
  ),
  publish: checked("publish", "[[ADDRESS:]HOST:]CONTAINER", parsePublish).pipe(
    Flag.withAlias("p"),
    Flag.withDescription(
      "A port of the host that leads to one of its own, TCP or with /udp; without HOST one that is free; may be repeated"
    ),
    Flag.atLeast(0)
  ),
  addHosts: checked("add-host", "NAME:ADDRESS", parseHost).pipe(
    Flag.withDescription("A name in its /etc/hosts; the address host-gateway is this host; may be repeated"),
    Flag.atLeast(0)
  ),
  dns: several("dns", "ADDRESS", "A server that it asks for names"),
  dnsSearch: several("dns-search", "DOMAIN", "A domain in which it looks for names"),
  dnsOptions: several("dns-option", "OPTION", "An option of its resolver, like ndots:2").pipe(Flag.withAlias("dns-opt"))
}

/** Which flag a field of the sandbox comes from. */
export const networkFields: ReadonlyArray<readonly [string, string]> = [
  ["spec.network", "--network"],
  ["spec.ports", "--publish"],
  ["spec.hosts", "--add-host"],
  ["spec.dns.servers", "--dns"],
  ["spec.dns.search", "--dns-search"],
  ["spec.dns.options", "--dns-option"]
]

interface NetworkFlags {
  readonly network: Option.Option<Checked<NetworkMode>>
  readonly publish: ReadonlyArray<Checked<Port>>
  readonly addHosts: ReadonlyArray<Checked<MessageInitShape<typeof HostEntrySchema>>>
  readonly dns: ReadonlyArray<string>
  readonly dnsSearch: ReadonlyArray<string>
  readonly dnsOptions: ReadonlyArray<string>
}

/**
 * What they say of the sandbox, and which of them were `typed`. `value` gives those that could be read. Who publishes a port
 * (`publishAll`: those of the image) or asks somebody for names wants the network that can.
 */
export const readNetwork = (
  { addHosts, dns, dnsOptions, dnsSearch, network, publish }: NetworkFlags,
  value: <A>(found: Checked<A>) => ReadonlyArray<A>,
  publishAll = false
) => {
  const ports = publish.flatMap(value)
  const hosts = addHosts.flatMap(value)
  const given = Option.toArray(network).flatMap(value)[0]
  const lists = [
    ["--publish", ports],
    ["--publish-all", publishAll ? [true] : []],
    ["--dns", dns],
    ["--dns-search", dnsSearch],
    ["--dns-option", dnsOptions]
  ] as const
  const needing = lists.flatMap(([flag, values]) => (values.length > 0 ? [flag] : []))
  const needs = needing.length > 0 || hosts.some(({ address }) => address === "host-gateway")
  return {
    typed: [
      ...(given === undefined || given === NetworkMode.NONE ? [] : ["--network"]),
      ...needing,
      ...(hosts.length > 0 ? ["--add-host"] : [])
    ],
    spec: {
      network: given ?? (needs ? NetworkMode.USER : NetworkMode.NONE),
      ports,
      hosts,
      dns: { servers: [...dns], search: [...dnsSearch], options: [...dnsOptions] }
    }
  }
}

/** `127.0.0.1:8080/tcp→80` */
export const portText = ({ containerPort, hostAddress, hostPort, protocol }: PublishedPort): string =>
  Text.clean(`${hostAddress}:${hostPort}/${protocol}→${containerPort}`)

/** `user 127.0.0.1:8080/tcp→80` */
export const networkText = ({ ports, spec }: Sandbox): string => {
  if (spec?.network !== NetworkMode.USER) return spec?.network === NetworkMode.HOST ? "host" : "none"
  return ["user", ...ports.map(portText)].join(" ")
}
