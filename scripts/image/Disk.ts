/**
 * A disk that a machine with UEFI boots from:
 *
 * ```
 * 1  ironwood-esp     FAT32: systemd-boot, the Unified Kernel Images, the keys for Secure Boot
 * 2  ironwood-state   ext4 of that label: what has to last
 * ```
 *
 * The images are the slots. systemd-boot takes the newest version that has tries left: an image is written as
 * `ironwood_VERSION+3.efi` and loses a try with each start; a machine that has come up takes the counter off
 * (`src/host/BootAssessment.ts`), and one that does not is left for the next older image after three starts
 * (systemd.io/AUTOMATIC_BOOT_ASSESSMENT).
 *
 * Written without being root: nothing is mounted. The same options give the same bytes: what other disks have at random is
 * made of what the disk holds. So two of them are not to be told apart by their UUIDs.
 */
import { createHash } from "node:crypto"
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { run } from "./Kernel.ts"
import { sign, type SigningKeys } from "./SigningKeys.ts"

/** From the Debian package systemd-boot-efi. */
const loader = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"

const mebibyte = 1024 * 1024
const esp = { start: mebibyte, bytes: 512 * mebibyte } as const
const stateStart = esp.start + esp.bytes

/** A file on the ESP. */
export interface Slot {
  /** `ironwood_0.1.0+3.efi`. */
  readonly name: string
  readonly file: string
}

/** How often an image is tried before it has proved itself. */
const tries = 3

export const slotName = (version: string): string => `ironwood_${version}+${tries}.efi`

export interface Options {
  readonly slots: ReadonlyArray<Slot>
  readonly keys: SigningKeys
  /**
   * `force`: a machine in setup mode takes the keys over at its first start, without a question. For machines whose
   * firmware needs nobody else's keys: the option ROM of a card may, and then it may not start again. `manual`: the boot
   * menu offers it.
   */
  readonly enrol: "force" | "manual"
  /** Bytes of the whole disk; the file is sparse. */
  readonly bytes: number
  /** Seconds since 1970: the times of all files. */
  readonly time: number
}

/** Copies files into a FAT file system inside a file. */
const copier = (target: string, time: number) => (file: string, path: string) => {
  utimesSync(file, time, time)
  run("mcopy", ["-m", "-i", `${target}@@${esp.start}`, file, `::${path}`])
}

/** Puts another image on the ESP of a disk. */
export const addSlot = (disk: string, { file, name }: Slot, time: number): void =>
  copier(disk, time)(file, `/EFI/Linux/${name}`)

/** The names of the images on the ESP of a disk, sorted. */
export const slots = (disk: string): ReadonlyArray<string> =>
  run("mdir", ["-b", "-i", `${disk}@@${esp.start}`, "::/EFI/Linux"])
    .split("\n")
    .flatMap((line) => (line === "" ? [] : [line.replace(/^.*\//, "")]))
    .toSorted()

/** Takes an image off the ESP of a disk. */
export const removeSlot = (disk: string, name: string): void =>
  void run("mdel", ["-i", `${disk}@@${esp.start}`, `::/EFI/Linux/${name}`])

/** A UUID of its own for each use, version 8 of RFC 9562, made of what the slots hold. */
const uuids = (slots: ReadonlyArray<Slot>) => {
  const content = createHash("sha256")
  for (const { file } of slots) content.update(readFileSync(file))
  const digest = content.digest("hex")
  return (use: string): string => {
    const hex = createHash("sha256").update(`${digest} ${use}`).digest("hex")
    return [
      hex.slice(0, 8),
      hex.slice(8, 12),
      `8${hex.slice(13, 16)}`,
      `8${hex.slice(17, 20)}`,
      hex.slice(20, 32)
    ].join("-")
  }
}

/** Writes the disk. */
export const disk = (target: string, { bytes, enrol, keys, slots, time }: Options): void => {
  const work = mkdtempSync(join(tmpdir(), "ironwood-disk-"))
  const making = `${target}.new`
  try {
    rmSync(making, { force: true })
    writeFileSync(making, "")
    truncateSync(making, bytes)
    const uuid = uuids(slots)
    const table = join(work, "table")
    writeFileSync(
      table,
      [
        "label: gpt",
        `label-id: ${uuid("disk")}`,
        `start=${esp.start / 512}, size=${esp.bytes / 512}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=${uuid("esp")}, name=ironwood-esp`,
        `start=${stateStart / 512}, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=${uuid("state")}, name=ironwood-state`,
        ""
      ].join("\n")
    )
    run("sh", ["-c", 'exec sfdisk --quiet "$1" <"$2"', "sfdisk", making, table])
    const sectors = ["-s", "2", "--offset", String(esp.start / 512)]
    run("mkfs.vfat", ["-F", "32", "-n", "IRONWOOD", "--invariant", ...sectors, making, String(esp.bytes / 1024)])
    for (const folder of ["EFI", "EFI/BOOT", "EFI/Linux", "loader", "loader/keys", "loader/keys/auto"]) {
      run("env", [`SOURCE_DATE_EPOCH=${time}`, "mmd", "-i", `${making}@@${esp.start}`, `::/${folder}`])
    }
    const copy = copier(making, time)
    const signed = join(work, "loader.efi")
    sign(keys, loader, signed, time)
    copy(signed, "/EFI/BOOT/BOOTX64.EFI")
    const configuration = join(work, "loader.conf")
    writeFileSync(configuration, `timeout 0\neditor no\nsecure-boot-enroll ${enrol}\n`)
    copy(configuration, "/loader/loader.conf")
    for (const { file, name } of keys.enrolment) {
      const own = join(work, name)
      run("cp", [file, own])
      copy(own, `/loader/keys/auto/${name}`)
    }
    for (const slot of slots) addSlot(making, slot, time)
    // the partition table's backup, at the disk's end, stays free
    const kibibytes = Math.floor((bytes - stateStart - mebibyte) / 1024)
    const more = `offset=${stateStart},hash_seed=${uuid("directories")}`
    const label = ["-L", "ironwood-state", "-U", uuid("file system")]
    const options = ["-q", "-F", "-t", "ext4", ...label, "-m", "0", "-E", more, making, `${kibibytes}k`]
    run("env", [`E2FSPROGS_FAKE_TIME=${time}`, "mke2fs", ...options])
    mkdirSync(join(target, ".."), { recursive: true })
    renameSync(making, target)
  } finally {
    rmSync(work, { recursive: true })
    rmSync(making, { force: true })
  }
}
