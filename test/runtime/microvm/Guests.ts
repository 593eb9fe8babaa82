/**
 * Microvms for tests without a machine: `MicroVms` on a simulated taproot whose VMM of sandbox `box` is there, with the port of a
 * guest that the test speaks for.
 */
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Cgroups } from "../../../src/host/Cgroups.ts"
import { Executions } from "../../../src/runtime/Executions.ts"
import * as MicroVms from "../../../src/runtime/microvm/MicroVms.ts"
import * as RuntimePaths from "../../../src/runtime/RuntimePaths.ts"
import * as System from "../../../src/runtime/System.ts"
import { Allowance } from "../../../src/runtime/Isolation.ts"
import { OciRuntime } from "../../../src/runtime/OciRuntime.ts"
import { Secrets } from "../../../src/runtime/Secrets.ts"
import { Rootfs } from "../../../src/storage/Rootfs.ts"
import { Volumes } from "../../../src/storage/Volumes.ts"
import { Content } from "../../../src/storage/Content.ts"
import * as ProcessesRecording from "../../../src/taproot/ProcessesRecording.ts"
import { encodeTaprootFrame } from "../../../src/taproot/TaprootFrame.ts"
import { FrameWriter, protocolFeatures, protocolVersion } from "../../../src/taproot/Wire.ts"
import { Hypervisor } from "../../../src/vmm/Hypervisor.ts"

const ANSWER = Buffer.from("\u00ff\u00ff\u00ff\u00ffironwoodhere", "latin1")

/** A guest that answers the call, says WELCOME and nothing more, whatever it is asked. `asked` is called once it was. */
const mute = (socket: Socket, asked: () => void): void => {
  const writer = new FrameWriter()
  encodeTaprootFrame(writer, {
    _tag: "Welcome",
    version: protocolVersion,
    instance: "00112233445566778899aabbccddeeff",
    taprootPid: 1,
    role: "guest",
    brainStarts: 0,
    lastBrainEnd: { how: "none", value: 0, time: 0n },
    features: protocolFeatures,
    succession: { state: "none", fault: "none", end: { how: "none", value: 0, time: 0n } },
    processes: 0
  })
  socket.on("error", () => {})
  socket.once("data", (call: Buffer) => {
    socket.write(Buffer.concat([ANSWER, call.subarray(16, 32), writer.take()]))
    let heard = ""
    socket.on("data", (bytes: Buffer) => {
      heard += bytes.toString("latin1")
      if (heard.includes("/usr/lib/ironwood/files")) asked()
    })
  })
}

const port = (asked: () => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly directory: string; readonly close: () => void }>((resume) => {
      const directory = mkdtempSync(join(tmpdir(), "ironwood-guest-"))
      mkdirSync(join(directory, "microvms", "box"), { recursive: true })
      const server = createServer((socket) => mute(socket, asked))
      server.listen(join(directory, "microvms", "box", "guest"), () =>
        resume(
          Effect.succeed({
            directory,
            close: () => {
              server.close()
              rmSync(directory, { recursive: true, force: true })
            }
          })
        )
      )
    }),
    ({ close }) => Effect.sync(close)
  )

const control = {
  state: Effect.succeed("running" as const),
  events: Effect.succeed(Stream.never),
  resume: Effect.void,
  pause: Effect.void,
  reset: Effect.void,
  powerButton: Effect.void,
  memory: undefined,
  devices: Effect.undefined,
  attachDisk: () => Effect.void,
  attachNic: () => Effect.void,
  insertDisk: () => Effect.succeed("empty0"),
  detach: () => Effect.void,
  shape: () => Effect.void,
  lost: Effect.never
}

/**
 * `MicroVms` that finds the machine of `box`, whose guest is mute; `asked`: see above. `removed` gets the cgroups that were removed,
 * of which `gone` is left from a machine that is not there any more.
 */
export const withMuteGuest = (asked: () => void, removed: Array<string> = []) =>
  Layer.unwrap(
    Effect.map(port(asked), ({ directory }) =>
      MicroVms.layer.pipe(
        Layer.provide(
          Layer.mock(Hypervisor, { control: () => Effect.succeed(control), refusals: () => Effect.succeed([]) })
        ),
        Layer.provide(Layer.mock(Content, {})),
        Layer.provide(Layer.mock(Executions, {})),
        Layer.provideMerge(System.layer(RuntimePaths.make(directory, directory))),
        Layer.provide(Layer.mock(OciRuntime, {})),
        Layer.provide(Layer.mock(Rootfs, {})),
        Layer.provide(Layer.mock(Secrets, {})),
        Layer.provide(Layer.mock(Volumes, { holding: () => identity, diskOf: identity })),
        Layer.provide(Layer.succeed(Allowance, { privileged: () => false, mounts: () => [], devices: () => [] })),
        Layer.provideMerge(
          Layer.mock(Cgroups, {
            limitsSwap: Effect.succeed(false),
            remove: (path) => Effect.sync(() => void removed.push(path)),
            children: () => Effect.succeed(["box", "gone"])
          })
        ),
        Layer.provideMerge(ProcessesRecording.layer({ existing: [{ label: "microvm/box" }] }))
      )
    )
  )
