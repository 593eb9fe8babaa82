/**
 * A guest for tests: Debian's cloud kernel and an initramfs of busybox that does what its command line says.
 *
 * `guest.do=` is one of `idle` (powers off at the power button), `deaf` (does not), `off`, `reboot`, `panic`, `silent` (stops
 * feeding its watchdog), `devices` (lists what it has), `seeds` (what cloud-init and Ignition would find), `fill:N` (N MiB of lines `fill` to its last disk), `variable:TEXT` and `variables` (what its firmware keeps), `set:MARK` and `get` (what its memory has), `write:TEXT` and `read` (what its first disk has), `reach:PORT` (connects to the host's 127.0.0.1 there, and then serves its own port 80 once); it says what it does on its console: `guest: ready`. What is typed at its console comes back as
 * `guest: heard …`, and all but `idle` and `deaf` are obeyed there, too.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { archive, device, directory, file, link, withParents } from "../../scripts/image/Cpio.ts"
import { kernel, moduleFiles } from "../../scripts/image/Kernel.ts"
import { checkout } from "../support/ironwood.ts"

const modules = [
  "virtio_pci",
  "virtio_mmio",
  "virtio_blk",
  "virtio_rng",
  "virtio_net",
  "virtio_mem",
  "isofs",
  "efivarfs",
  "qemu_fw_cfg",
  "virtio_balloon",
  "pvpanic_mmio",
  "pvpanic_pci",
  "button",
  "evdev"
]

const applets = [
  "sh",
  "insmod",
  "mount",
  "cat",
  "sleep",
  "poweroff",
  "reboot",
  "echo",
  "sync",
  "dd",
  "head",
  "ls",
  "wc"
]

/** Whose variables are the test's own, and whose the firmware's own (UEFI 2.10, section 3.3). */
const variableOwner = "5c1f0dd1-4c1c-4f0e-9a1e-6d4b6f1f7a55"
const globalVariables = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

const script = (files: ReadonlyArray<string>): string => `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
${files.map((_, index) => `insmod /modules/${index}.ko 2>/dev/null`).join("\n")}
echo online >/sys/devices/system/memory/auto_online_blocks
for word in $(cat /proc/cmdline); do case $word in guest.do=*) do=\${word#guest.do=};; esac; done
disks() {
  for disk in /sys/block/vd*; do
    [ -e "$disk" ] && echo "guest: disk \${disk##*/} serial=$(cat $disk/serial) ro=$(cat $disk/ro) sectors=$(cat $disk/size)"
  done
}
links() { for link in /sys/class/net/*; do echo "guest: link \${link##*/} $(cat $link/address)"; done; }
obey() {
  case $1 in
    devices)
      disks
      links
      # what was plugged in waits to be taken
      for cpu in /sys/devices/system/cpu/cpu[1-9]*; do [ "$(cat $cpu/online 2>/dev/null)" = 0 ] && echo 1 >$cpu/online; done
      echo "guest: processors $(cat /sys/devices/system/cpu/online) memory $(busybox awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
      echo "guest: that is all";;
    seeds)
      busybox mkdir -p /seeds
      for disk in /dev/vd?; do mount -t iso9660 -o ro $disk /seeds 2>/dev/null && break; done
      for file in /seeds/*; do busybox sed "s|^|guest: \${file##*/}: |" $file; done
      busybox sed "s|^|guest: ignition: |" /sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw
      echo "guest: no more seeds";;
    fill:*)
      # so many MiB to its last disk, past all caches
      for last in /dev/vd?; do :; done
      if busybox yes fill | dd of=$last bs=1M count=\${1#fill:} iflag=fullblock oflag=direct 2>/dev/null; then echo "guest: filled"; else echo "guest: not filled"; fi;;
    variable*)
      kept=/sys/firmware/efi/efivars
      mount -t efivarfs efivarfs $kept 2>/dev/null
      # attributes first: it stays, and the system that runs may have it
      [ "$1" = variables ] || busybox printf "\\007\\000\\000\\000\${1#variable:}" >$kept/Guest-${variableOwner}
      echo "guest: variable <$(busybox tail -c +5 $kept/Guest-${variableOwner} 2>/dev/null)> secure boot $(busybox tail -c 1 $kept/SecureBoot-${globalVariables} | busybox hexdump -e '1/1 "%d"')";;
    reach:*)
      busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
      if busybox nc -w 5 10.0.2.2 \${1#reach:} </dev/null >/dev/null 2>&1; then echo "guest: reached"; else echo "guest: not reached"; fi
      echo "guest: serves"; echo "from the guest" | busybox nc -l -p 80;;
    off) echo "guest: off"; poweroff -f;;
    set:*) mark=\${1#set:}; echo "guest: set";;
    get) echo "guest: mark <$mark>";;
    write:*) echo "\${1#write:}" | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; echo "guest: written";;
    read) echo "guest: disk says $(dd if=/dev/vda iflag=direct bs=512 count=1 2>/dev/null | head -1)";;
    reboot) echo "guest: reboot"; reboot -f;;
    panic) echo "guest: panic"; echo c >/proc/sysrq-trigger;;
    silent)
      # the kernel has no driver for it: by its registers, two seconds, and on
      echo "guest: silent"
      for device in /sys/bus/pci/devices/*; do
        [ "$(cat $device/device)" = 0x25ab ] || continue
        printf '\\004\\000' | dd of=$device/config bs=2 seek=48 count=1 conv=notrunc
        printf '\\002' | dd of=$device/config bs=1 seek=104 count=1 conv=notrunc
      done;;
  esac
}
button() { for event in /dev/input/event*; do (head -c 24 $event >/dev/null; echo "guest: power button"; poweroff -f) & done; }
[ "$do" = idle ] && button
disks
links
echo "guest: memory $(head -1 /proc/meminfo) rng $(cat /sys/devices/virtual/misc/hw_random/rng_current 2>/dev/null)"
echo "guest: ready $(cat /proc/sys/kernel/random/boot_id)"
obey "$do"
while read -r line; do echo "guest: heard $line"; obey "$line"; done
sleep 100000
`

export interface Guest {
  readonly kernel: string
  readonly initrd: string
}

/** Made once for all tests, in `build/`. */
export const guest = (): Guest => {
  const home = join(checkout, "build/test-guest")
  mkdirSync(home, { recursive: true })
  const chosen = kernel(join(checkout, "build/image-cache"), () => {})
  const files = moduleFiles(chosen.modules, modules)
  const entries = withParents([
    file("bin/busybox", readFileSync("/usr/bin/busybox"), 0o755),
    ...applets.map((applet) => link(`bin/${applet}`, "busybox")),
    ...files.map((path, index) => file(`modules/${index}.ko`, readFileSync(join(chosen.modules, path)))),
    ...["proc", "sys", "dev"].map((path) => directory(path)),
    device("dev/console", 5, 1),
    file("init", script(files), 0o755)
  ])
  const initrd = join(home, "initrd.cpio")
  const bytes = archive(entries)
  if (!existsSync(initrd) || !readFileSync(initrd).equals(bytes)) {
    writeFileSync(`${initrd}.${process.pid}`, bytes)
    renameSync(`${initrd}.${process.pid}`, initrd)
  }
  return { kernel: chosen.file, initrd }
}
