/**
 * How fast is a published port of a container's own network? A program in the container sends, or takes, what it can by one
 * connection to a port of the host's loopback. Beside it what makes such networks by hand, started as its manual says, and podman with
 * the same; all of them have slirp4netns, so what differs is how it was started, and what is around it. Of each also the processor
 * time that it takes, which other programs of the machine change less.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { ironwood } from "./Ironwood.ts"
import { interleave, progress, report } from "./Measure.ts"
import { command, inOwnMountNamespace, podman, workspace } from "./Peers.ts"

inOwnMountNamespace()

const mebibytes = 512
/** Where the container sends, and where it takes. */
const inside = { sends: 80, takes: 81 } as const
type Kind = keyof typeof inside
const busybox = "/bin/busybox"
const forever = (port: number, program: string) =>
  `while :; do ${busybox} nc -l -p ${port} -e ${busybox} ${program}; done`
const servers = [
  "sh",
  "-c",
  `${forever(inside.sends, `dd if=/dev/zero bs=1M count=${mebibytes}`)} & ${forever(inside.takes, "dd of=/dev/null bs=1M")}`
]

/** The ports of the host that lead there. */
type Published = Readonly<Record<Kind, number>>
const published = (first: number): Published => ({ sends: first, takes: first + 1 })
const pairsOf = ({ sends, takes }: Published): ReadonlyArray<readonly [number, number]> => [
  [inside.sends, sends],
  [inside.takes, takes]
]

const piece = Buffer.alloc(1 << 20)

/** Milliseconds until all of it has come, or has been taken and the connection closed; undefined: nobody listens there. */
const transfer = (port: number, kind: Kind): Promise<number | undefined> =>
  new Promise((resolve, reject) => {
    let came = 0
    let begun = 0
    const socket = connect({
      port,
      host: "127.0.0.1",
      onread: { buffer: Buffer.alloc(1 << 18), callback: (bytes) => ((came += bytes), true) }
    })
    socket.once("error", () => resolve(undefined))
    socket.once("connect", () => {
      begun = performance.now()
      if (kind === "sends") return
      let left = mebibytes
      const write = (): void => {
        while (left > 0) if ((left--, !socket.write(piece))) return
        socket.end()
      }
      socket.on("drain", write)
      write()
    })
    socket.once("close", () => {
      const took = performance.now() - begun
      if (kind === "sends" && came === 0) return resolve(undefined)
      if (kind === "sends" && came !== mebibytes << 20) return reject(new Error(`${came} bytes came from port ${port}`))
      resolve(took)
    })
  })

/** The server behind a port is there anew a moment after each connection. */
const measure = async (port: number, kind: Kind): Promise<number> => {
  const deadline = performance.now() + 30_000
  for (;;) {
    const took = await transfer(port, kind)
    // who takes nothing has closed at once
    if (took !== undefined && (kind === "sends" || took > 20)) return took
    if (performance.now() > deadline) throw new Error(`nobody listens behind port ${port}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Milliseconds that the slirp4netns with these words in its command line has had of the processors. */
const processorTime = (words: string): number => {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8")
      if (line.split("\0")[0]?.endsWith("slirp4netns") !== true || !line.includes(words)) continue
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
      const [user, system] = stat
        .slice(stat.lastIndexOf(")") + 2)
        .split(" ")
        .slice(11, 13)
      // in hundredths of a second
      return (Number(user) + Number(system)) * 10
    } catch {
      // it ended while we looked
    }
  }
  throw new Error(`no slirp4netns has ${words} in its command line`)
}

const space = workspace()
const layout = join(space, "layout")
const sample = fileURLToPath(new URL("../build/sample-image", import.meta.url))
cpSync(sample, layout, { recursive: true })
const index = JSON.parse(readFileSync(join(sample, "index.json"), "utf8"))
writeFileSync(join(layout, "index.json"), JSON.stringify({ ...index, manifests: index.manifests.slice(0, 1) }))

/** What its command line has that no other one has. */
const handWords = `--api-socket=${space}/control`

/** As slirp4netns(1) has it, with what all of them give it: large packets. */
const byHand = async (ports: Published): Promise<() => void> => {
  const home = join(space, "hand")
  mkdirSync(home)
  const programs: Array<ChildProcess> = []
  const start = (name: string, args: ReadonlyArray<string>): ChildProcess => {
    const child = spawn(name, args, { stdio: "ignore", cwd: home })
    programs.push(child)
    return child
  }
  // its own pids, so that nobody outlives it
  const args = ["--net", "--pid", "--fork", "--kill-child", busybox, ...servers]
  const container = start("unshare", args)
  await new Promise((resolve) => setTimeout(resolve, 300))
  start("slirp4netns", [
    "--configure",
    "--mtu=65520",
    "--disable-host-loopback",
    handWords,
    String(container.pid),
    "tap0"
  ])
  await new Promise((resolve) => setTimeout(resolve, 1000))
  for (const [guest, host] of pairsOf(ports)) {
    const forward = { proto: "tcp", host_addr: "127.0.0.1", host_port: host, guest_port: guest }
    const request = JSON.stringify({ execute: "add_hostfwd", arguments: forward })
    await new Promise<void>((resolve, reject) => {
      const socket = connect(join(space, "control"), () => socket.end(request))
      socket.resume()
      socket.once("error", reject)
      socket.once("close", () => resolve())
    })
  }
  return () => {
    for (const child of programs.toReversed()) child.kill("SIGKILL")
  }
}

const closing: Array<() => unknown> = []
try {
  const subject = await ironwood(space, { probe: false })
  closing.push(() => subject.close())
  const pod = await podman(space, `oci:${layout}:latest`)
  closing.push(() => pod.close())
  const [own, hand, theirs] = [published(28_080), published(28_082), published(28_084)]
  const cli = fileURLToPath(new URL("../ironwood", import.meta.url))
  const flags = pairsOf(own).flatMap(([guest, host]) => ["-p", `127.0.0.1:${host}:${guest}`])
  await command(cli, [
    "--address",
    `unix:${space}/ironwood/ironwood.sock`,
    "run",
    "-d",
    "--name",
    "serves",
    ...flags,
    "--entrypoint",
    busybox,
    "hello",
    ...servers
  ])
  closing.push(await byHand(hand))
  await pod.serve("serves", [busybox, ...servers], pairsOf(theirs))
  progress(`${mebibytes} MiB through a published port, each in turn`)
  const subjects = [
    { name: "ironwood", ports: own, words: `${space}/ironwood/` },
    { name: "slirp4netns by hand", ports: hand, words: handWords },
    { name: "podman (slirp4netns)", ports: theirs, words: `${space}/t/` }
  ]
  for (const kind of ["sends", "takes"] as const) {
    const question = `published port, the container ${kind}`
    const spent = new Map<string, Array<number>>()
    const one = ({ name, ports, words }: (typeof subjects)[number]) =>
      [
        name,
        async (round: number) => {
          const before = processorTime(words)
          const took = await measure(ports[kind], kind)
          if (round > 0) spent.set(name, [...(spent.get(name) ?? []), processorTime(words) - before])
          return took
        }
      ] as const
    const samples = await interleave(5, Object.fromEntries(subjects.map(one)))
    for (const [subject, took] of samples) {
      const rates = took.map((milliseconds) => (mebibytes * 1000) / milliseconds)
      report({ question, subject, unit: "MiB/s", samples: rates, aim: "at least theirs" })
    }
    for (const [subject, milliseconds] of spent) {
      const perGibibyte = milliseconds.map((time) => (time * 1024) / mebibytes)
      report({ question: `${question}: processor time`, subject, unit: "ms/GiB", samples: perGibibyte })
    }
  }
} finally {
  for (const close of closing.toReversed()) await close()
}
process.exit(0)
