/**
 * Loaded before every test: `process.kill` refuses what is no single process of ours. To kill(2) -1 is every process of the
 * machine, 0 is the test runner's own group, and 1 is the init; a pid that was not found must never become one of these.
 */
const kill = process.kill.bind(process)

process.kill = (pid, signal) => {
  if (signal !== 0 && (!Number.isInteger(pid) || Math.abs(pid) <= 1)) {
    throw new RangeError(
      `a test would have sent ${String(signal ?? "SIGTERM")} to pid ${pid}, which is no process of its own`
    )
  }
  return kill(pid, signal)
}
