/**
 * The program `ironwood`: gives {@link Cli.run} the real terminal, files and signals, and ends with its exit code.
 *
 * The first Ctrl-C goes to the command if it claimed signals, else it interrupts it (finalizers run, exit code 130).
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Cli from "./Cli.ts"
import { exitCodes } from "./ExitCode.ts"
import * as Keyboard from "./Keyboard.ts"
import * as Screen from "./Screen.ts"
import * as Signals from "./Signals.ts"

const signals = Signals.make()

const fiber = Effect.runFork(
  Cli.run(process.argv.slice(2)).pipe(
    Effect.provide(Layer.mergeAll(Screen.layer, Keyboard.layer, signals.layer, NodeServices.layer))
  )
)

for (const signal of Signals.stopSignals) {
  process.on(signal, () => {
    if (!signals.deliver(signal)) fiber.interruptUnsafe()
  })
}

// a fiber that waits for nothing but another fiber does not keep the process alive
const alive = setInterval(() => {}, 2 ** 30)
fiber.addObserver((exit) => {
  clearInterval(alive)
  process.exit(exit._tag === "Success" ? exit.value : exitCodes.interrupted)
})
