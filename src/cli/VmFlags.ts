/** What describes a virtual machine on the command line: disks and ports in one word each, as QEMU and docker people type them. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Result from "effect/Result"
import { resolve } from "node:path"
import { type VmDiskSchema, VmDiskFormat, type VmForwardSchema } from "../../proto/generated/ironwood/v1/vm_pb.ts"

type Disk = MessageInitShape<typeof VmDiskSchema>
type Forward = MessageInitShape<typeof VmForwardSchema>

const formats: Readonly<Record<string, VmDiskFormat>> = { raw: VmDiskFormat.RAW, qcow2: VmDiskFormat.QCOW2 }

const diskHelp = "a file, and after commas ro, format=raw or qcow2, serial=NAME"

/** `--disk`: `disk.img`, `disk.qcow2,format=qcow2,ro,serial=data`. A path is that of the host, from here when it is relative. */
export const parseDisk = (text: string): Result.Result<Disk, string> => {
  const [path = "", ...options] = text.split(",")
  let disk: Disk = { path: resolve(path) }
  if (path === "") return Result.fail(diskHelp)
  for (const option of options) {
    const [name, value = ""] = option.split("=", 2)
    const format = formats[value]
    if (option === "ro") disk = { ...disk, readOnly: true }
    else if (name === "format" && format !== undefined) disk = { ...disk, format }
    else if (name === "serial" && value !== "") disk = { ...disk, serial: value }
    else return Result.fail(diskHelp)
  }
  return Result.succeed(disk)
}

/** `--publish`: `[ADDRESS:]HOST-PORT:GUEST-PORT[/udp]`. */
export const parseForward = (text: string): Result.Result<Forward, string> => {
  const match = /^(?:([\d.]+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text)
  if (match === null) return Result.fail("[ADDRESS:]HOST-PORT:GUEST-PORT[/udp], such as 2222:22")
  const [, hostAddress = "", hostPort, guestPort, protocol = ""] = match
  return Result.succeed({ hostAddress, hostPort: Number(hostPort), guestPort: Number(guestPort), protocol })
}
