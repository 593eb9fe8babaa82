/**
 * The sample images of this checkout as an archive to be put behind an initramfs, which then has them in
 * {@link sampleDirectory}: a machine has no way to be given an image by others yet.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { archive, type CpioEntry, file, withParents } from "../image/Cpio.ts"

/** Where they are on the machine. */
export const sampleDirectory = "/srv/ironwood/sample-image"

const entries = (from: string): ReadonlyArray<CpioEntry> =>
  readdirSync(from, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => file(`${sampleDirectory.slice(1)}${path.slice(from.length)}`, readFileSync(path)))

/** To a multiple of four bytes, where alone the kernel looks for an archive that is not compressed. */
const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])

/** Writes `initramfs` with the images of the OCI layout `from`, and more entries, behind it. */
export const withSamples = (initramfs: string, from: string, to: string, more: ReadonlyArray<CpioEntry> = []): void =>
  writeFileSync(to, Buffer.concat([padded(readFileSync(initramfs)), archive(withParents([...entries(from), ...more]))]))
