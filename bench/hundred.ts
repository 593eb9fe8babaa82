/**
 * How long do 100 containers take that are started at once? Ironwood's API with 100 calls at a time beside bare
 * `crun run --detach`, 8 at a time, and `podman run -d`, 8 at a time.
 */
import { cpSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { ironwood } from "./Ironwood.ts"
import { processorTime, progress, report, timed } from "./Measure.ts"
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
  /** Whose processor time it is: crun's is its parent's children's. */
  const spent = () => ({
    "ironwood: brain": processorTime(subject.brainPid()).own,
    "ironwood: taproot": processorTime(subject.taprootPid).own,
    "ironwood: crun, and what mounts": processorTime(subject.taprootPid).children,
    "crun run --detach, 8 at a time": processorTime(process.pid).children
  })
  const samples = new Map<string, Array<number>>(subjects.map(({ subject }) => [subject, []]))
  const times = new Map<string, Array<number>>(Object.keys(spent()).map((whose) => [whose, []]))
  for (let round = 0; round < 4; round++) {
    for (const { atOnce, peer, rounds, subject } of subjects) {
      if (round >= rounds) continue
      progress(`${many} containers of ${subject}`)
      const names = Array.from({ length: many }, (_, number) => `c${round}-${number}`)
      if (peer === crun) for (const name of names) crun.prepare(name)
      const before = Object.entries(spent())
      samples.get(subject)?.push(await timed(() => inParallel(names, atOnce, (name) => peer.start(name))))
      const after = new Map(Object.entries(spent()))
      for (const [whose, time] of before) {
        // of the others each is idle meanwhile
        if (whose.startsWith(subject)) times.get(whose)?.push((after.get(whose) ?? Number.NaN) - time)
      }
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
  for (const [whose, took] of times) {
    report({
      question: `${many} containers started at once: processor time`,
      subject: whose,
      unit: "ms",
      samples: took.slice(1)
    })
  }
} finally {
  for (const peer of started.toReversed()) await peer.close()
}
process.exit(0)
