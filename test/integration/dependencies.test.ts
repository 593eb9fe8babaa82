/** Containers that need each other, from spec files and flags, on an Ironwood of its own. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { checkout, eventually, start } from "../support/ironwood.ts"

const loop = `entrypoint: [/bin/sh, -c]
command: ["trap 'exit 0' TERM; while :; do sleep 0.2; done"]`

const files = (app: string) => `
kind: Image
path: ${checkout}/build/sample-image
---
kind: Sandbox
name: site
---
kind: Container
name: app
sandbox: site
image: hello:latest
${app}
${loop}
---
kind: Container
name: db
sandbox: site
image: hello:latest
${loop}
`

describe("containers that need each other", () => {
  it.live("start in order, wait when what they need is stopped, and say for whom", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const refused = yield* instance.apply(files("requires: [db, cache]\nafter: [app]"))
      assert.strictEqual(refused.code, 2, refused.stderr)
      assert.match(refused.stderr, /stdin:12: requires\[1\]: no container of its sandbox is named "cache"/)
      assert.match(refused.stderr, /stdin:13: after\[0\]/)
      assert.strictEqual(yield* instance.run("ps", "-aq"), "")

      const applied = yield* instance.apply(files("requires: [db]"))
      assert.strictEqual(applied.code, 0, applied.stdout + applied.stderr)
      // the one that is needed was made first, whatever the order of the file
      assert.match(applied.stdout, /container db {2}created\ncontainer app {2}created/)
      const sees = (expected: RegExp) => (text: string) => expected.test(text)
      yield* eventually("both to run", instance.run("ps"), sees(/app .* Up .*\n.*db .* Up /))

      yield* instance.run("stop", "db")
      const waiting = yield* eventually("app to wait", instance.run("ps"), sees(/Waiting for db/))
      assert.notMatch(waiting, /\ndb /)
      const why = yield* instance.run("why", "app")
      assert.match(why, /It waits for "db" before it starts\./)
      assert.match(why, /it needs "db", which is being ended/)
      assert.match(why, /waits for +init\/runtime\/site\/db is stopped/)
      const command = /ironwood (start \S+) +starts "db", which it waits for/.exec(why)?.[1]?.split(" ") ?? []
      assert.match(yield* instance.run("tree"), /app +container +waiting .*waits for db/)
      yield* instance.run(...command)
      yield* eventually("both to run again", instance.run("ps"), sees(/app .* Up .*\n.*db .* Up /))

      const run = ["run", "-d", "--sandbox", "site", "--name", "late"]
      const words = ["hello:latest", "/bin/sh", "-c", "while :; do sleep 1; done"]
      const wrong = yield* instance.try(...run, "--requires", "nobody", ...words)
      assert.strictEqual(wrong.code, 2)
      assert.match(wrong.stderr, /--requires.*: no container of its sandbox is named "nobody": create that one first/)
      yield* instance.run(...run, "--requires", "db", "--after", "app", "--binds-to", "app", ...words)
      const inspected = yield* instance.run("inspect", "late")
      for (const line of [/starts after +app/, /requires +db/, /bound to +app/]) assert.match(inspected, line)
    })
  )
})
