/**
 * Asks a time server once (SNTP, RFC 4330): how far the clock of this machine is off.
 *
 * Traps: what answers is not authenticated, so the answer is used only if it matches the question (the server echoes our
 * transmit time, here a random number that nobody else can know) and is sane. A server that says it is not synchronised
 * itself, or to go away, counts as none.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { randomBytes } from "node:crypto"
import { createSocket } from "node:dgram"
import { isIPv6 } from "node:net"

/** No usable answer. */
export class NoTime extends Schema.TaggedError<NoTime>()("NoTime", { server: Schema.String, problem: Schema.String }) {
  override get message(): string {
    return `time server ${this.server}: ${this.problem}`
  }
}

const port = 123
const packetBytes = 48
/** Seconds from 1900, where NTP begins, to 1970. */
const epoch = 2_208_988_800

/** Milliseconds since 1970 of the NTP timestamp at `offset`; what looks like before 1968 is after 2036. */
const timeAt = (packet: Buffer, offset: number): number => {
  const seconds = packet.readUInt32BE(offset)
  const era = seconds >= 0x8000_0000 ? seconds : seconds + 2 ** 32
  return (era - epoch) * 1000 + (packet.readUInt32BE(offset + 4) / 2 ** 32) * 1000
}

/** What a packet says, or why it says nothing. `sent` and `received` are our clock's milliseconds. */
export const offsetIn = (packet: Buffer, nonce: Buffer, sent: number, received: number): number | string => {
  if (packet.length < packetBytes) return "its answer is too short"
  if (!packet.subarray(24, 32).equals(nonce)) return "its answer is to another question"
  const [first = 0, stratum = 0] = packet
  if ((first & 7) !== 4) return "its answer is not a server's"
  if (first >> 6 === 3) return "it does not know the time itself"
  if (stratum === 0 || stratum > 15) return "it asks to be left alone"
  return (timeAt(packet, 32) - sent + (timeAt(packet, 40) - received)) / 2
}

/** How many milliseconds the server is ahead of us. */
export const ask = (server: string, timeout: number): Effect.Effect<number, NoTime> =>
  Effect.callback((resume) => {
    const socket = createSocket(isIPv6(server) ? "udp6" : "udp4")
    const nonce = randomBytes(8)
    const sent = Date.now()
    const done = (answer: Effect.Effect<number, NoTime>): void => {
      clearTimeout(timer)
      socket.close()
      resume(answer)
    }
    const failed = (problem: string): void => done(Effect.fail(new NoTime({ server, problem })))
    const timer = setTimeout(() => failed(`it does not answer within ${timeout} ms`), timeout)
    socket.once("error", (error) => failed(error.message))
    socket.once("message", (packet) => {
      const offset = offsetIn(packet, nonce, sent, Date.now())
      if (typeof offset === "string") failed(offset)
      else done(Effect.succeed(offset))
    })
    const question = Buffer.alloc(packetBytes)
    // version 4, client
    question[0] = 0x23
    nonce.copy(question, 40)
    // node:dgram hands an error (no route, say) to the callback; it says so nowhere else
    socket.connect(port, server, (error?: Error) =>
      error instanceof Error ? failed(error.message) : socket.send(question)
    )
    return Effect.sync(() => {
      clearTimeout(timer)
      socket.close()
    })
  })
