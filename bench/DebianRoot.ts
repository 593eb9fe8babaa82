/**
 * The peer of bench/boot.ts: Debian with systemd, to its multi-user target with sshd, as a disk with an ext4 and a small
 * initramfs that mounts it, for the kernel that Ironwood's image has. Made once with debootstrap from the mirror of this system
 * and kept in build/bench/debian.
 *
 * It prints {@link marker} on the console when all of its multi-user target is there, and five seconds later what memory it
 * has left.
 */
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { archive, device, directory, file, withParents } from "../scripts/image/Cpio.ts"
import { type Kernel, moduleFiles } from "../scripts/image/Kernel.ts"
import { progress } from "./Measure.ts"

export const marker = "bench: the multi-user target is reached"

export interface DebianRoot {
  readonly initramfs: string
  readonly disk: string
}

const run = (name: string, ...args: ReadonlyArray<string>): void => {
  const done = spawnSync(name, args, { encoding: "utf8", maxBuffer: 64 * 1024 * 1024 })
  if (done.status !== 0) throw new Error(`${name} ${args.join(" ")} failed\n${done.stdout}${done.stderr}`)
}

/** The mirror that this system's own packages come from. */
const mirror = (): string => {
  const policy = spawnSync("apt-cache", ["policy"], { encoding: "utf8" }).stdout
  return /\s(https?:\/\/\S+) bookworm\/main amd64/.exec(policy)?.[1] ?? "http://deb.debian.org/debian"
}

const service = `[Unit]
After=multi-user.target ssh.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "${marker}" >/dev/console; sleep 5; grep -E "MemTotal|MemAvailable" /proc/meminfo >/dev/console'

[Install]
WantedBy=multi-user.target
`

const root = (directory: string): void => {
  run("debootstrap", "--variant=minbase", "--include=systemd-sysv,openssh-server,dbus", "bookworm", directory, mirror())
  rmSync(join(directory, "var/cache/apt"), { recursive: true })
  rmSync(join(directory, "var/lib/apt/lists"), { recursive: true })
  writeFileSync(join(directory, "etc/fstab"), "/dev/vda / ext4 rw 0 1\n")
  writeFileSync(join(directory, "etc/hostname"), "debian\n")
  // not the first start of all: that is another question
  writeFileSync(join(directory, "etc/machine-id"), "0123456789abcdef0123456789abcdef\n")
  writeFileSync(join(directory, "etc/systemd/system/bench.service"), service)
  symlinkSync(
    "/etc/systemd/system/bench.service",
    join(directory, "etc/systemd/system/multi-user.target.wants/bench.service")
  )
  symlinkSync("/lib/systemd/system/multi-user.target", join(directory, "etc/systemd/system/default.target"))
}

/** What mounts the disk and hands over to systemd, with nothing that could be left out. */
const initramfs = ({ modules, release }: Kernel): Buffer => {
  const loaded = moduleFiles(modules, ["virtio_pci", "virtio_blk", "virtio_net", "ext4"])
  return archive(
    withParents([
      ...["dev", "proc", "root"].map((path) => directory(path)),
      device("dev/console", 5, 1),
      file("bin/busybox", readFileSync("/bin/busybox"), 0o755),
      ...loaded.map((path) => file(`modules/${path}`, readFileSync(join(modules, path)))),
      file(
        "init",
        [
          `#!/bin/busybox sh`,
          ...loaded.map((path) => `/bin/busybox insmod /modules/${path}`),
          "/bin/busybox mount -t devtmpfs dev /dev",
          "/bin/busybox mount -t ext4 /dev/vda /root",
          "/bin/busybox mount -o move /dev /root/dev",
          `# the kernel is ${release}`,
          "exec /bin/busybox switch_root /root /sbin/init",
          ""
        ].join("\n"),
        0o755
      )
    ])
  )
}

/** The disk and its initramfs, made when they are not there. */
export const debianRoot = (kernel: Kernel, home: string): DebianRoot => {
  const made: DebianRoot = { initramfs: join(home, `initramfs-${kernel.release}`), disk: join(home, "disk") }
  mkdirSync(home, { recursive: true })
  if (!existsSync(made.disk)) {
    progress("making a Debian with systemd and sshd, which takes some minutes")
    const directory = mkdtempSync(join(tmpdir(), "ironwood-debian-"))
    try {
      root(directory)
      cpSync(kernel.modules, join(directory, "lib/modules", kernel.release), { recursive: true })
      run("depmod", "-b", directory, kernel.release)
      run("mke2fs", "-q", "-t", "ext4", "-d", directory, `${made.disk}.new`, "2G")
      run("mv", `${made.disk}.new`, made.disk)
    } finally {
      rmSync(directory, { recursive: true })
    }
  }
  writeFileSync(made.initramfs, initramfs(kernel))
  return made
}
