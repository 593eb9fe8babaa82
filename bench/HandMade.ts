/**
 * Virtual machines as a person makes them who has QEMU and a shell: with the kernel, the machine type, the accelerator, the memory
 * and the processors that microVMs of Ironwood have in the same run, and busybox as init.
 *
 * Two kinds: the floor, whose init says a word and nothing else; and the sum of the parts, which has all that a sandbox's guest has
 * (its initramfs, with this init instead of taproot), loads its modules, mounts an image and has the same OCI runtime run a
 * container in it that says the word.
 *
 * Trap: without KVM these are figures of an emulator, of use only beside each other.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { Accelerator } from "../scripts/boot/Qemu.ts"
import { archive, device, directory, file, link, withParents } from "../scripts/image/Cpio.ts"

/** What guests say. */
export const word = "bench-is-there"

/** What each guest has. */
export const size = { memoryMiB: 256, cpus: 1 } as const

/** What its kernels are told. Those of sandboxes are told more, by which they come up sooner (`GuestImage.ts`). */
export const commandLine = "console=ttyS0 quiet panic=-1 reboot=t"

const built = (name: string): string => fileURLToPath(new URL(`../build/guest/${name}`, import.meta.url))
export const kernel = built("vmlinuz")

/** No machine may take longer, in milliseconds. */
const patience = 120_000

export interface HandMade {
  /** The initramfs of the floor. */
  readonly floor: string
  /** Milliseconds from QEMU's start to the word of the floor. */
  readonly firstWord: () => Promise<number>
  /** To the word of a container, the sum of the parts. */
  readonly container: () => Promise<number>
  /** Starts a floor that is to be paused and resumed. */
  readonly pausable: () => Promise<Pausable>
  /** Starts QEMU with this initramfs, with more arguments. */
  readonly start: (initrd: string, more: ReadonlyArray<string>) => ChildProcess
}

export interface Pausable {
  readonly pause: () => Promise<void>
  readonly resume: () => Promise<void>
  readonly close: () => Promise<void>
}

const applets = ["sh", "mount", "mkdir", "insmod", "sleep"]

/** An init that runs the container of `/bundle`; `load` names the modules, one a line. */
const runsContainer = (modules: string): string => `#!/usr/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
exec </dev/console >/dev/console 2>&1
while read -r module options; do insmod ${modules}/$module $options; done <${modules}/load
mkdir -p /run/image /run/upper /run/work /run/root
mount -t squashfs -o ro /dev/vda /run/image
mount -t overlay -o lowerdir=/run/image,upperdir=/run/upper,workdir=/run/work overlay /run/root
crun run --no-pivot --bundle /bundle bench
sleep 100000
`

const ended = (child: ChildProcess): Promise<void> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once("exit", () => resolve()))

/** Kills it; resolves at its end. */
export const stop = async (child: ChildProcess): Promise<void> => {
  child.kill("SIGKILL")
  await ended(child)
}

/** Waits for the word; an error with what was said instead. */
export const said = (child: ChildProcess): Promise<void> =>
  new Promise((resolve, reject) => {
    let seen = ""
    const fail = (why: string) => () => reject(new Error(`the guest ${why}:\n${seen.slice(-2000)}`))
    const timer = setTimeout(fail("did not say its word in time"), patience)
    child.stdout?.on("data", (chunk) => {
      seen += String(chunk)
      if (!seen.includes(word)) return
      clearTimeout(timer)
      resolve()
    })
    child.once("error", reject)
    child.once("exit", fail("ended before it said its word"))
  })

export interface Controlled {
  /** Its answer, a line of JSON. */
  readonly ask: (command: string, given?: object) => Promise<string>
  /** When an event of this name came last, by QEMU's clock, in milliseconds; NaN: it has not. */
  readonly at: (event: string) => number
  readonly close: () => void
}

/** Asks QEMU by its control socket; each answer is waited for. */
export const controlled = async (path: string): Promise<Controlled> => {
  const socket = connect(path)
  const lines = createInterface({ input: socket })
  const events = new Map<string, number>()
  let answered: (line: string) => void = () => {}
  lines.on("line", (line) => {
    const message = JSON.parse(line)
    if ("event" in message) {
      const { microseconds, seconds } = message.timestamp
      events.set(message.event, seconds * 1000 + microseconds / 1000)
    } else if ("return" in message || "error" in message) answered(line)
  })
  const ask: Controlled["ask"] = async (command, given = {}) => {
    const line = await new Promise<string>((resolve) => {
      answered = resolve
      socket.write(`${JSON.stringify({ execute: command, arguments: given })}\n`)
    })
    if (line.startsWith('{"error"')) throw new Error(`${command}: ${line}`)
    return line
  }
  await ask("qmp_capabilities")
  return { ask, at: (event) => events.get(event) ?? Number.NaN, close: () => void socket.destroy() }
}

/** `space`: a directory for what is made here, with a root file system in `rootfs`. */
export const handMade = (space: string, accelerator: Accelerator): HandMade => {
  const busybox = readFileSync("/usr/bin/busybox")
  const floor = join(space, "floor.img")
  writeFileSync(
    floor,
    archive(
      withParents([
        file("init", `#!/bin/busybox sh\necho ${word}\nexec /bin/busybox sleep 100000\n`, 0o755),
        file("bin/busybox", busybox, 0o755),
        device("dev/console", 5, 1)
      ])
    )
  )

  const bundle = join(space, "bundle")
  mkdirSync(bundle)
  execFileSync("crun", ["spec"], { cwd: bundle })
  const spec = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8"))
  Object.assign(spec.process, { terminal: false, args: ["/bin/busybox", "echo", word], rlimits: [] })
  Object.assign(spec.root, { path: "/run/root", readonly: false })
  const { kernel: guestKernel } = JSON.parse(readFileSync(built("guest.json"), "utf8"))
  const init = runsContainer(`/usr/lib/modules/${guestKernel.release}`)
  const parts = join(space, "parts.img")
  // the kernel unpacks one archive after the other; later files take the place of earlier ones
  writeFileSync(
    parts,
    Buffer.concat([
      readFileSync(built("initramfs.img")),
      archive([
        directory("bundle"),
        file("bundle/config.json", JSON.stringify(spec)),
        file("init", init, 0o755),
        file("usr/bin/busybox", busybox, 0o755),
        ...applets.map((applet) => link(`usr/bin/${applet}`, "busybox"))
      ])
    ])
  )
  const disk = join(space, "parts.squashfs")
  execFileSync("mksquashfs", [join(space, "rootfs"), disk, "-comp", "zstd", "-Xcompression-level", "1", "-quiet"], {
    stdio: "ignore"
  })

  const start = (initrd: string, more: ReadonlyArray<string> = []): ChildProcess => {
    const emulated = accelerator === "tcg"
    const fast = emulated
      ? ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max"]
      : ["-accel", "kvm", "-cpu", "host"]
    const parameters = emulated ? `${commandLine} no_timer_check tsc_early_khz=2600000` : commandLine
    const machine = ["-machine", "microvm,acpi=on,rtc=on,pcie=off,ioapic2=on", "-nodefaults", "-no-user-config"]
    const guest = ["-smp", String(size.cpus), "-m", String(size.memoryMiB), "-display", "none", "-serial", "stdio"]
    const boot = ["-kernel", kernel, "-initrd", initrd, "-append", parameters]
    return spawn("qemu-system-x86_64", [...machine, ...fast, ...guest, ...boot, ...more], {
      stdio: ["ignore", "pipe", "inherit"]
    })
  }
  const until = async (initrd: string, more?: ReadonlyArray<string>): Promise<number> => {
    const began = performance.now()
    const child = start(initrd, more)
    try {
      await said(child)
      return performance.now() - began
    } finally {
      await stop(child)
    }
  }

  return {
    floor,
    start,
    firstWord: () => until(floor),
    container: () =>
      until(parts, [
        "-drive",
        `file=${disk},format=raw,if=none,id=root,readonly=on`,
        "-device",
        "virtio-blk-device,drive=root"
      ]),
    pausable: async () => {
      const path = join(space, "control")
      const child = start(floor, ["-qmp", `unix:${path},server=on,wait=off`])
      try {
        await said(child)
        const { ask, close } = await controlled(path)
        return {
          pause: async () => void (await ask("stop")),
          resume: async () => void (await ask("cont")),
          close: async () => {
            close()
            await stop(child)
          }
        }
      } catch (error) {
        await stop(child)
        throw error
      }
    }
  }
}
