/**
 * What does a virtual machine under supervision cost beside one that is started by hand, with the same kernel, machine type,
 * accelerator and memory? A container's answer from a microVM, the root file system that it takes, the return of a machine whose
 * QEMU was killed, one that is paused and resumed, its memory written to a file, read back and sent on, and what it all weighs beside guests and hypervisors.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import * as Client from "../src/cli/Client.ts"
import { type HandMade, handMade } from "./HandMade.ts"
import { type HandMadeMemory, handMadeMemory } from "./HandMadeMemory.ts"
import { ironwood, type Subject } from "./Ironwood.ts"
import { acceleratorOf, inhabited, machine, sandboxed } from "./Machines.ts"
import { interleave, memory, progress, report, settled, timed } from "./Measure.ts"
import { workspace } from "./Peers.ts"
import { peaks, rootSquashfs } from "./RootSquashfs.ts"

const space = workspace()
const rounds = 5
const roots = async (): Promise<void> => {
  progress("root file systems, each in turn")
  const subject = await rootSquashfs(space)
  try {
    const question = "layers to root file system, 3 layers, 100 MiB"
    const tools = "umoci raw unpack, mksquashfs (zstd, level 1)"
    const samples = await interleave(rounds, { ironwood: subject.first, [tools]: subject.byTools })
    for (const [name, took] of samples) {
      report({ question, subject: name, unit: "ms", samples: took, aim: "faster" })
    }
    const memory = "memory of its programs at most"
    const programs = await peaks(["tar2sqfs", "umoci", "mksquashfs"], async () => {
      await subject.first()
      await subject.byTools()
    })
    for (const [name, mebibytes] of programs) {
      const whose = name === "tar2sqfs" ? `ironwood, ${name}` : name
      report({ question: memory, subject: whose, unit: "MiB", samples: [mebibytes], aim: "bounded" })
    }
    await subject.again()
    const again = await interleave(9, { ironwood: subject.again })
    for (const [name, took] of again) {
      const aim = "a third of the first time"
      report({ question: "the same once more", subject: name, unit: "ms", samples: took, aim })
    }
  } finally {
    await subject.close()
  }
}

const answers = async (connection: Client.Connection, hand: HandMade, accelerator: string): Promise<void> => {
  progress("microVMs, each in turn")
  const samples = await interleave(rounds, {
    ironwood: (round) => sandboxed(connection, `bench-${round}`),
    "QEMU, its modules, an image, crun by hand (the sum of the parts)": hand.container,
    "QEMU by hand, busybox' first word (the floor)": hand.firstWord
  })
  for (const [subject, took] of samples) {
    const question = `call to the first byte of a container in a microVM (${accelerator})`
    report({ question, subject, unit: "ms", samples: took, aim: "1.15 times the sum of the parts" })
  }
}

const machines = async (connection: Client.Connection, hand: HandMade): Promise<void> => {
  progress("a machine that is killed, each in turn")
  const one = await machine(connection, "bench", hand.floor)
  try {
    const returns = await interleave(rounds, { ironwood: one.killed, "QEMU started by hand": hand.firstWord })
    for (const [subject, took] of returns) {
      const question = "QEMU killed to the guest's first word, no back-off"
      report({ question, subject, unit: "ms", samples: took, aim: "1.15 times" })
    }
    progress("a machine that is paused, each in turn")
    const other = await hand.pausable()
    try {
      const resumed = (subject: { pause: () => Promise<void>; resume: () => Promise<void> }) => async () => {
        await subject.pause()
        return timed(subject.resume)
      }
      const samples = await interleave(31, { ironwood: resumed(one), "cont, by QMP": resumed(other) })
      for (const [subject, took] of samples) {
        report({ question: "paused to resumed", subject, unit: "ms", samples: took, aim: "by hand plus at most 5 ms" })
      }
    } finally {
      await other.close()
    }
  } finally {
    await one.remove()
  }
}

/** The memory of a machine: written, read back, sent to another process. */
const memories = async (connection: Client.Connection, hand: HandMadeMemory): Promise<void> => {
  progress("the memory of a machine, each in turn")
  const one = await machine(connection, "memory", hand.ticking)
  try {
    const rows = async (
      question: string,
      aim: string,
      subjects: Readonly<Record<string, (round: number) => Promise<number>>>
    ) => {
      for (const [subject, took] of await interleave(3, subjects)) {
        report({ question, subject, unit: "ms", samples: took, aim })
      }
    }
    await rows("a snapshot: the guest stands still", "1.15 times, and what its disks take", {
      ironwood: () => one.saved("good"),
      "QEMU by hand, migrate to a file": hand.saved
    })
    await rows("call to the guest's next word", "1.15 times QEMU with the same; faster than cold", {
      "ironwood, restore": () => one.started("good"),
      "QEMU by hand, -incoming": hand.loaded,
      "ironwood, a cold start": () => one.started(),
      "QEMU by hand, a cold start": hand.cold
    })
    await rows("a migration: the guest stands still", "1.15 times", {
      ironwood: one.moved,
      "QEMU to QEMU by hand": hand.moved
    })
  } finally {
    await one.remove()
  }
}

/** What taproot and the brain weigh more for each microVM with a container in it, once they have settled. */
const weights = async (connection: Client.Connection, instance: Subject): Promise<void> => {
  const many = 10
  progress(`${many} microVMs, until they have settled`)
  const weight = () => memory(instance.taprootPid, "Pss") + memory(instance.brainPid(), "Pss")
  const names = Array.from({ length: many }, (_, index) => `weight-${index}`)
  // what is made once is the first one's
  const removeFirst = await inhabited(connection, ["weight-first"])
  const before = await settled(weight, 30)
  const remove = await inhabited(connection, names)
  const each = ((await settled(weight, 30)) - before) / many
  report({
    question: "host memory per microVM beyond its guest's and its hypervisor's",
    subject: "ironwood",
    unit: "MiB",
    samples: [each],
    aim: `under 0.2 MiB, at ${many}`
  })
  await remove()
  await removeFirst()
}

await roots()
const home = join(space, "instance")
mkdirSync(home)
const instance = await ironwood(home, { probe: false })
try {
  const scope = Scope.makeUnsafe()
  const connection = await Effect.runPromise(
    Client.make(`unix:${home}/ironwood/ironwood.sock`).pipe(Effect.provideService(Scope.Scope, scope))
  )
  const accelerator = await acceleratorOf(connection)
  const hand = handMade(space, accelerator)
  await answers(connection, hand, accelerator.toUpperCase())
  await machines(connection, hand)
  await memories(connection, handMadeMemory(space, hand))
  await weights(connection, instance)
  await Effect.runPromise(Scope.close(scope, Exit.void))
} finally {
  await instance.close()
}
process.exit(0)
