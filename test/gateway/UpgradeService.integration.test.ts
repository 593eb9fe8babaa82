/** What is sent as a brain by somebody hostile: every field is looked at before anything is taken, and named when it is wrong. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { status as Code } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { type InstallBrainRequestSchema, UpgradeService } from "../../proto/generated/ironwood/v1/upgrade_pb.ts"
import { call, detailsOf, send } from "./client.ts"
import { start } from "./fixture.ts"

type Piece = MessageInitShape<typeof InstallBrainRequestSchema>

const { method } = UpgradeService
const digest = `sha256:${"0".repeat(64)}`

const begin = (more: Extract<NonNullable<Piece["piece"]>, { case: "start" }>["value"] = {}): Piece => ({
  piece: { case: "start", value: { digest, size: 4n, ...more } }
})
const chunk = (bytes: number): Piece => ({ piece: { case: "chunk", value: new Uint8Array(bytes) } })

const cases: ReadonlyArray<readonly [field: string, words: RegExp, pieces: ReadonlyArray<Piece>]> = [
  ["start", /must be set/, []],
  ["start", /must come first/, [chunk(4)]],
  ["start", /must come first/, [{}]],
  ["start.digest", /sha256: and 64/, [begin({ digest: "0".repeat(64) })]],
  ["start.digest", /sha256: and 64/, [begin({ digest: "sha256:../../../etc/passwd" })]],
  ["start.size", /1 to 33554432/, [begin({ size: 0n })]],
  ["start.size", /1 to 33554432/, [begin({ size: 2n ** 63n })]],
  ["start.signature", /64 bytes/, [begin({ signature: new Uint8Array(63) })]],
  ["start.deadline", /5 seconds to 1 hour/, [begin({ deadline: { seconds: 1n, nanos: 0 } })]],
  ["start.deadline", /5 seconds to 1 hour/, [begin({ deadline: { seconds: -1n, nanos: 0 } })]],
  ["chunk", /only 3 of the 4 bytes/, [begin(), chunk(3)]],
  ["chunk", /more than the 4 bytes/, [begin(), chunk(3), chunk(2)]],
  ["chunk", /all that may follow/, [begin(), begin()]],
  ["chunk", /all that may follow/, [begin(), {}]]
]

describe("UpgradeService", () => {
  it.live("names the field that is wrong, and takes the next one after it", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      for (const [field, words, pieces] of cases) {
        const error = yield* Effect.flip(send(client, method.installBrain, pieces))
        assert.strictEqual(error.code, Code.INVALID_ARGUMENT, `${field}: ${error.details}`)
        const [violation] = detailsOf(error.metadata).fields
        assert.strictEqual(violation?.field, field, error.details)
        assert.match(violation?.description ?? "", words)
      }
    })
  )

  it.live("names what is wrong in the wish for another brain", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      for (const [field, request] of [
        ["brain", {}],
        ["deadline", { brain: "built-in", deadline: { seconds: 4n, nanos: 0 } }]
      ] as const) {
        const error = yield* Effect.flip(call(client, method.activateBrain, request))
        assert.strictEqual(error.code, Code.INVALID_ARGUMENT)
        assert.strictEqual(detailsOf(error.metadata).fields[0]?.field, field)
      }
    })
  )
})
