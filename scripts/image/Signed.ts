/**
 * What a machine with UEFI boots: the signed Unified Kernel Image of an image, and a disk with it.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as Disk from "./Disk.ts"
import { sign, type SigningKeys, signingKeys } from "./SigningKeys.ts"
import { unifiedKernelImage } from "./Uki.ts"

/** Where keys are kept unless said otherwise, below the checkout. */
export const defaultKeys = "build/image-keys"

/** Both consoles, and a machine whose kernel panics starts again: else nobody would count its tries. */
const consoles = ["console=tty0", "console=ttyS0", "panic=10"]

export interface Source {
  readonly kernel: string
  readonly initramfs: string
  readonly version: string
  /** It can make virtual machines. */
  readonly hypervisor: boolean
  /** Seconds since 1970. */
  readonly time: number
}

export interface SignedImage {
  readonly file: string
  readonly commandLine: string
  readonly keys: SigningKeys
}

/** os-release(5). */
export const osRelease = ({ hypervisor, version }: Pick<Source, "version" | "hypervisor">): string =>
  [
    "NAME=Ironwood",
    "ID=ironwood",
    `VERSION_ID=${version}`,
    ...(hypervisor ? ["VARIANT=Hypervisor", "VARIANT_ID=hypervisor"] : []),
    `PRETTY_NAME="Ironwood ${version}${hypervisor ? " (Hypervisor)" : ""}"`,
    ""
  ].join("\n")

/** Writes `ironwood.efi` into a directory, signed. */
export const signedImage = (
  source: Source,
  options: {
    readonly directory: string
    readonly keys: string
    readonly parameters: ReadonlyArray<string>
    readonly say: (text: string) => void
  }
): SignedImage => {
  const { initramfs, kernel, time } = source
  const keys = signingKeys(options.keys, options.say)
  const commandLine = [...consoles, ...options.parameters].join(" ")
  const file = join(options.directory, "ironwood.efi")
  unifiedKernelImage({ kernel, initramfs, commandLine, osRelease: osRelease(source), time }, file)
  sign(keys, file, file, time)
  const mebibytes = readFileSync(file).length / 1024 / 1024
  options.say(`${file}: signed, ${mebibytes.toFixed(1)} MiB; its kernel command line is ${commandLine}`)
  return { file, commandLine, keys }
}

/** Writes `disk.img` into a directory. */
export const bootDisk = (
  { time, version }: Source,
  image: SignedImage,
  options: {
    readonly directory: string
    readonly enrol: Disk.Options["enrol"]
    readonly gibibytes: number
    readonly say: (text: string) => void
  }
): string => {
  const target = join(options.directory, "disk.img")
  Disk.disk(target, {
    slots: [{ name: Disk.slotName(version), file: image.file }],
    keys: image.keys,
    enrol: options.enrol,
    bytes: options.gibibytes * 1024 ** 3,
    time
  })
  options.say(`${target}: ${options.gibibytes} GiB, sparse; boots on machines with UEFI`)
  return target
}
