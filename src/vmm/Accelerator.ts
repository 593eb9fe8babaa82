/**
 * Which accelerator works on this host: KVM where a program really runs on it, else emulation (TCG).
 *
 * A /dev/kvm that opens is no proof (nested virtualization, features that the processor lacks): so a machine is made as any
 * other would be, and given a program of {@link PROGRAM} that goes to long mode and says so through a debug port. What it does
 * within the deadline is the answer.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { access, constants } from "node:fs/promises"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { Processes, RunRequest, RunResult } from "../taproot/Processes.ts"

export type Accelerator = "kvm" | "tcg"

/** What a trial came to; `problem` says why it is not KVM. */
export interface Accelerated {
  readonly accelerator: Accelerator
  readonly problem: string | undefined
  /** It came to nothing in time, on a host that may have been busy: worth another trial. */
  readonly isUndecided?: true
}

/**
 * A multiboot kernel of 169 bytes: zeroes three page tables, maps its first 2 MiB, switches to long mode, asks the processor
 * who it is (CPUID), writes 0x21 to port 0x501 and halts. QEMU's `isa-debug-exit` there makes 67 of that.
 */
export const PROGRAM: Uint8Array = Buffer.from(
  "ArCtGwAAAQD+T1HkAAAQAAAAEACpABAAqQAQADYAEAAAAAAAAAAAAP//AAAAmq8ADwAgABAA/L8AAAcAMcC5AAwAAPOrxwUAAAcAAxAHAMcFABAHAAMg" +
    "BwDHBQAgBwCDAAAADyDgg8ggDyLguAAABwAPIti5gAAAwA8yDQABAAAPMA8gwA0BAACADyLADwEVMAAQAOqbABAACAAxwA+isCFmugEF7vTr/Q==",
  "base64"
)

/** Whether {@link PROGRAM} has run: the exit code of a QEMU whose guest has said so. */
export const saidByExit = ({ exit }: RunResult): boolean => exit._tag === "Exited" && exit.code === 67

/**
 * A kernel of 217 bytes for VMMs that boot nothing older: an ELF file that says its entry twice, in its head (Linux' 64-bit
 * protocol) and as a note (PVH, 32-bit), to instructions that are the same in both modes. It writes `!` to the serial port
 * 0x3f8, switches the machine off by port 0x600 (Cloud Hypervisor, QEMU's q35) or else the keyboard controller (Firecracker).
 */
export const KERNEL: Uint8Array = Buffer.from(
  "f0VMRgIBAQAAAAAAAAAAAAIAPgABAAAAAAAQAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAEAAOAACAAAAAAAAAAEAAAAFAAAAxAAAAAAAAAAAABAAAAAA" +
    "AAAAEAAAAAAAFQAAAAAAAAAVAAAAAAAAAAEAAAAAAAAABAAAAAQAAACwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAUAAAAAAAAABQAAAAAAAAABAAAAAAA" +
    "AAAEAAAABAAAABIAAABYZW4AAAAQAGa6+AOwIe5mugAGsDTusP7mZPTr/Q==",
  "base64"
)

/** Whether {@link KERNEL} has run: what came out of the serial port. */
export const saidByWord = ({ stdout }: RunResult): boolean => Buffer.from(stdout).includes("!")

const DEVICE = "/dev/kvm"
const DEADLINE = "20 seconds"

/** Tries KVM with `trial`, which runs a program on it; `said` finds in what came of it that it ran. */
export const find = Effect.fn("Accelerator.find")(function* (
  processes: Processes["Service"],
  trial: RunRequest,
  said: (result: RunResult) => boolean
): Effect.fn.Return<Accelerated> {
  const opens = yield* Effect.option(Effect.tryPromise(() => access(DEVICE, constants.R_OK | constants.W_OK)))
  if (Option.isNone(opens)) return { accelerator: "tcg", problem: `there is no ${DEVICE} that can be used` }
  const ran = yield* Effect.timeoutOption(Effect.result(processes.run(trial)), DEADLINE)
  if (Option.isNone(ran)) {
    const problem = `a program that was started on ${DEVICE} did not run within ${DEADLINE}`
    return { accelerator: "tcg", problem, isUndecided: true }
  }
  if (ran.value._tag === "Failure") return { accelerator: "tcg", problem: ran.value.failure.message }
  const { exit, stderr } = ran.value.success
  if (said(ran.value.success)) return { accelerator: "kvm", problem: undefined }
  const words = Buffer.from(stderr).toString("utf8").trim().split("\n")[0] ?? ""
  return {
    accelerator: "tcg",
    problem: `a program that was started on ${DEVICE} did not run: ${words === "" ? ProcessExit.describe(exit) : words}`
  }
})
