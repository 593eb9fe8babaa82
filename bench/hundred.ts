/**
 * How long do 100 containers take that are started at once? Ironwood's API with 100 calls at a time beside bare
 * `crun run --detach`, 8 at a time, and `podman run -d`, 8 at a time.
 */
import { cpSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { ironwood } from "./Ironwood.ts"
import { progress, report, timed } from "./Measure.ts"
import { bareCrun, inOwnMountNamespace, type Peer, podman, workspace } from "./Peers.ts"

inOwnMountNamespace()

const many = 100
const sample = fileURLToPath(new URL("../build/sample-image", import.meta.url))
const space = workspace()
const layout = join(space, "layout")
cpSync(sample, layout, { recursive: true })
const index = JSON.parse(readFileSync(join(sample, "index.json"), "utf8"))
writeFileSync(join(layout, "index.json"), JSON.stringify({ ...index, manifests: index.manifests.slice(0, 1) }))

/** Does `act` for every name, so many at a time. */
const inParallel = async (names: ReadonlyArray<string>, atOnce: number, act: (name: string) => Promise<void>) => {
  const rest = [...names]
  const work = async () => {
    for (let name = rest.shift(); name !== undefined; name = rest.shift()) await act(name)
  }
  await Promise.all(Array.from({ length: atOnce }, work))
}

const started: Array<Peer> = []
try {
  const subject = await ironwood(space, { probe: false })
  started.push(subject)
  const crun = bareCrun(space, { once: true })
  const pod = await podman(space, `oci:${layout}:latest`)
  started.push(pod)
  const subjects = [
    { subject: "ironwood", peer: subject, atOnce: many, rounds: 4 },
    { subject: "crun run --detach, 8 at a time", peer: crun, atOnce: 8, rounds: 4 },
    { subject: "podman run --detach, 8 at a time", peer: pod, atOnce: 8, rounds: 1 }
  ]
  const samples = new Map<string, Array<number>>(subjects.map(({ subject }) => [subject, []]))
  for (let round = 0; round < 4; round++) {
    for (const { atOnce, peer, rounds, subject } of subjects) {
      if (round >= rounds) continue
      progress(`${many} containers of ${subject}`)
      const names = Array.from({ length: many }, (_, number) => `c${round}-${number}`)
      if (peer === crun) for (const name of names) crun.prepare(name)
      samples.get(subject)?.push(await timed(() => inParallel(names, atOnce, (name) => peer.start(name))))
      await inParallel(names, 8, (name) => peer.remove(name))
    }
  }
  for (const [subject, took] of samples) {
    report({
      question: `${many} containers started at once`,
      subject,
      unit: "ms",
      // the first finds code that has never run
      samples: took.length > 1 ? took.slice(1) : took,
      aim: "at most 1.5 times crun's"
    })
  }
} finally {
  for (const peer of started.toReversed()) await peer.close()
}
process.exit(0)
