/** How the tests run: one process per file, two at a time (the machines have two cores), plain closing line for CI. */
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["./test/support/carefulKill.ts"],
    pool: "forks",
    maxWorkers: 2,
    // No test is timed; these end one that hangs, on a machine however busy.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    reporters: ["default", "./scripts/closing-line-reporter.ts"]
  }
})
