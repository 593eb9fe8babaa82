/** Cgroups of this host, really made, filled, counted, killed and removed. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { randomUUID } from "node:crypto"
import { existsSync, mkdirSync } from "node:fs"
import { directories, hierarchyOf } from "../../src/host/CgroupLayout.ts"
import { Cgroups } from "../../src/host/Cgroups.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { eventually } from "../support/eventually.ts"
import * as Taproot from "../support/taproot.ts"

/** A cgroup of the test's own, with directories in every hierarchy, gone at the end. */
const withCgroup = <A, E>(test: (path: string) => Effect.Effect<A, E, Cgroups | Processes>) =>
  Effect.gen(function* () {
    const cgroups = yield* Cgroups
    const path = `/ironwood-test-${randomUUID().slice(0, 8)}`
    yield* Effect.ensuring(test(path), Effect.orDie(cgroups.remove(path)))
    for (const directory of directories(yield* cgroups.layout, path)) assert.isFalse(existsSync(directory), directory)
  }).pipe(Effect.provide(Cgroups.layer.pipe(Layer.provideMerge(Taproot.layer()))))

/** Runs a shell script inside the cgroup, in every hierarchy but cpuset's (which takes nobody before it has processors). */
const spawnIn = (path: string, script: string) =>
  Effect.gen(function* () {
    const cgroups = yield* Cgroups
    const layout = yield* cgroups.layout
    for (const directory of directories(layout, path)) mkdirSync(directory, { recursive: true })
    const hierarchies = layout.hierarchies.filter(({ controllers }) => !controllers.includes("cpuset"))
    const found = directories({ ...layout, hierarchies }, path)
    const process = yield* (yield* Processes).spawn({
      label: "inside",
      argv: ["/bin/sh", "-c", script],
      environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
      cgroups: found
    })
    const isIn = Effect.map(cgroups.processes(path), (pids) => pids.includes(process.pid))
    const isOver = Effect.map(process.exitNow, Option.isSome)
    yield* eventually(
      "it has joined",
      Effect.zipWith(isIn, isOver, (inside, over) => inside || over)
    )
    return process
  })

describe("Cgroups", () => {
  it.live("says who is in a cgroup and below, and what is below", () =>
    withCgroup((path) =>
      Effect.gen(function* () {
        const cgroups = yield* Cgroups
        assert.deepStrictEqual(yield* cgroups.processes(path), [])
        assert.deepStrictEqual(yield* cgroups.children(path), [])
        const above = yield* spawnIn(`${path}/a`, "exec sleep 1000")
        const below = yield* spawnIn(`${path}/a/b`, "exec sleep 1000")
        assert.sameMembers([...(yield* cgroups.processes(path))], [above.pid, below.pid])
        assert.deepStrictEqual([...(yield* cgroups.processes(`${path}/a/b`))], [below.pid])
        assert.deepStrictEqual(yield* cgroups.children(path), ["a"])
        yield* cgroups.kill(`${path}/a/b`)
        const exit = yield* below.exit
        assert.deepStrictEqual([exit._tag, "signal" in exit && exit.signal], ["Signaled", "SIGKILL"])
        assert.deepStrictEqual([...(yield* cgroups.processes(path))], [above.pid])
        yield* cgroups.remove(path)
        yield* above.exit
        for (const process of [above, below]) yield* process.acknowledge
        yield* cgroups.remove(path)
      })
    )
  )

  it.live("kills faster than they fork, whatever session they are in", () =>
    withCgroup((path) =>
      Effect.gen(function* () {
        const cgroups = yield* Cgroups
        const breed = "breed() { setsid sleep 1000 & sleep 0.01; breed & breed; }; breed"
        const process = yield* spawnIn(path, breed)
        yield* eventually(
          "they are many",
          Effect.map(cgroups.processes(path), (pids) => pids.length > 30)
        )
        yield* cgroups.remove(path)
        assert.deepStrictEqual(yield* cgroups.processes(path), [])
        yield* process.exit
        yield* process.acknowledge
      })
    )
  )

  it.live("counts the kernel's kills for memory, and none where there is nothing to count", () =>
    withCgroup((path) =>
      Effect.gen(function* () {
        const cgroups = yield* Cgroups
        assert.strictEqual(yield* cgroups.outOfMemoryKills(path), 0)
        const memory = hierarchyOf(yield* cgroups.layout, "memory")
        const limit = memory?.version === 2 ? "memory.max" : "memory.limit_in_bytes"
        const setLimit = `echo 20000000 > ${memory?.mountPoint}${path}/${limit}`
        const process = yield* spawnIn(path, `${setLimit}; tail /dev/zero; tail /dev/zero; exit 0`)
        yield* process.exit
        assert.strictEqual(yield* cgroups.outOfMemoryKills(path), 2)
        yield* process.acknowledge
      })
    )
  )
})
