/**
 * `npm run boot -- --netboot`, as a person types it: the firmware of a network card asks the network, takes a script by TFTP,
 * the kernel and the initramfs by HTTP, and the machine answers.
 *
 * The network is QEMU's own. Behind the flag: such firmware takes its time under an emulator.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { checkout, eventually } from "../support/ironwood.ts"

const hasEnded = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode !== null || signalCode !== null

/** The command, with what it has said so far. It is killed with the scope, unless it has ended by then. */
const command = Effect.acquireRelease(
  Effect.sync(() => {
    const child = spawn(join(checkout, "scripts/node"), ["scripts/boot.ts", "--quick", "--netboot"], {
      cwd: checkout,
      stdio: ["ignore", "pipe", "pipe"]
    })
    let text = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (text += String(chunk)))
    return { child, said: () => text }
  }),
  ({ child }) =>
    Effect.callback<void>((resume) => {
      if (hasEnded(child)) return resume(Effect.void)
      child.once("exit", () => resume(Effect.void))
      // the second time it switches the machine off
      child.kill("SIGINT")
      child.kill("SIGINT")
    })
)

describe.skipIf(process.env["IRONWOOD_BOOT"] !== "all")("a machine that boots over the network", () => {
  it.live(
    "is there, runs the samples, and stops in order",
    () =>
      Effect.gen(function* () {
        const { child, said } = yield* command
        yield* eventually("the API", Effect.sync(said), (text) => /the API answers after [\d.]+ s/.test(text), 300)
        // the script's way to say which file is the initramfs; QEMU has handed over none
        assert.match(said(), /Command line: initrd=initramfs\.img/)
        yield* eventually(
          "the samples",
          Effect.sync(said),
          (text) => text.includes("init/runtime/flaky/flaky backing-off: exited with code 1"),
          120
        )
        child.kill("SIGINT")
        yield* eventually(
          "its end",
          Effect.sync(() => hasEnded(child)),
          (ended) => ended,
          120
        )
        assert.include(said(), "reboot: Power down")
      }).pipe(Effect.scoped),
    900_000
  )
})
