/**
 * What does a supervised container cost? Start, restart, event loop, adoption (`memory.ts`: memory): Ironwood beside bare crun,
 * containerd and podman (with conmon), all in this run, in turn, on one tmpfs.
 */
import { spawn, spawnSync } from "node:child_process"
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { ironwood } from "./Ironwood.ts"
import { interleave, progress, report, timed } from "./Measure.ts"
import { bareGrpcStalls } from "./Stall.ts"
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

const many = 100
const started: Array<Peer> = []
const open = async <P extends Peer>(peer: P | Promise<P>): Promise<P> => {
  const opened = await peer
  started.push(opened)
  return opened
}

try {
  const subject = await open(ironwood(space))
  const crun = bareCrun(space)
  // what no supervisor on top of crun can be below
  const crunRun = bareCrun(space, { once: true })
  const ctr = await open(containerd(space, join(space, "image.tar")))
  const pod = await open(podman(space, `oci:${layout}:latest`))
  const peers = { ironwood: subject, crun, crunRun, containerd: ctr, podman: pod }

  progress("one container at a time, each in turn")
  const start = async (name: keyof typeof peers, round: number) => {
    const id = `start-${name}-${round}`
    if (name === "crun" || name === "crunRun") peers[name].prepare(id)
    const took = await timed(() => peers[name].start(id))
    await peers[name].remove(id)
    return took
  }
  const starts = await interleave(21, {
    ironwood: (round) => start("ironwood", round),
    "crun create + start, bare": (round) => start("crun", round),
    "crun run --detach, bare": (round) => start("crunRun", round),
    "ctr run --detach": (round) => start("containerd", round),
    "podman run --detach": (round) => start("podman", round)
  })
  for (const [name, samples] of starts) {
    report({
      question: "API call to process running",
      subject: name,
      unit: "ms",
      samples,
      aim: "bare crun plus at most 15 ms; a third of ctr, a quarter of podman"
    })
  }

  progress("a crash, back-off off")
  await subject.start("crasher")
  let service: ReturnType<typeof spawn> | undefined
  mkdirSync(join(space, "s6"))
  writeFileSync(join(space, "s6/run"), "#!/bin/sh\nexec sleep 100000\n", { mode: 0o755 })
  service = spawn("s6-supervise", [join(space, "s6")], { stdio: "ignore" })
  const childOf = (parent: number): number | undefined => {
    const text = readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim()
    return text === "" ? undefined : Number(text.split(" ")[0])
  }
  const isSleep = (pid: number): boolean => {
    try {
      return readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "sleep"
    } catch {
      return false
    }
  }
  const s6Pid = async (old: number): Promise<number> => {
    for (;;) {
      const pid = childOf(service?.pid ?? 0)
      if (pid !== undefined && pid !== old && isSleep(pid)) return pid
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
  }
  const restarts = await interleave(15, {
    ironwood: async () => {
      const old = await subject.pid("crasher")
      return timed(async () => {
        process.kill(old, "SIGKILL")
        await subject.runningAnew("crasher", old)
      })
    },
    "crun create + start, bare": async (round) => {
      crun.prepare(`restart-${round}`)
      const took = await timed(() => crun.start(`restart-${round}`))
      await crun.remove(`restart-${round}`)
      return took
    },
    "s6-supervise, bare process": async () => {
      const old = await s6Pid(-1)
      return timed(async () => {
        process.kill(old, "SIGKILL")
        await s6Pid(old)
      })
    }
  })
  service.kill("SIGTERM")
  spawnSync("s6-svc", ["-dx", join(space, "s6")])
  await subject.remove("crasher")
  for (const [name, samples] of restarts) {
    report({
      question: "crash to running again, no back-off",
      subject: name,
      unit: "ms",
      samples,
      aim: "at most 1.2 times bare crun"
    })
  }

  progress(`${many} containers at once`)
  const processorTime = "the same in processor time: without waiting for a processor"
  const burst = async (prefix: string, subjectName: string) => {
    await subject.stall()
    const together = await timed(() =>
      Promise.all(Array.from({ length: many }, (_, index) => subject.start(`${prefix}-${index}`)))
    )
    const { busy, stood } = await subject.stall()
    const about = { subject: subjectName, unit: "ms" }
    report({ ...about, question: `${many} containers started at once`, samples: [together] })
    report({ ...about, question: `longest event-loop stall while ${many} start`, samples: [stood], aim: "under 5 ms" })
    report({ ...about, question: processorTime, samples: [busy] })
  }
  // the first finds code that has never run; before the second everything is as it was, the code is warm
  await burst("first", "ironwood, first time")
  for (let index = 0; index < many; index++) await subject.remove(`first-${index}`)
  await burst("many", "ironwood, second time")
  const bare = await bareGrpcStalls(space, many)
  const floor = { subject: `bare grpc-js server, ${many} calls at once`, unit: "ms" }
  report({
    ...floor,
    question: `longest event-loop stall while ${many} start`,
    samples: bare.map(({ stood }) => stood)
  })
  report({ ...floor, question: processorTime, samples: bare.map(({ busy }) => busy) })
  const ballast = Buffer.alloc(500 * 1024 * 1024, 1)
  const spawnStalls: Array<number> = []
  for (let index = 0; index < many; index++) {
    spawnStalls.push(await timed(() => void spawn("true", { stdio: "ignore" })))
  }
  report({
    question: `longest event-loop stall while ${many} start`,
    subject: `child_process.spawn beside ${ballast.length >> 20} MiB, each`,
    unit: "ms",
    samples: spawnStalls
  })

  progress("the manager dies")
  await ctr.start("survivor")
  const expected = await subject.running()
  const adopted = async (): Promise<number> => {
    // a brain that dies again and again meets taproot's back-off; this is about one that has lived for a while
    await new Promise((resolve) => setTimeout(resolve, 5_500))
    const old = subject.brainPid()
    return timed(async () => {
      process.kill(old, "SIGKILL")
      for (;;) {
        try {
          const now = await subject.running()
          if (subject.brainPid() !== old && [...expected].every(([name, pid]) => now.get(name) === pid)) return
        } catch {
          // no brain yet
        }
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    })
  }
  const deaths = await interleave(7, {
    [`ironwood, ${many} containers`]: adopted,
    "containerd, 1 container": () =>
      timed(async () => {
        await ctr.restart()
        await ctr.pid("survivor")
      })
  })
  for (const [name, samples] of deaths) {
    report({
      question: "manager killed to all containers known again",
      subject: name,
      unit: "ms",
      samples,
      aim: "under 1 s with 100"
    })
  }
  await ctr.remove("survivor")
  for (let index = 0; index < many; index++) await subject.remove(`many-${index}`)
} finally {
  for (const peer of started.toReversed()) await peer.close()
}
process.exit(0)
