/**
 * The kernel of an image: a package of Debian, downloaded once with `apt-get download` (apt checks its signature) and
 * unpacked without being installed; and which of its modules an image carries.
 *
 * Trap: a mirror drops a version some time after the next one. Then the newest one there is serves in place of the one that
 * is pinned here, and says so; the image's description names the one that was taken.
 */
import { spawnSync } from "node:child_process"
import { existsSync, globSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs"
import { basename, join, relative, resolve } from "node:path"

/** A version of a kernel's package; its name ends with the kernel's release. */
interface Package {
  readonly name: string
  readonly version: string
}

/** The version that images are made with, and tested with. */
const pinned: Package = { name: "linux-image-6.1.0-50-cloud-amd64", version: "6.1.176-1" }

export interface Kernel {
  readonly release: string
  readonly version: string
  /** The bootable file. */
  readonly file: string
  /** `/lib/modules/RELEASE` of the package. */
  readonly modules: string
}

export class ImageFailed extends Error {}

/** Runs a program of the system; what it printed. */
export const run = (command: string, args: ReadonlyArray<string>, cwd?: string): string => {
  const done = spawnSync(command, args, {
    encoding: "utf8",
    cwd,
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, LC_ALL: "C" }
  })
  if (done.status === 0) return done.stdout
  throw new ImageFailed(`${command} ${args.join(" ")} failed\n${done.error?.message ?? ""}${done.stdout}${done.stderr}`)
}

/** What the mirror's current kernel is. */
const newest = (): Package => {
  const meta = "linux-image-cloud-amd64"
  const [, name] = /Depends: (linux-image-\S+)/.exec(run("apt-cache", ["depends", meta])) ?? []
  const [, version] = /Candidate: (\S+)/.exec(run("apt-cache", ["policy", name ?? meta])) ?? []
  if (name === undefined || version === undefined) throw new ImageFailed(`apt knows no ${meta}; run \`apt-get update\``)
  return { name, version }
}

/** Where a package is unpacked in `cache`; downloads it when it is not. */
const unpacked = (cache: string, { name, version }: Package): string => {
  const home = resolve(cache, `${name}_${version}`)
  if (existsSync(home)) return home
  const download = `${home}.download`
  rmSync(download, { recursive: true, force: true })
  mkdirSync(download, { recursive: true })
  run("apt-get", ["download", `${name}=${version}`], download)
  const [archive = ""] = globSync("*.deb", { cwd: download })
  run("dpkg-deb", ["--extract", join(download, archive), join(download, "root")])
  renameSync(join(download, "root"), home)
  rmSync(download, { recursive: true })
  return home
}

const inside = (home: string, { name, version }: Package): Kernel => {
  const release = name.replace(/^linux-image-/, "")
  return {
    release,
    version,
    file: join(home, `boot/vmlinuz-${release}`),
    modules: join(home, `lib/modules/${release}`)
  }
}

/** The kernel, from `cache` or the mirror. */
export const kernel = (cache: string, say: (text: string) => void): Kernel => {
  try {
    return inside(unpacked(cache, pinned), pinned)
  } catch (error) {
    if (!(error instanceof ImageFailed)) throw error
    const other = newest()
    if (other.version === pinned.version) throw error
    say(`${pinned.name} ${pinned.version} cannot be had any more; taking ${other.name} ${other.version}`)
    return inside(unpacked(cache, other), other)
  }
}

/** What an image carries, and loads at its start in this order, each after what it depends on. Missing ones are built in. */
export const wantedModules: ReadonlyArray<string> = [
  // what is mounted as soon as the modules are there
  "efivarfs",
  "button",
  "evdev",
  "virtio_pci",
  "virtio_rng",
  "virtio_blk",
  "virtio_scsi",
  "virtio_console",
  "virtio_net",
  // a machine config from the hypervisor
  "qemu_fw_cfg",
  "overlay",
  "erofs",
  "ext4",
  "vfat",
  "nls_cp437",
  "nls_ascii",
  "loop",
  "veth",
  "bridge",
  "8021q",
  "bonding",
  "tun",
  "nf_tables",
  "nft_chain_nat",
  "nft_masq",
  "nft_ct",
  // last: a watchdog of hardware is the first one then
  "softdog"
]

/** What it takes to mount the images with the system's files, where the other modules are. */
export const mountingModules: ReadonlyArray<string> = ["loop", "squashfs", "overlay"]

/** What an image carries besides, for a machine config that names it (`kernel.modules`). */
export const carriedModules: ReadonlyArray<string> = ["dummy", "nbd", "vhost_net", "vhost_vsock", "zram"]

/** What an image carries for devices that say that they need it: of the clouds, other hypervisors and real machines. */
export const deviceModules: ReadonlyArray<string> = [
  // disks
  "nvme",
  "sd_mod",
  "sr_mod",
  "ata_piix",
  "ata_generic",
  "vmw_pvscsi",
  "hv_storvsc",
  "xen_blkfront",
  // links
  "ena",
  "gve",
  "vmxnet3",
  "hv_netvsc",
  "xen_netfront",
  "ixgbevf",
  "iavf",
  // the hypervisor
  "virtio_balloon",
  "vmw_vsock_virtio_transport",
  "virtiofs",
  "i6300esb"
]

/** What a module is told when it is loaded. */
const parameters: ReadonlyMap<string, string> = new Map([
  // else it makes one bond that nobody asked for
  ["bonding", "max_bonds=0"]
])

/** A line of the list that taproot loads modules by. */
export const loadLine = (file: string): string => [file, parameters.get(nameOf(file)) ?? ""].join(" ").trim()

/** A module's name as the kernel knows it. */
const nameOf = (path: string): string => basename(path, ".ko").replaceAll("-", "_")

/** What a module says that it depends on: `depends=` of its section .modinfo. */
const dependenciesOf = (path: string): ReadonlyArray<string> => {
  const found = /\0depends=([^\0]*)\0/.exec(readFileSync(path, "latin1"))
  return found?.[1] === undefined || found[1] === "" ? [] : found[1].split(",").map((name) => name.replaceAll("-", "_"))
}

/** Of files of modules, for `DeviceModules.ts`: a line for each alias, with the module that has it. */
export const aliasLines = (modules: string, files: ReadonlyArray<string>): string =>
  files
    .flatMap((file) =>
      [...readFileSync(join(modules, file), "latin1").matchAll(/(?<=\0)alias=([^\0 ]+:[^\0 ]*)(?=\0)/g)].map(
        ([, alias = ""]) => `${alias} ${nameOf(file)}\n`
      )
    )
    .join("")

/** The files of the wanted modules and of what they depend on, below `modules`, in the order in which they can be loaded. */
export const moduleFiles = (modules: string, wanted: ReadonlyArray<string>): ReadonlyArray<string> => {
  const files = new Map(globSync(`${modules}/kernel/**/*.ko`).map((path) => [nameOf(path), path]))
  const order = new Set<string>()
  const add = (name: string): void => {
    const path = files.get(name)
    if (path === undefined || order.has(path)) return
    for (const dependency of dependenciesOf(path)) add(dependency)
    order.add(path)
  }
  for (const name of wanted) add(name.replaceAll("-", "_"))
  return [...order].map((path) => relative(modules, path))
}
