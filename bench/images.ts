/**
 * How long does a pull take, with all layers unpacked? An image of three layers (312 MiB as tar archives, some 9,000 entries) from
 * Debian's `docker-registry` on loopback, gzip and zstd, and once more when nothing has changed: Ironwood's API beside `ctr`,
 * `podman`, and skopeo with umoci (which knows no zstd). All of it on one tmpfs. How much memory the brain took for it.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { spawn } from "node:child_process"
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ImageService } from "../proto/generated/ironwood/v1/image_pb.ts"
import * as Client from "../src/cli/Client.ts"
import { buildImage } from "../test/support/images.ts"
import { push } from "../test/support/registry.ts"
import { ironwood } from "./Ironwood.ts"
import { interleave, progress, report, timed } from "./Measure.ts"
import { command, inOwnMountNamespace, workspace } from "./Peers.ts"
import { layer } from "./SampleLayers.ts"

inOwnMountNamespace()

const space = workspace()
const port = 5_700 + (process.pid % 200)
const host = `127.0.0.1:${port}`

writeFileSync(
  join(space, "registry.yml"),
  `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${space}/registry}}\nhttp: {addr: "${host}"}\n`
)
const registry = spawn("docker-registry", ["serve", join(space, "registry.yml")], { stdio: "ignore" })
for (;;) {
  const up = await fetch(`http://${host}/v2/`).then(
    () => true,
    () => false
  )
  if (up) break
  await new Promise((resolve) => setTimeout(resolve, 20))
}

progress("making the images")
for (const compression of ["gzip", "zstd"] as const) {
  const layers = [layer("a", 201, 6_768), layer("b", 80, 2_000), layer("c", 31, 480)]
  const image = buildImage({
    layers: layers.map((entries) => ({ entries, compression })),
    config: { Cmd: ["/bin/true"] }
  })
  await Effect.runPromise(push(host, compression, "1", image))
}

const home = join(space, "containerd")
mkdirSync(home)
const address = join(home, "containerd.sock")
writeFileSync(
  join(home, "config.toml"),
  `version = 2\nroot = "${home}/root"\nstate = "${home}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "${address}"\n`
)
const daemon = spawn("containerd", ["--config", join(home, "config.toml")], { stdio: "ignore" })
const ctr = (...args: ReadonlyArray<string>) => command("ctr", ["--address", address, ...args])
for (let attempt = 0; ; attempt++) {
  try {
    await ctr("version")
    break
  } catch (error) {
    if (attempt > 500) throw error
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
const storage = [
  "--root",
  join(space, "podman/root"),
  "--runroot",
  join(space, "podman/run"),
  "--tmpdir",
  join(space, "podman/tmp")
]
const podman = (...args: ReadonlyArray<string>) => command("podman", [...storage, ...args])

const subject = await ironwood(space, { probe: false })
const scope = Scope.makeUnsafe()
const connection = await Effect.runPromise(
  Client.make(`unix:${space}/ironwood/ironwood.sock`).pipe(Effect.provideService(Scope.Scope, scope))
)
const pulls = {
  ironwood: {
    pull: (reference: string) =>
      Effect.runPromise(Stream.runDrain(connection.stream(ImageService.method.pullImage, { reference }))),
    remove: (reference: string) =>
      Effect.runPromise(Effect.asVoid(connection.call(ImageService.method.removeImage, { reference })))
  },
  "ctr image pull": {
    pull: async (reference: string) => void (await ctr("image", "pull", "--plain-http", reference)),
    remove: async (reference: string) => void (await ctr("image", "rm", "--sync", reference))
  },
  "podman pull": {
    pull: async (reference: string) => void (await podman("pull", "--quiet", "--tls-verify=false", reference)),
    remove: async (reference: string) => void (await podman("rmi", "--force", reference))
  },
  "skopeo copy, umoci unpack": {
    pull: async (reference: string) => {
      const layout = join(space, "umoci")
      await command("skopeo", ["copy", "--quiet", "--src-tls-verify=false", `docker://${reference}`, `oci:${layout}:1`])
      await command("umoci", ["raw", "unpack", "--image", `${layout}:1`, join(space, "umoci-tree")])
    },
    remove: async () => {
      for (const name of ["umoci", "umoci-tree"]) rmSync(join(space, name), { recursive: true, force: true })
    }
  }
}

/** The most memory that a process has had, in MiB. */
const peak = (pid: number): number =>
  Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024

try {
  for (const compression of ["gzip", "zstd"]) {
    progress(`${compression}, each in turn`)
    const reference = `${host}/${compression}:1`
    const first = (name: keyof typeof pulls) => async () => {
      const took = await timed(() => pulls[name].pull(reference))
      await pulls[name].remove(reference)
      return took
    }
    const subjects: Record<string, () => Promise<number>> = {
      ironwood: first("ironwood"),
      "ctr image pull": first("ctr image pull"),
      "podman pull": first("podman pull")
    }
    if (compression === "gzip") subjects["skopeo copy, umoci unpack"] = first("skopeo copy, umoci unpack")
    const samples = await interleave(3, subjects)
    const aim = "two thirds of the fastest"
    for (const [name, took] of samples) {
      const question = `pull and unpack, 3 layers, 312 MiB, ${compression}`
      report({ question, subject: name, unit: "ms", samples: took, aim })
    }
  }
  report({
    question: "memory of the brain at most, after these pulls",
    subject: "ironwood",
    unit: "MiB",
    samples: [peak(subject.brainPid())],
    aim: "under 150 MB"
  })
  progress("nothing has changed, each in turn")
  const reference = `${host}/gzip:1`
  const peers = ["ironwood", "ctr image pull", "podman pull"] as const
  for (const name of peers) await pulls[name].pull(reference)
  const again = (name: (typeof peers)[number]) => () => timed(() => pulls[name].pull(reference))
  const samples = await interleave(9, {
    ironwood: again("ironwood"),
    "ctr image pull": again("ctr image pull"),
    "podman pull": again("podman pull"),
    "one request of the manifest, bare": () =>
      timed(async () => (await fetch(`http://${host}/v2/gzip/manifests/1`, { method: "HEAD" })).status)
  })
  for (const [name, took] of samples) {
    report({
      question: "the same pull when nothing has changed",
      subject: name,
      unit: "ms",
      samples: took,
      aim: "one round trip and a look-up"
    })
  }
} finally {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await subject.close()
  daemon.kill("SIGTERM")
  registry.kill("SIGKILL")
  await new Promise((resolve) => setTimeout(resolve, 500))
}
process.exit(0)
