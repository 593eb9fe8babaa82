/**
 * Machine configs that a hypervisor or firmware hands over as a blob: QEMU's firmware configuration device, an OEM string of the
 * SMBIOS tables, a disk whose content is the document. Each answers undefined when there is none.
 */
import { open, readdir, readFile } from "node:fs/promises"
import { fromBase64 } from "../../host/ConfigSource.ts"
import { mostBytes } from "../Document.ts"

/** Reads no more than a document may have, and one byte by which it is seen to be too long. */
export const readBounded = async (file: string): Promise<Uint8Array> => {
  const handle = await open(file, "r")
  try {
    const buffer = Buffer.alloc(mostBytes + 1)
    let length = 0
    while (length < buffer.length) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length, null)
      if (bytesRead === 0) break
      length += bytesRead
    }
    return buffer.subarray(0, length)
  } finally {
    await handle.close()
  }
}

const ifThere = async <A>(promise: Promise<A>): Promise<A | undefined> => {
  try {
    return await promise
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) {
      return undefined
    }
    throw error
  }
}

export const firmwareConfigFile = "/sys/firmware/qemu_fw_cfg/by_name/opt/ironwood/config/raw"

/** Needs the kernel's module `qemu_fw_cfg`. */
export const firmwareConfig = (file = firmwareConfigFile): Promise<Uint8Array | undefined> => ifThere(readBounded(file))

const oemStrings = 11
const endOfTable = 127
const key = "ironwood.config="

/** The strings of all OEM string structures (type 11) in an SMBIOS table. Stops at what is not one. */
export const oemStringsOf = (table: Buffer): ReadonlyArray<string> => {
  const found: Array<string> = []
  let at = 0
  while (at + 4 <= table.length) {
    const type = table[at] ?? endOfTable
    const length = table[at + 1] ?? 0
    if (length < 4) break
    // the formatted part, then strings that each end with a zero, then one more zero
    const strings: Array<string> = []
    let next = at + length
    if (table[next] === 0 && table[next + 1] === 0) {
      next += 2
    } else {
      while (next < table.length && table[next] !== 0) {
        const end = table.indexOf(0, next)
        if (end < 0) return found
        strings.push(table.toString("utf8", next, end))
        next = end + 1
      }
      next += 1
    }
    if (type === oemStrings) found.push(...strings)
    if (type === endOfTable) break
    at = next
  }
  return found
}

export const smbios = async (file = "/sys/firmware/dmi/tables/DMI"): Promise<Uint8Array | undefined> => {
  const table = await ifThere(readFile(file))
  const text = table && oemStringsOf(table).find((string) => string.startsWith(key))
  if (text === undefined) return undefined
  const bytes = fromBase64(text.slice(key.length))
  if (bytes === undefined) throw new Error(`the SMBIOS string ${key}… holds something else than base64`)
  return bytes
}

const serial = "ironwood-config"

/** The bytes of a disk before the zeros that fill it up. */
export const withoutPadding = (bytes: Uint8Array): Uint8Array => {
  const end = bytes.indexOf(0)
  return end < 0 || bytes.subarray(end).some((byte) => byte !== 0) ? bytes : bytes.subarray(0, end)
}

/** A disk is the one when its serial number says so; virtio-blk hands over what QEMU's `serial=` says. */
export const blob = async (): Promise<Uint8Array | undefined> => {
  for (const device of (await readdir("/sys/block").catch((): Array<string> => [])).toSorted()) {
    const found = await readFile(`/sys/block/${device}/serial`, "utf8").catch(() => "")
    if (found.trim() === serial) return withoutPadding(await readBounded(`/dev/${device}`))
  }
  return undefined
}
