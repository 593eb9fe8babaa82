/**
 * What does Ironwood weigh? The brain at rest, right after it is up and once it has settled; and what a running container costs
 * beyond its own processes, once the brain has been idle long enough to collect what the starts have left, beside conmon and
 * containerd's shim. No probe is loaded into the brain: that alone would weigh.
 *
 * Twice: what the first hundred cost, in which is what the brain compiles when it starts many, and what the second hundred cost.
 */
import { spawnSync } from "node:child_process"
import { cpSync, readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { ironwood } from "./Ironwood.ts"
import { memory, progress, quantile, report, settled } from "./Measure.ts"
import { containerd, inOwnMountNamespace, type Peer, podman, workspace } from "./Peers.ts"

inOwnMountNamespace()

const many = 100
const few = 5

const space = workspace()
const sample = fileURLToPath(new URL("../build/sample-image", import.meta.url))
const layout = join(space, "layout")
cpSync(sample, layout, { recursive: true })
const index = JSON.parse(readFileSync(join(sample, "index.json"), "utf8"))
writeFileSync(join(layout, "index.json"), JSON.stringify({ ...index, manifests: index.manifests.slice(0, 1) }))
spawnSync("tar", ["-C", layout, "-cf", join(space, "image.tar"), "."])

/** Pids of processes with that name (proc(5): 15 characters) which hold one of the ids in their command line. */
const processesNamed = (name: string, ids: ReadonlyArray<string>): ReadonlyArray<number> =>
  readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return []
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8")
      const named = readFileSync(`/proc/${pid}/comm`, "utf8").trim() === name
      return named && ids.some((id) => line.includes(id)) ? [Number(pid)] : []
    } catch {
      return []
    }
  })

const started: Array<Peer> = []
try {
  const subject = await ironwood(space, { probe: false })
  started.push(subject)
  report({
    question: "memory at rest: taproot",
    subject: "ironwood",
    unit: "MiB",
    samples: [memory(subject.taprootPid, "Rss")],
    aim: "under 1 MiB"
  })
  report({
    question: "memory at rest: brain",
    subject: "ironwood",
    unit: "MiB",
    samples: [subject.restMebibytes],
    aim: "under 90 MiB"
  })

  const restRss = await settled(() => memory(subject.brainPid(), "Rss"))
  const restAnonymous = memory(subject.brainPid(), "Anonymous")
  report({ question: "memory at rest: brain, settled", subject: "ironwood", unit: "MiB", samples: [restRss] })
  report({
    question: "memory at rest: brain, settled, without pages of files",
    subject: "ironwood",
    unit: "MiB",
    samples: [restAnonymous]
  })

  progress(`twice ${many} containers, until they have settled`)
  const question = "memory per running container beyond its own processes, settled"
  const weight = () => memory(subject.taprootPid, "Pss") + memory(subject.brainPid(), "Pss")
  // the first container pays for what is made once
  await subject.start("first")
  let before = await settled(weight)
  for (const which of ["first", "second"]) {
    for (let index = 0; index < many; index += 10) {
      await Promise.all(Array.from({ length: 10 }, (_, offset) => subject.start(`${which}-${index + offset}`)))
    }
    const after = await settled(weight)
    const each = (after - before) / many
    before = after
    report({
      question,
      subject: `ironwood, of the ${which} ${many}`,
      unit: "MiB",
      samples: [each],
      aim: "under 0.1 MB"
    })
  }

  const ids = Array.from({ length: few }, (_, index) => `memory-${index}`)
  const peers = [
    { name: "conmon (podman)", process: "conmon", peer: await podman(space, `oci:${layout}:latest`) },
    {
      name: "containerd-shim-runc-v2",
      process: "containerd-shim",
      peer: await containerd(space, join(space, "image.tar"))
    }
  ]
  for (const { name, peer, process } of peers) {
    started.push(peer)
    for (const id of ids) await peer.start(id)
    const weigh = () => processesNamed(process, ids).map((pid) => memory(pid, "Pss"))
    await settled(() => quantile(weigh(), 1))
    report({
      question,
      subject: name,
      unit: "MiB",
      samples: weigh()
    })
    for (const id of ids) await peer.remove(id)
  }
} finally {
  for (const peer of started.toReversed()) await peer.close()
}
process.exit(0)
