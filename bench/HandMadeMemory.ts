/**
 * What a person with QEMU and a shell does with the memory of a machine: writes it to a file, starts another QEMU with it, sends
 * it from one to another. With the limits that Ironwood gives.
 *
 * Its guest says its word ten times a second, so that it can be seen when it goes on. How long it stands still is told by QEMU's own
 * clock: from the event STOP to RESUME.
 */
import type { ChildProcess } from "node:child_process"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { archive, device, file, withParents } from "../scripts/image/Cpio.ts"
import { type Controlled, controlled, type HandMade, said, stop, word } from "./HandMade.ts"

/** As in QEMU's manual, and in milliseconds. */
const limits = { "max-bandwidth": 2 ** 40, "downtime-limit": 200 }

export interface HandMadeMemory {
  /** The initramfs of the guest that goes on saying its word. */
  readonly ticking: string
  /** Milliseconds that a guest stands still while it is written to a file. */
  readonly saved: () => Promise<number>
  /** From QEMU's start with what `saved` has written to the guest's next word. */
  readonly loaded: () => Promise<number>
  /** From QEMU's start to its first word. */
  readonly cold: () => Promise<number>
  /** Milliseconds that a guest stands still while it goes to another QEMU. */
  readonly moved: () => Promise<number>
}

/** Sends its memory there; resolves when all of it has gone. */
const send = async ({ ask }: Controlled, uri: string): Promise<void> => {
  await ask("migrate-set-parameters", limits)
  await ask("migrate", { uri })
  for (;;) {
    const answer = await ask("query-migrate")
    if (answer.includes('"status": "completed"')) return
    if (answer.includes('"status": "failed"')) throw new Error(`it was not sent: ${answer}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** `space`: a directory for what is made here. */
export const handMadeMemory = (space: string, hand: HandMade): HandMadeMemory => {
  const ticking = join(space, "ticking.img")
  const init = `#!/bin/busybox sh\nwhile :; do echo ${word}; read -t 0.1 line; done\n`
  writeFileSync(
    ticking,
    archive(
      withParents([
        file("init", init, 0o755),
        file("bin/busybox", readFileSync("/usr/bin/busybox"), 0o755),
        device("dev/console", 5, 1)
      ])
    )
  )
  const state = join(space, "saved")
  let made = 0

  /** Starts one, with a control socket; `use` has it, then it is ended. */
  const during = async <A>(
    more: ReadonlyArray<string>,
    use: (control: Controlled, child: ChildProcess) => Promise<A>
  ): Promise<A> => {
    const path = join(space, `control-${++made}`)
    const child = hand.start(ticking, ["-qmp", `unix:${path},server=on,wait=off`, ...more])
    try {
      if (more.length === 0) await said(child)
      else await new Promise((resolve) => setTimeout(resolve, 500))
      const control = await controlled(path)
      try {
        return await use(control, child)
      } finally {
        control.close()
      }
    } finally {
      await stop(child)
    }
  }
  const toWord = async (more: ReadonlyArray<string>): Promise<number> => {
    const began = performance.now()
    const child = hand.start(ticking, more)
    try {
      await said(child)
      return performance.now() - began
    } finally {
      await stop(child)
    }
  }

  return {
    ticking,
    saved: () =>
      during([], async (control) => {
        rmSync(state, { force: true })
        await send(control, `exec:cat >${state}`)
        await control.ask("cont")
        // its event comes before the answer
        return control.at("RESUME") - control.at("STOP")
      }),
    loaded: () => toWord(["-incoming", `exec:cat ${state}`]),
    cold: () => toWord([]),
    moved: () => {
      const channel = join(space, `channel-${made}`)
      return during([], (from) =>
        during(["-incoming", `unix:${channel}`], async (to, child) => {
          const next = said(child)
          await send(from, `unix:${channel}`)
          await next
          return to.at("RESUME") - from.at("STOP")
        })
      )
    }
  }
}
