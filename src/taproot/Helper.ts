/** Where the small programs are that come with taproot (`copy`, `enter`, `hand`, `idmap`, `init`, `launch`, `unpack`): beside it, or where a machine has them. */
import { existsSync, readlinkSync } from "node:fs"
import { dirname } from "node:path"

export const helperPath = (
  taprootPid: number,
  name: "copy" | "enter" | "hand" | "idmap" | "init" | "launch" | "unpack"
): string => {
  try {
    const beside = `${dirname(readlinkSync(`/proc/${taprootPid}/exe`))}/${name}`
    if (existsSync(beside) && dirname(beside) !== "/") return beside
  } catch {
    // gone, or not ours to see
  }
  return `/usr/lib/ironwood/${name}`
}
