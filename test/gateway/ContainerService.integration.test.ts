/** Containers over their unix socket; what would run them is recorded here, and what is asked of it compared. */
import { assert, describe, it } from "@effect/vitest"
import { status as Code } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { ContainerService, ContainerState } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { NetworkMode, SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { RestartType } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { eventually } from "../support/eventually.ts"
import { call, collect, detailsOf } from "./client.ts"
import { start } from "./fixture.ts"

const containers = ContainerService.method

describe("ContainerService", () => {
  it.live("creates a container once, and names every wrong field", () =>
    Effect.gen(function* () {
      const { client, domain } = yield* start()
      const request = {
        spec: { name: "web", image: "hello:latest", restart: { restart: RestartType.TRANSIENT } },
        requestId: "create-web"
      }
      const { container } = yield* call(client, containers.createContainer, request)
      yield* call(client, containers.createContainer, request)
      assert.deepStrictEqual(domain.asked, ["create web start=true wait=true"])
      assert.strictEqual(container?.spec?.stopGracePeriod?.seconds, 10n)
      assert.deepInclude(container?.status, { state: ContainerState.RUNNING, pid: 42 })

      const wrong = yield* Effect.flip(
        call(client, containers.createContainer, {
          spec: { name: "Web!", image: "hello", stopSignal: "SIGFOO", resources: { cpus: -1 } }
        })
      )
      assert.strictEqual(wrong.code, Code.INVALID_ARGUMENT)
      assert.sameMembers(
        detailsOf(wrong.metadata).fields.map(({ field }) => field),
        ["spec.name", "spec.stop_signal", "spec.resources.cpus"]
      )
      for (const [spec, code, reason] of [
        [{ name: "other", image: "unknown" }, Code.NOT_FOUND, "ImageNotFound"],
        [{ name: "web", image: "hello:latest" }, Code.ALREADY_EXISTS, "ContainerAlreadyExists"]
      ] as const) {
        const error = yield* Effect.flip(call(client, containers.createContainer, { spec }))
        assert.deepStrictEqual([error.code, detailsOf(error.metadata).info?.reason], [code, reason])
      }
    })
  )

  it.live("only checks with validate_only, and says what would be wrong", () =>
    Effect.gen(function* () {
      const { client, domain } = yield* start()
      const spec = { name: "web", image: "hello:latest" }
      const validateOnly = true
      const made = yield* call(client, containers.createContainer, { spec, validateOnly })
      assert.strictEqual(made.container?.spec?.stopGracePeriod?.seconds, 10n)
      assert.strictEqual(made.container?.uid, "")
      const wrong = yield* Effect.flip(
        call(client, containers.createContainer, {
          spec: { ...spec, stopSignal: "SIGFOO", resources: { cpus: -1 } },
          validateOnly
        })
      )
      assert.sameMembers(
        detailsOf(wrong.metadata).fields.map(({ field }) => field),
        ["spec.stop_signal", "spec.resources.cpus"]
      )
      const unknown = yield* Effect.flip(
        call(client, containers.createContainer, { spec: { name: "web", image: "unknown" }, validateOnly })
      )
      assert.strictEqual(unknown.code, Code.NOT_FOUND)
      const sandbox = yield* call(client, SandboxService.method.createSandbox, { spec: { name: "a" }, validateOnly })
      assert.strictEqual(sandbox.sandbox?.spec?.network, NetworkMode.NONE)
      const [progress] = yield* collect(client, ImageService.method.importImage, { path: "/x", validateOnly })
      assert.isDefined(progress)
      assert.deepStrictEqual([domain.asked, domain.containers.size, domain.sandboxes.size], [[], 0, 0])
      assert.isFalse(domain.images.has("imported:latest"))
    })
  )

  it.live("lists page by page, filtered", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      for (let index = 0; index < 25; index++) {
        yield* call(client, containers.createContainer, {
          spec: {
            name: `web-${String(index).padStart(2, "0")}`,
            image: "hello:latest",
            sandbox: index % 2 === 0 ? "even" : "odd",
            labels: { third: String(index % 3) }
          },
          notStarted: true
        })
      }
      yield* call(client, containers.stopContainer, { name: "web-06" })
      const list = Effect.fnUntraced(function* (
        filter: { sandbox?: string; labels?: Record<string, string>; states?: Array<ContainerState> },
        pageSize: number
      ) {
        const names: Array<string | undefined> = []
        let pageToken = ""
        do {
          const page = yield* call(client, containers.listContainers, { ...filter, pageSize, pageToken })
          names.push(...page.containers.map(({ spec }) => spec?.name))
          pageToken = page.nextPageToken
        } while (pageToken !== "")
        return names
      })
      assert.lengthOf(yield* list({}, 7), 25)
      assert.deepStrictEqual(yield* list({ sandbox: "even", labels: { third: "0" } }, 2), [
        "web-00",
        "web-06",
        "web-12",
        "web-18",
        "web-24"
      ])
      assert.deepStrictEqual(yield* list({ states: [ContainerState.STOPPED] }, 0), ["web-06"])
      assert.deepStrictEqual(yield* list({ labels: { none: "" } }, 0), [])
    })
  )

  it.live("hands on every command, and refuses a signal that is none", () =>
    Effect.gen(function* () {
      const { client, domain } = yield* start()
      const name = "web"
      yield* call(client, containers.createContainer, { spec: { name, image: "hello:latest" }, notStarted: true })
      yield* call(client, containers.startContainer, { name })
      yield* call(client, containers.restartContainer, { name })
      yield* call(client, containers.killContainer, { name, signal: "hup" })
      yield* call(client, containers.killContainer, { name })
      const { container } = yield* call(client, containers.setContainerPolicy, {
        name,
        policy: { restart: RestartType.TEMPORARY }
      })
      assert.strictEqual(container?.spec?.restart?.restart, RestartType.TEMPORARY)
      assert.strictEqual((yield* call(client, containers.getContainer, { name })).container?.uid, "uid-web")
      const gracePeriod = { seconds: 1n, nanos: 500_000_000 }
      yield* call(client, containers.stopContainer, { name, gracePeriod, signal: "int" })
      yield* call(client, containers.removeContainer, { name, force: true })
      assert.deepStrictEqual(domain.asked, [
        "create web start=false wait=false",
        "start web",
        "restart web",
        "kill SIGHUP web",
        "kill SIGKILL web",
        "setPolicy web",
        "stop 1500 int web",
        "remove web force=true"
      ])
      const otherwise = yield* Effect.flip(
        call(client, containers.stopContainer, { name, gracePeriod: { seconds: -1n }, signal: "SIGFOO" })
      )
      assert.deepStrictEqual(
        detailsOf(otherwise.metadata).fields.map(({ field }) => field),
        ["grace_period", "signal"]
      )
      const noSignal = yield* Effect.flip(call(client, containers.killContainer, { name, signal: "SIGFOO" }))
      assert.strictEqual(detailsOf(noSignal.metadata).fields[0]?.field, "signal")
      const gone = yield* Effect.flip(call(client, containers.stopContainer, { name }))
      assert.deepInclude(detailsOf(gone.metadata).resource, { resourceType: "container", resourceName: name })
    })
  )

  it.live("streams a log, and lets go of it when the client leaves", () =>
    Effect.gen(function* () {
      const { client, domain } = yield* start()
      const name = "web"
      yield* call(client, containers.createContainer, { spec: { name, image: "hello:latest" } })
      const all = yield* collect(client, containers.streamContainerLogs, { name })
      const entries = all.flatMap((message) => message.entries)
      assert.lengthOf(entries, 1_000)
      assert.strictEqual(Buffer.from(entries[999]?.line ?? []).toString(), "line 999")
      const tail = yield* collect(
        client,
        containers.streamContainerLogs,
        { name, follow: true, tail: 4 },
        (seen) => seen.flatMap((message) => message.entries).length === 4
      )
      assert.isNotEmpty(tail)
      yield* eventually("nobody reads the log any more", () => domain.readersOfLogs === 0)
      const error = yield* Effect.flip(collect(client, containers.streamContainerLogs, { name: "nobody" }))
      assert.strictEqual(error.code, Code.NOT_FOUND)
    })
  )
})
