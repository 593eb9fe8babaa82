/**
 * The steps in which a brain changes anything: each change of the file system and each word to taproot or a hypervisor that has
 * one as its effect. They are counted from {@link arm} on, and with the step that it names the brain is killed, before that is done: so
 * every state in between two steps is met by asking for one step after another.
 *
 * What goes on behind the scenes is counted too, so that a number is not always the same step; every number is a state that a
 * brain can die in.
 *
 * Trap: only what is called through `node:fs/promises` is seen. The database writes in a thread of its own, all or nothing: before
 * and after a transaction are states that the steps around it have.
 */
import * as Effect from "effect/Effect"
import fs from "node:fs/promises"
import { syncBuiltinESMExports } from "node:module"
import { Socket } from "node:net"
import { kill, pid } from "node:process"
import type { Process, Processes } from "../../src/taproot/Processes.ts"

let done = 0
let deadly = Number.POSITIVE_INFINITY

const step = (): void => {
  done += 1
  if (done >= deadly) kill(pid, "SIGKILL")
}

/** Counts anew; with this step the brain is killed. */
export const arm = (at: number): void => {
  done = 0
  deadly = at
}

export const count = (): number => done

/** Counts what changes the file system. */
export const watchFiles = (): void => {
  const counted =
    <Arguments extends ReadonlyArray<unknown>, A>(change: (...given: Arguments) => A) =>
    (...given: Arguments): A => {
      step()
      return change(...given)
    }
  fs.chmod = counted(fs.chmod)
  fs.chown = counted(fs.chown)
  fs.link = counted(fs.link)
  fs.rename = counted(fs.rename)
  fs.rm = counted(fs.rm)
  fs.rmdir = counted(fs.rmdir)
  fs.symlink = counted(fs.symlink)
  fs.unlink = counted(fs.unlink)
  fs.writeFile = counted(fs.writeFile)
  const { mkdir, open } = fs
  Object.assign(fs, {
    mkdir: counted(mkdir),
    open: (...given: Parameters<typeof open>) => {
      if (given[1] !== undefined && given[1] !== "r" && given[1] !== 0) step()
      return open(...given)
    }
  })
  syncBuiltinESMExports()
}

/** The same service, whose changes are counted. */
export const watchProcesses = (processes: Processes["Service"]): Processes["Service"] => {
  const before = Effect.sync(step)
  return {
    ...processes,
    spawn: (request) => Effect.andThen(before, processes.spawn(request)),
    run: (request) => Effect.andThen(before, processes.run(request)),
    claim: (request) => Effect.andThen(before, processes.claim(request)),
    mount: (request) => Effect.andThen(before, processes.mount(request)),
    unmount: (target, flags) => Effect.andThen(before, processes.unmount(target, flags))
  }
}

/** The same service, whose processes' signals are counted, too. */
export const watchSignals = (processes: Processes["Service"]): Processes["Service"] => {
  const counted = (process: Process): Process => ({
    ...process,
    signal: (signal, options) => Effect.andThen(Effect.sync(step), process.signal(signal, options))
  })
  return {
    ...processes,
    spawn: (request) => Effect.map(processes.spawn(request), counted),
    takeAll: (prefix) => Effect.map(processes.takeAll(prefix), (found) => found.map(counted))
  }
}

/** Counts what is said to hypervisors. */
export const watchMonitors = (): void => {
  // oxlint-disable-next-line typescript/unbound-method -- called with the socket that it was asked of
  Socket.prototype.write = new Proxy(Socket.prototype.write, {
    apply: (write, socket, given: ReadonlyArray<unknown>): unknown => {
      const [text] = given
      if (typeof text === "string" && text.startsWith('{"execute"') && !text.includes("query-")) step()
      return Reflect.apply(write, socket, given)
    }
  })
}
