/**
 * Networks of sandboxes in user mode, on a real slirp4netns: ports that are published, what is reached and what is not, over the
 * death of what makes it, of the brain, and of taproot. All traffic is on loopback and in the namespaces of the sandboxes.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { createServer } from "node:net"
import { networkInterfaces } from "node:os"
import { join } from "node:path"
import * as ActorPath from "../../src/actor/ActorPath.ts"
import { type Containers } from "../../src/runtime/Containers.ts"
import { decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import * as RuntimePaths from "../../src/runtime/RuntimePaths.ts"
import { sandboxPath } from "../../src/runtime/RuntimeSupervisor.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { eventually } from "../support/eventually.ts"
import { freePort, heardAt, hears, listener, portOf } from "../support/loopback.ts"
import * as Taproot from "../support/taproot.ts"
import { brain, create, leftovers, logText, shell, stateDirectory, until, withContainers, writeImage } from "./world.ts"

const makeSandbox = (containers: Containers["Service"], fields: object) =>
  Effect.flatMap(decodeSandboxSpec({ name: "pod", network: "user", ...fields }), containers.createSandbox)

const greeter = (words: string) => shell(`while :; do nc -l -p 80 -e /bin/echo ${words}; done`)

const ports = (hostPort: number) => [{ hostAddress: "127.0.0.1", hostPort, containerPort: 80 }]

/** The process that makes the sandbox's network. */
const networkOf = Effect.gen(function* () {
  const [process] = yield* (yield* Processes).takeAll("network/pod")
  if (process === undefined) return assert.fail("there is none")
  return process
})

describe("a network in user mode", () => {
  it.live("leads published ports in, out to what the host reaches, and not to the host's own loopback", () =>
    withContainers(({ containers, state }) =>
      Effect.gen(function* () {
        const own = portOf(yield* listener)
        const port = yield* freePort
        yield* makeSandbox(containers, { ports: ports(port) })
        yield* create(containers, { name: "web", sandbox: "pod", command: greeter("hello") })
        yield* hears(port, "hello\n")
        yield* create(containers, {
          name: "client",
          sandbox: "pod",
          restart: { restart: "temporary" },
          command: shell(
            `cat /etc/resolv.conf /etc/hosts; ip -o -4 addr show tap0; nc 127.0.0.1 80; nc 10.0.2.2 ${own} || echo not reached`
          )
        })
        yield* until(containers, "client", ({ state }) => state === "finished")
        const text = yield* logText(containers, "client")
        assert.match(text, /^nameserver 10\.0\.2\.3\n127\.0\.0\.1 localhost\n::1 localhost\n10\.0\.2\.100 client\n/)
        assert.include(text, "inet 10.0.2.100/24")
        assert.include(text, "hello\n")
        assert.include(text, "not reached")
        assert.notInclude(text, "the host's own")
        // each has its own name, also once another one has come
        const { pid: web } = yield* containers.get("web")
        assert.include(readFileSync(`/proc/${web}/root/etc/hosts`, "utf8"), "10.0.2.100 web\n")
        // it is held as tightly as it holds
        const { pid } = yield* networkOf
        const status = readFileSync(`/proc/${pid}/status`, "utf8")
        assert.match(status, /^CapEff:\s+0000000000000400$/m)
        assert.match(status, /^Seccomp:\s+2$/m)
        yield* containers.remove("web", { force: true })
        yield* containers.remove("client", { force: true })
        yield* containers.removeSandbox("pod")
        assert.strictEqual(yield* heardAt(port), undefined)
        assert.deepStrictEqual(readdirSync(join(state, "runtime/user-networks")), [])
      }).pipe(Effect.scoped)
    )
  )

  it.live("knows the names that it is given, and asks whom it is told to", () =>
    withContainers(({ containers, state }) =>
      Effect.gen(function* () {
        const outward = Object.values(networkInterfaces())
          .flatMap((addresses) => addresses ?? [])
          .find(({ family, internal }) => family === "IPv4" && !internal)?.address
        const hosts = [
          { name: "db", address: "192.0.2.7" },
          { name: "six", address: "2001:db8::1" }
        ]
        const gateway = outward === undefined ? [] : [{ name: "up", address: "host-gateway" }]
        const show = {
          restart: { restart: "temporary" },
          command: shell("cat /etc/resolv.conf 2>/dev/null; cat /etc/hosts")
        }
        const said = Effect.fnUntraced(function* (name: string, fields: object) {
          yield* makeSandbox(containers, { name, ...fields })
          yield* create(containers, { ...show, name, sandbox: name })
          yield* until(containers, name, (container) => container.state === "finished")
          const text = yield* logText(containers, name)
          yield* containers.remove(name, { force: true })
          yield* containers.removeSandbox(name)
          return text
        })
        const lines = "192.0.2.7 db\n2001:db8::1 six\n"
        const dns = { servers: ["192.0.2.53"], search: ["example.org", "test"], options: ["ndots:2"] }
        assert.strictEqual(
          yield* said("own", { hosts: [...hosts, ...gateway], dns }),
          "nameserver 192.0.2.53\nsearch example.org test\noptions ndots:2\n" +
            `127.0.0.1 localhost\n::1 localhost\n10.0.2.100 own\n${lines}${outward === undefined ? "" : `${outward} up\n`}`
        )
        // the host's own, but for what is said
        const ofHost = yield* said("hosts", { network: "host", hosts: [{ name: "up", address: "host-gateway" }], dns })
        assert.include(ofHost, "nameserver 192.0.2.53\nsearch example.org test\noptions ndots:2\n")
        assert.include(ofHost, readFileSync("/etc/hosts", "utf8").trimEnd())
        assert.isTrue(ofHost.endsWith("\n127.0.0.1 up\n"))
        const alone = yield* said("alone", { network: "none", hosts })
        assert.strictEqual(alone, `127.0.0.1 localhost\n::1 localhost\n127.0.0.1 alone\n${lines}`)
        assert.deepStrictEqual(readdirSync(join(state, "runtime/names")), [])
      })
    )
  )

  it.live("belongs to the users of its sandbox, where that has users of its own", () =>
    withContainers(({ containers, state }) =>
      Effect.gen(function* () {
        const port = yield* freePort
        const { firstUser } = yield* makeSandbox(containers, { ports: ports(port), userNamespace: "private" })
        assert.isDefined(firstUser)
        yield* create(containers, {
          name: "web",
          sandbox: "pod",
          command: shell("head -n 1 /proc/self/uid_map; cat /etc/resolv.conf; nc -l -p 80 -e /bin/echo mine")
        })
        yield* hears(port, "mine\n")
        const text = yield* logText(containers, "web")
        assert.match(text, new RegExp(`^\\s+0\\s+${firstUser}\\s+65536\nnameserver 10.0.2.3\n`))
        yield* containers.remove("web", { force: true })
        yield* containers.removeSandbox("pod")
        assert.isFalse(existsSync(`/run${RuntimePaths.cgroupOf(state)}`))
      })
    )
  )

  it.live("comes again when what makes it dies, and its containers run on", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const port = yield* freePort
        yield* makeSandbox(containers, { ports: ports(port) })
        yield* create(containers, { name: "web", sandbox: "pod", command: greeter("hello") })
        yield* hears(port, "hello\n")
        const { pid } = yield* containers.get("web")
        const before = yield* networkOf
        yield* before.signal("SIGKILL")
        yield* before.exit
        yield* hears(port, "hello\n")
        assert.notStrictEqual((yield* networkOf).pid, before.pid)
        const after = yield* containers.get("web")
        assert.deepStrictEqual([after.pid, after.restarts], [pid, 0])
      })
    )
  )

  it.live("refuses what cannot be, by its field, and waits for a port that somebody else has", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const taken = yield* listener
        const problems = (fields: object) =>
          Effect.map(Effect.flip(makeSandbox(containers, { name: "other", ...fields })), ({ message }) => message)
        yield* makeSandbox(containers, { ports: ports(portOf(taken)) })
        assert.match(
          yield* problems({ ports: [{ hostPort: portOf(taken), containerPort: 80 }] }),
          /ports\[0\]\.hostPort.*sandbox pod has 127\.0\.0\.1:\d+\/tcp already/
        )
        assert.match(yield* problems({ network: "none", ports: ports(1) }), /ports.*network: user/)
        assert.match(yield* problems({ ports: [...ports(2), ...ports(2)] }), /ports\[1\]\.hostPort.*it has/)
        const nobodys = [{ hostAddress: "192.0.2.254", containerPort: 80 }]
        assert.match(yield* problems({ ports: nobodys }), /ports\[0\]\.hostAddress.*no address of this host/)
        assert.match(
          yield* problems({
            network: "none",
            hosts: [{ name: "up", address: "host-gateway" }],
            dns: { search: ["a"] }
          }),
          /hosts\[0\]\.address.*does not reach this host.*dns\.search.*without a network/s
        )
        yield* create(containers, { name: "web", sandbox: "pod", command: greeter("hello") })
        const { lastExit } = yield* until(containers, "web", ({ state }) => state === "backing-off")
        assert.match(
          lastExit?.message ?? "",
          /cannot have 127\.0\.0\.1:\d+\/tcp: somebody else on the host listens there/
        )
        const port = portOf(taken)
        yield* Effect.callback<void>((resume) => void taken.close(() => resume(Effect.void)))
        yield* hears(port, "hello\n")
      }).pipe(Effect.scoped)
    )
  )

  it.live(
    "lacks only the port that somebody has taken while what makes it was down, says so, and has it when it is free",
    () =>
      withContainers(({ containers, root }) =>
        Effect.gen(function* () {
          const port = yield* freePort
          const other = yield* freePort
          yield* makeSandbox(containers, { ports: [...ports(port), ...ports(other)] })
          yield* create(containers, { name: "web", sandbox: "pod", command: greeter("hello") })
          yield* hears(port, "hello\n")
          const { pid } = yield* containers.get("web")
          const before = yield* networkOf
          // whoever stands still keeps its ports, and whoever is dead does not
          const thief = createServer((socket) => socket.end("mine now\n"))
          yield* before.signal("SIGKILL")
          yield* Effect.callback<void>((resume) => {
            thief.on("error", () => setTimeout(() => thief.listen(port, "127.0.0.1"), 1))
            thief.once("listening", () => resume(Effect.void))
            thief.listen(port, "127.0.0.1")
          })
          yield* hears(other, "hello\n")
          yield* hears(port, "mine now\n")
          const degraded = Effect.map(
            root.tree.get(ActorPath.child(sandboxPath("pod"), "userNetwork")),
            ({ annotations }) => annotations["degraded"]
          )
          yield* eventually(
            "the tree to say so",
            Effect.map(degraded, (why = "") => /^it cannot have 127\.0\.0\.1:\d+\/tcp: somebody else/.test(why))
          )
          yield* Effect.callback<void>((resume) => void thief.close(() => resume(Effect.void)))
          yield* hears(port, "hello\n")
          const after = yield* containers.get("web")
          assert.deepStrictEqual([after.pid, after.restarts], [pid, 0])
        })
      )
  )

  it.live("goes on over the death of the brain, and nothing of it is left when taproot has died", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      const port = yield* freePort
      yield* Effect.gen(function* () {
        const life = yield* Scope.make()
        const first = yield* Scope.provide(brain(state, { ending: "release" }), life)
        yield* first.content.importFrom(writeImage(state, "busybox"))
        // one that it is told, one that is free
        const asked = { ports: [...ports(port), { hostAddress: "127.0.0.1", containerPort: 80 }] }
        const made = yield* makeSandbox(first.containers, asked)
        const found = made.ports.map(({ hostPort }) => hostPort)
        assert.strictEqual(found[0], port)
        assert.isAbove(found[1] ?? 0, 1023)
        yield* create(first.containers, { name: "web", sandbox: "pod", command: greeter("hello") })
        yield* hears(port, "hello\n")
        yield* hears(found[1] ?? 0, "hello\n")
        const { pid } = yield* networkOf
        yield* Scope.close(life, Exit.void)
        yield* hears(port, "hello\n")
        const next = yield* Scope.make()
        const second = yield* Scope.provide(brain(state, { ending: "release" }), next)
        yield* until(second.containers, "web", (container) => container.state === "running")
        assert.strictEqual((yield* networkOf).pid, pid)
        yield* hears(found[1] ?? 0, "hello\n")
        const { ports: still } = yield* second.containers.get("web")
        assert.deepStrictEqual(still, made.ports)
        // to ask for the same again is to have it
        assert.deepStrictEqual((yield* makeSandbox(second.containers, asked)).ports, made.ports)
        yield* Scope.close(next, Exit.void)
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
      yield* Effect.gen(function* () {
        const { containers, root } = yield* brain(state)
        yield* until(containers, "web", (container) => container.state === "running")
        yield* hears(port, "hello\n")
        yield* root.end("stop")
        assert.strictEqual(yield* heardAt(port), undefined)
        assert.deepStrictEqual(leftovers(state), [])
        assert.isFalse(existsSync(join(state, "runtime/user-networks/pod")))
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )
})
