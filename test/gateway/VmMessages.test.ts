/** Virtual machines between the domain and the wire. */
import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { VmSpecSchema } from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { invalidSpec, specFromProto, specToProto } from "../../src/gateway/VmMessages.ts"
import { VmSpecInvalid } from "../../src/vmm/VmError.ts"
import { problemsOf, VmSpec } from "../../src/vmm/VmSpec.ts"

describe("the spec of a machine", () => {
  it.effect("with Secure Boot is the same behind the wire, and is without where nothing is said", () =>
    Effect.gen(function* () {
      const spec = yield* Schema.decodeUnknownEffect(VmSpec)({
        name: "safe",
        firmware: "uefi",
        secureBoot: true,
        firmwareVariables: "/srv/variables.fd",
        disks: [{ path: "/srv/safe.img" }]
      })
      assert.deepStrictEqual(yield* specFromProto(create(VmSpecSchema, specToProto(spec))), spec)
      const plain = yield* specFromProto(create(VmSpecSchema, { name: "plain", disks: [{ path: "/srv/plain.img" }] }))
      assert.deepStrictEqual([plain.secureBoot, plain.firmwareVariables], [false, undefined])
    })
  )

  it("says what is wrong with the names of the request's fields", () => {
    const spec = Schema.decodeUnknownSync(VmSpec)({
      name: "wrong",
      secureBoot: true,
      firmwareVariables: "/v",
      disks: [{ path: "/d" }]
    })
    assert.deepStrictEqual(
      invalidSpec(new VmSpecInvalid({ problems: problemsOf(spec) })).violations.map(({ field }) => field),
      ["spec.secure_boot", "spec.firmware_variables"]
    )
  })
})
