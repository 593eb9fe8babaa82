/**
 * A brain under taproot on this host, with nothing to run: how soon it serves, and how soon it does again after every way in
 * which it may end.
 */
import * as Effect from "effect/Effect"
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { HostService } from "../proto/generated/ironwood/v1/host_pb.ts"
import * as Client from "../src/cli/Client.ts"

const build = fileURLToPath(new URL("../build", import.meta.url))

export interface NativeBrain {
  /** Milliseconds from the start of taproot to the first answer. */
  readonly served: number
  /** Milliseconds from the failure to the first answer of the next brain. */
  readonly kill: () => Promise<number>
  readonly hang: () => Promise<number>
  /** The kernel kills it, since its cgroup gets too small for it. Undefined: this host lets nobody do that. */
  readonly outOfMemory: () => Promise<number | undefined>
  readonly close: () => Promise<void>
}

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds))

/** A brain that has lived for so long is started again without a pause. */
const calm = 5_500

/** The directory of a cgroup that limits memory, of the version that this host has, and the file for the limit. */
const memoryCgroup = (): { readonly directory: string; readonly limit: string } | undefined => {
  const name = `ironwood-bench-${process.pid}`
  if (existsSync("/sys/fs/cgroup/memory/memory.limit_in_bytes")) {
    return { directory: `/sys/fs/cgroup/memory/${name}`, limit: "memory.limit_in_bytes" }
  }
  const controllers = existsSync("/sys/fs/cgroup/cgroup.subtree_control")
    ? readFileSync("/sys/fs/cgroup/cgroup.subtree_control", "utf8")
    : ""
  return controllers.includes("memory") ? { directory: `/sys/fs/cgroup/${name}`, limit: "memory.max" } : undefined
}

export const nativeBrain = async (space: string): Promise<NativeBrain> => {
  const state = join(space, "state")
  const address = `unix:${join(state, "ironwood.sock")}`
  const version = (): Promise<{ readonly brainPid: number } | undefined> =>
    Effect.runPromise(
      Effect.orElseSucceed(
        Effect.scoped(
          Effect.flatMap(Client.make(address), (client) =>
            client.call(HostService.method.getVersion, {}, { timeout: "1 second" })
          )
        ),
        () => undefined
      )
    )
  /** Waits for an answer of another brain; its pid. */
  const next = async (old: number): Promise<number> => {
    for (;;) {
      const pid = existsSync(join(state, "ironwood.sock")) ? (await version())?.brainPid : undefined
      if (pid !== undefined && pid !== old) return pid
      await pause(2)
    }
  }
  mkdirSync(state, { mode: 0o700 })
  const began = performance.now()
  const taproot: ChildProcess = spawn(
    join(build, "taproot"),
    ["--", process.execPath, "--disable-warning=ExperimentalWarning", join(build, "brain.cjs"), "--state-dir", state],
    { stdio: "ignore" }
  )
  let pid = await next(-1)
  const served = performance.now() - began

  const after = async (fail: () => void): Promise<number> => {
    await pause(calm)
    const failed = performance.now()
    fail()
    pid = await next(pid)
    return performance.now() - failed
  }
  return {
    served,
    kill: () => after(() => process.kill(pid, "SIGKILL")),
    hang: () => after(() => process.kill(pid, "SIGSTOP")),
    outOfMemory: async () => {
      const cgroup = memoryCgroup()
      if (cgroup === undefined) return undefined
      mkdirSync(cgroup.directory)
      try {
        return await after(() => {
          // what it has from now on counts; with its next calls it needs more than there is
          writeFileSync(join(cgroup.directory, "cgroup.procs"), String(pid))
          writeFileSync(join(cgroup.directory, cgroup.limit), String(256 * 1024))
        })
      } finally {
        await pause(100)
        rmdirSync(cgroup.directory)
      }
    },
    close: () =>
      new Promise((resolve) => {
        taproot.once("exit", () => resolve())
        taproot.kill("SIGTERM")
      })
  }
}
