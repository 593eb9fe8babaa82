/** What reflection answers about every symbol, file and extension. */
import { fromBinary } from "@bufbuild/protobuf"
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt"
import { assert, describe, it } from "@effect/vitest"
import { status as Code } from "@grpc/grpc-js"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { answer, makeIndex } from "../../src/gateway/Reflection.ts"
import type { Answer, Question } from "../../src/gateway/Reflection.ts"

const index = makeIndex([TreeService, ContainerService])

const filesIn = (given: Answer): ReadonlyArray<string> =>
  given.case === "fileDescriptorResponse"
    ? given.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name)
    : []

const codeIn = (given: Answer): number | undefined =>
  given.case === "errorResponse" ? given.value.errorCode : undefined

const symbol = (value: string) => answer(index, { case: "fileContainingSymbol", value })

describe("Reflection", () => {
  it("lists the services", () => {
    assert.deepStrictEqual(answer(index, { case: "listServices", value: "" }), {
      case: "listServicesResponse",
      value: { service: [{ name: "ironwood.v1.ContainerService" }, { name: "ironwood.v1.TreeService" }] }
    })
  })

  it("gives a file with all it imports, itself first", () => {
    const files = filesIn(answer(index, { case: "fileByFilename", value: "ironwood/v1/tree.proto" }))
    assert.strictEqual(files[0], "ironwood/v1/tree.proto")
    assert.sameMembers(
      [...files],
      [
        "ironwood/v1/tree.proto",
        "ironwood/v1/container.proto",
        "ironwood/v1/exit.proto",
        "ironwood/v1/image.proto",
        "ironwood/v1/policy.proto",
        "ironwood/v1/sandbox.proto",
        "google/api/field_behavior.proto",
        "google/protobuf/descriptor.proto",
        "google/protobuf/duration.proto",
        "google/protobuf/timestamp.proto"
      ]
    )
  })

  it("finds every kind of symbol", () => {
    for (const [name, file] of [
      ["ironwood.v1.TreeService", "tree"],
      [".ironwood.v1.TreeService", "tree"],
      ["ironwood.v1.TreeService.WatchTree", "tree"],
      ["ironwood.v1.Actor", "tree"],
      ["ironwood.v1.Actor.next_attempt_time", "tree"],
      ["ironwood.v1.Actor.AnnotationsEntry", "tree"],
      ["ironwood.v1.WatchTreeResponse.event", "tree"],
      ["ironwood.v1.ActorState", "tree"],
      ["ironwood.v1.ACTOR_STATE_PARKED", "tree"],
      ["ironwood.v1.RestartPolicy", "policy"],
      ["ironwood.v1.ContainerSpec.LabelsEntry", "container"]
    ] as const) {
      assert.strictEqual(filesIn(symbol(name))[0], `ironwood/v1/${file}.proto`, name)
    }
    assert.strictEqual(filesIn(symbol("google.protobuf.Timestamp"))[0], "google/protobuf/timestamp.proto")
  })

  it("knows what errors carry", () => {
    assert.deepStrictEqual(filesIn(symbol("google.rpc.BadRequest"))[0], "google/rpc/error_details.proto")
  })

  it("answers with an error what it cannot answer", () => {
    const questions: ReadonlyArray<Question> = [
      { case: "fileByFilename", value: "no/such.proto" },
      { case: "fileContainingSymbol", value: "ironwood.v1.Nothing" },
      { case: "fileContainingExtension", value: { containingType: "ironwood.v1.Actor", extensionNumber: 1 } },
      { case: "allExtensionNumbersOfType", value: "ironwood.v1.Nothing" }
    ]
    for (const question of questions) assert.strictEqual(codeIn(answer(index, question)), Code.NOT_FOUND)
    assert.strictEqual(codeIn(answer(index, { case: undefined })), Code.INVALID_ARGUMENT)
  })

  it("knows that a message without extensions has none", () => {
    assert.deepStrictEqual(answer(index, { case: "allExtensionNumbersOfType", value: "ironwood.v1.Actor" }), {
      case: "allExtensionNumbersResponse",
      value: { baseTypeName: "ironwood.v1.Actor", extensionNumber: [] }
    })
  })
})
