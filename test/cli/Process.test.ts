/** The program as a process: pipes that close early, exit codes, standard input. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

const program = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url))

const shell = (script: string) =>
  Effect.callback<{ readonly code: number | null; readonly out: string; readonly err: string }>((resume) => {
    const child = spawn("bash", ["-c", `set -o pipefail; ironwood() { "$NODE" "$PROGRAM" "$@"; }; ${script}`], {
      env: {
        ...process.env,
        NODE: process.execPath,
        PROGRAM: program,
        IRONWOOD_ADDRESS: "unix:/nonexistent/ironwood.sock"
      }
    })
    let out = ""
    let err = ""
    child.stdout.on("data", (chunk) => (out += String(chunk)))
    child.stderr.on("data", (chunk) => (err += String(chunk)))
    child.once("close", (code) => resume(Effect.succeed({ code, out, err })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

describe("as a process", () => {
  it.live("survives a reader that leaves", () =>
    Effect.gen(function* () {
      const ran = yield* shell("ironwood --help | head -n 1; ironwood completions zsh | true")
      assert.deepStrictEqual(ran, { code: 0, out: "DESCRIPTION\n", err: "" })
    })
  )

  it.live("ends with the documented exit codes", () =>
    Effect.gen(function* () {
      const ran = yield* shell("ironwood ps; echo $?; ironwood bogus; echo $?; ironwood --version; echo $?")
      assert.strictEqual(ran.out, "5\n2\nironwood 0.1.0\n0\n")
      assert.include(ran.err, "no Ironwood answers at unix:/nonexistent/ironwood.sock")
    })
  )

  it.live("reads a spec from standard input", () =>
    Effect.gen(function* () {
      const ran = yield* shell("echo 'kind: Containr' | ironwood apply -f -")
      assert.strictEqual(ran.code, 2)
      assert.include(ran.err, 'stdin:1: kind: no such kind "Containr"; did you mean Container?')
    })
  )

  it.live("gives completions that the shell takes", () =>
    Effect.gen(function* () {
      const ran = yield* shell(
        "source <(ironwood completions bash) && complete -p ironwood && ! ironwood completions bash | grep -e --completions"
      )
      assert.strictEqual(ran.code, 0, ran.err)
      assert.include(ran.out, "ironwood")
    })
  )
})
