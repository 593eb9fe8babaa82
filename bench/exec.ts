/**
 * How long does it take until a program that is run in a container says something? Ironwood's API beside bare `crun exec`, and
 * `ctr` and `podman`, which are commands: what they take to start is theirs, as it is the person's who types them.
 */
import { spawnSync } from "node:child_process"
import { cpSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { ironwood } from "./Ironwood.ts"
import { interleave, progress, report } from "./Measure.ts"
import { bareCrun, containerd, inOwnMountNamespace, type Peer, podman, workspace } from "./Peers.ts"

inOwnMountNamespace()

const sample = fileURLToPath(new URL("../build/sample-image", import.meta.url))
const space = workspace()
// the peers take a layout with one image: the sample's first, hello
const layout = join(space, "layout")
cpSync(sample, layout, { recursive: true })
const index = JSON.parse(readFileSync(join(sample, "index.json"), "utf8"))
writeFileSync(join(layout, "index.json"), JSON.stringify({ ...index, manifests: index.manifests.slice(0, 1) }))
spawnSync("tar", ["-C", layout, "-cf", join(space, "image.tar"), "."])

const started: Array<Peer> = []
const open = async <P extends Peer>(peer: P | Promise<P>): Promise<P> => {
  const opened = await peer
  started.push(opened)
  return opened
}

try {
  const crun = bareCrun(space, { once: true })
  const peers = {
    ironwood: await open(ironwood(space, { probe: false })),
    "crun exec, bare": crun,
    "ctr task exec": await open(containerd(space, join(space, "image.tar"))),
    "podman exec": await open(podman(space, `oci:${layout}:latest`))
  }
  crun.prepare("one")
  for (const peer of Object.values(peers)) await peer.start("one")
  progress("a program in a container that runs, each in turn")
  const samples = await interleave(31, {
    ironwood: () => peers.ironwood.exec("one"),
    "crun exec, bare": () => crun.exec("one"),
    "ctr task exec": () => peers["ctr task exec"].exec("one"),
    "podman exec": () => peers["podman exec"].exec("one")
  })
  for (const [subject, took] of samples) {
    report({
      question: "exec to first byte",
      subject,
      unit: "ms",
      samples: took,
      aim: "bare crun plus at most 5 ms"
    })
  }
  for (const peer of Object.values(peers)) await peer.remove("one")
} finally {
  for (const peer of started.toReversed()) await peer.close()
}
