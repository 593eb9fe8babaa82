/**
 * Where Ironwood listens: `--address`, else IRONWOOD_ADDRESS, else the socket of the Ironwood that was started in this
 * directory, else the one of the host.
 *
 * An address is what grpc-js takes: `unix:/path/to/socket` or `host:port`. A bare path is taken for a socket, because that is what
 * people type. Relative paths are made absolute at once, so that messages name a file one can look at.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import { exitCodes } from "./ExitCode.ts"
import { failure } from "./Failure.ts"
import * as Text from "./Text.ts"

/** The socket of an Ironwood that is the init system of this host. */
export const hostAddress = "unix:/run/ironwood/ironwood.sock"

/** The state directory of `ironwood up` without `--state-dir`, relative to the working directory. */
export const defaultStateDirectory = ".ironwood"

/** The socket's file of an address, or undefined for a TCP address. */
export const socketPath = (address: string): string | undefined =>
  address.startsWith("unix:") ? address.slice("unix:".length).replace(/^\/\/(?=\/)/, "") : undefined

/** The address of the Ironwood whose state directory this is (absolute). */
export const ofStateDirectory = (directory: string): string => `unix:${directory}/ironwood.sock`

/** `host:port`, an IPv6 address in brackets, and with a scheme of grpc-js before it (`dns:`, `ipv4:`, `ipv6:`). */
const isHostAndPort = (address: string): boolean => {
  const [, port = ""] =
    /^(?:dns:(?:\/\/\/)?|ipv4:|ipv6:)?(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})$/.exec(address) ?? []
  return port !== "" && Number(port) >= 1 && Number(port) <= 65_535
}

/** Finds the address to talk to; see the head of this file for the order. */
export const resolve = Effect.fnUntraced(function* (flag: Option.Option<string>) {
  const files = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const named = Option.getOrElse(flag, () => process.env["IRONWOOD_ADDRESS"] ?? "")
  if (named !== "") {
    const bare = named.startsWith("/") || named.startsWith("./") || named.startsWith("../")
    const file = bare ? named : socketPath(named)
    if (file !== undefined) return `unix:${path.resolve(file)}`
    if (isHostAndPort(named)) return named
    return yield* failure(`the address "${Text.clean(named)}" cannot be`, {
      exitCode: exitCodes.usage,
      next: "It is unix:PATH, the path of a socket, or HOST:PORT such as 192.0.2.9:50051"
    })
  }
  const local = path.resolve(defaultStateDirectory)
  // One that may not be looked at is there, and whoever calls it is told that it is not open to him.
  const present = yield* Effect.orElseSucceed(files.exists(`${local}/ironwood.sock`), () => true)
  return present ? ofStateDirectory(local) : hostAddress
})
