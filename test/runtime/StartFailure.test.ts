/** The words of the runtimes, as they were seen. */
import { assert, describe, it } from "@effect/vitest"
import { RuntimeFailed } from "../../src/runtime/OciRuntime.ts"
import { startFailure } from "../../src/runtime/StartFailure.ts"

const runc = "runc run failed: unable to start container process: exec: "
const words: ReadonlyArray<readonly [string, string]> = [
  ["executable file `/bin/x` not found in $PATH: No such file or directory", "ProgramNotFound"],
  [`${runc}"/bin/x": stat /bin/x: no such file or directory`, "ProgramNotFound"],
  [`${runc}"x": executable file not found in $PATH`, "ProgramNotFound"],
  ["open executable: Permission denied", "ProgramNotExecutable"],
  ["open executable: Operation not permitted", "ProgramNotExecutable"],
  [`${runc}"/bin/x": permission denied`, "ProgramNotExecutable"],
  ["mount `proc` to `proc`: Permission denied", "CreateFailed"],
  ["open `/x/config.json`: No such file or directory", "CreateFailed"],
  ["", "CreateFailed"]
]

describe("startFailure", () => {
  for (const [stderr, tag] of words) {
    it(`${tag}: ${stderr}`, () => {
      const error = new RuntimeFailed({ command: "crun run", how: "exited with code 1", stderr })
      assert.strictEqual(startFailure("web", "/bin/x", error)._tag, tag)
    })
  }
  it("a full disk is told as one, also by a runtime without words", () => {
    for (const [how, stderr] of [
      ["exited with code 28", ""],
      ["exited with code 1", "mkdir `/x`: No space left on device"]
    ] as const) {
      const { message } = startFailure("web", "/bin/x", new RuntimeFailed({ command: "crun run", how, stderr }))
      assert.include(message, "the disk is full: make room")
    }
  })
})
