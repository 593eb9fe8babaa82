/**
 * How soon is a machine there, what does it take, and how well does it keep up? In QEMU: kernel start to the API's answer,
 * beside busybox as init (the floor) and Debian with systemd to its multi-user target with sshd, all with the same kernel and
 * accelerator; sizes; memory. Natively: the brain's part of that, its returns, ten thousand orphans, the end of 50 containers.
 */
import { execFileSync, spawn } from "node:child_process"
import { statSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Qemu from "../scripts/boot/Qemu.ts"
import { image } from "../scripts/image.ts"
import { kernel } from "../scripts/image/Kernel.ts"
import { machines } from "./Booted.ts"
import { debianRoot } from "./DebianRoot.ts"
import { ironwood } from "./Ironwood.ts"
import { progress, report, timed } from "./Measure.ts"
import { nativeBrain } from "./NativeBrain.ts"
import { command, inOwnMountNamespace, workspace } from "./Peers.ts"

inOwnMountNamespace()

const checkout = fileURLToPath(new URL("..", import.meta.url))
const space = workspace()
const rounds = 3

const native = async (): Promise<void> => {
  progress("the brain natively")
  const brain = await nativeBrain(space)
  const aim = "under 0.3 s after a kill, under 3 s after the others"
  report({
    question: "start of taproot to the API's answer, natively",
    subject: "ironwood",
    unit: "ms",
    samples: [brain.served],
    aim: "the brain's part under 150 ms"
  })
  const question = "end of a brain to the API's answer, natively"
  const failures = { killed: brain.kill, "out of memory (its cgroup's)": brain.outOfMemory, hung: brain.hang }
  try {
    for (const [name, fail] of Object.entries(failures)) {
      const samples: Array<number> = []
      for (let round = 0; round < rounds; round++) {
        const took = await fail()
        if (took !== undefined) samples.push(took)
      }
      if (samples.length > 0) report({ question, subject: `ironwood, ${name}`, unit: "ms", samples, aim })
    }
  } finally {
    await brain.close()
  }
}

/** Runs a program until it has said how long its orphans took, in milliseconds. */
const untilReaped = async (name: string, args: ReadonlyArray<string>): Promise<number> => {
  const child = spawn(name, args, { stdio: ["ignore", "ignore", "pipe"] })
  const ended = new Promise((resolve) => child.once("exit", resolve))
  let said = ""
  for await (const chunk of child.stderr) {
    said += String(chunk)
    const found = /none left after ([\d.]+) ms/.exec(said)
    if (found === null) continue
    child.kill("SIGTERM")
    await ended
    return Number(found[1])
  }
  throw new Error(`${name} ${args.join(" ")}: ${said}`)
}

const orphans = async (): Promise<void> => {
  progress("ten thousand orphans")
  const program = join(space, "orphans")
  execFileSync("musl-gcc", ["-static", "-O1", "-o", program, join(checkout, "test/boot/orphans.c")])
  const taproot = join(checkout, "build/taproot")
  const subjects = {
    // which takes the program for a brain; that has half a minute to say hello
    ironwood: () => untilReaped(taproot, ["--stop-deadline", "0", "--", program, "10000", "/bin/sleep", "100"]),
    "waitpid and nothing else (the floor)": () => untilReaped(program, ["--reap", "10000", "/bin/true"])
  }
  const samples = new Map<string, Array<number>>()
  for (let round = 0; round < rounds; round++) {
    for (const [subject, measure] of Object.entries(subjects)) {
      samples.set(subject, [...(samples.get(subject) ?? []), await measure()])
    }
  }
  for (const [subject, taken] of samples) {
    report({
      question: "10,000 orphans end at once: reaped",
      subject,
      unit: "ms",
      samples: taken,
      aim: "under 1 s, none left"
    })
  }
}

/** How 50 containers end that obey SIGTERM, or do not hear it. */
const ends = async (): Promise<void> => {
  const many = 50
  const programs = {
    obey: ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
    // the first process of a container hears no signal that it has not asked for
    "ignore it": ["/bin/sleep", "100000"]
  }
  for (const [how, entrypoint] of Object.entries(programs)) {
    progress(`the end of ${many} containers that ${how}`)
    const directory = join(space, how.replaceAll(" ", "-"))
    await command("mkdir", [directory])
    const subject = await ironwood(directory, { probe: false })
    try {
      for (let index = 0; index < many; index += 10) {
        await Promise.all(Array.from({ length: 10 }, (_, offset) => subject.start(`c-${index + offset}`, entrypoint)))
      }
      report({
        question: `end of all with ${many} containers`,
        subject: `ironwood, they ${how}`,
        unit: "ms",
        samples: [await timed(subject.close)],
        aim: "as long as the slowest; the deadline (10 s)"
      })
    } finally {
      await subject.close()
    }
  }
}

const booted = async (): Promise<void> => {
  const built = image(progress, { quick: false, hypervisor: false })
  const accelerator = await Qemu.accelerator(built)
  const debian = debianRoot(kernel(join(checkout, "build/image-cache"), progress), join(checkout, "build/bench/debian"))
  const { floor, ironwood: ours, systemd } = machines(space, built, accelerator, debian)
  const floors: Array<number> = []
  const answers: Array<number> = []
  const stops: Array<number> = []
  const theirs: Array<number> = []
  const used: Record<"ironwood" | "systemd", Array<number>> = { ironwood: [], systemd: [] }
  for (let round = 0; round < rounds; round++) {
    progress(`machines with ${accelerator.toUpperCase()}, round ${round + 1} of ${rounds}`)
    floors.push(await floor())
    const one = await ours()
    if (one === undefined) throw new Error("the image does not boot")
    answers.push(one.answer)
    stops.push(one.stop)
    used.ironwood.push(one.used)
    const other = await systemd()
    theirs.push(other.reached)
    used.systemd.push(other.used)
  }
  const first = `start of QEMU (${accelerator.toUpperCase()}) until it is there`
  report({
    question: first,
    subject: "ironwood, its API answers",
    unit: "ms",
    samples: answers,
    aim: "at most half of Debian's"
  })
  report({ question: first, subject: "busybox init's first word (the floor)", unit: "ms", samples: floors })
  report({ question: first, subject: "Debian with systemd, multi-user with sshd", unit: "ms", samples: theirs })
  const size = (statSync(built.kernel).size + statSync(built.initramfs).size) / 1024 / 1024
  report({ question: "kernel and image", subject: "ironwood", unit: "MiB", samples: [size], aim: "under 60 MB" })
  const memory = "memory in use, idle"
  report({ question: memory, subject: "ironwood", unit: "MiB", samples: used.ironwood, aim: "no more than Debian's" })
  report({ question: memory, subject: "Debian with systemd", unit: "MiB", samples: used.systemd })
  report({ question: "request to stop to the machine's end", subject: "ironwood", unit: "ms", samples: stops })
  for (const memoryMiB of [128, 160, 192, 224, 256, 320, 384, 512]) {
    progress(`a machine with ${memoryMiB} MiB`)
    if ((await ours(memoryMiB)) === undefined) continue
    const about = { question: "least memory that boots to the API", subject: "ironwood", unit: "MiB" }
    report({ ...about, samples: [memoryMiB], aim: "192" })
    break
  }
}

await native()
await orphans()
await ends()
await booted()
process.exit(0)
