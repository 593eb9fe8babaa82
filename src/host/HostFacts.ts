/**
 * What this host is: kernel, processors, memory, names, times. Read afresh at each call, because memory, load and uptime
 * change; cheap enough for that (five small files of /proc).
 *
 * Use it for what an operator asks of a host. What the container runtime can do here is `OciRuntime`'s to say, and cgroup
 * layout is `Cgroups`'.
 *
 * Trap: memory is the machine's, not that of a cgroup Ironwood may itself be limited by.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { readFile } from "node:fs/promises"
import { arch, availableParallelism, hostname } from "node:os"

/** Facts about the host. Sizes in bytes, times in milliseconds since the Unix epoch. */
export class HostFacts extends Schema.Class<HostFacts>("HostFacts")({
  hostname: Schema.String,
  /** As `uname -r`. */
  kernelRelease: Schema.String,
  /** As `uname -m`, e.g. `x86_64`. */
  architecture: Schema.String,
  /** Of /etc/os-release: PRETTY_NAME, or empty where there is none. */
  operatingSystem: Schema.String,
  /** A new one at each boot: proc(5), /proc/sys/kernel/random/boot_id. */
  bootId: Schema.String,
  bootedAt: Schema.Finite,
  processors: Schema.Int,
  processorModel: Schema.String,
  memoryTotalBytes: Schema.Finite,
  memoryAvailableBytes: Schema.Finite,
  /** Load average over 1, 5 and 15 minutes. */
  loadAverage: Schema.Tuple([Schema.Finite, Schema.Finite, Schema.Finite])
}) {}

/** A file of /proc could not be read or understood: /proc is not mounted, or this is not Linux. */
export class HostFactsUnavailable extends Schema.TaggedError<HostFactsUnavailable>()("HostFactsUnavailable", {
  file: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return `cannot read ${this.file}: ${this.detail}; is /proc mounted?`
  }
}

const read = (file: string): Effect.Effect<string, HostFactsUnavailable> =>
  Effect.tryPromise({
    try: () => readFile(file, "utf8"),
    catch: (cause) => new HostFactsUnavailable({ file, detail: String(cause) })
  })

/** `Name:   12345 kB` of /proc/meminfo, in bytes. */
const kibibytesOf = (meminfo: string, name: string): number => {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(meminfo)
  return found === null ? 0 : Number(found[1]) * 1024
}

const number = (text: string | undefined): number => {
  const value = Number(text)
  return Number.isFinite(value) ? value : 0
}

const machine: Readonly<Record<string, string>> = { x64: "x86_64", arm64: "aarch64" }

/** The facts as they are now. */
export const hostFacts: Effect.Effect<HostFacts, HostFactsUnavailable> = Effect.gen(function* () {
  const [release, bootId, stat, cpuinfo, meminfo, loadavg] = yield* Effect.all(
    [
      read("/proc/sys/kernel/osrelease"),
      read("/proc/sys/kernel/random/boot_id"),
      read("/proc/stat"),
      read("/proc/cpuinfo"),
      read("/proc/meminfo"),
      read("/proc/loadavg")
    ],
    { concurrency: "unbounded" }
  )
  const osRelease = yield* Effect.orElseSucceed(read("/etc/os-release"), () => "")
  const [one, five, fifteen] = loadavg.split(" ")
  return new HostFacts({
    hostname: hostname(),
    kernelRelease: release.trim(),
    architecture: machine[arch()] ?? arch(),
    operatingSystem: /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(osRelease)?.[1] ?? "",
    bootId: bootId.trim(),
    bootedAt: number(/^btime (\d+)$/m.exec(stat)?.[1]) * 1000,
    processors: availableParallelism(),
    processorModel: /^model name\s*: (.*)$/m.exec(cpuinfo)?.[1] ?? "",
    memoryTotalBytes: kibibytesOf(meminfo, "MemTotal"),
    memoryAvailableBytes: kibibytesOf(meminfo, "MemAvailable"),
    loadAverage: [number(one), number(five), number(fifteen)]
  })
})

/** The facts as a service, so that a test can say what host it pretends to be on. */
export class Host extends Context.Service<Host, { readonly facts: Effect.Effect<HostFacts, HostFactsUnavailable> }>()(
  "ironwood/host/Host"
) {
  static readonly layer = Layer.succeed(Host, Host.of({ facts: hostFacts }))
}
