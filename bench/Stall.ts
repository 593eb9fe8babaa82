/** How long the event loop of another process stood still: the reading side of `EventLoopProbe.cjs`. */
import { Client, credentials } from "@grpc/grpc-js"
import { spawn } from "node:child_process"
import { readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { echo } from "./BareGrpcServer.ts"

/** How long an event loop stood still, in milliseconds. */
export interface Stall {
  /** By the clock: includes the time in which other processes had the processors. */
  readonly stood: number
  /** The longest work of the main thread between two turns of its timers. */
  readonly busy: number
}

/** Loads the probe into a Node program. */
export const requireProbe = `--require=${fileURLToPath(new URL("EventLoopProbe.cjs", import.meta.url))}`

/** The longest stall of the process since the last call; `file`: its $IRONWOOD_BENCH_STALL. */
export const readStall = async (pid: number, file: string): Promise<Stall> => {
  rmSync(file, { force: true })
  process.kill(pid, "SIGUSR2")
  const deadline = performance.now() + 60_000
  while (performance.now() < deadline) {
    try {
      const text = readFileSync(file, "utf8")
      const [stood = 0, busy = 0] = text.split(" ").map(Number)
      if (text !== "") return { stood, busy }
    } catch {
      // not written yet
    }
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  throw new Error(`process ${pid} told nothing of its event loop for a minute`)
}

/** The longest stalls of a bare gRPC server under so many calls at once, a few times over; the first finds cold code. */
export const bareGrpcStalls = async (space: string, many: number): Promise<ReadonlyArray<Stall>> => {
  const [file, socket] = [join(space, "bare-stall"), join(space, "bare.sock")]
  const program = fileURLToPath(new URL("BareGrpcServer.ts", import.meta.url))
  const server = spawn(process.execPath, [requireProbe, program, socket], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, IRONWOOD_BENCH_STALL: file }
  })
  try {
    const said = await new Promise((resolve) => server.stdout.once("data", (bytes) => resolve(String(bytes).trim())))
    if (said !== "up") throw new Error(`the bare gRPC server did not start: ${String(said)}`)
    const client = new Client(`unix:${socket}`, credentials.createInsecure())
    const request = Buffer.alloc(150, 1)
    const call = () =>
      new Promise<void>((resolve, reject) => {
        client.makeUnaryRequest(echo.path, echo.requestSerialize, echo.responseDeserialize, request, (error) =>
          error === null ? resolve() : reject(error)
        )
      })
    const stalls: Array<Stall> = []
    for (let round = 0; round < 7; round++) {
      await readStall(server.pid ?? 0, file)
      await Promise.all(Array.from({ length: many }, call))
      stalls.push(await readStall(server.pid ?? 0, file))
    }
    client.close()
    return stalls
  } finally {
    server.kill()
  }
}
