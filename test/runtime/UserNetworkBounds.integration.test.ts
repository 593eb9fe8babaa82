/**
 * What a program in the place of slirp4netns can do to the brain and its host when a guest has taken it over: answer without end or
 * never, and write its log full. A stand-in does it on purpose; taproot, the namespaces and the limits are real.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Cgroups } from "../../src/host/Cgroups.ts"
import { decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import * as MountPoints from "../../src/runtime/MountPoints.ts"
import * as RuntimePaths from "../../src/runtime/RuntimePaths.ts"
import * as UserNetworks from "../../src/runtime/UserNetworks.ts"
import * as ProcessExit from "../../src/taproot/ProcessExit.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import * as Taproot from "../support/taproot.ts"
import { stateDirectory } from "./world.ts"

/** What it does with each request but the first, which finds out whether it is there. */
const misdeeds = {
  endless: `const more = () => { while (connection.write("x".repeat(65536))); }
    connection.on("drain", more); more()`,
  silent: "",
  large: `connection.end(JSON.stringify({ entries: [], padding: "x".repeat(60_000) }))`,
  flood: `connection.on("close", () => { for (;;) fs.writeSync(2, "lost a packet\\n".repeat(1000)) })
    connection.end('{"entries":[]}')`
} as const

const standIn = (misdeed: keyof typeof misdeeds) => `#!${process.execPath}
const fs = require("node:fs")
const [socket] = process.argv.flatMap((word) => /^--api-socket=(.*)/.exec(word)?.[1] ?? [])
let requests = 0
require("node:net").createServer({ allowHalfOpen: true }, (connection) => {
  connection.on("error", () => {})
  connection.resume()
  if (requests++ === 0) return connection.end('{"entries":[]}')
  ${misdeeds[misdeed]}
}).listen(socket)
`

const sandbox = Effect.map(decodeSandboxSpec({ name: "pod", network: "user" }), (spec) => ({ spec, implicit: false }))

const hostsUsers = { of: () => Effect.undefined, forget: () => Effect.void, lacking: Effect.undefined }

const withNetworks = <E>(
  misdeed: keyof typeof misdeeds,
  use: (world: {
    readonly networks: UserNetworks.UserNetworks
    readonly log: string
    /** Those that taproot still knows of. */
    readonly left: Effect.Effect<number>
  }) => Effect.Effect<void, E>
) =>
  Effect.gen(function* () {
    const state = yield* stateDirectory
    const program = join(state, "slirp4netns")
    writeFileSync(program, standIn(misdeed), { mode: 0o755 })
    const processes = yield* Processes
    const cgroups = yield* Cgroups
    const points = MountPoints.make(processes)
    const paths = RuntimePaths.make(join(state, "runtime"), join(state, "logs"))
    const networks = UserNetworks.make(processes, cgroups, points, hostsUsers, paths, [program])
    const clear = Effect.gen(function* () {
      yield* networks.forget("pod")
      yield* points.remove(networks.namespaceOf("pod"))
      yield* cgroups.remove(paths.cgroup)
    })
    yield* Effect.addFinalizer(() => Effect.ignoreCause(clear))
    const left = Effect.map(processes.takeAll("network/"), (all) => all.length)
    yield* use({ networks, log: join(paths.userNetworks, "pod/log"), left })
  }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Cgroups.layer, Taproot.layer())))

describe("a slirp4netns that a guest has taken over", () => {
  for (const [misdeed, message] of [
    ["endless", "answers without end"],
    ["silent", "does not answer"]
  ] as const) {
    it.live(`that ${message} is ended`, () =>
      withNetworks(misdeed, ({ left, networks }) =>
        Effect.gen(function* () {
          assert.include((yield* Effect.flip(networks.of(yield* sandbox))).message, message)
          assert.strictEqual(yield* left, 0)
        })
      )
    )
  }

  it.live("may say much, but for what no number of ports takes", () =>
    withNetworks("large", ({ networks }) =>
      Effect.gen(function* () {
        assert.deepStrictEqual((yield* networks.of(yield* sandbox)).missing, [])
      })
    )
  )

  it.live("that floods its log fills a mebibyte of the disk, and another one takes its place", () =>
    withNetworks("flood", ({ log, networks }) =>
      Effect.gen(function* () {
        const { process } = yield* networks.of(yield* sandbox)
        const exit = yield* process.exit
        assert.isFalse(ProcessExit.isSuccess(exit))
        assert.strictEqual(statSync(log).size, 1_048_576)
        const next = yield* networks.of(yield* sandbox)
        assert.notStrictEqual(next.process.pid, process.pid)
      })
    )
  )
})
