/** Every domain error as a gRPC status with its details. */
import { assert, describe, it } from "@effect/vitest"
import { status as Code } from "@grpc/grpc-js"
import { NoSuchActor, SupervisorDown } from "../../src/actor/Errors.ts"
import { statusOf } from "../../src/gateway/Errors.ts"
import { InvalidRequest } from "../../src/gateway/Request.ts"
import { SandboxInUse } from "../../src/runtime/ContainerError.ts"
import { StorageFailed } from "../../src/storage/ContentError.ts"
import { detailsOf } from "./client.ts"

describe("Errors", () => {
  it("says what was not found", () => {
    const status = statusOf(new NoSuchActor({ path: "init/x" }))
    assert.strictEqual(status.code, Code.NOT_FOUND)
    assert.strictEqual(status.details, "there is no actor init/x")
    const details = detailsOf(status.metadata)
    assert.deepInclude(details, { code: Code.NOT_FOUND, message: "there is no actor init/x" })
    assert.deepInclude(details.info, { reason: "NoSuchActor", domain: "ironwood" })
    assert.deepInclude(details.resource, { resourceType: "actor", resourceName: "init/x" })
  })

  it("says when to try again and what is in the way", () => {
    assert.strictEqual(detailsOf(statusOf(new SupervisorDown({ id: "a" })).metadata).retry?.retryDelay?.seconds, 1n)
    const { blockers, info } = detailsOf(statusOf(new SandboxInUse({ name: "s", containers: ["a", "b"] })).metadata)
    assert.deepStrictEqual(info?.metadata, { hint: "remove them first, or force it" })
    assert.deepStrictEqual(
      blockers.map(({ subject }) => subject),
      ["container a", "container b"]
    )
  })

  it("tells a full disk from a broken one", () => {
    const failed = (code: string) =>
      statusOf(new StorageFailed({ operation: "write", path: "/x", code, problem: "no" })).code
    assert.deepStrictEqual(["ENOSPC", "EROFS", "EIO"].map(failed), [
      Code.RESOURCE_EXHAUSTED,
      Code.FAILED_PRECONDITION,
      Code.INTERNAL
    ])
  })

  it("fits into the trailers that every client takes, and says what it left out", () => {
    const violations = Array.from({ length: 10_000 }, (_, index) => ({
      field: `spec.labels[${index}]`,
      description: "wrong ".repeat(1_000)
    }))
    const status = statusOf(new InvalidRequest({ violations }))
    const [bytes] = status.metadata?.get("grpc-status-details-bin") ?? []
    assert.isBelow(Buffer.from(bytes ?? "").toString("base64").length + status.details.length, 8 * 1024)
    const { fields } = detailsOf(status.metadata)
    assert.isAbove(fields.length, 5)
    assert.strictEqual(fields.at(-1)?.description, `${10_000 - fields.length + 1} more are wrong`)
  })

  it("survives text that is no text", () => {
    const status = statusOf(new NoSuchActor({ path: "init/\ud800" }))
    assert.doesNotThrow(() => encodeURI(status.details))
  })
})
