/**
 * Who this host is for DHCP servers: its DUID, made once and kept with the leases in the state directory. It is made of what
 * stays the same where no disk keeps it: the UUID that the firmware has for the machine, else the hardware address of its
 * first device; else by chance.
 */
import { randomUUID } from "node:crypto"
import { lstat, mkdir, readFile, rename, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import { devices } from "./Devices.ts"

/** Where dhcpcd was compiled to keep its leases and the DUID. */
const leases = "/var/lib/dhcpcd"
const file = join(leases, "duid")

const isThere = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false
  )

const octets = (hex: string): string => (hex.match(/../g) ?? []).join(":")

/** Type 4, RFC 6355; undefined for what firmware has that was never set. */
export const fromUuid = (uuid: string): string | undefined => {
  const hex = uuid.trim().toLowerCase().replaceAll("-", "")
  return /^[0-9a-f]{32}$/.test(hex) && new Set(hex).size > 2 ? `00:04:${octets(hex)}` : undefined
}

/** Type 3, RFC 8415. */
export const fromMac = (mac: string): string => `00:03:00:01:${mac}`

const make: Effect.Effect<string> = Effect.gen(function* () {
  const firmware = yield* Effect.promise(() => readFile("/sys/class/dmi/id/product_uuid", "utf8").catch(() => ""))
  const [first] = (yield* devices).filter(({ isHardware }) => isHardware)
  return fromUuid(firmware) ?? (first === undefined ? undefined : fromMac(first.mac)) ?? fromUuid(randomUUID()) ?? ""
})

/** Makes sure that leases are kept below `directory`, and that there is a DUID; what kept it from that, or nothing. */
export const keepIn = (directory: string): Effect.Effect<string> =>
  Effect.flatMap(make, (duid) =>
    Effect.tryPromise({
      try: async () => {
        await mkdir(join(directory, "dhcpcd"), { recursive: true, mode: 0o750 })
        if (!(await isThere(leases))) await symlink(join(directory, "dhcpcd"), leases)
        if ((await readFile(file, "utf8").catch(() => "")).trim() !== "") return ""
        await writeFile(`${file}.new`, `${duid}\n`, { mode: 0o640 })
        await rename(`${file}.new`, file)
        return ""
      },
      catch: String
    }).pipe(Effect.catch((problem) => Effect.succeed(`leases are not kept over a restart of this machine: ${problem}`)))
  )
