/**
 * How fast is the output of one container taken, and is all of it there? A container writes lines as fast as it may; measured is from
 * its start until its last line is in the log. Ironwood keeps time and stream of every line, as conmon (by podman, `k8s-file`)
 * does; containerd's shim (`ctr --log-uri file://`) copies bytes.
 */
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { ironwood } from "./Ironwood.ts"
import { interleave, progress, report } from "./Measure.ts"
import { containerd, inOwnMountNamespace, type Peer, podman, workspace } from "./Peers.ts"

inOwnMountNamespace()

const lines = 500_000
const line = "0123456789".repeat(6)
const writer = ["/bin/busybox", "sh", "-c", `/bin/busybox yes ${line} | /bin/busybox head -n ${lines}`]

const sample = fileURLToPath(new URL("../build/sample-image", import.meta.url))
const space = workspace()
const layout = join(space, "layout")
cpSync(sample, layout, { recursive: true })
const index = JSON.parse(readFileSync(join(sample, "index.json"), "utf8"))
writeFileSync(join(layout, "index.json"), JSON.stringify({ ...index, manifests: index.manifests.slice(0, 1) }))
spawnSync("tar", ["-C", layout, "-cf", join(space, "image.tar"), "."])

const files = (path: string): ReadonlyArray<string> =>
  !existsSync(path)
    ? []
    : statSync(path).isDirectory()
      ? readdirSync(path).flatMap((name) => files(join(path, name)))
      : [path]

/** How many lines ended in the files there: a piece of one that goes on is told by a `P`. */
const countIn = (path: string): number => {
  let found = 0
  for (const name of files(path)) {
    const entries = readFileSync(name, "latin1").split("\n").slice(0, -1)
    for (const entry of entries) if (!/^\S+ stdout P /.test(entry)) found += 1
  }
  return found
}

/** Bytes of all files there. */
const sizeOf = (path: string): number => files(path).reduce((sum, name) => sum + statSync(name).size, 0)

/** Milliseconds from `start` until the log stands still with everything in it. */
const untilWritten = async (path: string, start: () => Promise<void>): Promise<number> => {
  const begun = performance.now()
  await start()
  let [size, since] = [-1, begun]
  for (;;) {
    const now = sizeOf(path)
    if (now !== size) [size, since] = [now, performance.now()]
    // bytes, not lines: to count them takes the processor from who writes them
    else if (size >= lines * (line.length + 1) && performance.now() - since > 500) break
    if (performance.now() - begun > 120_000) throw new Error(`${path} has ${size} bytes after two minutes`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  const found = countIn(path)
  if (found !== lines) throw new Error(`${path} has ${found} lines of ${lines}`)
  return since - begun
}

const started: Array<Peer> = []
try {
  const subject = await ironwood(space, { probe: false })
  started.push(subject)
  const ctr = await containerd(space, join(space, "image.tar"))
  started.push(ctr)
  const pod = await podman(space, `oci:${layout}:latest`)
  started.push(pod)
  progress(`${lines} lines of ${line.length} bytes, each in turn`)
  const samples = await interleave(5, {
    ironwood: async (round) => {
      const id = `writes-${round}`
      const took = await untilWritten(join(space, "ironwood/logs", id), () => subject.write(id, writer))
      await subject.remove(id)
      return took
    },
    "conmon (podman, k8s-file)": async (round) => {
      const path = join(space, `podman-${round}.log`)
      const took = await untilWritten(path, () => pod.write(`writes-${round}`, writer, path))
      await pod.remove(`writes-${round}`)
      return took
    },
    "containerd's shim (ctr, file)": async (round) => {
      const path = join(space, `ctr-${round}.log`)
      const took = await untilWritten(path, () => ctr.write(`writes-${round}`, writer, path))
      await ctr.remove(`writes-${round}`)
      return took
    }
  })
  for (const [subject, took] of samples) {
    report({
      question: `log of one container, ${lines} lines, none lost`,
      subject,
      unit: "lines/ms",
      samples: took.map((milliseconds) => lines / milliseconds),
      aim: "at least theirs"
    })
  }
} finally {
  for (const peer of started.toReversed()) await peer.close()
}
process.exit(0)
