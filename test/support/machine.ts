/**
 * A booted machine for tests: the image of this checkout in QEMU, its API on a port of loopback, its console as text. It is
 * switched off when the scope closes, if it has not done so itself.
 *
 * Traps: one boot takes ten seconds and more where there is no KVM, so a test does all that it can with one. Only one runs
 * at a time: the machines that test have two processors.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { spawn } from "node:child_process"
import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { connect as connectTo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { BrainFailure, DebugService } from "../../proto/generated/ironwood/v1/debug_pb.ts"
import type { CpioEntry } from "../../scripts/image/Cpio.ts"
import * as Qemu from "../../scripts/boot/Qemu.ts"
import { withSamples } from "../../scripts/boot/Samples.ts"
import { image } from "../../scripts/image.ts"
import { call, connect } from "../gateway/client.ts"
import { checkout, CommandFailed, ironwood, type Ran } from "./ironwood.ts"

/** What `ironwood down` says of a machine. */
export const stopping = "stopping: the API has ended, and the machine ends the rest in order\n"

/** The machine ended, or did not do what was waited for. */
export class MachineFailed extends Data.TaggedError("MachineFailed")<{
  readonly problem: string
  readonly console: string
}> {
  override get message() {
    return `${this.problem}; the end of its console:\n${this.console.slice(-6000)}`
  }
}

export interface Machine {
  readonly address: string
  /** What it has printed so far. */
  readonly console: () => string
  readonly try: (...args: ReadonlyArray<string>) => Effect.Effect<Ran>
  readonly run: (...args: ReadonlyArray<string>) => Effect.Effect<string, CommandFailed>
  readonly json: <A>(
    schema: Schema.Codec<A, unknown>,
    ...args: ReadonlyArray<string>
  ) => Effect.Effect<A, CommandFailed | Schema.SchemaError>
  readonly apply: (yaml: string) => Effect.Effect<Ran>
  /** Waits until the console has this text; fails when QEMU ends or the time is over. */
  readonly prints: (text: string | RegExp, seconds?: number) => Effect.Effect<void, MachineFailed>
  /** Waits until the API answers. */
  readonly up: Effect.Effect<void, MachineFailed>
  /** A command for QEMU's monitor, like `system_powerdown`. */
  readonly monitor: (command: string) => Effect.Effect<void>
  /** Makes the brain fail; there may be no answer. */
  readonly failBrain: (failure: keyof typeof BrainFailure) => Effect.Effect<void>
  /** Waits for QEMU's end; its exit code. */
  readonly ended: Effect.Effect<number, MachineFailed>
}

export interface Options {
  readonly parameters?: ReadonlyArray<string>
  readonly memoryMiB?: number
  readonly more?: ReadonlyArray<string>
  /** Where it prints, instead of where {@link Machine.console} reads. */
  readonly console?: string
  /** Files put over those of the image. */
  readonly files?: ReadonlyArray<CpioEntry>
  /** False: no network card, the API is reached at a port of the hypervisor. Default: one whose address is written out. */
  readonly network?: boolean | "dhcp" | "config"
  /** Boots this disk instead of the image; it must have {@link diskParameters}. The machine may start again by itself. */
  readonly firmware?: Qemu.Machine["firmware"]
  /** What a web server on its network answers to everything. */
  readonly serves?: string
  /** The image that can make virtual machines, with the memory for it. */
  readonly hypervisor?: true
}

/** What the kernel command line of a disk must have to be spoken to. */
export const diskParameters: ReadonlyArray<string> = [...Qemu.networkParameters("written"), "ironwood.debug=1"]

/** Seconds within which a machine must be up, whatever else runs here. */
const patience = 240

/** What the last machine has printed, for a person who wonders. */
const consoleFile = join(checkout, "build/boot-console.log")

/** The initramfs of a disk, for a machine as slow as it may be here. */
export const withPatience = (target: string) =>
  Effect.promise(async () => {
    const built = image(() => {}, { quick: true, hypervisor: false })
    withSamples(
      built.initramfs,
      join(checkout, "build/sample-image"),
      target,
      Qemu.patienceFor(await Qemu.accelerator(built))
    )
    return target
  })

/** A program that answers one request with this. */
const serverOf = (text: string): string => `#!/bin/sh
while read -r line && [ "$line" != "$(printf '\\r')" ]; do :; done
printf 'HTTP/1.1 200 OK\\r\\nContent-Length: ${Buffer.byteLength(text)}\\r\\nConnection: close\\r\\n\\r\\n'
printf %s '${text}'
`

/** Boots one; does not wait until it is up. */
export const boot = (options: Options = {}) =>
  Effect.gen(function* () {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-boot-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true }))
    )
    const built = image(() => {}, { quick: true, hypervisor: options.hypervisor === true })
    const initramfs = join(directory, "initramfs.img")
    const accelerator = yield* Effect.promise(() => Qemu.accelerator(built))
    const files = [...Qemu.patienceFor(accelerator), ...(options.files ?? [])]
    withSamples(built.initramfs, join(checkout, "build/sample-image"), initramfs, files)
    const port = yield* Effect.promise(Qemu.freePort)
    const memoryMiB = options.memoryMiB ?? (options.hypervisor === true ? Qemu.hypervisorMemoryMiB : undefined)
    const serial = join(directory, "api")
    const monitor = join(directory, "monitor")
    const server = join(directory, "server")
    if (options.serves !== undefined) writeFileSync(server, serverOf(options.serves), { mode: 0o755 })
    // no pipe of Node's: that is a socket, full after some three hundred single bytes, and a kernel whose serial line takes
    // nothing for 10 ms goes on without what it wanted to say
    const printed = join(directory, "console")
    const console = yield* Effect.acquireRelease(
      Effect.sync(() => openSync(printed, "a")),
      (descriptor) => Effect.sync(() => closeSync(descriptor))
    )
    rmSync(consoleFile, { force: true })
    symlinkSync(printed, consoleFile)
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        rmSync(consoleFile, { force: true })
        copyFileSync(printed, consoleFile)
      })
    )
    const text = () => readFileSync(printed, "utf8")
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(
          Qemu.emulator,
          Qemu.argumentsOf({
            kernel: built.kernel,
            initramfs,
            accelerator,
            parameters: ["ironwood.debug=1", ...(options.parameters ?? [])],
            ...(options.network === false ? {} : { port }),
            ...(options.serves === undefined ? {} : { serve: server }),
            ...(typeof options.network === "string" ? { addresses: options.network } : {}),
            ...(options.console === undefined ? {} : { console: options.console }),
            ...(memoryMiB === undefined ? {} : { memoryMiB }),
            ...(options.firmware === undefined ? {} : { firmware: options.firmware }),
            more: [
              ...(options.firmware === undefined ? ["-no-reboot"] : []),
              ...(options.network === false ? Qemu.serialPort(serial) : []),
              "-monitor",
              `unix:${monitor},server=on,wait=off`,
              ...(options.more ?? [])
            ]
          }),
          { stdio: ["ignore", console, console] }
        )
      ),
      (qemu) =>
        Effect.callback<void>((resume) => {
          if (qemu.exitCode !== null || qemu.signalCode !== null) return resume(Effect.void)
          qemu.once("exit", () => resume(Effect.void))
          qemu.kill("SIGKILL")
        })
    )
    const failed = (problem: string) => new MachineFailed({ problem, console: text() })
    const isOver = () => child.exitCode !== null || child.signalCode !== null
    const address = options.network === false ? serial : `127.0.0.1:${port}`
    const attempt = (...args: ReadonlyArray<string>) => ironwood(["--address", address, ...args])
    const run = (...args: ReadonlyArray<string>) =>
      Effect.flatMap(attempt(...args), (ran) =>
        ran.code === 0 ? Effect.succeed(ran.stdout) : Effect.fail(new CommandFailed({ command: args.join(" "), ran }))
      )
    /** Looks ten times a second. */
    const until = (what: string, done: Effect.Effect<boolean>, seconds: number): Effect.Effect<void, MachineFailed> =>
      Effect.gen(function* () {
        const began = Date.now()
        while (!(yield* done)) {
          if (isOver()) return yield* failed(`QEMU ended while it was waited for ${what}`)
          if (Date.now() - began > seconds * 1000) return yield* failed(`no ${what} within ${seconds} s`)
          yield* Effect.sleep("100 millis")
        }
      })
    const machine: Machine = {
      address,
      console: text,
      try: attempt,
      run,
      json: (schema, ...args) =>
        Effect.flatMap(run(...args, "-o", "json"), (output) => Schema.decodeUnknownEffect(schema)(JSON.parse(output))),
      apply: (yaml) => ironwood(["--address", address, "apply", "-f", "-"], yaml),
      prints: (wanted, seconds = patience) =>
        until(
          `"${String(wanted)}" on the console`,
          Effect.sync(() => (typeof wanted === "string" ? text().includes(wanted) : wanted.test(text()))),
          seconds
        ),
      up: until(
        "API",
        Effect.map(attempt("version"), ({ stdout }) => stdout.includes("taproot")),
        patience
      ),
      monitor: (command) =>
        Effect.callback((resume) => {
          const socket = connectTo(monitor, () => socket.end(`${command}\n`))
          socket.resume()
          socket.once("error", () => {})
          socket.once("close", () => resume(Effect.void))
        }),
      failBrain: (failure) =>
        Effect.scoped(
          Effect.flatMap(connect(address), (client) =>
            Effect.ignore(call(client, DebugService.method.failBrain, { failure: BrainFailure[failure] }))
          )
        ),
      ended: Effect.gen(function* () {
        const began = Date.now()
        while (!isOver()) {
          if (Date.now() - began > patience * 1000) return yield* failed("QEMU did not end")
          yield* Effect.sleep("50 millis")
        }
        return child.exitCode ?? -1
      })
    }
    return machine
  })
