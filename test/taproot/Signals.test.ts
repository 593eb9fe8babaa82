/** Names and numbers of signals against those of the C library, and the ways people write them. */
import { assert, describe, it } from "@effect/vitest"
import { constants } from "node:os"
import * as Option from "effect/Option"
import { parseSignal, signalName, signalNames, signalNumber } from "../../src/taproot/Signals.ts"

describe("signals", () => {
  it("have the numbers that the C library gives them", () => {
    for (const [name, number] of Object.entries(constants.signals)) {
      assert.deepStrictEqual(Option.map(parseSignal(name), signalNumber), Option.some(number), name)
    }
  })

  it("are named for every number, both ways, and for no other", () => {
    assert.strictEqual(signalNames.length, 64)
    for (let number = 1; number <= 64; number += 1) {
      assert.deepStrictEqual(Option.map(signalName(number), signalNumber), Option.some(number))
    }
    for (const number of [-1, 0, 65, 1.5, Number.NaN]) assert.deepStrictEqual(signalName(number), Option.none())
  })

  it("are read as people and images write them", () => {
    const written = {
      SIGTERM: ["SIGTERM", "sigterm", "TERM", " term ", "15"],
      SIGABRT: ["IOT", "6"],
      SIGRTMIN: ["RTMIN", "RTMIN+0", "34"],
      "SIGRTMIN+3": ["SIGRTMIN+3", "rtmin+3", "SIGRTMAX-27", "37"],
      SIGRTMAX: ["RTMAX", "SIGRTMIN+30", "SIGRTMAX-0", "64"]
    }
    for (const [name, spellings] of Object.entries(written)) {
      for (const spelling of spellings) {
        assert.deepStrictEqual(Option.getOrUndefined(parseSignal(spelling)), name, spelling)
      }
    }
    for (const wrong of ["", "SIG", "SIGNONE", "0", "65", "-9", "9.5", "RTMIN+31", "RTMAX-31", "SIGSIGTERM"]) {
      assert.deepStrictEqual(parseSignal(wrong), Option.none(), wrong)
    }
  })
})
