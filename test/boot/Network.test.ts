/**
 * The network of a machine, from its kernel command line: a link with a DHCP server and a router (QEMU's own), one on which
 * nobody ever answers, and a bond with a VLAN on it.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { eventually } from "../support/ironwood.ts"
import { boot, type Machine, stopping } from "../support/machine.ts"

const Version = Schema.Struct({ brainStarts: Schema.Int })

const Tree = Schema.Struct({
  actors: Schema.Array(
    Schema.Struct({
      path: Schema.String,
      state: Schema.String,
      degraded: Schema.optionalKey(Schema.String),
      annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
    })
  )
})

/** A card on a cable that leads nowhere. */
const silent = (name: string, hub: number): ReadonlyArray<string> => [
  "-netdev",
  `hubport,id=${name},hubid=${hub}`,
  "-device",
  `virtio-net-pci,netdev=${name},romfile=`
]

/** Waits until a link's actor runs with these annotations. */
const link = (machine: Machine, name: string, wanted: Readonly<Record<string, RegExp>>) =>
  Effect.map(
    eventually(
      `${name} with ${Object.keys(wanted).join(", ")}`,
      Effect.map(
        Effect.orElseSucceed(machine.json(Tree, "tree"), () => ({ actors: [] })),
        ({ actors }) => actors.find(({ path }) => path === `init/network/links/${name}`)
      ),
      (actor) =>
        actor?.state === "ACTOR_STATE_RUNNING" &&
        Object.entries(wanted).every(([key, text]) =>
          text.test((key === "degraded" ? actor.degraded : actor.annotations?.[key]) ?? "")
        ),
      240
    ),
    (actor) => actor?.annotations ?? {}
  )

describe("a machine's network", () => {
  it.live(
    "is what servers give, is told where they are silent, and outlives the brain",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot({
          network: "dhcp",
          parameters: [
            "ip=eth0:auto6",
            "ip=dhcp",
            "bond=bond0:eth2,eth3:mode=active-backup",
            "vlan=bond0.42:bond0",
            "ip=192.0.2.9:::24::bond0.42:none"
          ],
          more: [...silent("cable1", 1), ...silent("cable2", 2), ...silent("cable3", 2)]
        })
        // the API is on the address that the server gives
        yield* machine.up
        const first = yield* link(machine, "eth0", {
          address: /^10\.0\.2\.15\/24 fec0::\S+\/64$/,
          lease: /^10\.0\.2\.15\/24 of 10\.0\.2\.2 for \d+ s$/,
          degraded: /^$/
        })
        yield* link(machine, "each/eth1", { degraded: /no DHCP server has answered within 15 s/ })
        yield* link(machine, "bond0", { device: /^bond0$/, degraded: /^$/ })
        yield* link(machine, "bond0.42", { address: /^192\.0\.2\.9\/24$/, degraded: /^$/ })

        yield* machine.failBrain("KILL")
        yield* eventually(
          "another brain",
          Effect.orElseSucceed(machine.json(Version, "version"), () => ({ brainStarts: 1 })),
          ({ brainStarts }) => brainStarts > 1,
          240
        )
        const second = yield* link(machine, "eth0", { lease: /10\.0\.2\.15/ })
        assert.strictEqual(second["client"], first["client"])
        assert.strictEqual(yield* machine.run("down", "--then", "halt"), stopping)
        yield* machine.prints("reboot: System halted")
        assert.notInclude(machine.console(), "Kernel panic")
      }).pipe(Effect.scoped),
    900_000
  )
})
