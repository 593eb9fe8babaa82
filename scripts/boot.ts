/**
 * `npm run boot`: boots the image in QEMU, with the console in this terminal, the API on a port of loopback, and the sample
 * containers running in it. Ctrl-C asks the machine to stop in order.
 * `--quick` takes an image that is made in seconds and is a third larger.
 *
 * `--uki` boots its disk.img by UEFI firmware that enforces Secure Boot: the signed image from its disk, and what
 * the machine keeps is on that disk. Its first start enrols the keys. `--tamper` changes a byte of it first.
 *
 * `--netboot` boots it over the network: iPXE takes a script by TFTP, then the kernel and the initramfs by HTTP.
 *
 * `--hypervisor` takes the image that can make virtual machines, and gives it 2 GiB of memory (else 768 MiB). Without KVM here, or
 * nested virtualization, they are emulated by a machine that is emulated itself: it works, and is slow.
 *
 *   npm run boot -- [--hypervisor] [--memory MIB] [--tcg] [--quick] [--uki [--tamper] | --netboot] [KERNEL-PARAMETER...]
 */
import { spawn } from "node:child_process"
import { copyFileSync, linkSync, mkdirSync, rmSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { netboot } from "./boot/Netboot.ts"
import * as Qemu from "./boot/Qemu.ts"
import { sampleDirectory, withSamples } from "./boot/Samples.ts"
import { type Image, image, sourceOf } from "./image.ts"
import { ImageFailed } from "./image/Kernel.ts"
import { bootDisk, defaultKeys, signedImage } from "./image/Signed.ts"
import { tampered } from "./image/Uki.ts"
import { commandLine, refuse, wholeNumber } from "./Usage.ts"

const checkout = fileURLToPath(new URL("..", import.meta.url))

const say = (text: string): void => void process.stderr.write(`boot: ${text}\n`)

const file = fileURLToPath(import.meta.url)

const { positionals, values } = commandLine(file, {
  allowPositionals: true,
  options: {
    memory: { type: "string" },
    tcg: { type: "boolean" },
    hypervisor: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    uki: { type: "boolean", default: false },
    tamper: { type: "boolean", default: false },
    netboot: { type: "boolean", default: false }
  }
})
const memoryMiB =
  values.memory !== undefined
    ? wholeNumber(file, "--memory", values.memory, 64)
    : values.hypervisor
      ? Qemu.hypervisorMemoryMiB
      : undefined
if (values.netboot && (values.uki || values.tamper)) refuse(file, "--netboot and --uki: one of them")

const specs = `kind: Image
path: ${sampleDirectory}
---
kind: Container
name: hello
image: hello:latest
---
kind: Container
name: flaky
image: flaky:latest
`

/** Runs the command line against the machine; true when it went well. */
const ironwood = (address: string, args: ReadonlyArray<string>, input: string): Promise<boolean> =>
  new Promise((resolve) => {
    const child = spawn(join(checkout, "ironwood"), ["--address", address, ...args], {
      stdio: ["pipe", "ignore", "pipe"]
    })
    let complaint = ""
    child.stderr.on("data", (chunk) => (complaint += String(chunk)))
    child.stdin.on("error", () => {})
    child.stdin.end(input)
    child.once("close", (code) => {
      if (code !== 0 && args[0] !== "version") say(complaint.trim())
      resolve(code === 0)
    })
  })

/** The disk with the signed image, and the firmware's variables beside it; made anew each time. */
const signedDisk = (built: Image, initramfs: string): NonNullable<Qemu.Machine["firmware"]> => {
  const directory = dirname(built.kernel)
  const source = { ...sourceOf(built), initramfs }
  const parameters = [...Qemu.networkParameters("written"), ...positionals]
  const signed = signedImage(source, { directory, keys: join(checkout, defaultKeys), parameters, say })
  if (values.tamper) {
    tampered(signed.file, signed.commandLine, signed.file)
    say("a byte of its kernel command line was changed after it was signed: the firmware must refuse it")
  }
  const disk = bootDisk(source, signed, { directory, enrol: "force", gibibytes: 4, say })
  const variables = join(directory, "firmware-variables.fd")
  copyFileSync(Qemu.freshVariables, variables)
  return { disk, variables }
}

/** What is served on the network: hard links, as the files are large. */
const onNetwork = (built: Image, initramfs: string, commandLine: string) => {
  const directory = join(checkout, "build/netboot")
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })
  linkSync(built.kernel, join(directory, "vmlinuz"))
  linkSync(initramfs, join(directory, "initramfs.img"))
  return netboot(directory, commandLine)
}

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds))

const main = async (): Promise<void> => {
  const built = image(say, values)
  const accelerator = values.tcg === true ? "tcg" : await Qemu.accelerator(built)
  const initramfs = join(checkout, "build/initramfs-boot.img")
  withSamples(built.initramfs, join(checkout, "build/sample-image"), initramfs, Qemu.patienceFor(accelerator))
  const firmware = values.uki || values.tamper ? signedDisk(built, initramfs) : undefined
  const port = await Qemu.freePort()
  const machine = { accelerator, port, parameters: positionals }
  const address = `127.0.0.1:${port}`
  const began = Date.now()
  say(`QEMU with ${accelerator.toUpperCase()}; the API will be at ${address}; ctrl-C stops the machine in order`)
  const child = spawn(
    Qemu.emulator,
    Qemu.argumentsOf({
      kernel: built.kernel,
      initramfs,
      ...machine,
      ...(values.netboot ? onNetwork(built, initramfs, Qemu.commandLine(machine)) : {}),
      ...(firmware === undefined ? {} : { firmware }),
      ...(memoryMiB === undefined ? {} : { memoryMiB })
    }),
    // a session of its own: ctrl-C is for us
    { stdio: ["ignore", "inherit", "inherit"], detached: true }
  )
  let ended = false
  const end = new Promise<void>((resolve) => {
    child.once("error", (error) => {
      say(`${Qemu.emulator} cannot be started (${error.message}); run scripts/setup --boot`)
      resolve()
    })
    child.once("exit", resolve)
  }).then(() => {
    ended = true
  })
  let asked = 0
  process.on("SIGINT", () => {
    asked += 1
    if (asked > 1) return void child.kill("SIGKILL")
    say("stopping the machine in order; ctrl-C again switches it off")
    void ironwood(address, ["down"], "")
  })
  while (!ended && !(await ironwood(address, ["version"], ""))) await pause(200)
  if (!ended) {
    say(
      `the API answers after ${((Date.now() - began) / 1000).toFixed(1)} s:  ./ironwood --address ${address} tree --watch`
    )
    await ironwood(address, ["apply", "-f", "-"], specs)
  }
  await end
}

try {
  await main()
} catch (error) {
  if (!(error instanceof ImageFailed)) throw error
  process.stderr.write(`boot: ${error.message}\n`)
  process.exitCode = 1
}
