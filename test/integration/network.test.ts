/** What a person types for ports and names, against a whole Ironwood. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { busybox } from "../runtime/world.ts"
import { writeLayout } from "../support/images.ts"
import { hears } from "../support/loopback.ts"
import { start } from "../support/ironwood.ts"

const serve = (words: string) => ["sh", "-c", `while :; do nc -l -p 80 -e /bin/echo ${words}; done`]

const web = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "ironwood-network-"))
    writeLayout(path, [{ image: busybox({ ExposedPorts: { "80/tcp": {}, "53/udp": {} } }), name: "web:latest" }])
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Of `0.0.0.0:8080`. */
const portIn = (text: string) => Number(/^0\.0\.0\.0:(\d+)\n$/.exec(text)?.[1])

describe("ports and names on the command line", () => {
  it.live("-P, -p without a port of the host, port and ps agree on what is published", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* instance.run("image", "import", yield* web)
      yield* instance.run("run", "-d", "--name", "all", "-P", "web", ...serve("all"))
      const all = portIn(yield* instance.run("port", "all", "80"))
      yield* hears(all, "all\n")
      assert.match(
        yield* instance.run("port", "all"),
        new RegExp(`^80/tcp -> 0.0.0.0:${all}\n53/udp -> 0.0.0.0:\\d+\n$`)
      )
      for (const words of [["ps"], ["inspect", "all"]]) {
        assert.include(yield* instance.run(...words), `0.0.0.0:${all}/tcp→80, 0.0.0.0:`)
      }
      yield* instance.run("run", "-d", "--name", "one", "-p", "80", "web", ...serve("one"))
      yield* hears(portIn(yield* instance.run("port", "one", "80")), "one\n")
      const none = yield* instance.try("port", "one", "53/udp")
      assert.deepStrictEqual([none.code, none.stdout], [3, ""])
      assert.include(none.stderr, "port 53/udp of one is not published")
      const applied = yield* instance.apply(`kind: Pod
name: two
network: user
ports: [{ containerPort: 80 }]
hosts: [{ name: db, address: 192.0.2.7 }]
dns: { options: ["ndots:2"] }
containers:
  - { name: two, image: web, command: ${JSON.stringify(serve("two"))} }
`)
      assert.deepStrictEqual([applied.code, applied.stderr], [0, ""])
      yield* hears(portIn(yield* instance.run("port", "two", "80")), "two\n")
      const names = yield* instance.run("exec", "two", "cat", "/etc/resolv.conf", "/etc/hosts")
      assert.match(names, /^nameserver 10\.0\.2\.3\noptions ndots:2\n[^]*\n192\.0\.2\.7 db\n$/)
    }).pipe(Effect.scoped)
  )

  it.live("what is wrong is told by its flag, or by its place in the file", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      yield* instance.run("image", "import", yield* web)
      const flags =
        "--network none --add-host up:host-gateway --add-host a:b --dns nobody --dns-search a..b! --dns-option A web"
      const wrong = yield* instance.try("run", "-d", ...flags.split(" "))
      assert.strictEqual(wrong.code, 2)
      for (const flag of ["--add-host", "--dns", "--dns-search", "--dns-option"]) {
        assert.include(wrong.stderr, `  ${flag}: `)
      }
      const alone = yield* instance.try("run", "-d", "--network", "none", "--dns", "192.0.2.53", "web")
      assert.include(alone.stderr, "--dns: without a network nobody is asked for names")
      yield* instance.run("pod", "create", "pod")
      const inside = yield* instance.try("run", "--pod", "pod", "-P", "--add-host", "db:192.0.2.7", "web")
      assert.match(inside.stderr, /--publish-all: belongs to the sandbox[^]*--add-host: belongs to the sandbox/)
      const file = yield* instance.apply(
        "kind: Pod\nname: other\nnetwork: user\nhosts:\n  - { name: db, address: nobody }\n"
      )
      assert.match(file.stderr, /hosts\[0\]\.address: .*an IP address, or host-gateway/)
    }).pipe(Effect.scoped)
  )
})
