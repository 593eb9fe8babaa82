/**
 * Disks and cards into and out of a QEMU that runs; and disks into the empty ones that it was started with, which is all that a
 * machine without PCI takes.
 *
 * A QEMU opens no file: the one of a disk is opened by `hand` (C, beside taproot) and given to its second monitor, in a set of
 * descriptors that is called after the disk. Then the disk is built from the bottom up: file, image, device in a root port that is
 * free. It is taken down in the other order, when the guest has let go of the device.
 *
 * Traps:
 * - Every step can be the last of a brain: so whoever plugs something in first takes away what an attempt before has left.
 * - A guest lets go when its kernel gets to it. One that is still booting does it later, one that stands still never.
 * - A QEMU that was started without cards has a network namespace of its own: nothing leads into a card that it gets later.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { readlinkSync } from "node:fs"
import { helperPath } from "../../taproot/Helper.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import type { Process, Processes } from "../../taproot/Processes.ts"
import { type Control, ControlLost, DeviceKept } from "../Hypervisor.ts"
import type { Disk, Nic } from "../Machine.ts"
import * as Arguments from "./Arguments.ts"
import { isRefused, lost, type Qmp } from "./Qmp.ts"

/** How long a guest may take to let go. */
const LETTING_GO = "20 seconds"
/** More root ports than any machine has. */
export const MOST_SLOTS = 64

const Children = Schema.Array(Schema.Struct({ name: Schema.String, type: Schema.String }))
const Sets = Schema.Array(
  Schema.Struct({
    "fdset-id": Schema.Int,
    fds: Schema.Array(Schema.Struct({ opaque: Schema.optionalKey(Schema.String) }))
  })
)
const Handed = Schema.fromJsonString(
  Schema.Union([
    Schema.Struct({ return: Schema.Struct({ "fdset-id": Schema.Int }) }),
    Schema.Struct({ error: Schema.Struct({ desc: Schema.String }) })
  ])
)

/** What a disk or card is called here. */
export const deviceName = /^((?:disk|net)-[a-z0-9]+)-device$/

export const PERIPHERAL = "/machine/peripheral"
const Q35 = { chipset: "q35" } as const

/** Whether a process has this host's network. */
const hasNetwork = (pid: number): boolean => {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`) === readlinkSync("/proc/self/ns/net")
  } catch {
    return false
  }
}

export interface Options {
  readonly qmp: Qmp
  readonly processes: Processes["Service"]
  readonly process: Process
  /** The machine's own. */
  readonly directory: string
}

export const make = ({
  directory,
  process,
  processes,
  qmp
}: Options): Pick<Control, "devices" | "attachDisk" | "attachNic" | "detach" | "insertDisk"> => {
  const tell = (command: string, words: Readonly<Record<string, unknown>>) =>
    Effect.asVoid(qmp.execute(command, { arguments: words }))

  /** The same, whatever QEMU says to it. */
  const tellAnyway = (command: string, words: Readonly<Record<string, unknown>>) =>
    Effect.catchIf(tell(command, words), isRefused, () => Effect.void)

  const childrenOf = (path: string) => qmp.ask("qom-list", Children, { arguments: { path } })
  const peripherals = Effect.map(childrenOf(PERIPHERAL), (found) => new Set(found.map(({ name }) => name)))

  /** A root port with nothing behind it. */
  const freeSlot = (present: ReadonlySet<string>) =>
    Effect.gen(function* () {
      for (let index = 0; index < MOST_SLOTS; index++) {
        const name = Arguments.slotName(index)
        if (!present.has(name)) break
        const behind = yield* childrenOf(`${PERIPHERAL}/${name}/${name}`)
        if (!behind.some((child) => child.name.startsWith("child["))) return Option.some(name)
      }
      return Option.none<string>()
    })

  const slotFor = (command: string) =>
    Effect.gen(function* () {
      const slot = yield* Effect.mapError(Effect.flatMap(peripherals, freeSlot), lost)
      if (Option.isSome(slot)) return slot.value
      return yield* new ControlLost({
        command,
        detail: `it has no free slot: ${Arguments.SPARE_SLOTS} can be plugged in besides those that it was started with, until it is started anew`
      })
    })

  /** Takes back what QEMU was given for a device that is not there (any more). */
  const clear = (id: string) =>
    Effect.gen(function* () {
      if (id.startsWith("net-")) return yield* tellAnyway("netdev_del", { id })
      yield* tellAnyway("blockdev-del", { "node-name": id })
      yield* tellAnyway("blockdev-del", { "node-name": `${id}-file` })
      for (const { fds, "fdset-id": set } of yield* qmp.ask("query-fdsets", Sets)) {
        if (fds.some(({ opaque }) => opaque === id)) yield* tellAnyway("remove-fd", { "fdset-id": set })
      }
    })

  /** Gives QEMU the file of a disk; the number of its set. */
  const hand = ({ file, id, readOnly }: Disk) =>
    Effect.gen(function* () {
      const failed = (detail: string) => new ControlLost({ command: "add-fd", detail })
      const program = helperPath(processes.hello.taprootPid, "hand")
      const ran = yield* Effect.mapError(
        processes.run({
          label: "hand",
          argv: [program, Arguments.HAND_SOCKET, `${readOnly ? "ro" : "rw"}:${file}`, id],
          environment: {},
          directory
        }),
        ({ message }) => failed(message)
      )
      if (!ProcessExit.isSuccess(ran.exit)) {
        const words = Buffer.from(ran.stderr).toString("utf8").trim()
        return yield* failed(words === "" ? ProcessExit.describe(ran.exit) : words)
      }
      const answer = yield* Effect.mapError(
        Schema.decodeEffect(Handed)(Buffer.from(ran.stdout).toString("utf8")),
        ({ message }) => failed(message)
      )
      return "return" in answer ? answer.return["fdset-id"] : yield* failed(answer.error.desc)
    })

  return {
    devices: Effect.mapError(
      Effect.map(peripherals, (present) =>
        present.has(Arguments.slotName(0))
          ? new Set([...present].flatMap((name) => deviceName.exec(name)?.[1] ?? []))
          : undefined
      ),
      lost
    ),

    attachDisk: (disk) =>
      Effect.gen(function* () {
        const slot = yield* slotFor("attach-disk")
        yield* Effect.mapError(clear(disk.id), lost)
        const set = yield* hand(disk)
        yield* Effect.mapError(
          Effect.gen(function* () {
            yield* tell("blockdev-add", Arguments.fileNode(disk, set))
            yield* tell("blockdev-add", Arguments.imageNode(disk))
            yield* tell("device_add", Arguments.diskDevice(Q35, disk, slot))
          }),
          lost
        )
      }),

    attachNic: (nic: Nic) =>
      Effect.gen(function* () {
        if ((nic.forwards.length > 0 || !nic.restricted) && !hasNetwork(process.pid)) {
          return yield* new ControlLost({
            command: "attach-nic",
            detail:
              "it was started without a card, so its hypervisor has no network: stop it, attach the card, and start it"
          })
        }
        const slot = yield* slotFor("attach-nic")
        yield* Effect.mapError(
          Effect.gen(function* () {
            yield* clear(nic.id)
            yield* tell("netdev_add", {
              type: "user",
              id: nic.id,
              restrict: nic.restricted,
              hostfwd: nic.forwards.map((forward) => ({ str: Arguments.forwardText(forward) }))
            })
            yield* tell("device_add", Arguments.nicDevice(Q35, nic, slot))
          }),
          lost
        )
      }),

    insertDisk: (disk) =>
      Effect.gen(function* () {
        const drive = (index: number) => ({
          path: `${PERIPHERAL}/${Arguments.emptyName(index)}-device`,
          property: "drive"
        })
        const free: Array<number> = []
        for (let index = 0; index < MOST_SLOTS; index++) {
          const present = yield* Effect.mapError(
            Effect.catchIf(qmp.ask("qom-get", Schema.String, { arguments: drive(index) }), isRefused, () =>
              Effect.succeed(undefined)
            ),
            lost
          )
          if (present === undefined) break
          if (present === disk.id) return Arguments.emptyName(index)
          if (present === Arguments.emptyName(index)) free.push(index)
        }
        const [place] = free
        if (place === undefined) return yield* new ControlLost({ command: "insert", detail: "it has no empty disk" })
        yield* Effect.mapError(clear(disk.id), lost)
        const set = yield* hand(disk)
        yield* Effect.mapError(
          Effect.gen(function* () {
            yield* tell("blockdev-add", Arguments.fileNode(disk, set))
            yield* tell("blockdev-add", Arguments.imageNode(disk))
            yield* tell("qom-set", { ...drive(place), value: disk.id })
          }),
          lost
        )
        return Arguments.emptyName(place)
      }),

    detach: (id) =>
      Effect.gen(function* () {
        const device = `${id}-device`
        const events = yield* qmp.events
        const isThere = Effect.map(Effect.mapError(peripherals, lost), (present) => present.has(device))
        if (yield* isThere) {
          // one that is on its way out already says so
          yield* Effect.mapError(tellAnyway("device_del", { id: device }), lost)
          const told = yield* events.pipe(
            Stream.filter(({ data }) => data["device"] === device),
            Stream.filter(({ name }) => name === "DEVICE_DELETED" || name === "DEVICE_UNPLUG_GUEST_ERROR"),
            Stream.runHead,
            Effect.timeoutOption(LETTING_GO),
            Effect.map(Option.flatten)
          )
          if (Option.isSome(told) && told.value.name !== "DEVICE_DELETED") {
            return yield* new DeviceKept({ id, detail: "it refused" })
          }
          if (yield* isThere) return yield* new DeviceKept({ id, detail: `it has not within ${LETTING_GO}` })
        }
        yield* Effect.mapError(clear(id), lost)
      }).pipe(Effect.scoped)
  }
}
