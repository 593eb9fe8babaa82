/**
 * Disks into and out of a Cloud Hypervisor that runs.
 *
 * It opens a disk by its name: the file is lent to it first (`Lending`), then it is told to take it. It is told to give it up, and has
 * done so when the device is gone from its tree: only then has the guest let go. Then the file is taken back.
 *
 * Traps:
 * - The configuration that it tells (`vm.info`) is without the device as soon as it was told to give it up; what counts is the tree.
 * - A guest that reboots while a device is on its way out comes back without it.
 * - The descriptor of a disk that the machine was started with stays with the process until that ends, also when the guest has let
 *   go: another machine that gets this disk shares it with a Cloud Hypervisor that somebody has taken over.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { type Control, ControlLost, DeviceKept } from "../Hypervisor.ts"
import type { Lending } from "../Lending.ts"
import * as RestSocket from "../RestSocket.ts"
import { VmInfo } from "./Api.ts"
import * as Config from "./Config.ts"

/** How long a guest may take to let go. */
const LETTING_GO = "20 seconds"
const patience = Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: LETTING_GO }))

/** What disks are called here. */
const diskName = /^disk-[a-z0-9]+$/

/** The names of the disks of a machine; before it is started it has no tree. */
const disksOf = ({ config, device_tree }: VmInfo): ReadonlySet<string> =>
  new Set(
    device_tree === undefined || device_tree === null
      ? (config.disks ?? []).flatMap(({ id }) => id ?? [])
      : Object.keys(device_tree).filter((name) => diskName.test(name))
  )

export interface Options {
  readonly api: RestSocket.RestSocket
  readonly lending: Lending
}

export const make = ({
  api,
  lending
}: Options): Pick<Control, "devices" | "attachDisk" | "attachNic" | "insertDisk" | "detach"> => {
  const present = Effect.mapError(Effect.map(api.ask("/vm.info", VmInfo), disksOf), RestSocket.lost)
  const refused = (command: string, detail: string) => new ControlLost({ command, detail })
  const letsGo = (id: string) =>
    present.pipe(
      Effect.filterOrFail(
        (disks) => !disks.has(id),
        () => new DeviceKept({ id, detail: `it has not within ${LETTING_GO}` })
      ),
      Effect.retry({ while: ({ _tag }) => _tag === "DeviceKept", schedule: patience })
    )
  return {
    devices: Effect.flatMap(lending.isPossible, (isPossible) => (isPossible ? present : Effect.undefined)),
    attachDisk: (disk) =>
      Effect.gen(function* () {
        const path = yield* lending.lend(disk.id, disk.readOnly ? "ro" : "rw", disk.file)
        yield* Effect.mapError(api.send("PUT", "/vm.add-disk", { body: Config.diskOf(disk, path) }), RestSocket.lost)
      }).pipe(Effect.onError(() => lending.takeBack(disk.id))),
    attachNic: () => Effect.fail(refused("attach-nic", "Cloud Hypervisor has no user-mode network")),
    insertDisk: () => Effect.fail(refused("insert", "Cloud Hypervisor has no empty disks")),
    detach: (id) =>
      Effect.gen(function* () {
        if ((yield* present).has(id)) {
          yield* Effect.mapError(api.send("PUT", "/vm.remove-device", { body: { id } }), RestSocket.lost)
          yield* letsGo(id)
        }
        yield* lending.takeBack(id)
      })
  }
}
