/**
 * The requests that make a machine of a Firecracker that has just been started, as data, and the files that it needs for them.
 *
 * Traps:
 * - Firecracker opens files by their names: it is given the names of its descriptors (`Launching.nameOf`).
 * - It has memory in whole mebibytes: a guest has what is left of one more.
 * - `reboot=k panic=-1` come before what the command line says, which is therefore believed: a reboot by the keyboard controller is
 *   the only one that Firecracker understands, and a kernel that has panicked and stays ends nothing.
 */
import type { Handed } from "../Launching.ts"
import { nameOf } from "../Launching.ts"
import type { Machine } from "../Machine.ts"
import type { Balloon, BootSource, Drive, MachineConfiguration, Request } from "./Api.ts"

const FIRST_DESCRIPTOR = 3
const MIB = 1_048_576
const KERNEL_PARAMETERS = "reboot=k panic=-1"

export interface Plan {
  readonly files: ReadonlyArray<Handed>
  /** In this order; then it can be started. */
  readonly requests: ReadonlyArray<Request>
}

/** What the drive at that place of a machine is called: the same in a clone, which has the drives of another one. */
export const driveAt = (index: number): string => `drive${index}`

/** What the balloon keeps from the guest of a machine, in MiB. */
export const balloonOf = ({ balloonBytes, memoryBytes }: Machine): number =>
  balloonBytes === undefined ? 0 : Math.floor((memoryBytes - balloonBytes) / MIB)

/** Of a machine that the driver does not refuse: one that boots a kernel, with raw disks. */
export const make = (machine: Machine): Plan => {
  const files: Array<Handed> = []
  const hand = (path: string, kind: "ro" | "rw"): string => {
    const descriptor = FIRST_DESCRIPTOR + files.length
    files.push({ descriptor, path, kind })
    return nameOf(descriptor)
  }
  const put = (path: string, body: object): Request => ({ method: "PUT", path, body })
  const { boot } = machine
  const source: BootSource | undefined =
    boot._tag === "Kernel"
      ? {
          kernel_image_path: hand(boot.kernel, "ro"),
          ...(boot.initrd === undefined ? {} : { initrd_path: hand(boot.initrd, "ro") }),
          boot_args: `${KERNEL_PARAMETERS} ${boot.commandLine}`.trim()
        }
      : undefined
  const config: MachineConfiguration = {
    vcpu_count: machine.cpus,
    mem_size_mib: Math.ceil(machine.memoryBytes / MIB),
    ...(machine.hugepageBytes === undefined ? {} : { huge_pages: "2M" })
  }
  const balloon: Balloon = { amount_mib: balloonOf(machine), deflate_on_oom: true }
  return {
    requests: [
      put("/machine-config", config),
      ...(source === undefined ? [] : [put("/boot-source", source)]),
      ...machine.disks.map((disk, index) => {
        const id = driveAt(index)
        const drive: Drive = {
          drive_id: id,
          path_on_host: hand(disk.file, disk.readOnly ? "ro" : "rw"),
          is_root_device: false,
          is_read_only: disk.readOnly,
          cache_type: "Writeback"
        }
        return put(`/drives/${id}`, drive)
      }),
      put("/entropy", {}),
      ...(machine.balloon ? [put("/balloon", balloon)] : [])
    ],
    files
  }
}
