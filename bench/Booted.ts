/**
 * Machines under measurement, all with the same kernel, accelerator, processors and memory: Ironwood's image, busybox as init
 * (the floor: nothing can be there sooner), and Debian with systemd.
 *
 * Trap: without KVM these are figures of an emulator, of use only beside each other.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import { HostService } from "../proto/generated/ironwood/v1/host_pb.ts"
import * as Qemu from "../scripts/boot/Qemu.ts"
import { withSamples } from "../scripts/boot/Samples.ts"
import type { Image } from "../scripts/image.ts"
import { archive, device, file, withParents } from "../scripts/image/Cpio.ts"
import * as Client from "../src/cli/Client.ts"
import { type DebianRoot, marker } from "./DebianRoot.ts"

const floorsWord = "bench: the floor is reached"

/** No machine may take longer, in milliseconds. */
const patience = 180_000

export interface Machines {
  /** Milliseconds from QEMU's start to busybox' first word. */
  readonly floor: () => Promise<number>
  /** To the first answer of the API; undefined: it did not boot. And the memory used by then and five seconds, in MiB; the stop, in milliseconds. */
  readonly ironwood: (
    memoryMiB?: number
  ) => Promise<{ readonly answer: number; readonly used: number; readonly stop: number } | undefined>
  /** To the multi-user target, and the memory used five seconds later. */
  readonly systemd: () => Promise<{ readonly reached: number; readonly used: number }>
}

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds))

const ended = (child: ChildProcess): Promise<void> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once("exit", () => resolve()))

/** Milliseconds until a machine has printed something. */
const untilPrinted = (child: ChildProcess, text: RegExp, began: number): Promise<{ took: number; seen: string }> =>
  new Promise((resolve, reject) => {
    let seen = ""
    const timer = setTimeout(
      () => reject(new Error(`it never printed ${String(text)}:\n${seen.slice(-2000)}`)),
      patience
    )
    child.stdout?.on("data", (chunk) => {
      seen += String(chunk)
      if (!text.test(seen)) return
      clearTimeout(timer)
      resolve({ took: performance.now() - began, seen })
    })
    child.once("exit", () => reject(new Error(`it ended before it printed ${String(text)}:\n${seen.slice(-2000)}`)))
  })

const kibibytes = (text: string, name: string): number => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(text)?.[1])

/** `space`: a directory for what is made here. */
export const machines = (space: string, built: Image, accelerator: Qemu.Accelerator, debian: DebianRoot): Machines => {
  const floorImage = join(space, "floor.img")
  writeFileSync(
    floorImage,
    archive(
      withParents([
        file("init", `#!/bin/busybox sh\necho "${floorsWord}"\nexec /bin/busybox sleep 1000\n`, 0o755),
        file("bin/busybox", readFileSync("/bin/busybox"), 0o755),
        device("dev/console", 5, 1)
      ])
    )
  )
  const initramfs = join(space, "ironwood.img")
  const nothing = join(space, "nothing")
  mkdirSync(nothing)
  withSamples(built.initramfs, nothing, initramfs, Qemu.patienceFor(accelerator))

  const start = (what: Partial<Qemu.Machine>): ChildProcess => {
    const more = ["-no-reboot", ...(what.more ?? [])]
    return spawn(Qemu.emulator, Qemu.argumentsOf({ kernel: built.kernel, initramfs, accelerator, ...what, more }), {
      stdio: ["ignore", "pipe", "inherit"]
    })
  }

  return {
    floor: async () => {
      const began = performance.now()
      const child = start({ initramfs: floorImage })
      const { took } = await untilPrinted(child, new RegExp(floorsWord), began)
      child.kill("SIGKILL")
      await ended(child)
      return took
    },
    systemd: async () => {
      const began = performance.now()
      const child = start({
        initramfs: debian.initramfs,
        port: await Qemu.freePort(),
        addresses: "config",
        more: [
          "-drive",
          `file=${debian.disk},format=raw,if=none,id=disk,snapshot=on`,
          "-device",
          "virtio-blk-pci,drive=disk"
        ]
      })
      const { took } = await untilPrinted(child, new RegExp(marker), began)
      const { seen } = await untilPrinted(child, /MemAvailable:\s+\d+ kB/, began)
      child.kill("SIGKILL")
      await ended(child)
      return { reached: took, used: (kibibytes(seen, "MemTotal") - kibibytes(seen, "MemAvailable")) / 1024 }
    },
    ironwood: async (memoryMiB) => {
      const port = await Qemu.freePort()
      const began = performance.now()
      const child = start({ port, ...(memoryMiB === undefined ? {} : { memoryMiB }) })
      child.stdout?.resume()
      const call = <A>(act: (client: Client.Connection) => Effect.Effect<A, unknown>): Promise<A | undefined> =>
        Effect.runPromise(
          Effect.orElseSucceed(Effect.scoped(Effect.flatMap(Client.make(`127.0.0.1:${port}`), act)), () => undefined)
        )
      const facts = () => call((client) => client.call(HostService.method.getHostFacts, {}, { timeout: "20 seconds" }))
      try {
        for (;;) {
          const answer = await call((client) =>
            client.call(HostService.method.getVersion, {}, { timeout: "2 seconds" })
          )
          if (answer !== undefined) break
          if (child.exitCode !== null || performance.now() - began > patience) return undefined
          await pause(50)
        }
        const answer = performance.now() - began
        await pause(5_000)
        const memory = (await facts())?.facts?.memory
        if (memory === undefined) return undefined
        const stopped = performance.now()
        await call((client) => client.call(HostService.method.stopHost, {}))
        await ended(child)
        return {
          answer,
          used: Number(memory.totalBytes - memory.availableBytes) / 1024 / 1024,
          stop: performance.now() - stopped
        }
      } finally {
        child.kill("SIGKILL")
        await ended(child)
      }
    }
  }
}
