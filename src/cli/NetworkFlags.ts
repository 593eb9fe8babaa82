/**
 * The flags that say how the containers of a sandbox reach the network, and how they are reached; and the same in a list.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Flag from "effect/cli/Flag"
import {
  NetworkMode,
  type PublishedPortSchema,
  type SandboxSpec
} from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { checked } from "./FlagProblems.ts"
import * as Text from "./Text.ts"

const networks: ReadonlyMap<string, NetworkMode> = new Map([
  ["none", NetworkMode.NONE],
  ["host", NetworkMode.HOST],
  ["user", NetworkMode.USER]
])

const parseNetwork = (text: string): Result.Result<NetworkMode, string> =>
  Result.fromOption(Option.fromUndefinedOr(networks.get(text)), () => [...networks.keys()].join(" or "))

type PublishedPort = MessageInitShape<typeof PublishedPortSchema>

/** `[ADDRESS:]HOST-PORT:PORT[/udp]`, as `--publish` of containers and of virtual machines has it. */
export const parsePorts = (text: string, example: string) => {
  const match = /^(?:([\d.]+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text)
  if (match === null) return Result.fail(`[ADDRESS:]HOST-PORT:PORT[/udp], such as ${example}`)
  const [, hostAddress = "", hostPort, inside, protocol = ""] = match
  return Result.succeed({ hostAddress, hostPort: Number(hostPort), inside: Number(inside), protocol })
}

const parsePublish = (text: string): Result.Result<PublishedPort, string> =>
  Result.map(parsePorts(text, "8080:80"), ({ inside, ...host }) => ({ ...host, containerPort: inside }))

/** Who publishes a port wants the network that can. */
export const networkOf = (given: NetworkMode | undefined, ports: ReadonlyArray<unknown>): NetworkMode =>
  given ?? (ports.length > 0 ? NetworkMode.USER : NetworkMode.NONE)

export const networkFlags = {
  network: checked("network", [...networks.keys()].join("|"), parseNetwork).pipe(
    Flag.withDescription(
      "Only loopback, the host's own network, or one of its own that reaches what the host reaches (default: none, with -p user)"
    ),
    Flag.optional
  ),
  publish: checked("publish", "[ADDRESS:]HOST:CONTAINER", parsePublish).pipe(
    Flag.withAlias("p"),
    Flag.withDescription("A port of the host that leads to one of its own, TCP or with /udp; may be repeated"),
    Flag.atLeast(0)
  )
}

/** `user 127.0.0.1:8080/tcp→80` */
export const networkText = (spec: SandboxSpec | undefined): string => {
  if (spec?.network !== NetworkMode.USER) return spec?.network === NetworkMode.HOST ? "host" : "none"
  const ports = spec.ports.map(
    ({ containerPort, hostAddress, hostPort, protocol }) => `${hostAddress}:${hostPort}/${protocol}→${containerPort}`
  )
  return Text.clean(["user", ...ports].join(" "))
}
