/**
 * Builds what the microVM of a sandbox boots: `build/guest/vmlinuz` and `build/guest/initramfs.img`, without being root. The same
 * inputs give the same bytes.
 *
 * The initramfs is all that the guest has besides the images of its containers: taproot, the OCI runtime with its libraries,
 * the small programs that come with taproot, and the modules that it takes to see its devices. It is not compressed: QEMU copies
 * it into the guest's memory, and unpacking would cost the guest more than it saves.
 *
 * Part of `scripts/setup`, and so of `npm start`; where the kernel cannot be downloaded it says so, and containers can have no
 * microVM.
 */
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, realpathSync, renameSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { archive, type CpioEntry, device, directory, file, link, withParents } from "./image/Cpio.ts"
import { ImageFailed, kernel, type Kernel, loadLine, moduleFiles } from "./image/Kernel.ts"
import { libraryEntries } from "./image/Libraries.ts"

const checkout = join(dirname(fileURLToPath(import.meta.url)), "..")
const build = join(checkout, "build")

/** Of the hypervisor, whose machine has no PCI, and for the root file systems of containers; those that a kernel has built in are not there. */
const guestModules: ReadonlyArray<string> = [
  "virtio_mmio",
  "virtio_console",
  "virtio_blk",
  "virtio_rng",
  "squashfs",
  "overlay"
]

/** Loaded only where its sandbox has a network. */
const networkModules: ReadonlyArray<string> = ["virtio_net"]

/** Loaded only where a container shares a directory with the host. */
const shareModules: ReadonlyArray<string> = ["virtiofs"]

/** Those of taproot's programs that a guest has. */
const programs = ["enter", "init", "files", "link"] as const

const runtime = (): string => {
  const found = ["/usr/bin/crun", "/usr/local/bin/crun"].find(existsSync)
  if (found === undefined) throw new ImageFailed("crun is missing here; run scripts/setup, which installs it")
  return realpathSync(found)
}

const entries = ({ modules, release }: Kernel): ReadonlyArray<CpioEntry> => {
  const crun = runtime()
  const loaded = moduleFiles(modules, guestModules)
  const others = (names: ReadonlyArray<string>): ReadonlyArray<string> =>
    moduleFiles(modules, names).filter((path) => !loaded.includes(path))
  const network = others(networkModules)
  const shares = others(shareModules)
  return [
    ...["dev", "proc", "sys", "run", "tmp", "etc", "root", "usr/bin"].map((path) => directory(path)),
    // before devtmpfs is there
    device("dev/console", 5, 1),
    device("dev/null", 1, 3, 0o666),
    device("dev/kmsg", 1, 11),
    ...["bin", "sbin", "lib", "lib64"].map((path) => link(path, `usr/${path}`)),
    link("usr/sbin", "bin"),
    file("etc/passwd", "root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    file("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    file("etc/taproot", "--guest\norg.ironwood.guest\n"),
    file("init", readFileSync(join(build, "taproot")), 0o755),
    ...programs.map((name) => file(`usr/lib/ironwood/${name}`, readFileSync(join(build, name)), 0o755)),
    file("usr/bin/crun", readFileSync(crun), 0o755),
    ...libraryEntries([crun]),
    ...[...new Set([...loaded, ...network, ...shares])].map((path) =>
      file(`usr/lib/modules/${release}/${path}`, readFileSync(join(modules, path)))
    ),
    file(`usr/lib/modules/${release}/load`, `${loaded.map(loadLine).join("\n")}\n`),
    // one a line, in the order in which they can be loaded
    ...Object.entries({ network, shares }).map(([purpose, paths]) =>
      file(`usr/lib/modules/${release}/${purpose}`, paths.map((path) => `${path}\n`).join(""))
    )
  ]
}

/** Writes a file as a whole, unless it is there with this content. */
const write = (path: string, content: Uint8Array): void => {
  if (existsSync(path) && readFileSync(path).equals(content)) return
  writeFileSync(`${path}.new`, content)
  renameSync(`${path}.new`, path)
}

/** Builds what is not up to date. */
export const guest = (say: (text: string) => void): void => {
  const target = join(build, "guest")
  mkdirSync(target, { recursive: true })
  const cache = join(build, "image-cache")
  mkdirSync(cache, { recursive: true })
  const chosen = kernel(cache, say)
  const initramfs = archive(withParents(entries(chosen)))
  const image = readFileSync(chosen.file)
  write(join(target, "vmlinuz"), image)
  write(join(target, "initramfs.img"), initramfs)
  const digestOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")
  const description = {
    kernel: { release: chosen.release, version: chosen.version, sha256: digestOf(image) },
    initramfs: { bytes: initramfs.length, sha256: digestOf(initramfs) }
  }
  // last: with it the others are whole
  write(join(target, "guest.json"), Buffer.from(`${JSON.stringify(description, null, 2)}\n`))
}

if (import.meta.main) guest((text) => void process.stdout.write(`guest: ${text}\n`))
