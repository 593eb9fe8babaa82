/** Flags that docker's and podman's users type: those that mean nothing here are refused, each with what to do instead. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { foreignValueFlags } from "../../src/cli/ForeignFlags.ts"
import { ironwood } from "./CommandLine.ts"

const nowhere = ["--address", "unix:/nowhere/at/all.sock"]

const typed = (...words: ReadonlyArray<string>) =>
  Effect.map(ironwood([...nowhere, "run", ...words]), ({ code, err }) => ({ code, err }))

describe("flags of other runtimes", () => {
  it.live("are refused all at once, with what to do instead, wherever the image stands", () =>
    Effect.gen(function* () {
      const { code, err } = yield* typed(
        "-d",
        "--link",
        "db",
        "--mac-address=02:00:00:00:00:01",
        "--gpus",
        "all",
        "web",
        "-P",
        "mine"
      )
      assert.strictEqual(code, 2)
      assert.match(err, /the flags are wrong in 3 places/)
      assert.match(err, /--link: containers share it as members of one pod/)
      assert.match(err, /--mac-address: its network is --network none, host or user/)
      assert.match(err, /--gpus: name its devices: --device/)
    })
  )

  it.live("are fine where they ask for what is so anyway, and unknown ones stay unknown", () =>
    Effect.gen(function* () {
      // nobody answers there: so nothing was wrong with the flags
      assert.strictEqual(
        (yield* typed("--pid", "private", "--log-driver", "json-file", "--hostname", "h", "web")).code,
        5
      )
      assert.match((yield* typed("--pid", "host", "web")).err, /--pid: its processes are its own/)
      assert.match((yield* typed("--colour", "red", "web")).err, /--colour/)
    })
  )

  it.live("each one says something", () =>
    Effect.gen(function* () {
      const words = foreignValueFlags.filter((name) => name.length > 1).flatMap((name) => [`--${name}`, "x"])
      const { err } = yield* typed(...words, "web")
      for (const name of foreignValueFlags.filter((name) => name.length > 1)) {
        assert.match(err, new RegExp(`^ *--${name}: \\S.{15,}`, "m"))
      }
    })
  )
})
