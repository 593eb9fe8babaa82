/** What the commands promise, against a whole Ironwood: all or nothing, in order, and the API's own JSON. */
import { type DescMessage, fromJson } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  ContainerSchema,
  ContainerState,
  CreateContainerResponseSchema
} from "../../proto/generated/ironwood/v1/container_pb.ts"
import { ImageSchema, ImportImageResponseSchema } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { CreateSandboxResponseSchema, SandboxSchema } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { ActorSchema } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { buildImage, directory, file, writeLayout } from "../support/images.ts"
import { checkout, eventually, type Instance, type Ran, start } from "../support/ironwood.ts"

const image = `kind: Image\npath: ${checkout}/build/sample-image\n`
const loop = "trap 'echo got TERM; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
const container = (name: string, more = "") => `---
kind: Container
name: ${name}
image: hello:latest
entrypoint: [/bin/sh, -c]
command: [${JSON.stringify(loop)}]
${more}`

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-commands-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** The output of a container from now on, as its follower gets it. */
const follow = (instance: Instance, name: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(join(checkout, "ironwood"), ["--address", instance.address, "logs", "-f", name])
      const said = { text: "", child }
      child.stdout.on("data", (chunk) => (said.text += String(chunk)))
      return said
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGTERM"))
  )

/** Every line of an output is a message of the API, without a field that it does not have. */
const messages = <D extends DescMessage>(schema: D, output: string) =>
  output
    .trim()
    .split("\n")
    .map((line) => fromJson(schema, JSON.parse(line)))

describe("commands", () => {
  it.live("apply and run make nothing unless all can be made, and tell all that is wrong at once", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const bad = container("Bad_Name!", "stopSignal: SIGNOTHING\nresources: { memory: 1, cpus: -2 }\n")
      const ran = yield* instance.apply(image + container("good") + bad)
      assert.deepStrictEqual([ran.code, ran.stdout], [2, ""])
      assert.include(ran.stderr, "the spec is wrong in 4 places")
      for (const line of [
        "stdin:11: name: ",
        "stdin:15: stopSignal: ",
        'stdin:16: resources: no field "memory"',
        "stdin:16: resources.cpus: "
      ]) {
        assert.include(ran.stderr, line)
      }
      const none = ["ps", "image ls", "sandbox ls"]
      for (const list of none)
        assert.notMatch(yield* instance.run(...list.split(" "), "-o", "json"), /hello|good/, list)

      // what the files bring along is no lack, and what is nowhere is one
      const missing = yield* instance.apply(
        `${image}${container("good")}---\nkind: Container\nname: b\nimage: nowhere\n`
      )
      assert.strictEqual(missing.code, 3, missing.stderr)
      assert.include(missing.stderr, "nowhere")
      for (const list of none)
        assert.notMatch(yield* instance.run(...list.split(" "), "-o", "json"), /hello|good/, list)

      // all that is missing is told beside all that is wrong, and who is alike in both is no lack
      const lacking = yield* instance.apply(`${image}---
kind: Sandbox
name: pod
${container("spare", "sandbox: pod\nafter: [shop]\n")}${container("shop", "sandbox: pod\nrestart: { whenSpent: fallback, fallback: spare }\n")}---
kind: Container
name: b
image: nowhere
sandbox: none
after: [shop]
requires: [ghost]
stopSignal: NOTHING
restart: { whenSpent: fallback, fallback: phantom }
`)
      assert.deepStrictEqual([lacking.code, lacking.stdout], [2, ""])
      assert.include(lacking.stderr, "the spec is wrong in 6 places")
      for (const line of [
        "image: no image nowhere",
        "sandbox: there is no sandbox none",
        'after[0]: "shop" is in the sandbox "pod"',
        'requires[0]: no container of its sandbox is named "ghost"',
        "stopSignal: ",
        'restart.fallback: no container of its sandbox is named "phantom"'
      ]) {
        assert.include(lacking.stderr, line)
      }
      for (const list of none)
        assert.notMatch(yield* instance.run(...list.split(" "), "-o", "json"), /hello|good/, list)

      const ghosts = yield* instance.try(..."run -d --name b --after ghost --memory 1 nowhere".split(" "))
      assert.strictEqual(ghosts.code, 2)
      for (const flag of ["IMAGE", "--after", "--memory"]) assert.include(ghosts.stderr, `  ${flag}: `)

      const flags = "run -d --name Bad! --memory 1 --cpus many --stop-signal NOTHING --network host hello"
      const wrong = yield* instance.try(...flags.split(" "))
      assert.strictEqual(wrong.code, 2)
      for (const flag of ["--name", "--memory", "--cpus", "--stop-signal"]) assert.include(wrong.stderr, `  ${flag}: `)
      assert.notInclude(yield* instance.run("sandbox", "ls", "-o", "json"), "Bad")

      const good = yield* instance.apply(image + container("good"))
      assert.deepStrictEqual([good.code, good.stderr], [0, ""])
      assert.match(good.stdout, /^image hello:latest {2}imported\n(.*\n)*container good {2}created\n$/)
      const again = yield* instance.apply(image + container("good"))
      assert.match(again.stdout, /^image hello:latest {2}unchanged\n(.*\n)*container good {2}unchanged\n$/)

      // two that refer to each other are made all the same
      const mutual = yield* instance.apply(`kind: Sandbox
name: pod
${container("spare", "sandbox: pod\nafter: [shop]\n")}${container("shop", "sandbox: pod\nrestart: { whenSpent: fallback, fallback: spare }\n")}`)
      assert.deepStrictEqual([mutual.code, mutual.stderr], [0, ""])
    })
  )

  it.live("rm -f, sandbox rm -f and apply --replace stop in order what is up", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const pod = "---\nkind: Sandbox\nname: pod\n"
      assert.strictEqual(
        (yield* instance.apply(image + pod + container("one") + container("two", "sandbox: pod\n"))).code,
        0
      )
      const ended = Effect.fnUntraced(function* (name: string, ...command: ReadonlyArray<string>) {
        const log = yield* follow(instance, name)
        yield* eventually(
          "it to be ready",
          Effect.sync(() => log.text),
          (text) => text.includes("ready")
        )
        const ran = yield* command.length === 0
          ? instance.apply(container(name, "labels: { changed: yes }\n"), "--replace")
          : instance.try(...command)
        assert.strictEqual(ran.code, 0, ran.stderr)
        yield* eventually(
          "its last word",
          Effect.sync(() => log.text),
          (text) => text.includes("got TERM")
        )
      })
      yield* ended("one")
      yield* ended("one", "rm", "-f", "one")
      yield* ended("two", "sandbox", "rm", "-f", "pod")
      assert.strictEqual(yield* instance.run("ps", "-aq"), "")
    })
  )

  it.live("apply changes a restart policy live, also one that a person has set, and names what cannot be", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const web = (more: string) => instance.apply(image + container("web", more) + container("job"))
      assert.strictEqual((yield* web("restart: { budget: { restarts: 5, within: 10m } }\n")).code, 0)
      const life = instance.run("inspect", "web", "-o", "json").pipe(
        Effect.map((text) => fromJson(ContainerSchema, JSON.parse(text))),
        Effect.map(({ spec, status }) => ({ runs: status?.pid, restarts: spec?.restart?.budget?.restarts }))
      )
      const before = yield* life
      assert.strictEqual(before.restarts, 5)
      yield* instance.run("policy", "set", "web", "--budget", "9/1h")
      const back = yield* web("restart: { budget: { restarts: 5, within: 10m } }\n")
      assert.deepStrictEqual(
        [back.code, back.stdout.replaceAll(/^image.*\n/gm, "")],
        [0, "container job  unchanged\ncontainer web  changed\n"],
        back.stderr
      )
      assert.deepStrictEqual(yield* life, before, "the same process, and the policy of the file")
      const none = yield* instance.apply(container("web"), "--replace")
      assert.strictEqual(none.stdout, "container web  changed\n", "what is only changed live is not made anew")
      assert.deepStrictEqual(yield* life, { ...before, restarts: undefined })

      const other = yield* web("restart: { budget: { restarts: 3, within: 1m } }\nlabels: { a: b }\nuser: nobody\n")
      assert.deepStrictEqual([other.code, other.stdout], [4, ""])
      for (const line of ["stdin:10: labels cannot be changed live", "stdin:11: user cannot be changed live"]) {
        assert.include(other.stderr, line)
      }
      assert.notInclude(other.stderr, "restart cannot")
      assert.deepStrictEqual(yield* life, { ...before, restarts: undefined }, "and nothing is done")
    })
  )

  it.live("restart of what serves the API succeeds, and it answers at once", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      for (const path of ["init/gateway/grpc", "init/gateway"]) {
        const ran = yield* instance.try("restart", path)
        assert.deepStrictEqual([ran.code, ran.stdout, ran.stderr], [0, `${path}\n`, ""])
        const actor = fromJson(ActorSchema, JSON.parse(yield* instance.run("inspect", path, "-o", "json")))
        assert.isAbove(actor.incarnation, 1)
      }
    })
  )

  it.live("-o json prints what is there now, as the API has it", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const json = (...args: ReadonlyArray<string>) => instance.run(...args, "-o", "json")
      const path = yield* temporary
      writeFileSync(
        join(path, "all.yaml"),
        `${image}---\nkind: Sandbox\nname: pod\n${container("web", "sandbox: pod\n")}`
      )
      const applied = (yield* json("apply", "-f", join(path, "all.yaml"))).trim().split("\n")
      const [sandbox, web] = applied.splice(-2)
      const events = applied.flatMap((line) => messages(ImportImageResponseSchema, line))
      assert.include(
        events.flatMap(({ event }) => (event.case === "image" ? event.value.names : [])),
        "hello:latest"
      )
      assert.strictEqual(messages(CreateSandboxResponseSchema, sandbox ?? "")[0]?.sandbox?.spec?.name, "pod")
      assert.strictEqual(messages(CreateContainerResponseSchema, web ?? "")[0]?.container?.spec?.name, "web")
      const state = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
        const [found] = messages(ContainerSchema, yield* json(...args))
        assert.strictEqual(found?.spec?.name, "web", args.join(" "))
        return found?.status?.state
      })
      assert.strictEqual(yield* state("stop", "web"), ContainerState.STOPPED)
      assert.strictEqual(yield* state("start", "web"), ContainerState.RUNNING)
      assert.strictEqual(yield* state("restart", "web"), ContainerState.RUNNING)
      yield* state("kill", "-s", "HUP", "web")
      assert.strictEqual(yield* state("rm", "-f", "web"), ContainerState.STOPPED)
      assert.strictEqual(messages(SandboxSchema, yield* json("sandbox", "rm", "pod"))[0]?.spec?.name, "pod")
      const [actor] = messages(ActorSchema, yield* json("restart", "init/storage/content"))
      assert.strictEqual(actor?.path, "init/storage/content")
      assert.match(yield* instance.run("apply", "-f", join(path, "all.yaml"), "-o", "yaml"), /^---\nimage:\n/)
    })
  )

  it.live("create leaves a container down, until one of its sandbox falls back to it or somebody starts it", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const applied = yield* instance.apply(`${image}---
kind: Sandbox
name: pod
${container("spare", "sandbox: pod\nnotStarted: true\n")}---
kind: Container
name: shop
sandbox: pod
image: hello:latest
command: [/bin/sh, -c, exit 3]
restart: { backoff: { initial: 100ms }, maxConsecutive: 2, whenSpent: fallback, fallback: spare }
`)
      assert.strictEqual(applied.code, 0, applied.stderr)
      const created = yield* instance.run("create", "--name", "other", "--sandbox", "pod", "hello", "sleep", "9999")
      assert.strictEqual(created, "other\n")
      const state = (name: string) =>
        Effect.map(instance.run("inspect", name, "-o", "json"), (text) => fromJson(ContainerSchema, JSON.parse(text)))
      const is = (name: string, wanted: "PARKED" | "RUNNING" | "STOPPED") =>
        eventually(`${name} to be ${wanted}`, state(name), (found) => found.status?.state === ContainerState[wanted])
      yield* is("shop", "PARKED")
      yield* is("spare", "RUNNING")
      assert.include(yield* instance.run("history", "shop"), "it is parked, and spare is started instead")
      yield* is("other", "STOPPED")
      yield* instance.run("start", "other")
      yield* is("other", "RUNNING")
      for (const [fallback, words] of [
        ["shop", /names the container itself/],
        ["nobody", /no container of its sandbox is named "nobody"/]
      ] as const) {
        const refused = yield* instance.try("policy", "set", "shop", "--when-spent", "fallback", "--fallback", fallback)
        assert.strictEqual(refused.code, 2, refused.stderr)
        assert.match(refused.stderr, words)
      }
      const selfish = yield* instance.apply(
        container("self", "restart: { maxConsecutive: 1, whenSpent: fallback, fallback: self }\n")
      )
      assert.deepStrictEqual([selfish.code, selfish.stdout], [2, ""])
      assert.match(selfish.stderr, /restart\.fallback: names the container itself/)
      yield* instance.run("policy", "set", "shop", "--preset", "kubernetes")
      yield* instance.try("start", "shop")
      yield* is("spare", "STOPPED")
    })
  )

  it.live("run in the foreground ends as the container did", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* instance.run("image", "import", `${checkout}/build/sample-image`)
      for (const [flags, code, words] of [
        [["--entrypoint", "/bin/sh", "hello", "-c", "exit 7"], 7, /^$/],
        [["--memory", "16m", "--entrypoint", "tail", "hello", "/dev/zero"], 137, /more than its 16 MiB/],
        [["--entrypoint", "/bin/nothing", "hello"], 127, /"\/bin\/nothing" is not in its image/],
        [["--entrypoint", "/etc", "hello"], 126, /"\/etc" cannot be executed/]
      ] as const) {
        const ran = yield* instance.try("run", "--rm", ...flags)
        assert.deepStrictEqual([ran.code, ran.stdout], [code, ""], ran.stderr)
        assert.match(ran.stderr, words)
      }
      // a container that writes faster than it is shown and is gone at once: every line, in order
      const count = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
      const all = `${Array.from({ length: 20_000 }, (_, index) => `line ${index}`).join("\n")}\n`
      const shown = yield* instance.run("run", "--rm", "hello", "/bin/sh", "-c", count)
      assert.isTrue(shown === all, `${shown.split("\n").length - 1} lines of 20000`)
      assert.strictEqual(yield* instance.run("ps", "-aq"), "")
    })
  )

  it.live("an error says what to do once", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* instance.apply(`${image}---\nkind: Sandbox\nname: pod\n${container("web", "sandbox: pod\n")}`)
      const changed = container("web", "sandbox: pod\nlabels: { a: b }\n")
      const failure = (ran: Effect.Effect<Ran>) => Effect.map(ran, ({ code, stderr }) => [code, stderr])
      const of = (line: string) => failure(instance.try(...line.split(" ")))
      assert.deepStrictEqual(yield* of("rm web"), [
        4,
        "ironwood: cannot remove container web while it is running. Stop it first, or `ironwood rm -f web`.\n"
      ])
      assert.deepStrictEqual(yield* of("sandbox rm pod"), [
        4,
        "ironwood: sandbox pod still has container web. Remove them first, or `ironwood pod rm -f pod`.\n"
      ])
      assert.deepStrictEqual(yield* of("image rm hello"), [
        4,
        "ironwood: image hello is in use by container web. Remove those first.\n"
      ])
      assert.deepStrictEqual(yield* of("run --pull never nowhere"), [
        3,
        "ironwood: no image nowhere:latest here. `ironwood image ls` lists the images, `ironwood image pull NAME` and `ironwood image import PATH` bring one in.\n"
      ])
      assert.deepStrictEqual(yield* of("run --sandbox none hello"), [
        3,
        "ironwood: there is no sandbox none. Make it with `ironwood pod create`, or a `kind: Pod` document; `ironwood pod ls` lists those there are.\n"
      ])
      assert.deepStrictEqual(yield* of("run -d --name web hello:latest"), [
        4,
        "ironwood: container web exists with another spec (sandbox, entrypoint, command). Choose another --name, or remove that one with `ironwood rm -f web`.\n"
      ])
      assert.deepStrictEqual(yield* failure(instance.apply(changed)), [
        4,
        "ironwood: container web (stdin:2) exists with another spec:\n  stdin:8: labels cannot be changed live\nWhat is there differs from the file: `ironwood apply --replace` removes it and makes it anew.\n"
      ])
      yield* instance.run("stop", "-t", "0", "web")
      assert.deepStrictEqual(yield* of("kill web"), [
        4,
        "ironwood: cannot kill container web while it is stopped. It has no process now.\n"
      ])
    })
  )

  it.live("what gives a container more than is usual is refused until the machine config allows it", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* instance.apply(image)
      const more = ["run", "--privileged", "--cap-add", "net_admin", "--security-opt", "seccomp=unconfined"]
      const look = ["--entrypoint", "/bin/cat", "hello", "/proc/self/status"]
      const refused = yield* instance.try(...more, ...look)
      assert.strictEqual(refused.code, 2)
      for (const flag of ["--cap-add: CAP_NET_ADMIN is more", "--security-opt: ", "--privileged: "]) {
        assert.include(refused.stderr, flag)
      }
      assert.include(refused.stderr, "set containers.allowPrivileged in its machine config")
      const wrong = yield* instance.try("run", "--cap-drop", "everything", ...look)
      assert.match(wrong.stderr, /--cap-drop: .*the name of a capability such as NET_ADMIN/)
      // less than usual anybody may ask for
      assert.match(yield* instance.run("run", "--rm", "--cap-drop", "all", ...look), /^CapEff:\t0+$/mu)

      const file = join(yield* temporary, "machine.yaml")
      writeFileSync(file, "version: ironwood/v1\ncontainers:\n  allowPrivileged: true\n")
      yield* instance.run("config", "apply", "-f", file)
      const status = yield* instance.run(...more, "--rm", ...look)
      assert.match(status, /^NoNewPrivs:\t0$/mu)
      assert.match(status, /^Seccomp:\t0$/mu)
    })
  )

  it.live("an archive with several images: all of them are imported and told", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const path = yield* temporary
      const names = ["one:latest", "two:latest", "three:1.0"]
      writeLayout(
        path,
        names.map((name) => ({ image: buildImage({ layers: [[directory("etc"), file("etc/name", name)]] }), name }))
      )
      const told = yield* instance.run("image", "import", path)
      assert.deepStrictEqual(
        told
          .trim()
          .split("\n")
          .map((line) => line.split(/\s+/)[1]),
        names
      )
      assert.deepStrictEqual(
        messages(ImageSchema, yield* instance.run("image", "import", path, "-o", "json")).flatMap(({ names }) => names),
        names
      )
      const applied = yield* instance.apply(`kind: Image\npath: ${path}\n`)
      assert.strictEqual(applied.stdout, names.map((name) => `image ${name}  unchanged\n`).join(""))
    })
  )
})
