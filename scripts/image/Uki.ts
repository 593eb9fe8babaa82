/**
 * A Unified Kernel Image: kernel, initramfs and kernel command line as one EFI program, by systemd's stub
 * (uapi-group.org/specifications/specs/unified_kernel_image). One signature covers all of it: under Secure Boot nobody can
 * give the kernel another command line.
 */
import { closeSync, openSync, readFileSync, readSync, rmSync, statSync, writeFileSync, writeSync } from "node:fs"
import { run } from "./Kernel.ts"

/** From the Debian package systemd-boot-efi. */
const stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

const page = 4096
const aligned = (bytes: number): number => Math.ceil(bytes / page) * page

export interface Parts {
  readonly kernel: string
  readonly initramfs: string
  readonly commandLine: string
  /** os-release(5): boot loaders show PRETTY_NAME and sort by VERSION_ID. */
  readonly osRelease: string
  /** Seconds since 1970. */
  readonly time: number
}

/** Where the sections of an EFI program end in memory. */
const endOf = (program: string): number => {
  const ends = run("objdump", ["--section-headers", program])
    .split("\n")
    .flatMap((line) => {
      const [, size, address] = /^ *\d+ \S+ +([0-9a-f]{8}) +([0-9a-f]+)/.exec(line) ?? []
      return size === undefined || address === undefined
        ? []
        : [Number.parseInt(size, 16) + Number.parseInt(address, 16)]
    })
  return Math.max(0, ...ends)
}

/** Gives the header of an EFI program this time instead of that of its making (PE format, section 3.3: TimeDateStamp). */
const stamp = (program: string, time: number): void => {
  const file = openSync(program, "r+")
  try {
    const word = Buffer.alloc(4)
    // where the signature of the header is, after the one that only DOS reads
    readSync(file, word, 0, 4, 0x3c)
    const header = word.readUInt32LE()
    word.writeUInt32LE(time >>> 0)
    writeSync(file, word, 0, 4, header + 8)
  } finally {
    closeSync(file)
  }
}

/** Writes the image, unsigned. */
export const unifiedKernelImage = (
  { commandLine, initramfs, kernel, osRelease, time }: Parts,
  target: string
): void => {
  const texts = { osRelease: `${target}.osrel`, commandLine: `${target}.cmdline` }
  writeFileSync(texts.osRelease, osRelease)
  writeFileSync(texts.commandLine, commandLine)
  // the kernel last: it is unpacked in place and may grow
  const sections = [
    [".osrel", texts.osRelease],
    [".cmdline", texts.commandLine],
    [".initrd", initramfs],
    [".linux", kernel]
  ] as const
  let address = aligned(endOf(stub))
  const args = sections.flatMap(([name, file]) => {
    const at = address
    address = aligned(at + statSync(file).size)
    return ["--add-section", `${name}=${file}`, "--change-section-vma", `${name}=0x${at.toString(16)}`]
  })
  run("objcopy", [...args, stub, target])
  stamp(target, time)
  for (const file of Object.values(texts)) rmSync(file)
}

/** The same program with one byte of its kernel command line another: what Secure Boot has to refuse. */
export const tampered = (program: string, commandLine: string, target: string): void => {
  const bytes = readFileSync(program)
  const at = bytes.indexOf(commandLine)
  if (at < 0) throw new Error(`${program} does not hold the command line ${JSON.stringify(commandLine)}`)
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
  writeFileSync(target, bytes)
}
