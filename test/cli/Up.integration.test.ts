/** `up` and `down` as processes, with the real taproot and a brain that runs nothing. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { type ChildProcess, spawn } from "node:child_process"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const program = here("../../src/cli/main.ts")

/** A directory with taproot, the stub as its brain, and a state directory; what still runs there ends with the scope. */
const place = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = mkdtempSync(join(tmpdir(), "ironwood-up-"))
    copyFileSync(here("../../build/taproot"), join(directory, "taproot"))
    writeFileSync(join(directory, "brain.cjs"), `import(${JSON.stringify(here("StubBrain.ts"))})\n`)
    return { directory, state: join(directory, "state") }
  }),
  ({ directory }) =>
    Effect.sync(() => {
      for (const pid of processesOf(directory)) process.kill(pid, "SIGKILL")
      rmSync(directory, { recursive: true, force: true })
    })
)

/** Pids with the directory in their command line, but for those that only wait to be reaped. */
const processesOf = (directory: string): ReadonlyArray<number> =>
  readdirSync("/proc").flatMap((name) => {
    try {
      const named = /^\d+$/.test(name) && Number(name) !== process.pid
      return named && readFileSync(`/proc/${name}/cmdline`, "utf8").includes(directory) ? [Number(name)] : []
    } catch {
      return []
    }
  })

const begin = (
  directory: string,
  args: ReadonlyArray<string>,
  environment: Record<string, string> = {},
  wrapper: ReadonlyArray<string> = []
) => {
  const [command = process.execPath, ...words] = [...wrapper, process.execPath, program, ...args]
  const child = spawn(command, words, {
    cwd: directory,
    env: { ...process.env, IRONWOOD_BUILD: directory, ...environment },
    stdio: ["ignore", "pipe", "pipe"]
  })
  const seen = { child, out: "", err: "" }
  child.stdout.on("data", (chunk) => (seen.out += String(chunk)))
  child.stderr.on("data", (chunk) => (seen.err += String(chunk)))
  return seen
}

const codeOf = (child: ChildProcess) =>
  Effect.callback<number | null>((resume) => {
    if (child.exitCode !== null) return resume(Effect.succeed(child.exitCode))
    child.once("close", (code) => resume(Effect.succeed(code)))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const ended = (...how: Parameters<typeof begin>) =>
  Effect.gen(function* () {
    const seen = begin(...how)
    const code = yield* codeOf(seen.child)
    return { code, out: seen.out, err: seen.err }
  })

const until = (isSo: () => boolean) =>
  Effect.suspend(() => (isSo() ? Effect.void : Effect.fail("not yet"))).pipe(
    Effect.retry(Schedule.spaced("20 millis")),
    Effect.orDie
  )

describe("up in the foreground", () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it.live(`says ready, follows the tree, and ends everything in order on ${signal}`, () =>
      Effect.gen(function* () {
        const { directory, state } = yield* place
        const seen = begin(directory, ["up", "--state-dir", state, "--follow"])
        yield* until(() => seen.out.includes("init/stub"))
        assert.isTrue(seen.out.startsWith(`ready unix:${state}/ironwood.sock\n`), seen.out)
        seen.child.kill(signal)
        assert.strictEqual(yield* codeOf(seen.child), 0, seen.err)
        assert.deepStrictEqual(processesOf(directory), [])
      })
    )
  }

  it.live("takes what npm and timeout make of one Ctrl-C for one, and explains a second while it is stopping", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      const seen = begin(directory, ["up", "--state-dir", state], { STUB_BRAIN: "slow" })
      yield* until(() => seen.out.includes("ready "))
      for (const signal of ["SIGINT", "SIGINT", "SIGTERM"] as const) seen.child.kill(signal)
      yield* Effect.sleep("1500 millis")
      assert.strictEqual(seen.err, "")
      seen.child.kill("SIGINT")
      yield* until(() => seen.err.includes("still stopping in order"))
      writeFileSync(join(state, "enough"), "")
      assert.strictEqual(yield* codeOf(seen.child), 0)
      assert.strictEqual(seen.err.split("still stopping in order").length, 2, seen.err)
      assert.deepStrictEqual(processesOf(directory), [])
    })
  )

  it.live("takes everything down in order when it is killed itself", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      const seen = begin(directory, ["up", "--state-dir", state])
      yield* until(() => seen.out.includes("ready "))
      seen.child.kill("SIGKILL")
      yield* until(() => processesOf(directory).length === 0)
      assert.include(readFileSync(join(state, "brain.log"), "utf8"), "taproot:")
    })
  )

  it.live("ends well when somebody else says down", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      const seen = begin(directory, ["up", "--state-dir", state])
      yield* until(() => seen.out.includes("ready "))
      const down = yield* ended(directory, ["down", "--state-dir", state])
      assert.deepStrictEqual([down.code, down.out], [0, "stopped\n"])
      assert.strictEqual(yield* codeOf(seen.child), 0)
      assert.include(seen.err, "ironwood: stopped")
    })
  )

  it.live("stays up when a spec cannot be applied, and says so", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      const file = join(directory, "web.yaml")
      writeFileSync(file, "kind: Container\nname: web\nimage: web\n")
      const seen = begin(directory, ["up", "--state-dir", state, "-f", file])
      yield* until(() => seen.out.includes("ready "))
      assert.include(seen.err, "container web")
      seen.child.kill("SIGINT")
      assert.strictEqual(yield* codeOf(seen.child), 0)
    })
  )

  it.live("starts nothing when a spec file is wrong", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      const file = join(directory, "web.yaml")
      writeFileSync(file, "kind: Container\nnmae: web\n")
      const ran = yield* ended(directory, ["up", "--state-dir", state, "-f", file])
      assert.strictEqual(ran.code, 2)
      assert.include(ran.err, `${file}:2`)
      assert.isFalse(existsSync(state))
    })
  )

  it.live("says of a state directory that cannot be made that it cannot", () =>
    Effect.gen(function* () {
      const { directory } = yield* place
      writeFileSync(join(directory, "file"), "")
      for (const state of ["/proc/ironwood/state", join(directory, "file"), join(directory, "file/state")]) {
        const ran = yield* ended(directory, ["up", "--state-dir", state])
        assert.notStrictEqual(ran.code, 0)
        assert.include(ran.err, `the state directory ${state} cannot be made`)
      }
    })
  )

  it.live("tells why the brain does not come up, and leaves nothing", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      const ran = yield* ended(directory, ["up", "--state-dir", state], { STUB_BRAIN: "fails" })
      assert.strictEqual(ran.code, 1)
      assert.include(ran.err, "Ironwood did not come up")
      assert.include(ran.err, "the state is from another planet")
      assert.deepStrictEqual(processesOf(directory), [])
    })
  )

  it.live("says what to run when taproot is not built", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      rmSync(join(directory, "taproot"))
      const ran = yield* ended(directory, ["up", "--state-dir", state])
      assert.strictEqual(ran.code, 1)
      assert.include(ran.err, "scripts/setup")
    })
  )
})

describe("up without the rights", () => {
  // an ordinary user; that one may read everything, so that it does not matter where the checkout is
  const user = "--reuid 65534 --regid 65534 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"

  it.live("of root names the command to run, and leaves nothing", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      chmodSync(directory, 0o777)
      const setpriv = ["setpriv", ...user.split(" ")]
      const up = ["up", "--state-dir", state, "--file", join(directory, "it's.yaml")]
      writeFileSync(join(directory, "it's.yaml"), "kind: Sandbox\nname: a\n")
      const ran = yield* ended(directory, up, {}, setpriv)
      assert.strictEqual(ran.code, 6, ran.err)
      const command = `ironwood up --state-dir ${state} --file '${directory}/it'\\''s.yaml'`
      assert.match(ran.err, /^ironwood: only root can start Ironwood: .* Run `sudo .*`\.\n$/)
      assert.include(ran.err, `${command}\``)
      const npm = yield* ended(directory, up, { npm_lifecycle_event: "start" }, setpriv)
      assert.include(npm.err, "Run `sudo npm start`.")
      assert.isFalse(existsSync(state))
      assert.deepStrictEqual(processesOf(directory), [])
    })
  )

  it.live("of a host, as root in a container, says so and leaves nothing", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      const setpriv = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
      const ran = yield* ended(directory, ["up", "--state-dir", join(state, "deep")], {}, setpriv)
      assert.strictEqual(ran.code, 6, ran.err)
      assert.include(ran.err, "SYS_ADMIN")
      assert.notInclude(ran.err, "--private-mounts")
      assert.isFalse(existsSync(state))
    })
  )
})

describe("up in the background", () => {
  it.live("returns when it is ready; a second one is refused; down ends it", () =>
    Effect.gen(function* () {
      const { directory, state } = yield* place
      const up = yield* ended(directory, ["up", "--detach", "--state-dir", state])
      assert.deepStrictEqual([up.code, up.out], [0, `ready unix:${state}/ironwood.sock\n`])
      const second = yield* ended(directory, ["up", "--detach", "--state-dir", state])
      assert.strictEqual(second.code, 4, second.err)
      assert.include(second.err, readFileSync(join(state, "lock"), "utf8").trim())
      const tree = yield* ended(directory, ["tree", "--address", `${state}/ironwood.sock`])
      assert.include(tree.out, "2 actors: 2 running")
      // a brain that hangs is replaced, and whoever asks meanwhile is answered by the next one
      const version = ["version", "-o", "json", "--address", `${state}/ironwood.sock`]
      const brain = Number(/"brainPid":\s*(\d+)/.exec((yield* ended(directory, version)).out)?.[1])
      process.kill(brain, "SIGSTOP")
      const meanwhile = yield* ended(directory, ["tree", "--address", `${state}/ironwood.sock`])
      assert.deepStrictEqual([meanwhile.code, meanwhile.err], [0, ""])
      assert.include(meanwhile.out, "2 actors: 2 running")
      const next = (yield* ended(directory, version)).out
      assert.match(next, /"brainPid"/)
      assert.notInclude(next, String(brain))
      const down = yield* ended(directory, ["down", "--address", `unix:${state}/ironwood.sock`])
      assert.strictEqual(down.code, 0, down.err)
      assert.deepStrictEqual(processesOf(directory), [])
      const again = yield* ended(directory, ["up", "--detach", "--state-dir", state])
      assert.strictEqual(again.code, 0, again.err)
      assert.strictEqual((yield* ended(directory, ["down", "--state-dir", state])).code, 0)
    })
  )
})
