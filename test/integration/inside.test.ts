/** What is done inside a container that runs, typed as a person would: exec, attach, cp, top, stats, update, pause; pods and secrets. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { checkout, eventually, ironwood, start } from "../support/ironwood.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-inside-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

describe("inside a container", () => {
  it.live("exec, cp, top, stats, update, pause and attach do what they say", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const directory = yield* temporary
      yield* instance.run("image", "import", join(checkout, "build/sample-image"))
      const loop = "while read -r line; do echo got $line; done; sleep 100000"
      const limited = ["--ulimit", "nofile=90:180", "--ulimit", "core=0"]
      yield* instance.run("run", "-d", "-i", "--name", "web", ...limited, "hello:latest", "/bin/sh", "-c", loop)

      // a program's words, its input and its exit code are the caller's
      const exec = (words: ReadonlyArray<string>, input = "") =>
        ironwood(["--address", instance.address, "exec", ...words], input)
      const said = yield* exec(["-e", "WHO=you", "-w", "/tmp", "web", "/bin/sh", "-c", "pwd; echo $WHO >&2; exit 7"])
      assert.deepStrictEqual(said, { code: 7, stdout: "/tmp\n", stderr: "you\n" })
      assert.strictEqual((yield* exec(["-i", "web", "cat"], "through\n")).stdout, "through\n")
      const limits = yield* exec(["web", "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn; grep open.files /proc/1/limits"])
      assert.match(limits.stdout, /^90\n180\nMax open files +90 +180 /)
      for (const [wrong, problem] of [
        ["nofile=9:8", /--ulimit: .*must not be more than the hard limit/],
        ["beer=1", /--ulimit: .*"nofile"/]
      ] as const) {
        assert.match((yield* instance.try("run", "--ulimit", wrong, "hello:latest")).stderr, problem)
      }
      const missing = yield* exec(["web", "nothing-of-the-kind"])
      assert.strictEqual(missing.code, 127, missing.stderr)

      // there and back
      writeFileSync(join(directory, "page"), "a page\n")
      yield* instance.run("cp", join(directory, "page"), "web:/tmp/page")
      assert.strictEqual((yield* exec(["web", "cat", "/tmp/page"])).stdout, "a page\n")
      yield* instance.run("cp", "web:/tmp/page", join(directory, "back"))
      assert.strictEqual(readFileSync(join(directory, "back"), "utf8"), "a page\n")

      yield* instance.run("update", "--memory", "48MiB", "--pids-limit", "77", "web")
      assert.match(yield* instance.run("stats", "--no-stream", "web"), /^NAME[^\n]*\nweb +[\d.]+% +\S+ +48MiB /)
      assert.match(yield* instance.run("top", "web"), /^ *PID[^\n]*\n *\d+ +1 .*\/bin\/sh -c while read/)

      yield* instance.run("pause", "web")
      assert.match(yield* instance.run("ps"), /web .*Paused/i)
      assert.notStrictEqual((yield* exec(["web", "true"])).code, 0)
      yield* instance.run("resume", "web")

      // who attaches is heard
      yield* ironwood(["--address", instance.address, "attach", "web"], "hello\n").pipe(
        Effect.timeoutOption("2 seconds")
      )
      yield* eventually("its answer", instance.run("logs", "web"), (log) => log.includes("got hello"))
      assert.strictEqual((yield* instance.try("rm", "-f", "web")).code, 0)

      // a pod by hand, and a secret in it
      yield* ironwood(["--address", instance.address, "secret", "create", "token", "-"], "s3cret")
      yield* instance.run("pod", "create", "--share-processes", "site")
      const inPod = ["--pod", "site", "hello:latest", "/bin/sh", "-c"]
      yield* instance.run(
        "run",
        "-d",
        "--name",
        "setup",
        "--restart",
        "on-failure",
        ...inPod,
        "echo made > /dev/shm/made"
      )
      yield* instance.run(
        "run",
        "-d",
        "--name",
        "app",
        "--after-success",
        "setup",
        "--secret",
        "token",
        ...inPod,
        "sleep 4711"
      )
      yield* eventually("the app to run", instance.run("ps", "-q"), (names) => names.includes("app"))
      assert.strictEqual((yield* exec(["app", "cat", "/dev/shm/made", "/run/secrets/token"])).stdout, "made\ns3cret")
      assert.include((yield* exec(["app", "ps"])).stdout, "/dev/init")
      assert.notInclude(yield* instance.run("inspect", "app", "-o", "json"), "s3cret")
      yield* instance.run("pod", "stop", "-t", "1s", "site")
      assert.notInclude(yield* instance.run("ps", "-q"), "app")
      yield* instance.run("pod", "rm", "-f", "site")
      yield* instance.run("secret", "rm", "token")
    }).pipe(Effect.scoped)
  )
})
