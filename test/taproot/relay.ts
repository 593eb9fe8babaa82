/**
 * A brain without thoughts: connects taproot's channel (descriptor 3) with a socket of the test, so that the test
 * itself speaks the protocol, while taproot supervises this process: it can be killed, stopped and replaced.
 *
 * Says its pid in the first line. On SIGTERM it says so with a byte on stdout and ends, like a brain that was told to.
 */
import { createConnection, Socket } from "node:net"

const taproot = new Socket({ fd: 3, readable: true, writable: true })
const test = createConnection(process.argv[2] ?? "", () => {
  test.write(`${process.pid}\n`)
  taproot.pipe(test)
  test.pipe(taproot)
})
for (const socket of [taproot, test]) {
  socket.on("error", () => {})
  socket.on("close", () => process.exit(0))
}
