/** The gateway as a whole over its unix socket, on a real tree, and its small services; domain services that cannot run here are recorded. */
import { getOption } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { status as Code } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { existsSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { field_behavior, FieldBehavior } from "../../proto/generated/google/api/field_behavior_pb.ts"
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../proto/generated/grpc/health/v1/health_pb.ts"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { CgroupLayout, HostService } from "../../proto/generated/ironwood/v1/host_pb.ts"
import { ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { NetworkMode, SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { VolumeService } from "../../proto/generated/ironwood/v1/volume_pb.ts"
import { VmService } from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { SecretService } from "../../proto/generated/ironwood/v1/secret_pb.ts"
import { ActorState, TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { eventually } from "../support/eventually.ts"
import { call, collect, connect, detailsOf, open } from "./client.ts"
import { socketDirectory, start } from "./fixture.ts"

const grpc = "init/gateway/grpc"
const trees = TreeService.method

describe("Gateway", () => {
  it.live("listens where it says, for its owner alone, and leaves nothing", () =>
    Effect.gen(function* () {
      const socketPath = join(yield* socketDirectory, "api.sock")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { client } = yield* start({ socketPath })
          assert.strictEqual(statSync(socketPath).mode & 0o777, 0o600)
          const { actor } = yield* call(client, trees.getActor, { path: grpc })
          assert.strictEqual(actor?.annotations["socket"], socketPath)
          assert.strictEqual(actor?.state, ActorState.RUNNING)
        })
      )
      assert.isFalse(existsSync(socketPath))
    })
  )

  for (const path of [grpc, "init/gateway"]) {
    it.live(`answers a restart of ${path} asked for over itself, and comes back`, () =>
      Effect.gen(function* () {
        const { address, client, tree } = yield* start()
        const { actor } = yield* call(client, trees.restartActor, { path })
        assert.deepInclude(actor, { path, incarnation: 1 })
        yield* eventually(
          "it runs anew",
          Effect.map(tree.get(path), ({ incarnation, state }) => incarnation === 2 && state === "running")
        )
        const again = yield* connect(address)
        assert.strictEqual((yield* call(again, trees.getActor, { path })).actor?.incarnation, 2)
      })
    )
  }

  it.live("answers a stop asked for over itself, and refuses that of the root", () =>
    Effect.gen(function* () {
      const { client, tree } = yield* start()
      const root = yield* Effect.flip(call(client, trees.restartActor, { path: "init" }))
      assert.strictEqual(root.code, Code.FAILED_PRECONDITION)
      assert.strictEqual((yield* call(client, trees.stopActor, { path: grpc })).actor?.path, grpc)
      yield* eventually(
        "it is down",
        Effect.map(tree.get(grpc), ({ state }) => state === "stopped")
      )
    })
  )

  it.live("refuses every request that lacks what its proto calls required, naming it", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const refused: Array<string> = []
      for (const { methods } of [
        TreeService,
        ContainerService,
        SandboxService,
        SecretService,
        VolumeService,
        ImageService,
        HostService,
        VmService
      ]) {
        for (const method of methods) {
          const required = method.input.fields
            .filter((field) => getOption(field, field_behavior).includes(FieldBehavior.REQUIRED))
            .map(({ name }) => name)
          // what names one thing cannot do without the name
          const namesOne = /^(Get|Start|Stop|Restart|Reset|Pause|Resume|Kill|Remove|Set|Tag)/.test(method.name)
          const names = method.input.fields.filter(({ name }) => ["name", "path", "reference"].includes(name))
          if (namesOne && method.name !== "GetTree") {
            for (const { name } of names) assert.include(required, name, method.name)
          }
          if (required.length === 0) continue
          const error = yield* Effect.flip(call(client, method, {}))
          assert.strictEqual(error.code, Code.INVALID_ARGUMENT, method.name)
          assert.deepStrictEqual(
            detailsOf(error.metadata).fields.map(({ description, field }) => `${field} ${description}`),
            required.map((field) => `${field} must be set`),
            method.name
          )
          refused.push(method.name)
        }
      }
      assert.includeMembers(refused, [
        "GetContainer",
        "GetSandbox",
        "GetActor",
        "GetActorHistory",
        "StreamContainerLogs"
      ])
    })
  )

  it.live("fails in a way that its policy sees when it cannot listen", () =>
    Effect.gen(function* () {
      const socketPath = join(yield* socketDirectory, "api.sock")
      writeFileSync(socketPath, "not a socket")
      const error = yield* Effect.flip(start({ socketPath }))
      assert.strictEqual(error._tag, "RootFailed")
      assert.include(error.message, "something else than a socket")
    })
  )

  it.live("SandboxService creates, lists and removes sandboxes", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { method } = SandboxService
      for (const name of ["b", "a"]) {
        yield* call(client, method.createSandbox, { spec: { name, network: NetworkMode.HOST, labels: { of: name } } })
      }
      const listed = yield* call(client, method.listSandboxes, { pageSize: 1 })
      assert.strictEqual(listed.sandboxes[0]?.spec?.name, "a")
      assert.strictEqual(listed.sandboxes[0]?.spec?.network, NetworkMode.HOST)
      assert.notStrictEqual(listed.nextPageToken, "")
      assert.lengthOf((yield* call(client, method.listSandboxes, { labels: { of: "b" } })).sandboxes, 1)
      yield* call(client, method.removeSandbox, { name: "a" })
      assert.strictEqual((yield* Effect.flip(call(client, method.getSandbox, { name: "a" }))).code, Code.NOT_FOUND)
      const wrong = yield* Effect.flip(
        call(client, method.createSandbox, { spec: { name: "", hostname: "-", labels: { "": "" } } })
      )
      assert.sameMembers(
        detailsOf(wrong.metadata).fields.map(({ field }) => field),
        ["spec.name", "spec.hostname", "spec.labels[]"]
      )
    })
  )

  it.live("ImageService imports with progress, lists, names and removes images", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { method } = ImageService
      const events = yield* collect(client, method.importImage, { path: "/image.tar" })
      assert.deepStrictEqual(
        events.map(({ event }) => (event.case === "progress" ? event.value.step : event.case)),
        ["layers", "done", "image"]
      )
      const relative = yield* Effect.flip(collect(client, method.importImage, { path: "image.tar" }))
      assert.strictEqual(detailsOf(relative.metadata).fields[0]?.field, "path")
      const truncated = yield* Effect.flip(collect(client, method.importImage, { path: "/truncated.tar" }))
      assert.strictEqual(truncated.code, Code.INVALID_ARGUMENT)
      assert.include(truncated.details, "it ends in the middle")
      assert.lengthOf((yield* call(client, method.listImages, {})).images, 2)
      const hello = yield* call(client, method.listImages, { namePrefix: "hello", labels: { made: "here" } })
      assert.deepStrictEqual(hello.images[0]?.names, ["hello:latest"])
      assert.deepInclude(hello.images[0]?.config, { stopSignal: "SIGINT", entrypoint: ["/bin/app"] })
      yield* call(client, method.tagImage, { source: "hello:latest", target: "again:1" })
      assert.strictEqual((yield* call(client, method.getImage, { reference: "again:1" })).image?.architecture, "amd64")
      yield* call(client, method.removeImage, { reference: "again:1" })
      const gone = yield* Effect.flip(call(client, method.getImage, { reference: "again:1" }))
      assert.strictEqual(gone.code, Code.NOT_FOUND)
    })
  )

  it.live("HostService tells of the host and of Ironwood, and ends it once", () =>
    Effect.gen(function* () {
      const { client, domain } = yield* start()
      const { method } = HostService
      const { facts } = yield* call(client, method.getHostFacts, {})
      assert.isAbove(facts?.cpu?.count ?? 0, 0)
      assert.strictEqual(facts?.cgroupLayout, CgroupLayout.V1)
      assert.deepStrictEqual(facts?.cgroupControllers, ["memory"])
      assert.deepInclude(facts?.ociRuntimes[0], { name: "crun", works: false, problem: "not installed" })
      assert.deepInclude(facts?.sandboxIsolations[0], {
        name: "private users",
        works: false,
        problem: "no id-mapped mounts"
      })
      assert.deepInclude(facts?.sandboxIsolations[1], { name: "microvm", works: true, problem: "" })
      const version = yield* call(client, method.getVersion, {})
      assert.deepInclude(version, { version: "1.2.3", brainStarts: 2, taprootPid: 7, stateDirectory: "/state" })
      assert.strictEqual(version.brainPid, process.pid)
      yield* call(client, method.stopHost, { requestId: "stop" })
      yield* call(client, method.stopHost, { requestId: "stop" })
      assert.strictEqual(domain.stops, 1)
    })
  )

  it.live("Health follows the actors that a service stands on", () =>
    Effect.gen(function* () {
      const { client, tree } = yield* start()
      const { check, list, watch } = Health.method
      const service = "ironwood.v1.ImageService"
      const statusOf = (name: string) => Effect.map(call(client, check, { service: name }), ({ status }) => status)
      assert.strictEqual(yield* statusOf(""), Serving.SERVING)
      const seen: Array<Serving> = []
      const watching = open(client, watch, { service })
      yield* Effect.addFinalizer(() => Effect.sync(() => watching.cancel()))
      watching.on("data", ({ status }: { readonly status: Serving }) => seen.push(status))
      yield* eventually("it is told", () => seen.length === 1)
      yield* tree.stop("init/storage/content")
      yield* eventually("it is told of the change", () => seen.length === 2)
      assert.strictEqual(yield* statusOf(service), Serving.NOT_SERVING)
      assert.strictEqual(yield* statusOf(""), Serving.NOT_SERVING)
      assert.strictEqual(yield* statusOf("ironwood.v1.TreeService"), Serving.SERVING)
      assert.strictEqual((yield* call(client, list, {})).statuses[service]?.status, Serving.NOT_SERVING)
      yield* tree.start("init/storage/content")
      yield* eventually("it is told of the recovery", () => seen.length === 3)
      assert.deepStrictEqual(seen, [Serving.SERVING, Serving.NOT_SERVING, Serving.SERVING])
      assert.strictEqual((yield* Effect.flip(call(client, check, { service: "no.Such" }))).code, Code.NOT_FOUND)
      const unknown = yield* collect(client, watch, { service: "no.Such" }, (statuses) => statuses.length === 1)
      assert.strictEqual(unknown[0]?.status, Serving.SERVICE_UNKNOWN)
    })
  )
})
