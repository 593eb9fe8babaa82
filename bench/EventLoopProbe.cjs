// Loaded into a server by a benchmark (--require, for the brain by NODE_OPTIONS): measures how long its event loop stands
// still. SIGUSR2 writes the longest stall since the last time to $IRONWOOD_BENCH_STALL and starts anew: milliseconds by the
// clock, a space, and milliseconds of processor time, which other processes cannot lengthen.
const { writeFileSync } = require("node:fs")
const { isMainThread } = require("node:worker_threads")
const { monitorEventLoopDelay } = require("node:perf_hooks")

const file = process.env.IRONWOOD_BENCH_STALL
if (isMainThread && file !== undefined && /\/(brain\.cjs|BareGrpcServer\.ts)$/.test(process.argv[1] ?? "")) {
  const resolution = 1
  const delay = monitorEventLoopDelay({ resolution })
  delay.enable()

  const spent = () => {
    const { system, user } = process.threadCpuUsage()
    return (system + user) / 1e3
  }
  let last = spent()
  let longest = 0
  setInterval(() => {
    const now = spent()
    longest = Math.max(longest, now - last)
    last = now
  }, resolution)

  process.on("SIGUSR2", () => {
    writeFileSync(file, `${Math.max(0, delay.max / 1e6 - resolution)} ${longest}`)
    delay.reset()
    longest = 0
  })
}
