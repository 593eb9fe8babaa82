/**
 * The guest of a microVM as a system that containers run on: the same OCI runtime, cgroups and taproot as on the host, reached
 * through its port. Everything that can be different there is here.
 *
 * The containers of the sandbox share the guest's network, and on request the numbers of their processes. There is no swap, and every
 * capability to give: what a container may do is its spec's and the host's decision all the same.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import { dirname } from "node:path"
import * as Cgroups from "../../host/Cgroups.ts"
import { textOf } from "../../host/SystemFiles.ts"
import type { Content } from "../../storage/Content.ts"
import type { Processes } from "../../taproot/Processes.ts"
import type { ControlLost } from "../../vmm/Hypervisor.ts"
import type { Disk } from "../../vmm/Machine.ts"
import * as Capabilities from "../Capabilities.ts"
import { RootfsFailed } from "../ContainerExit.ts"
import { RuntimeFailed } from "../OciRuntime.ts"
import * as OciRuntimeLive from "../OciRuntimeLive.ts"
import * as PidNamespaces from "../PidNamespaces.ts"
import * as ProcessLimits from "../ProcessLimits.ts"
import * as ReadOnlyProgram from "../ReadOnlyProgram.ts"
import type { HostPaths } from "../HostPaths.ts"
import * as NameFiles from "../NameFiles.ts"
import type { Secrets } from "../Secrets.ts"
import type { System } from "../System.ts"
import * as GuestBelongings from "./GuestBelongings.ts"
import * as GuestFiles from "./GuestFiles.ts"
import * as GuestNetwork from "./GuestNetwork.ts"
import * as GuestRoots from "./GuestRoots.ts"
import * as GuestShares from "./GuestShares.ts"

const HOME = "/run/ironwood"

/** Of what a guest says that its kernel is. */
const LONGEST_RELEASE = 64

const paths = { oci: `${HOME}/oci`, bundles: `${HOME}/bundles`, consoles: `${HOME}/tty`, cgroup: "/ironwood" }

/** The system, and the release of its kernel as the guest says. */
export const make = Effect.fnUntraced(function* (input: {
  readonly processes: Processes["Service"]
  readonly content: Content["Service"]
  readonly hostPaths: HostPaths
  readonly secrets: Secrets["Service"]
  readonly gone: Effect.Effect<Option.Option<string>>
  /** Puts a disk into it; the serial number by which it is known there. */
  readonly insert: (disk: Disk) => Effect.Effect<string, ControlLost>
  /** Has the machine started anew for a container whose image or directory it lacks. */
  readonly renew: (container: string) => Effect.Effect<void>
  readonly isRenewed: Effect.Effect<boolean>
  /** The names of those that it was started for; undefined when an earlier brain has started it. */
  readonly containers: ReadonlySet<string> | undefined
  /** Told when the guest does not keep to the rules. */
  readonly broken: (detail: string) => Effect.Effect<void>
}) {
  const { broken, containers, content, gone, hostPaths, insert, isRenewed, processes, secrets, renew } = input
  const { files, like, own, readInRoot, removeTree } = yield* GuestFiles.make(processes, broken)
  const cgroups = yield* Cgroups.make(processes.hello.taprootPid, files)
  const crun = { name: "crun", version: "", path: "/usr/bin/crun", adjustments: [] }
  const making = OciRuntimeLive.make({
    processes,
    files,
    cgroups,
    paths,
    facts: Effect.succeed(crun),
    program: Effect.succeed(ReadOnlyProgram.whereItIs(crun)),
    candidates: Effect.succeed([]),
    concurrency: 2,
    announce: Effect.void
  })
  const roots = GuestRoots.make({ processes, files, like, own, removeTree, insert, renew, containers })
  // each answer takes its time
  const [runtime, most, release] = yield* Effect.all(
    [
      making,
      textOf(files, "/proc/sys/kernel/threads-max"),
      Effect.orElseSucceed(textOf(files, "/proc/sys/kernel/osrelease"), () => ""),
      roots.prepare
    ],
    { concurrency: "unbounded" }
  )
  const threads = Number(most)
  const kernel = release.trim().slice(0, LONGEST_RELEASE)
  const shares = GuestShares.make({
    directory: `${HOME}/shares`,
    processes,
    files,
    kernel,
    hostPaths,
    renew
  })
  const helper = (name: string) => `/usr/lib/ironwood/${name}`
  const pids = PidNamespaces.make({
    processes,
    runtime,
    files,
    paths: { ...paths, open: `${HOME}/open` },
    init: helper("init"),
    // whose directories are its own alone
    user: 0,
    makeRoot: files.makeDirectory
  })
  const system: System = {
    processes,
    files,
    readInRoot,
    cgroups,
    runtime,
    paths,
    helper,
    capabilities: Capabilities.names,
    limitSwap: false,
    processLimits: ProcessLimits.within(threads > 0 ? threads : 1_024),
    root: (image, name, identity) =>
      content.rootImage(image).pipe(
        Effect.mapError((error) =>
          error._tag === "ImageNotFound" ? error : new RootfsFailed({ name, detail: error.message })
        ),
        Effect.flatMap((root) => roots.acquire(name, root, identity)),
        Effect.map((path) => ({ path, seen: path }))
      ),
    releaseRoot: roots.release,
    within: ({ spec }, container, start) =>
      Effect.gen(function* () {
        const hostname = spec.hostname ?? container
        const named = yield* NameFiles.contentsFor(spec, hostname, GuestNetwork.PLACE)
        const hostFiles = yield* Effect.forEach(named, ({ content, target }) => {
          const source = `${HOME}/names/${container}${target}`
          return Effect.as(Effect.andThen(files.makeDirectory(dirname(source)), files.write(source, content, 0o644)), {
            source,
            target
          })
        }).pipe(
          Effect.mapError(
            ({ message }) =>
              new RuntimeFailed({ command: "the network of the guest", how: "has no place", stderr: message })
          )
        )
        return yield* start({
          network: "host",
          ipc: "new",
          pid: spec.processes === "shared" ? { path: yield* pids.of(spec.name, undefined) } : "new",
          users: undefined,
          sharedMemory: undefined,
          hostname,
          hostFiles
        })
      }),
    belongings: GuestBelongings.make({
      directory: `${HOME}/belongings`,
      files,
      own,
      removeTree,
      volume: roots.volume,
      hostPaths,
      shares,
      secrets
    }),
    gone,
    isRenewed
  }
  return { system, kernel }
})
