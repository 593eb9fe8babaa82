/** A foreign client, `buf curl`, with nothing but the socket: all it knows it has from reflection. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { start } from "./fixture.ts"

const buf = fileURLToPath(new URL("../../node_modules/.bin/buf", import.meta.url))

interface Answer {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs `buf curl` against a socket. */
const curl = (socketPath: string, target: string, ...options: ReadonlyArray<string>): Effect.Effect<Answer> =>
  Effect.callback((resume) => {
    const child = execFile(
      buf,
      [
        "curl",
        "--protocol=grpc",
        "--http2-prior-knowledge",
        `--unix-socket=${socketPath}`,
        ...options,
        `http://localhost${target}`
      ],
      (_, stdout, stderr) => resume(Effect.succeed({ code: child.exitCode ?? -1, stdout, stderr }))
    )
    return Effect.sync(() => void child.kill())
  })

const services = [
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
  "ironwood.v1.ConfigService",
  "ironwood.v1.ContainerService",
  "ironwood.v1.HostService",
  "ironwood.v1.ImageService",
  "ironwood.v1.PolicyService",
  "ironwood.v1.SandboxService",
  "ironwood.v1.SecretService",
  "ironwood.v1.TreeService",
  "ironwood.v1.UpgradeService",
  "ironwood.v1.VmService",
  "ironwood.v1.VolumeService"
]

/** One call of each service, with a piece of the answer. */
const calls = [
  ["grpc.health.v1.Health/Check", "{}", "SERVING"],
  ["grpc.health.v1.Health/List", "{}", "ironwood.v1.TreeService"],
  ["ironwood.v1.TreeService/GetTree", '{"path": "init/runtime"}', '"path":"init/runtime/flaky"'],
  ["ironwood.v1.TreeService/GetActorHistory", '{"path": "init/runtime/flaky"}', '"event":"started"'],
  ["ironwood.v1.HostService/GetHostFacts", "{}", '"kernelRelease"'],
  ["ironwood.v1.HostService/GetVersion", "{}", '"version":"1.2.3"'],
  ["ironwood.v1.VolumeService/ListVolumes", "{}", "{}"],
  ["ironwood.v1.ImageService/ListImages", "{}", '"names":["hello:latest"]'],
  ["ironwood.v1.ImageService/ImportImage", '{"path": "/a.tar"}', '"digest":"sha256:2222'],
  ["ironwood.v1.SandboxService/CreateSandbox", '{"spec": {"name": "box", "labels": {"a": "b"}}}', '"uid":"uid-box"'],
  [
    "ironwood.v1.ContainerService/CreateContainer",
    '{"spec": {"name": "web", "image": "hello:latest", "stopGracePeriod": "1.5s"}}',
    '"stopGracePeriod":"1.500s"'
  ],
  ["ironwood.v1.ContainerService/StreamContainerLogs", '{"name": "web", "tail": 3}', '"line"']
] as const

describe("buf curl", () => {
  it.live("finds and calls every service by reflection", () =>
    Effect.gen(function* () {
      const { socketPath } = yield* start()
      const listed = yield* curl(socketPath, "", "--list-services")
      assert.deepStrictEqual(listed.stdout.trim().split("\n"), services, listed.stderr)
      const methods = yield* curl(socketPath, "", "--list-methods")
      for (const method of [
        "grpc.health.v1.Health/Watch",
        "ironwood.v1.ContainerService/StreamContainerLogs",
        "ironwood.v1.TreeService/WatchTree"
      ]) {
        assert.include(methods.stdout, method, methods.stderr)
      }
      for (const [method, request, expected] of calls) {
        const answer = yield* curl(socketPath, `/${method}`, "--data", request)
        assert.strictEqual(answer.code, 0, `${method}: ${answer.stderr}`)
        assert.include(answer.stdout.replaceAll(/\s/g, ""), expected, method)
      }
    })
  )

  it.live("speaks both versions of reflection", () =>
    Effect.gen(function* () {
      const { socketPath } = yield* start()
      for (const version of ["grpc-v1", "grpc-v1alpha"]) {
        const answer = yield* curl(
          socketPath,
          "/ironwood.v1.TreeService/GetActor",
          `--reflect-protocol=${version}`,
          '--data={"path": "init"}'
        )
        assert.include(answer.stdout.replaceAll(/\s/g, ""), '"path":"init"', answer.stderr)
      }
    })
  )

  it.live("asks reflection itself for what there is and what there is not", () =>
    Effect.gen(function* () {
      const { socketPath } = yield* start()
      const ask = (question: string) =>
        Effect.map(
          curl(socketPath, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "--data", question),
          ({ stderr, stdout }) => stdout.replaceAll(/\s/g, "") + stderr
        )
      assert.include(
        yield* ask('{"file_containing_symbol": "ironwood.v1.Actor.AnnotationsEntry"}'),
        '"fileDescriptorProto"'
      )
      for (const question of [
        '{"file_containing_symbol": "ironwood.v1.Nothing"}',
        '{"file_containing_extension": {"containing_type": "ironwood.v1.Actor", "extension_number": 5}}',
        '{"file_by_filename": "nothing.proto"}'
      ]) {
        assert.include(yield* ask(question), '"errorCode":5')
      }
    })
  )

  it.live("shows the details of an error", () =>
    Effect.gen(function* () {
      const { socketPath } = yield* start()
      const answer = yield* curl(
        socketPath,
        "/ironwood.v1.ContainerService/CreateContainer",
        '--data={"spec": {"name": "NO", "image": "", "user": "a", "resources": {"pids": 0}}}'
      )
      assert.notStrictEqual(answer.code, 0)
      for (const text of [
        "invalid_argument",
        "google.rpc.BadRequest",
        "spec.name",
        "spec.image",
        "spec.resources.pids"
      ]) {
        assert.include(answer.stderr, text)
      }
    })
  )
})
