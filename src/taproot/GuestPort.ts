/**
 * The way to a guest's taproot: the unix socket of its virtio-serial port, and the call that each connection begins with
 * (PROTOCOL.md, "Into a guest"). What comes out of `connect` is a stream for `ProcessesLive.make`.
 *
 * Traps: the guest cannot tell that it has closed its end, so a connection that is not answered is given up and made again, for
 * as long as the caller waits. What came before the answer is of an older connection and is dropped, however much it is.
 */
import { randomBytes } from "node:crypto"
import type { Socket } from "node:net"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { ChannelLost } from "./Processes.ts"
import { connectTo } from "./SocketPath.ts"

/** The name of the port in a guest. */
export const portName = "org.ironwood.guest"

const CALL = Buffer.from("\u00ff\u00ff\u00ff\u00ffironwoodcall", "latin1")
const ANSWER = Buffer.from("\u00ff\u00ff\u00ff\u00ffironwoodhere", "latin1")
const NONCE = 16

const CALL_AGAIN = 200
const HANG_UP_AFTER = "5 seconds"
/** For long enough that the guest notices. */
const PAUSE = "300 millis"

const lost = (detail: string) => new ChannelLost({ reason: "closed", detail })

/** Not made anew in each call, which would keep what was exchanged there, and with it 64 KiB of Node's, for as long as the guest. */
const nobodyHears = (): void => {}

/** Calls until the guest has answered; then the socket is at the first byte that is for us. */
const call = (socket: Socket): Effect.Effect<void, ChannelLost> =>
  Effect.callback((resume) => {
    const nonce = randomBytes(NONCE)
    const expected = Buffer.concat([ANSWER, nonce])
    let seen = Buffer.alloc(0)
    const onData = (bytes: Buffer): void => {
      seen = Buffer.concat([seen, bytes])
      const at = seen.indexOf(expected)
      if (at < 0) {
        seen = seen.subarray(-expected.length)
        return
      }
      // before the caller goes on, which he may do within the call
      socket.pause()
      socket.off("data", onData)
      if (at + expected.length < seen.length) socket.unshift(seen.subarray(at + expected.length))
      finish(Effect.void)
    }
    const onEnd = (): void => finish(Effect.fail(lost("the hypervisor closed it")))
    const again = setInterval(() => socket.write(Buffer.concat([CALL, nonce])), CALL_AGAIN)
    const leave = (): void => {
      clearInterval(again)
      socket.off("data", onData)
      socket.off("close", onEnd)
    }
    const finish = (answer: Effect.Effect<void, ChannelLost>): void => {
      leave()
      resume(answer)
    }
    socket.on("data", onData)
    socket.on("close", onEnd)
    // stays: nobody else listens when it is destroyed
    socket.on("error", nobodyHears)
    socket.write(Buffer.concat([CALL, nonce]))
    return Effect.sync(leave)
  })

/** A connection that the guest has answered; ends with the scope. Tries until it succeeds: give it a deadline. */
export const connect = (path: string): Effect.Effect<Socket, never, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = yield* connectTo(path, (cause) =>
      lost(`${path}: ${cause instanceof Error ? cause.message : String(cause)}`)
    )
    yield* Effect.timeoutOrElse(call(socket), {
      duration: HANG_UP_AFTER,
      orElse: () =>
        Effect.sync(() => socket.destroy()).pipe(
          Effect.andThen(Effect.sleep(PAUSE)),
          Effect.andThen(Effect.fail(lost(`no answer within ${HANG_UP_AFTER}`)))
        )
    })
    return socket
  }).pipe(Effect.retry(Schedule.spaced("50 millis")), Effect.orDie)
