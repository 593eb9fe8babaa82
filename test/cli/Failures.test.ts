/** How commands fail: the exit code, one sentence with the next step, every wrong field. */
import * as grpc from "@grpc/grpc-js"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { HostService } from "../../proto/generated/ironwood/v1/host_pb.ts"
import { ImageService } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { ironwood, reading } from "./CommandLine.ts"
import { GrpcFailure, serve, streaming, unary } from "./FakeServer.ts"

const absent = "unix:/nonexistent/ironwood.sock"

describe("exit codes", () => {
  it.effect("2 for a wrong command line, with one line per mistake and where to read on", () =>
    Effect.gen(function* () {
      for (const [args, words] of [
        [["tre"], ["Did you mean tree?", "ironwood --help"]],
        [
          ["ps", "--al"],
          ["--al", "Did you mean --all?", "ironwood ps --help"]
        ],
        [["inspect"], ["Missing required argument: NAME|PATH"]],
        [["stop"], ["NAME|PATH"]],
        [["logs", "web", "--tail", "some"], ["a whole number, or all"]],
        [["logs", "web", "--since", "yesterday"], ["10m (so long ago)"]],
        [["run", "--memory", "much", "hello"], ["64MiB"]],
        [["run", "--restart", "sometimes", "hello"], ["permanent (always, unless-stopped)"]],
        [["run", "-e", "=x", "hello"], ["NAME=VALUE"]],
        [
          ["run", "-d", "--rm", "hello"],
          ["--rm: needs the foreground", "ironwood rm"]
        ],
        [
          ["policy", "set", "web"],
          ["nothing to change", "--help"]
        ],
        [["policy", "set", "web", "--budget", "5"], ["5/10m"]],
        [["up", "--detach", "--follow"], ["contradict"]],
        [["apply", "-f", "/nonexistent.yaml"], ["there is no file /nonexistent.yaml"]],
        [
          ["-o", "xml", "ps"],
          ["table", "json", "yaml"]
        ]
      ] as const) {
        const ran = yield* ironwood(["--address", absent, ...args])
        assert.strictEqual(ran.code, 2, `${args.join(" ")}: ${ran.err}`)
        for (const word of words) assert.include(ran.err, word)
        assert.strictEqual(ran.out, "")
      }
    })
  )

  it.effect("0 for help, which goes to standard output", () =>
    Effect.gen(function* () {
      for (const args of [[], ["--help"], ["run", "--help"], ["policy", "set", "--help"], ["image"], ["--version"]]) {
        const ran = yield* ironwood(args)
        assert.strictEqual(ran.code, 0, args.join(" "))
        assert.isAbove(ran.out.length, 10)
        assert.strictEqual(ran.err, "")
      }
    })
  )

  it.effect("every command teaches: a description, and examples that begin with ironwood", () =>
    Effect.gen(function* () {
      const top = (yield* ironwood([])).out
      const names = [...top.matchAll(/^ {2}([a-z]+) {2,}[A-Z]/gm)].map((match) => match[1] ?? "")
      assert.isAbove(names.length, 18)
      for (const name of names) {
        const { code, out } = yield* ironwood([name, "--help"])
        assert.strictEqual(code, 0)
        assert.include(out, "DESCRIPTION")
        if (!out.includes("SUBCOMMANDS")) assert.match(out, /EXAMPLES\n {2}# .*\n {2}.*ironwood/, name)
      }
    })
  )

  it.effect("5 when nobody answers, at once, with the address and what to do", () =>
    Effect.gen(function* () {
      for (const command of ["ps", "tree", "events", "host", "down"]) {
        const ran = yield* ironwood([command, "--address", absent])
        assert.strictEqual(ran.code, 5, command)
        assert.strictEqual(
          ran.err,
          `ironwood: no Ironwood answers at ${absent}. Start one with \`ironwood up\`, or name another with --address.\n`
        )
      }
      const version = yield* ironwood(["version", "--address", absent])
      assert.strictEqual(version.code, 0)
      assert.include(version.out, `none answers at ${absent}`)
    })
  )

  it.effect("3 for unknown names, with the nearest one", () =>
    Effect.gen(function* () {
      const address = yield* serve(...reading)
      const failing = (...args: ReadonlyArray<string>) => ironwood(["--address", address, ...args])
      const inspect = yield* failing("inspect", "helo")
      assert.strictEqual(inspect.code, 3)
      assert.strictEqual(
        inspect.err,
        'ironwood: no container or actor is named "helo". Did you mean "hello"? `ironwood tree` shows all.\n'
      )
      assert.strictEqual(
        (yield* failing("logs", "flakey")).err,
        'ironwood: no container is named "flakey". Did you mean "flaky"? `ironwood ps -a` shows all.\n'
      )
      assert.include((yield* failing("tree", "init/storag")).err, 'Did you mean "init/storage"?')
      const several = yield* failing("stop", "helo", "olt")
      assert.strictEqual(several.code, 3)
      assert.include(several.err, "2 of 2 failed:")
      assert.include(several.err, '"old"')
      const other = yield* failing("logs", "init/storage")
      assert.strictEqual(other.code, 2)
      assert.include(other.err, "init/storage is not a container")
    })
  )

  it.effect("what the server answers decides the others", () =>
    Effect.gen(function* () {
      for (const [code, exitCode] of [
        [grpc.status.ALREADY_EXISTS, 4],
        [grpc.status.FAILED_PRECONDITION, 4],
        [grpc.status.ABORTED, 4],
        [grpc.status.PERMISSION_DENIED, 6],
        [grpc.status.UNAUTHENTICATED, 6],
        [grpc.status.DEADLINE_EXCEEDED, 7],
        [grpc.status.RESOURCE_EXHAUSTED, 8],
        [grpc.status.INTERNAL, 1],
        [grpc.status.INVALID_ARGUMENT, 2],
        [grpc.status.UNIMPLEMENTED, 1]
      ] as const) {
        const address = yield* serve(
          unary(HostService.method.getHostFacts, () => {
            throw new GrpcFailure(code, "the server says no")
          })
        )
        const ran = yield* ironwood(["host", "--address", address])
        assert.strictEqual(ran.code, exitCode, grpc.status[code])
        assert.match(
          ran.err,
          code === grpc.status.UNIMPLEMENTED ? /does not know this request/ : /the server says no\.\n$/
        )
      }
    })
  )
})

describe("wrong fields", () => {
  const wrong = [
    { field: "spec.name", description: "must be lower-case" },
    { field: "spec.resources.memory_bytes", description: "must be at least 4 MiB" },
    { field: "spec.stop_signal", description: "there is no signal SIGNOTHING" }
  ]
  const server = serve(
    unary(ContainerService.method.getContainer, () => {
      throw new GrpcFailure(grpc.status.INVALID_ARGUMENT, "name: must be lower-case", [
        wrong[0] ?? { field: "", description: "" }
      ])
    }),
    unary(ContainerService.method.createContainer, () => {
      throw new GrpcFailure(grpc.status.INVALID_ARGUMENT, "three things", wrong)
    })
  )

  it.effect("are all told by `run`, as the flags they come from", () =>
    Effect.gen(function* () {
      const ran = yield* ironwood(["--address", yield* server, "run", "-d", "--name", "Bad", "hello"])
      assert.strictEqual(ran.code, 2)
      assert.strictEqual(
        ran.err,
        `ironwood: the flags are wrong in 3 places:
  --name: must be lower-case
  --memory: must be at least 4 MiB
  --stop-signal: there is no signal SIGNOTHING
Nothing was made; \`ironwood run --help\` explains the flags.
`
      )
    })
  )

  it.effect("are told by `run` together with those of flags that cannot be read, and nothing is made", () =>
    Effect.gen(function* () {
      const asked: Array<boolean> = []
      const address = yield* serve(
        unary(ContainerService.method.createContainer, ({ spec, validateOnly }) => {
          asked.push(validateOnly)
          assert.deepStrictEqual(spec?.environment, { A: "1" })
          throw new GrpcFailure(grpc.status.INVALID_ARGUMENT, "two things", [
            ...wrong.slice(2),
            { field: "spec.environment[A]", description: "must not be A" }
          ])
        })
      )
      const line = "run --cpus many --pids-limit 0 --restart soon --network wifi -e A=1 -e =2 -l x --stop-timeout long"
      const flags = ["--env-file", "/nonexistent", "--stop-signal", "SIGNOTHING", "hello"]
      const ran = yield* ironwood(["--address", address, ...line.split(" "), ...flags])
      assert.strictEqual(ran.code, 2)
      assert.include(ran.err, "the flags are wrong in 10 places")
      for (const words of [
        '--cpus: expected a number above 0, not "many"',
        '--pids-limit: expected a whole number above 0, not "0"',
        "--restart: expected permanent (always, unless-stopped)",
        '--network: expected none or host or user, not "wifi"',
        '--env: expected NAME=VALUE, not "=2"',
        '--label: expected NAME=VALUE, not "x"',
        "--stop-timeout: expected a duration such as 500ms",
        "--env-file: /nonexistent cannot be read",
        "--stop-signal: there is no signal SIGNOTHING",
        "--env A: must not be A"
      ]) {
        assert.include(ran.err, words)
      }
      assert.deepStrictEqual(asked, [true])
    })
  )

  it.effect("are told by `apply` with the lines of the file", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const file = `${yield* files.makeTempDirectoryScoped()}/bad.yaml`
      yield* files.writeFileString(
        file,
        "kind: Container\nname: Bad_Name!\nimage: hello\nresources:\n  memoryBytes: 1\nstopSignal: SIGNOTHING\n"
      )
      const ran = yield* ironwood(["--address", yield* server, "apply", "-f", file])
      assert.strictEqual(ran.code, 2)
      assert.strictEqual(ran.out, "")
      assert.strictEqual(
        ran.err,
        `ironwood: the spec is wrong in 3 places:
  ${file}:2: name: must be lower-case
  ${file}:5: resources.memoryBytes: must be at least 4 MiB
  ${file}:6: stopSignal: there is no signal SIGNOTHING
Nothing was changed.
`
      )
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it.effect("are told by `apply` together with what the file itself has wrong, over all files", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const directory = yield* files.makeTempDirectoryScoped()
      yield* files.writeFileString(
        `${directory}/one.yaml`,
        "kind: Container\nname: Bad_Name!\nimage: hello\nresources:\n  memoryBytes: much\nstopSignal: SIGNOTHING\n"
      )
      yield* files.writeFileString(`${directory}/two.yaml`, "kind: Sandbox\nname: a\nnetwrok: host\n")
      const asked: Array<string> = []
      const address = yield* serve(
        unary(ContainerService.method.createContainer, ({ validateOnly }) => {
          asked.push(`container ${validateOnly}`)
          throw new GrpcFailure(grpc.status.INVALID_ARGUMENT, "three things", wrong)
        }),
        unary(SandboxService.method.createSandbox, ({ validateOnly }) => {
          asked.push(`sandbox ${validateOnly}`)
          return {}
        })
      )
      const ran = yield* ironwood([
        "--address",
        address,
        "apply",
        "-f",
        `${directory}/one.yaml`,
        "-f",
        `${directory}/two.yaml`
      ])
      assert.strictEqual(ran.code, 2)
      assert.strictEqual(ran.out, "")
      assert.strictEqual(
        ran.err,
        `ironwood: the spec is wrong in 4 places:
  ${directory}/one.yaml:2: name: must be lower-case
  ${directory}/one.yaml:5: resources.memoryBytes: expected a size such as 512KiB, 64MiB or 1.5GiB, not "much"
  ${directory}/one.yaml:6: stopSignal: there is no signal SIGNOTHING
  ${directory}/two.yaml:3: no field "netwrok"; did you mean "network"?
Nothing was changed.
`
      )
      assert.sameMembers(asked, ["container true", "sandbox true"])
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it.effect("in any file keep `apply` from sending anything", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const directory = yield* files.makeTempDirectoryScoped()
      yield* files.writeFileString(`${directory}/good.yaml`, "kind: Container\nname: good\nimage: hello\n")
      yield* files.writeFileString(
        `${directory}/bad.yaml`,
        "kind: Container\nnam: bad\nimage: hello\nrestart: always\n"
      )
      const ran = yield* ironwood([
        "--address",
        absent,
        "apply",
        "-f",
        `${directory}/good.yaml`,
        "-f",
        `${directory}/bad.yaml`
      ])
      assert.strictEqual(ran.code, 2)
      assert.include(ran.err, "the spec is wrong in 2 places")
      assert.include(ran.err, `${directory}/bad.yaml:2: no field "nam"; did you mean "name"?`)
      assert.include(ran.err, `${directory}/bad.yaml:4: restart: expected fields`)
      assert.include(ran.err, "Nothing was changed.")
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )
})

it.effect("an address that cannot be, and a directory for a file, are told as such", () =>
  Effect.gen(function* () {
    for (const address of ["1.2.3", "host:", "host:70000", "a b:1"]) {
      const ran = yield* ironwood(["--address", address, "ps"])
      assert.strictEqual(ran.code, 2)
      assert.strictEqual(
        ran.err,
        `ironwood: the address "${address}" cannot be. It is unix:PATH, the path of a socket, or HOST:PORT such as 192.0.2.9:50051.\n`
      )
    }
    const applied = yield* ironwood(["--address", absent, "apply", "-f", "/tmp"])
    assert.deepStrictEqual(
      [applied.code, applied.err],
      [2, "ironwood: /tmp is a directory. Name a spec file; examples/ has some.\n"]
    )
  })
)

it.effect("wrong flags of `policy set` are all told at once, and nobody is asked", () =>
  Effect.gen(function* () {
    const words = "--restart never --budget x/y --max-consecutive -1 --when-spent explode --jitter 2 --initial soon"
    const ran = yield* ironwood(["--address", absent, "policy", "set", "hello", ...words.split(" ")])
    assert.strictEqual(ran.code, 2)
    assert.strictEqual(
      ran.err,
      `ironwood: the flags are wrong in 6 places:
  --restart: expected permanent (always, unless-stopped), transient (on-failure, on-failure:N), temporary (no) or on-success, not "never"
  --initial: expected a duration such as 500ms, 10s, 5m or 1h30m, not "soon"
  --jitter: expected a share from 0 to 1, not "2"
  --budget: expected restarts and a time, such as 5/10m, or "none", not "x/y"
  --max-consecutive: expected a number from 1 to 100000, or "none", not "-1"
  --when-spent: expected park, escalate, keep-trying, fallback, restart-group or reboot-host, not "explode"
Nothing was changed; \`ironwood policy set --help\` explains the flags.
`
    )
  })
)

describe("missing things", () => {
  it.effect("an unknown image says how to bring it in", () =>
    Effect.gen(function* () {
      const address = yield* serve(
        unary(ContainerService.method.createContainer, ({ spec }) => {
          throw new GrpcFailure(grpc.status.NOT_FOUND, `there is no image ${spec?.image}`)
        })
      )
      const ran = yield* ironwood(["--address", address, "run", "--name", "ghost", "nowhere:1.2"])
      assert.strictEqual(ran.code, 3)
      assert.include(ran.err, "nowhere:1.2")
      assert.include(ran.err, "ironwood image import")
    })
  )

  it.effect("a truncated archive is refused in the server's words", () =>
    Effect.gen(function* () {
      const address = yield* serve(
        streaming(ImageService.method.importImage, (_, sink) => {
          sink.send({ event: { case: "progress", value: { step: "reading", doneBytes: 10n } } })
          sink.fail(
            new GrpcFailure(grpc.status.INVALID_ARGUMENT, "the archive is truncated", [
              { field: "path", description: "the archive is truncated" }
            ])
          )
        })
      )
      const ran = yield* ironwood(["--address", address, "image", "import", "cut.tar"])
      assert.strictEqual(ran.code, 2)
      assert.strictEqual(ran.err, "ironwood: the archive is truncated.\n")
    })
  )

  it.effect("a host without a runtime says what is missing, not that something nameless does not work", () =>
    Effect.gen(function* () {
      const problem = "not installed"
      const address = yield* serve(
        unary(HostService.method.getHostFacts, () => ({
          facts: {
            ociRuntimes: [
              { name: "crun", problem },
              { name: "runc", path: "/bin/runc", version: "1.1.5", problem: "no cgroup" }
            ]
          }
        }))
      )
      const ran = yield* ironwood(["host", "--address", address])
      assert.match(
        ran.out,
        /OCI runtimes {2}crun: not installed\n +runc 1\.1\.5 \(\/bin\/runc\): does not work here: no cgroup\n +none works here: install/
      )
    })
  )

  it.effect("escape sequences of strangers do not reach the terminal", () =>
    Effect.gen(function* () {
      const address = yield* serve(
        unary(HostService.method.getHostFacts, () => {
          throw new GrpcFailure(grpc.status.INTERNAL, "bad \u001B]0;owned\u0007 thing")
        })
      )
      const ran = yield* ironwood(["host", "--address", address])
      assert.notInclude(ran.err, "\u001B")
      assert.notInclude(ran.err, "\u0007")
    })
  )
})
