/** What `--ulimit` takes. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { parseUlimit } from "../../src/cli/UlimitFlag.ts"

describe("--ulimit", () => {
  it("has docker's words", () => {
    const none = BigInt(Number.MAX_SAFE_INTEGER)
    assert.deepStrictEqual(
      parseUlimit("nofile=1024:4096"),
      Result.succeed({ resource: "nofile", soft: 1024n, hard: 4096n })
    )
    assert.deepStrictEqual(parseUlimit("CORE=0"), Result.succeed({ resource: "core", soft: 0n, hard: 0n }))
    assert.deepStrictEqual(parseUlimit("memlock=-1"), Result.succeed({ resource: "memlock", soft: none, hard: none }))
    for (const wrong of ["nofile", "nofile=", "nofile=a", "nofile=1:2:3", "=1", "nofile=-2"]) {
      assert.isTrue(Result.isFailure(parseUlimit(wrong)), wrong)
    }
  })
})
