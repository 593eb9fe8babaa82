/** What the changing commands ask of the server, and what they say about it. */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import {
  type Container,
  ContainerSchema,
  ContainerService,
  type ContainerSpec,
  type ContainerStatusSchema,
  ContainerState,
  LogStream
} from "../../proto/generated/ironwood/v1/container_pb.ts"
import { ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { type RestartPolicy, RestartType, WhenSpent } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { NetworkMode, SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { ironwood, prepare, reading } from "./CommandLine.ts"
import { GrpcFailure, serve, streaming, unary } from "./FakeServer.ts"
import { containers } from "./Samples.ts"

/** Containers and sandboxes in memory: enough of a server to create, find and remove them. */
const inMemory = () => {
  const there = new Map<string, Container>()
  const sandboxes = new Set<string>()
  const calls: Array<string> = []
  const ports: Array<object> = []
  const missing = (name: string) => new GrpcFailure(grpc.status.NOT_FOUND, `there is no ${name}`)
  return {
    there,
    sandboxes,
    calls,
    ports,
    serve: serve(
      unary(ContainerService.method.getContainer, ({ name }) => {
        const container = there.get(name)
        if (container === undefined) throw missing(name)
        return { container }
      }),
      unary(ContainerService.method.createContainer, ({ notStarted, requestId, spec, validateOnly }) => {
        const name = spec?.name ?? ""
        const known = there.get(name)
        if (known !== undefined && known.spec?.image !== spec?.image) {
          throw new GrpcFailure(grpc.status.ALREADY_EXISTS, `container ${name} exists with another spec`)
        }
        if (validateOnly) return {}
        assert.isAbove(requestId.length, 0)
        calls.push(`create ${name}${notStarted ? " not started" : ""}`)
        const container =
          known ??
          create(ContainerSchema, {
            ...(spec === undefined ? {} : { spec }),
            actorPath: `init/runtime/${name}/${name}`
          })
        there.set(name, container)
        return { container }
      }),
      unary(ContainerService.method.stopContainer, ({ name }) => {
        calls.push(`stop ${name}`)
        if (!there.has(name)) throw missing(name)
        return {}
      }),
      unary(ContainerService.method.removeContainer, ({ force, name }) => {
        calls.push(`remove ${name}${force ? " by force" : ""}`)
        if (!there.delete(name)) throw missing(name)
        return {}
      }),
      unary(SandboxService.method.getSandbox, ({ name }) => {
        if (!sandboxes.has(name)) throw missing(name)
        return { sandbox: { spec: { name }, containers: [] } }
      }),
      unary(SandboxService.method.createSandbox, ({ spec, validateOnly }) => {
        if (validateOnly) return {}
        calls.push(`create sandbox ${spec?.name} with network ${spec?.network}`)
        sandboxes.add(spec?.name ?? "")
        for (const { containerPort, hostAddress, hostPort, protocol } of spec?.ports ?? []) {
          ports.push({ protocol, hostAddress, hostPort, containerPort })
        }
        return {}
      }),
      unary(SandboxService.method.removeSandbox, ({ name }) => {
        calls.push(`remove sandbox ${name}`)
        sandboxes.delete(name)
        return {}
      }),
      streaming(ImageService.method.importImage, ({ name, path, validateOnly }, sink) => {
        if (!validateOnly) calls.push(`import ${path}`)
        sink.send({ event: { case: "progress", value: { step: "reading", doneBytes: 5n, totalBytes: 10n } } })
        sink.send({
          event: { case: "image", value: { digest: "sha256:abcdef", names: [name === "" ? "hello:latest" : name] } }
        })
        sink.end()
      })
    )
  }
}

describe("apply", () => {
  it.effect("makes images before sandboxes before containers, and says what became of each", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const directory = yield* files.makeTempDirectoryScoped()
      const file = `${directory}/all.yaml`
      const yaml = (tag: string) => `kind: Container
name: web
sandbox: site
image: hello:${tag}
---
kind: Sandbox
name: site
network: host
---
kind: Image
path: ./layout
`
      yield* files.writeFileString(file, yaml("latest"))
      const server = inMemory()
      const address = yield* server.serve
      const apply = (...args: ReadonlyArray<string>) => ironwood(["--address", address, "apply", "-f", file, ...args])
      const first = yield* apply()
      assert.deepStrictEqual(first, {
        code: 0,
        out: "image hello:latest  imported\nsandbox site  created\ncontainer web  created\n",
        err: ""
      })
      assert.deepStrictEqual(server.calls, [
        `import ${directory}/layout`,
        `create sandbox site with network ${NetworkMode.HOST}`,
        "create web"
      ])
      assert.strictEqual(
        (yield* apply()).out,
        "image hello:latest  imported\nsandbox site  unchanged\ncontainer web  unchanged\n"
      )
      yield* files.writeFileString(file, yaml("other"))
      const conflict = yield* apply()
      assert.strictEqual(conflict.code, 4)
      assert.strictEqual(conflict.out, "")
      assert.include(conflict.err, `container web (${file}:1) exists with another spec`)
      assert.include(conflict.err, "ironwood apply --replace")
      const replaced = yield* apply("--replace")
      assert.strictEqual(replaced.code, 0)
      assert.include(replaced.out, "container web  replaced")
      assert.deepStrictEqual(server.calls.slice(-3), ["stop web", "remove web by force", "create web"])
      assert.strictEqual(server.there.get("web")?.spec?.image, "hello:other")
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )
})

describe("create", () => {
  it.effect("takes the flags of run and leaves the container down", () =>
    Effect.gen(function* () {
      const server = inMemory()
      const address = yield* server.serve
      const ran = yield* ironwood(["--address", address, "create", "--name", "job", "-eA=1", "hello", "ls", "-la"])
      assert.deepStrictEqual(ran, { code: 0, out: "job\n", err: "" })
      assert.deepStrictEqual(server.calls, ["create job not started"])
      assert.deepStrictEqual(server.there.get("job")?.spec?.command, ["ls", "-la"])
      assert.deepStrictEqual(server.there.get("job")?.spec?.environment, { A: "1" })
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )
})

describe("run", () => {
  it.effect("publishes ports of a sandbox of its own, and refuses those that cannot be", () =>
    Effect.gen(function* () {
      const server = inMemory()
      const address = yield* server.serve
      const run = (...words: ReadonlyArray<string>) => ironwood(["--address", address, "run", "-d", ...words, "hello"])
      assert.strictEqual(
        (yield* run("--name", "web", "-p", "127.0.0.1:8080:80", "-p", "53:53/udp", "-p", "80")).code,
        0
      )
      assert.include(server.calls, `create sandbox web with network ${NetworkMode.USER}`)
      assert.deepStrictEqual(server.ports, [
        { protocol: "", hostAddress: "127.0.0.1", hostPort: 8080, containerPort: 80 },
        { protocol: "udp", hostAddress: "", hostPort: 53, containerPort: 53 },
        { protocol: "", hostAddress: "", hostPort: 0, containerPort: 80 }
      ])
      const wrong = yield* run("-p", "8080:http")
      assert.strictEqual(wrong.code, 2)
      assert.include(
        wrong.err,
        '--publish: expected [ADDRESS:]HOST-PORT:PORT[/udp], such as 8080:80, or 80 for a port of the host that is free, not "8080:http"'
      )
      assert.include((yield* run("--pod", "site", "-p", "1:1")).err, "--publish: belongs to the sandbox")
    })
  )

  it.effect("turns docker's flags into a spec", () =>
    Effect.gen(function* () {
      const server = inMemory()
      const address = yield* server.serve
      const line =
        "run -d --name web -e A=1 -eB=2 -w /srv -u nobody --entrypoint /bin/sh --memory 64m --cpus 0.5 --pids-limit 20 " +
        "--restart on-failure:3 --network host --stop-signal SIGINT --stop-timeout 30 -l team=web --read-only hello:latest -c id"
      const ran = yield* ironwood(["--address", address, ...line.split(" ")])
      assert.deepStrictEqual(ran, { code: 0, out: "web\n", err: "" })
      const spec = server.there.get("web")?.spec
      const expected: Partial<ContainerSpec> = {
        name: "web",
        sandbox: "web",
        image: "hello:latest",
        entrypoint: ["/bin/sh"],
        command: ["-c", "id"],
        environment: { A: "1", B: "2" },
        workingDirectory: "/srv",
        user: "nobody",
        stopSignal: "SIGINT",
        labels: { team: "web" },
        readonlyRootfs: true
      }
      for (const [name, value] of Object.entries(expected)) {
        assert.deepStrictEqual(Object.entries(spec ?? {}).find(([key]) => key === name)?.[1], value, name)
      }
      assert.strictEqual(spec?.resources?.memoryBytes, 67_108_864n)
      assert.strictEqual(spec?.resources?.cpus, 0.5)
      assert.strictEqual(spec?.resources?.pids, 20)
      assert.strictEqual(spec?.stopGracePeriod?.seconds, 30n)
      assert.strictEqual(spec?.restart?.restart, RestartType.TRANSIENT)
      assert.strictEqual(spec?.restart?.whenSpent, WhenSpent.PARK)
      const removed = yield* ironwood(["--address", address, "rm", "-f", "web"])
      assert.deepStrictEqual(removed, { code: 0, out: "web\n", err: "" })
      assert.deepStrictEqual(server.calls.slice(-3), ["stop web", "remove web by force", "remove sandbox web"])
    })
  )

  /** A server whose one container has written `output` and is in `status`. */
  const ended = (
    status: MessageInitShape<typeof ContainerStatusSchema>,
    output: string,
    stopped: Array<string> = []
  ) => {
    let state = status
    return serve(
      unary(ContainerService.method.createContainer, ({ spec }) => ({
        container: { ...(spec === undefined ? {} : { spec }), actorPath: "init/runtime/x/x" }
      })),
      unary(ContainerService.method.getContainer, ({ name }) => ({ container: { spec: { name }, status: state } })),
      unary(SandboxService.method.getSandbox, ({ name }) => {
        throw new GrpcFailure(grpc.status.NOT_FOUND, `there is no sandbox ${name}`)
      }),
      unary(ContainerService.method.removeContainer, ({ name }) => {
        stopped.push(`remove ${name}`)
        return {}
      }),
      unary(ContainerService.method.stopContainer, ({ name }) => {
        stopped.push(name)
        state = { state: ContainerState.STOPPED }
        return { container: { spec: { name } } }
      }),
      streaming(ContainerService.method.streamContainerLogs, ({ follow, since }, sink) => {
        sink.send({
          entries:
            since === undefined ? [{ time: { seconds: 1n }, stream: 1, line: new TextEncoder().encode(output) }] : []
        })
        if (!follow) sink.end()
      }),
      streaming(TreeService.method.watchTree, (_, sink) => {
        const timer = setInterval(() => sink.send({ event: { case: "bookmark", value: { revision: 1n } } }), 20)
        timer.unref()
      })
    )
  }

  it.live("in the foreground shows the output and ends with the container's exit code", () =>
    Effect.gen(function* () {
      for (const [status, code] of [
        [{ state: ContainerState.FINISHED, lastExit: { code: 0, tag: "ContainerExited" } }, 0],
        [{ state: ContainerState.FAILED, lastExit: { code: 7, tag: "ContainerExited" } }, 7],
        [
          {
            state: ContainerState.FAILED,
            lastExit: { signal: "SIGKILL", tag: "ContainerOomKilled", message: "out of memory" }
          },
          137
        ],
        [
          { state: ContainerState.PARKED, lastExit: { code: 127, tag: "ProgramNotFound", message: "no such program" } },
          127
        ],
        [{ state: ContainerState.PARKED, lastExit: { tag: "CreateFailed", message: "no such thing" } }, 1]
      ] as const) {
        const ran = yield* ironwood(["--address", yield* ended(status, "hello"), "run", "hello"])
        assert.strictEqual(ran.code, code, ran.err)
        assert.strictEqual(ran.out, "hello\n")
        assert.strictEqual(ran.err, "message" in status.lastExit ? `ironwood: ${status.lastExit.message}\n` : "")
      }
    })
  )

  it.live("in the foreground leaves none whose program is not there, and says where flags go", () =>
    Effect.gen(function* () {
      const calls: Array<string> = []
      const lastExit = { code: 127, tag: "ProgramNotFound", message: '"--name" is not in its image' }
      const address = yield* ended({ state: ContainerState.PARKED, lastExit }, "", calls)
      const ran = yield* ironwood(["--address", address, "run", "hello", "--name", "x"])
      assert.strictEqual(ran.code, 127, ran.err)
      assert.include(ran.err, "flags of `ironwood run` come before it")
      assert.match(calls.join(", "), /remove \w+/)
    })
  )

  it.live("in the foreground loses nothing of a long output when the container has ended before it is shown", () =>
    Effect.gen(function* () {
      // many lines of one moment, as a busy writer has them, and a reader slower than the log
      const log = Array.from({ length: 5000 }, (_, index) => ({
        time: { seconds: BigInt(1 + Math.floor(index / 300)), nanos: 0 },
        stream: LogStream.STDOUT,
        line: new TextEncoder().encode(`line ${index}`)
      }))
      const address = yield* serve(
        unary(ContainerService.method.createContainer, ({ spec }) => ({
          container: { ...(spec === undefined ? {} : { spec }), actorPath: "init/runtime/x/x" }
        })),
        unary(ContainerService.method.getContainer, ({ name }) => ({
          container: {
            spec: { name },
            status: { state: ContainerState.FINISHED, lastExit: { code: 0, tag: "ContainerExited" } }
          }
        })),
        streaming(ContainerService.method.streamContainerLogs, ({ follow, since }, sink) => {
          const rest = log.filter(({ time }) => since === undefined || time.seconds >= since.seconds)
          for (let from = 0; from < rest.length; from += 100) sink.send({ entries: rest.slice(from, from + 100) })
          if (!follow) sink.end()
        }),
        streaming(TreeService.method.watchTree, (_, sink) => {
          setTimeout(() => sink.send({ event: { case: "bookmark", value: { revision: 1n } } }), 30).unref()
        })
      )
      const ran = yield* ironwood(["--address", address, "run", "hello"], { slow: "10 millis" })
      assert.strictEqual(ran.code, 0, ran.err)
      assert.deepStrictEqual(
        ran.out.split("\n"),
        [...log.map((_, index) => `line ${index}`), ""],
        "no line lost, doubled or moved"
      )
    })
  )

  it.live("stops the container on Ctrl-C", () =>
    Effect.gen(function* () {
      const stopped: Array<string> = []
      const address = yield* ended({ state: ContainerState.RUNNING }, "hello", stopped)
      const { captured, deliver, run } = prepare(["--address", address, "run", "--name", "web", "hello"])
      const fiber = yield* Effect.forkChild(run)
      while (captured.out() !== "hello\n") yield* Effect.sleep("10 millis")
      assert.isTrue(deliver("SIGINT"))
      assert.strictEqual(yield* Fiber.join(fiber), 130)
      assert.deepStrictEqual(stopped, ["web"])
    })
  )
})

describe("start, stop, restart, kill", () => {
  it.effect("say what was asked of whom: containers by name, other actors by path", () =>
    Effect.gen(function* () {
      const calls: Array<string> = []
      const container = containers[0]
      const record =
        (verb: string) => (request: { readonly name?: string; readonly path?: string; readonly signal?: string }) => {
          calls.push(
            [verb, request.path ?? request.name, request.signal]
              .filter((word) => word !== undefined && word !== "")
              .join(" ")
          )
          return container === undefined ? {} : { container }
        }
      const address = yield* serve(
        ...reading,
        unary(ContainerService.method.startContainer, record("start")),
        unary(ContainerService.method.stopContainer, (request) => {
          calls.push(`grace ${request.gracePeriod?.seconds}`)
          return record("stop")(request)
        }),
        unary(ContainerService.method.restartContainer, record("restart")),
        unary(ContainerService.method.killContainer, (request) => {
          record("kill")(request)
          return {}
        }),
        unary(TreeService.method.restartActor, ({ path }) => {
          calls.push(`restart actor ${path}`)
          return {}
        })
      )
      for (const line of [
        "start flaky",
        "stop -t 5 -s HUP hello",
        "restart init/runtime/hello/hello",
        "restart state",
        "kill -s USR1 hello"
      ]) {
        const ran = yield* ironwood(["--address", address, ...line.split(" ")])
        assert.deepStrictEqual([ran.code, ran.err], [0, ""], line)
        assert.strictEqual(ran.out, `${line.split(" ").at(-1)}\n`)
      }
      assert.deepStrictEqual(calls, [
        "start flaky",
        "grace 5",
        "stop hello HUP",
        "restart hello",
        "restart actor init/storage/state",
        "kill hello USR1"
      ])
    })
  )
})

describe("policy set", () => {
  it.effect("changes what is said and keeps the rest", () =>
    Effect.gen(function* () {
      let sent: RestartPolicy | undefined
      const address = yield* serve(
        ...reading,
        unary(ContainerService.method.setContainerPolicy, ({ policy }) => {
          sent = policy
          return {}
        })
      )
      const line = "policy set hello --restart on-failure --max 1m --budget none --first 0"
      const ran = yield* ironwood(["--address", address, ...line.split(" ")])
      assert.strictEqual(ran.code, 0, ran.err)
      assert.strictEqual(sent?.restart, RestartType.TRANSIENT)
      assert.strictEqual(sent?.backoff?.max?.seconds, 60n)
      assert.strictEqual(sent?.backoff?.first?.seconds, 0n)
      assert.strictEqual(sent?.backoff?.initial?.nanos, 500_000_000)
      assert.strictEqual(sent?.backoff?.jitter, 0.2)
      assert.isUndefined(sent?.budget)
      assert.include(ran.out, "transient (restarted when it fails)")
    })
  )
})
