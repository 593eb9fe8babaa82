/**
 * The life of a machine config over a real database: applied, tried, confirmed, taken back, by whichever brain is alive. Hours
 * pass in no time.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import { join } from "node:path"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { configActor } from "../../src/config/ConfigActor.ts"
import { keptRevisions } from "../../src/config/ConfigErrors.ts"
import { digestOf, type Document, read } from "../../src/config/Document.ts"
import { usualRestarts } from "../../src/config/Effective.ts"
import * as MachineConfigs from "../../src/config/MachineConfigs.ts"
import { AtStart, type Found } from "../../src/config/Sources.ts"
import { BootClock } from "../../src/host/BootClock.ts"
import * as KernelParameters from "../../src/host/KernelParameters.ts"
import { usualImageSettings } from "../../src/storage/ImageSettings.ts"
import { usualSettings } from "../../src/storage/registry/RegistrySettings.ts"
import * as NetworkConfig from "../../src/network/NetworkConfig.ts"
import { temporaryDirectory, withState } from "../storage/support/state.ts"
import { eventually } from "../support/ironwood.ts"

const document = (fields: string): Document => Result.getOrThrow(read(`version: ironwood/v1\n${fields}\n`))

const named = (name: string) => document(`hostname: ${name}`)

const origin = "a test"

/** One brain on the database at `path`; its actor `config` runs while `use` does. */
const brain = <A, E, R>(
  path: string,
  use: Effect.Effect<A, E, R>,
  options: { readonly bootId?: string; readonly commandLine?: string; readonly source?: Found } = {}
) => {
  const kernel = KernelParameters.parse(options.commandLine ?? "")
  const services = MachineConfigs.layer(kernel).pipe(
    Layer.provide(
      Layer.succeed(BootClock, BootClock.of({ bootId: options.bootId ?? "one", now: Clock.currentTimeMillis }))
    ),
    Layer.merge(Layer.succeed(AtStart, options.source ?? { _tag: "Nowhere" }))
  )
  const run = Effect.gen(function* () {
    yield* Root.start(Supervisor.make("init", { children: [configActor(kernel)] }))
    return yield* use
  })
  return withState(path, Effect.scoped(Effect.provide(run, services)))
}

const database: Effect.Effect<string, never, Scope.Scope> = Effect.map(temporaryDirectory, (path) =>
  join(path, "state.db")
)

const configs = MachineConfigs.MachineConfigs

const hostname = Effect.map(configs, ({ parts }) => parts().hostname)

/** Waits in real time for what real threads do. */
const becomesTrue = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  Effect.gen(function* () {
    for (let tries = 0; tries < 500 && !(yield* condition); tries++) {
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 10)))
    }
  })

const becomes = (wanted: string | undefined) =>
  Effect.gen(function* () {
    yield* becomesTrue(Effect.map(hostname, (name) => name === wanted))
    assert.strictEqual(yield* hostname, wanted)
  })

const applied = (config: Document, options: Omit<MachineConfigs.ApplyOptions, "origin"> = {}) =>
  Effect.flatMap(configs, ({ apply }) => apply(config, { origin, ...options }))

describe("a machine config", () => {
  it.effect("holds at once and from then on, also for the next brain", () =>
    Effect.gen(function* () {
      const path = yield* database
      yield* brain(
        path,
        Effect.gen(function* () {
          assert.isUndefined(yield* hostname)
          const { changes, head } = yield* applied(named("a"))
          assert.deepStrictEqual(
            changes.map(({ after, field, reach }) => ({ after, field, reach })),
            [{ field: "hostname", after: "a", reach: "live" }]
          )
          assert.strictEqual(head.current, 1)
          assert.strictEqual(yield* hostname, "a")
        })
      )
      yield* brain(
        path,
        Effect.map(hostname, (name) => assert.strictEqual(name, "a")),
        { bootId: "two" }
      )
    })
  )

  it.effect("that is tried is taken back at its deadline, and not before", () =>
    Effect.gen(function* () {
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          yield* applied(named("a"))
          yield* applied(named("b"), { tryFor: Duration.seconds(60) })
          assert.strictEqual(yield* hostname, "b")
          yield* TestClock.adjust("59 seconds")
          assert.strictEqual(yield* hostname, "b")
          yield* TestClock.adjust("1 second")
          yield* becomes("a")
          const [tried, first] = yield* (yield* configs).history
          assert.deepInclude(tried, { number: 2, fate: "reverted" })
          assert.deepInclude(first, { number: 1, fate: "applied", origin })
        })
      )
    })
  )

  it.effect("that is confirmed stays", () =>
    Effect.gen(function* () {
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          const { confirm } = yield* configs
          yield* applied(named("a"), { tryFor: Duration.seconds(60) })
          yield* confirm
          yield* TestClock.adjust("1 hour")
          assert.strictEqual(yield* hostname, "a")
          const nothing = yield* Effect.flip(confirm)
          assert.strictEqual(nothing._tag, "NothingOnTrial")
        })
      )
    })
  )

  it.effect("that is tried when the brain dies is taken back by the next one, when its time is over", () =>
    Effect.gen(function* () {
      const path = yield* database
      yield* brain(path, Effect.andThen(applied(named("a")), applied(named("b"), { tryFor: Duration.seconds(60) })))
      yield* TestClock.adjust("30 seconds")
      yield* brain(
        path,
        Effect.gen(function* () {
          assert.strictEqual(yield* hostname, "b")
          yield* TestClock.adjust("29 seconds")
          assert.strictEqual(yield* hostname, "b")
          yield* TestClock.adjust("1 second")
          yield* becomes("a")
        })
      )
      // and by one that comes too late
      yield* brain(path, applied(named("c"), { tryFor: Duration.seconds(60) }))
      yield* TestClock.adjust("2 minutes")
      yield* brain(path, becomes("a"))
    })
  )

  it.effect("tells of every part that somebody follows whether it is done", () =>
    Effect.gen(function* () {
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          const { apply, setting } = yield* configs
          setting("containers")
          const applying = yield* Effect.forkChild(apply(document("containers: { allowPrivileged: true }"), { origin }))
          yield* becomesTrue(Effect.map(configs, ({ parts }) => parts().containers.allowPrivileged))
          yield* TestClock.adjust("1 minute")
          const { problems } = yield* Fiber.join(applying)
          assert.deepStrictEqual(
            problems.map(({ field }) => field),
            ["containers"]
          )
        })
      )
    })
  )

  it.effect("that is tried does not outlive the machine", () =>
    Effect.gen(function* () {
      const path = yield* database
      yield* brain(path, Effect.andThen(applied(named("a")), applied(named("b"), { tryFor: Duration.hours(1) })))
      yield* brain(
        path,
        Effect.gen(function* () {
          assert.strictEqual(yield* hostname, "a")
          assert.isUndefined(yield* (yield* configs).trialLeft)
        }),
        { bootId: "two" }
      )
    })
  )

  it.effect("that is tried gives way to another that is tried, and to nothing else", () =>
    Effect.gen(function* () {
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          yield* applied(named("a"))
          yield* applied(named("b"), { tryFor: Duration.seconds(60) })
          const refused = yield* Effect.flip(applied(named("c")))
          assert.strictEqual(refused._tag, "ConfigOnTrial")
          yield* applied(named("c"), { tryFor: Duration.seconds(60) })
          assert.strictEqual(yield* hostname, "c")
          yield* (yield* configs).revert("revert")
          assert.strictEqual(yield* hostname, "a", "back to what was there to stay")
        })
      )
    })
  )

  it.effect("is not changed by who has read another one, or only asks", () =>
    Effect.gen(function* () {
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          yield* applied(named("a"), { expect: 0 })
          const moved = yield* Effect.flip(applied(named("b"), { expect: 0 }))
          assert.strictEqual(moved._tag, "RevisionMoved")
          const { changes } = yield* applied(named("b"), { validateOnly: true })
          assert.strictEqual(changes.length, 1)
          assert.strictEqual(yield* hostname, "a")
          const again = yield* applied(named("a"))
          assert.strictEqual(again.head.current, 1, "the same again is no revision")
        })
      )
    })
  )

  it.effect("is kept with those before it, up to a number", () =>
    Effect.gen(function* () {
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          for (let index = 0; index < keptRevisions + 5; index++) yield* applied(named(`n${index}`))
          const history = yield* (yield* configs).history
          assert.strictEqual(history.length, keptRevisions)
          assert.strictEqual(history[0]?.number, keptRevisions + 5)
          const gone = yield* Effect.flip((yield* configs).revision(1))
          assert.strictEqual(gone._tag, "RevisionNotFound")
        })
      )
    })
  )

  it.effect("gives way to the kernel command line, and says so", () =>
    Effect.gen(function* () {
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          const { changes } = yield* applied(
            document(`hostname: mine
time: { servers: [192.0.2.1] }
kernel: { sysctls: { vm.swappiness: 1, vm.max_map_count: 2 }, consoleLevel: 3 }
state: { label: x }
restarts: { perSecond: 7 }`)
          )
          assert.deepStrictEqual(Object.fromEntries(changes.map(({ field, reach }) => [field, reach])), {
            hostname: "overridden",
            "time.servers": "overridden",
            'kernel.sysctls["vm.swappiness"]': "overridden",
            'kernel.sysctls["vm.max_map_count"]': "live",
            "kernel.consoleLevel": "overridden",
            "state.label": "reboot",
            "restarts.perSecond": "live"
          })
          assert.deepStrictEqual((yield* configs).parts(), {
            hostname: undefined,
            network: NetworkConfig.empty,
            time: { servers: ["192.0.2.9"] },
            sysctls: { "vm.max_map_count": "2" },
            modules: [],
            consoleLevel: undefined,
            watchdog: undefined,
            listen: [],
            restarts: { perSecond: 7, burst: usualRestarts.burst },
            upgrade: { keys: [], whenBrainFails: "wait" },
            registries: usualSettings,
            images: usualImageSettings,
            containers: { allowPrivileged: false, allowMounts: [], allowDevices: [] }
          })
        }),
        { commandLine: "quiet hostname=kernel ironwood.ntp=192.0.2.9 sysctl.vm/swappiness=5" }
      )
    })
  )
})

describe("the network of a machine config", () => {
  const links = document(`network: { links: [{ name: eth0, dhcp4: true }], nameServers: [192.0.2.53] }`)
  const network = Effect.map(configs, ({ parts }) => parts().network)

  it.effect("is what the kernel command line leaves to it", () =>
    Effect.gen(function* () {
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          const { changes } = yield* applied(links)
          assert.deepStrictEqual(
            changes.map(({ field, reach }) => [field, reach]),
            [
              ["network.links", "live"],
              ["network.nameServers", "live"]
            ]
          )
          const { nameServers, links: found } = yield* network
          assert.deepStrictEqual(nameServers, ["192.0.2.53"])
          assert.deepStrictEqual(found, [{ ...NetworkConfig.plain("eth0"), dhcp4: true }])
          assert.notInclude((yield* (yield* configs).current).document.text, "dhcp6", "nothing is filled in")
        })
      )
      yield* brain(
        yield* database,
        Effect.gen(function* () {
          const { changes } = yield* applied(links)
          assert.deepInclude(changes[0], { reach: "overridden", note: "the kernel command line says ip, bond or vlan" })
          assert.deepStrictEqual(
            (yield* network).links.map(({ name }) => name),
            ["eth1"]
          )
        }),
        { commandLine: "ip=192.0.2.9::192.0.2.1:24::eth1:none" }
      )
    })
  )
})

describe("a source of the machine", () => {
  const found = (name: string): Found => {
    const said = named(name)
    return { _tag: "Document", name: "fw_cfg", digest: digestOf(said.text), document: said }
  }

  it.effect("counts when what it says is new: a change over the API outlives it", () =>
    Effect.gen(function* () {
      const path = yield* database
      yield* brain(path, becomes("a"), { source: found("a") })
      yield* brain(path, Effect.andThen(becomes("a"), applied(named("b"))), { source: found("a") })
      yield* brain(
        path,
        Effect.map(hostname, (name) => assert.strictEqual(name, "b")),
        { source: found("a") }
      )
      yield* brain(path, becomes("c"), { source: found("c") })
    })
  )

  it.effect("waits for the end of a trial", () =>
    Effect.gen(function* () {
      const path = yield* database
      yield* brain(path, Effect.andThen(applied(named("a")), applied(named("b"), { tryFor: Duration.seconds(60) })))
      yield* brain(
        path,
        Effect.gen(function* () {
          assert.strictEqual(yield* hostname, "b")
          yield* (yield* configs).confirm
          yield* becomes("c")
        }),
        { source: found("c") }
      )
    })
  )

  it.effect("that is wrong leaves what held before, and is told by field", () =>
    Effect.gen(function* () {
      const path = yield* database
      yield* brain(path, applied(named("a")))
      const violations = Result.getOrThrow(Result.flip(read("version: 2\nhostname: -\ncolour: green")))
      yield* brain(
        path,
        Effect.gen(function* () {
          assert.strictEqual(yield* hostname, "a")
          const source = yield* eventually(
            "its source to be told",
            (yield* configs).source,
            ({ name }) => name !== ""
          ).pipe(
            Effect.forkChild,
            Effect.tap(() => TestClock.adjust("1 second")),
            Effect.flatMap(Fiber.join)
          )
          assert.sameMembers(
            source.violations.map(({ field }) => field),
            ["version", "hostname", "colour"]
          )
        }),
        { source: { _tag: "Wrong", name: "fw_cfg", violations } }
      )
    })
  )
})
