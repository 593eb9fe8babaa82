/** What describes a virtual machine on the command line: disks and ports in one word each, as QEMU and docker people type them. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { resolve } from "node:path"
import {
  type VmDiskMeasureSchema,
  type VmDiskSchema,
  VmDiskFormat,
  type VmForwardSchema,
  type VmTopologySchema
} from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { parsePorts } from "./NetworkFlags.ts"
import { parseBytes } from "./Quantity.ts"

type Disk = MessageInitShape<typeof VmDiskSchema>
type Limits = NonNullable<Disk["limits"]>
type Forward = MessageInitShape<typeof VmForwardSchema>

const formats: Readonly<Record<string, VmDiskFormat>> = { raw: VmDiskFormat.RAW, qcow2: VmDiskFormat.QCOW2 }

const diskHelp =
  "a file, image=REGISTRY/NAME:TAG or volume=NAME, and after commas ro, format=raw or qcow2, serial=NAME, size=SIZE (it is grown to), iops=N and bps=SIZE (at most, in a second)"

/** `iops=N` or `bps=SIZE` beside the limits that there are; undefined for anything else. */
const withLimit = (limits: Limits | undefined, name: string, value: string): Limits | undefined => {
  if (name === "iops" && /^\d{1,8}$/.test(value)) return { ...limits, operations: Number(value) }
  const bytes = name === "bps" ? Result.getSuccess(parseBytes(value)) : Option.none()
  return Option.isSome(bytes) ? { ...limits, bytes: bytes.value } : undefined
}

/**
 * `--disk`: `disk.img`, `disk.qcow2,format=qcow2,ro,serial=data`, `image=registry/name:tag`, `volume=data`. A path is that of the host, from
 * here when it is relative.
 */
export const parseDisk = (text: string): Result.Result<Disk, string> => {
  const [path = "", ...options] = text.split(",")
  const [, source, named] = /^(image|volume)=(.+)$/.exec(path) ?? []
  let disk: Disk =
    named === undefined ? { path: resolve(path) } : source === "image" ? { image: named } : { volume: named }
  if (path === "") return Result.fail(diskHelp)
  for (const option of options) {
    const [name, value = ""] = option.split("=", 2)
    const format = formats[value]
    if (option === "ro") disk = { ...disk, readOnly: true }
    else if (name === "format" && format !== undefined) disk = { ...disk, format }
    else if (name === "serial" && value !== "") disk = { ...disk, serial: value }
    else {
      const bytes = name === "size" ? Result.getSuccess(parseBytes(value)) : Option.none()
      const limits = withLimit(disk.limits, name ?? "", value)
      if (Option.isSome(bytes)) disk = { ...disk, sizeBytes: bytes.value }
      else if (limits !== undefined) disk = { ...disk, limits }
      else return Result.fail(diskHelp)
    }
  }
  return Result.succeed(disk)
}

/** `--publish`: `[ADDRESS:]HOST-PORT:GUEST-PORT[/udp]`. */
export const parseForward = (text: string): Result.Result<Forward, string> =>
  Result.map(parsePorts(text, "2222:22"), ({ inside, ...host }) => ({ ...host, guestPort: inside }))

const measureHelp = "a disk's file, volume or serial, and after commas size=SIZE, iops=N, bps=SIZE, or unlimited"

/** `vm resize --disk`: `disk.img,size=20GiB`, `disk.img,iops=100,bps=10MiB`, `disk.img,unlimited`. */
export const parseDiskMeasure = (text: string): Result.Result<MessageInitShape<typeof VmDiskMeasureSchema>, string> => {
  const [path = "", ...options] = text.split(",")
  if (path === "" || options.length === 0) return Result.fail(measureHelp)
  if (options.length === 1 && options[0] === "unlimited") return Result.succeed({ path, limits: {} })
  // which disk it is, the machine tells
  return Result.flatMap(parseDisk(["/", ...options].join(",")), (parsed) => {
    const { limits, path: _, sizeBytes, ...rest } = parsed
    if (Object.keys(rest).length > 0) return Result.fail(measureHelp)
    return Result.succeed({
      path,
      ...(sizeBytes === undefined ? {} : { sizeBytes }),
      ...(limits === undefined ? {} : { limits })
    })
  })
}

/** `--topology`: `sockets=2,cores=2,threads=1,numa=2`; what is left out is 1. */
export const parseTopology = (text: string): Result.Result<MessageInitShape<typeof VmTopologySchema>, string> => {
  const numbers = { sockets: 1, cores: 1, threads: 1, numa: 1 }
  for (const part of text.split(",")) {
    const [, name = "", value = ""] = /^(sockets|cores|threads|numa)=(\d{1,3})$/.exec(part) ?? []
    if (name !== "sockets" && name !== "cores" && name !== "threads" && name !== "numa") {
      return Result.fail("numbers of sockets, cores, threads and numa (nodes), such as sockets=2,cores=4")
    }
    numbers[name] = Number(value)
  }
  const { numa, ...rest } = numbers
  return Result.succeed({ ...rest, numaNodes: numa })
}
