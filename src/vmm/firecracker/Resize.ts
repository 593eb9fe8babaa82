/**
 * A Firecracker that runs, made to the measure of its machine: what its balloon leaves, and the sizes of its disks. What is right
 * already is left alone.
 *
 * Trap: a disk grows as a file first, by us; then Firecracker is told to open it anew. One that was told before the file had grown
 * tells its guest nothing.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import * as Disks from "../Disks.ts"
import { type Control, ControlLost } from "../Hypervisor.ts"
import type { Disk } from "../Machine.ts"
import * as RestSocket from "../RestSocket.ts"
import { Balloon, InstanceInfo } from "./Api.ts"
import * as Requests from "./Requests.ts"

/** Whether it is longer now. */
const grow = ({ file, sizeBytes = 0 }: Disk) =>
  Effect.gen(function* () {
    const present = yield* Disks.sizeOf({ path: file, format: "raw" })
    if (present >= sizeBytes) return false
    yield* Effect.tryPromise({ try: () => fs.truncate(file, sizeBytes), catch: String })
    return true
  }).pipe(Effect.mapError((detail) => new ControlLost({ command: "grow a disk", detail })))

/** `paths` are those by which it opens its drives, by their names. */
export const make = (api: RestSocket.RestSocket, paths: ReadonlyMap<string, string>): Control["shape"] => {
  const tell = (path: string, body: unknown) => Effect.mapError(api.send("PATCH", path, { body }), RestSocket.lost)
  return (machine) =>
    Effect.gen(function* () {
      const { state } = yield* Effect.mapError(api.ask("/", InstanceInfo), RestSocket.lost)
      for (const [index, disk] of machine.disks.entries()) {
        if (disk.sizeBytes === undefined || !(yield* grow(disk)) || state === "Not started") continue
        const drive = Requests.driveAt(index)
        const path = paths.get(drive)
        if (path !== undefined) yield* tell(`/drives/${drive}`, { drive_id: drive, path_on_host: path })
      }
      // one that is not started yet was made so
      if (state === "Not started" || !machine.balloon) return
      const wanted = Requests.balloonOf(machine)
      const { amount_mib: present } = yield* Effect.mapError(api.ask("/balloon", Balloon), RestSocket.lost)
      if (present !== wanted) yield* tell("/balloon", { amount_mib: wanted })
    })
}
