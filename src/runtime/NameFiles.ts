/**
 * `/etc/hosts` and `/etc/resolv.conf` of the containers of a sandbox: by which names they reach what, and whom they ask for others.
 * Each container has its own, written anew whenever it starts, and bound over those of its image.
 *
 * Without a network nothing is written unless names are given; with the host's network they are the host's own files, as they are
 * at any time, as far as nothing else is asked for.
 *
 * Trap: `host-gateway` is the address that this host has when the container starts. The host's own loopback is not reached from a
 * network in user mode: what listens on 127.0.0.1 alone answers nobody there.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { networkInterfaces } from "node:os"
import { basename, join } from "node:path"
import * as Files from "../storage/Files.ts"
import { RuntimeFailed } from "./OciRuntime.ts"
import type { SandboxRecord } from "./Records.ts"
import type { RuntimePaths } from "./RuntimePaths.ts"
import { HOST_GATEWAY, type NetworkMode, type Resolver, type SandboxSpec } from "./SandboxSpec.ts"

const HOSTS = "/etc/hosts"
const RESOLVER = "/etc/resolv.conf"

/** Where one with a network of its own is, and whom it asks. */
export interface Place {
  readonly address: string
  readonly server: string
}

interface NameFile {
  readonly target: string
  readonly content: string
}

/** An address of this host that others reach; undefined: it has none but its loopback. */
const outward = (): string | undefined =>
  Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address

/** Why this host cannot be reached by a sandbox with this network; undefined: it can. */
export const gatewayProblem = (network: NetworkMode): string | undefined =>
  network === "none"
    ? "without a network it does not reach this host"
    : network === "user" && outward() === undefined
      ? "this host has no address but its loopback, which such a network does not reach"
      : undefined

const failed = (how: string, stderr = "") =>
  new RuntimeFailed({ command: "the names that the container knows", how, stderr })

const entriesOf = Effect.fnUntraced(function* ({ hosts, network }: SandboxSpec) {
  const gateway = network === "host" ? "127.0.0.1" : outward()
  return yield* Effect.forEach(hosts, ({ address, name }) => {
    if (address !== HOST_GATEWAY) return Effect.succeed(`${address} ${name}\n`)
    return gateway === undefined || network === "none"
      ? failed(`cannot be told: ${name} is ${HOST_GATEWAY}, and ${gatewayProblem(network) ?? "it is not reached"}`)
      : Effect.succeed(`${gateway} ${name}\n`)
  })
})

/** What a `resolv.conf` says of each. */
const resolverOf = (text: string): Resolver => {
  const words = (keyword: string) =>
    text.split("\n").flatMap((line) => {
      const [first, ...rest] = line.trim().split(/\s+/)
      return first === keyword ? rest : []
    })
  return { servers: words("nameserver"), search: words("search"), options: words("options") }
}

/** `own` as far as it says anything, else as `usual`. */
const resolverText = (own: Resolver, usual: Resolver): string => {
  const or = (field: keyof Resolver) => (own[field].length > 0 ? own[field] : usual[field])
  const search = or("search").filter((domain) => domain !== ".")
  const options = or("options")
  return [
    ...or("servers").map((server) => `nameserver ${server}\n`),
    ...(search.length === 0 ? [] : [`search ${search.join(" ")}\n`]),
    ...(options.length === 0 ? [] : [`options ${options.join(" ")}\n`])
  ].join("")
}

const isSaid = ({ options, search, servers }: Resolver): boolean =>
  [options, search, servers].some((one) => one.length > 0)

/** The files of a container with a network of its own, or with none; `place` is where the first is. */
export const contentsFor = Effect.fnUntraced(function* (spec: SandboxSpec, hostname: string, place: Place) {
  const hasNetwork = spec.network === "user"
  if (!hasNetwork && spec.hosts.length === 0) return []
  const own = `${hasNetwork ? place.address : "127.0.0.1"} ${hostname}\n`
  const hosts: NameFile = {
    target: HOSTS,
    content: ["127.0.0.1 localhost\n::1 localhost\n", own, ...(yield* entriesOf(spec))].join("")
  }
  const usual = { servers: [place.server], search: [], options: [] }
  return hasNetwork ? [{ target: RESOLVER, content: resolverText(spec.dns, usual) }, hosts] : [hosts]
})

export interface NameFiles {
  /** What one of its containers has of its own in `/etc`. */
  readonly of: (
    sandbox: SandboxRecord,
    container: string,
    hostname: string
  ) => Effect.Effect<ReadonlyArray<{ readonly source: string; readonly target: string }>, RuntimeFailed>
  /** Fine when there is none. */
  readonly forget: (sandbox: string) => Effect.Effect<void>
  /** Removes those of all but these sandboxes. */
  readonly reconcile: (sandboxes: ReadonlySet<string>) => Effect.Effect<void>
}

/** `place`: where those with a network of their own are. */
export const make = (paths: RuntimePaths, place: Place): NameFiles => {
  const directoryOf = (sandbox: string) => `${paths.names}/${sandbox}`
  /** Users who are nobody on the host find the way to it. With a dot, which no run has in its name. */
  const openOf = (sandbox: string) => `${paths.open}/${sandbox}.names`
  const hostText = (path: string) => Effect.promise(() => fs.readFile(path, "utf8").catch(() => ""))

  /** What is not the host's own file. */
  const ofHost = Effect.fnUntraced(function* (spec: SandboxSpec) {
    const resolver = isSaid(spec.dns)
      ? [{ target: RESOLVER, content: resolverText(spec.dns, resolverOf(yield* hostText(RESOLVER))) }]
      : []
    const hosts =
      spec.hosts.length > 0
        ? [
            {
              target: HOSTS,
              content: [`${(yield* hostText(HOSTS)).trimEnd()}\n`, ...(yield* entriesOf(spec))].join("")
            }
          ]
        : []
    return [...resolver, ...hosts]
  })

  const forget = (sandbox: string) =>
    Effect.promise(async () => {
      for (const directory of [directoryOf(sandbox), openOf(sandbox)]) {
        await fs.rm(directory, { recursive: true, force: true })
      }
      await fs.rmdir(paths.open).catch(() => undefined)
    })

  return {
    forget,
    of: Effect.fnUntraced(function* ({ firstUser, spec }, container, hostname) {
      const files = yield* spec.network === "host" ? ofHost(spec) : contentsFor(spec, hostname, place)
      const directory = join(firstUser === undefined ? directoryOf(spec.name) : openOf(spec.name), container)
      const written = yield* Effect.tryPromise({
        try: async () => {
          if (files.length === 0) return []
          // the first is what is found when the sandbox is gone
          await fs.mkdir(directoryOf(spec.name), { recursive: true, mode: 0o711 })
          await fs.mkdir(directory, { recursive: true, mode: 0o711 })
          const made: Array<{ source: string; target: string }> = []
          for (const { content, target } of files) {
            const source = join(directory, basename(target))
            await fs.writeFile(source, content)
            made.push({ source, target })
          }
          return made
        },
        catch: (cause) => failed("have no place", String(cause))
      })
      if (spec.network !== "host") return written
      const others = [RESOLVER, HOSTS].filter((file) => !written.some(({ target }) => target === file))
      const there = yield* Effect.filter(others, Files.exists)
      return [...there.map((file) => ({ source: file, target: file })), ...written]
    }),
    reconcile: Effect.fnUntraced(function* (sandboxes) {
      const names = yield* Effect.promise(() => fs.readdir(paths.names).catch((): Array<string> => []))
      yield* Effect.forEach(
        names.filter((name) => !sandboxes.has(name)),
        forget,
        { discard: true }
      )
    })
  }
}
