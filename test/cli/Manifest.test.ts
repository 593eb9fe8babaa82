/** Spec files: what people write, as the API's messages, and every mistake with its line. */
import { toJson } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { ContainerSpecSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { RestartType, RestartTypeSchema, WhenSpentSchema } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { NetworkModeSchema, SandboxSpecSchema } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import * as Manifest from "../../src/cli/Manifest.ts"
import { shortNames } from "../../src/cli/YamlMessage.ts"

const objects = (text: string) => {
  const parsed = Manifest.parse(text, "a.yaml")
  assert.deepStrictEqual(parsed.problems, [])
  return parsed.objects
}

const problems = (text: string): ReadonlyArray<string> =>
  Manifest.parse(text, "a.yaml").problems.map(Manifest.formatProblem)

const container = (text: string) => {
  const [object] = objects(`kind: Container\n${text}`)
  return object?.kind === "Container" ? toJson(ContainerSpecSchema, object.spec) : undefined
}

describe("spec files", () => {
  it("may say of a container that it is not to be started", () => {
    const started = (more: string) =>
      objects(`kind: Container\nname: a\nimage: b\n${more}`).map((one) => one.kind === "Container" && one.notStarted)
    assert.deepStrictEqual(started(""), [false])
    assert.deepStrictEqual(started("notStarted: true\n"), [true])
    assert.deepStrictEqual(started("not_started: false\n"), [false])
    assert.deepStrictEqual(problems("kind: Container\nname: a\nimage: b\nnotStarted: later\n"), [
      "a.yaml:4: notStarted: expected true or false"
    ])
  })

  it("may hold a pod, which is a sandbox and its containers, with init containers one after another", () => {
    const pod = `
kind: Pod
name: site
network: host
stopGracePeriod: 5s
initContainers:
  - { name: first, image: a }
  - { name: second, image: a, restart: { restart: temporary } }
containers:
  - { name: web, image: a, after: [db], notStarted: true }
  - name: db
    image: a
`
    const found = objects(pod).map((one) =>
      one.kind === "Container"
        ? [one.name, one.spec.sandbox, one.spec.afterSuccess, one.spec.after, one.spec.restart?.restart, one.notStarted]
        : [one.kind, one.name, one.where.line]
    )
    assert.deepStrictEqual(found, [
      ["Sandbox", "site", 2],
      ["first", "site", [], [], RestartType.TRANSIENT, false],
      ["second", "site", ["first"], [], RestartType.TEMPORARY, false],
      ["web", "site", ["second"], ["db"], undefined, true],
      ["db", "site", ["second"], [], undefined, false]
    ])
    assert.deepStrictEqual(
      problems("kind: Pod\nname: p\ninitContainers: 3\ncontainers:\n  - 7\n  - { name: a, imag: b, sandbox: other }\n"),
      [
        "a.yaml:3: initContainers: expected a list of containers",
        "a.yaml:4: containers: expected containers, each with its fields",
        'a.yaml:6: no field "imag"; did you mean "image"?',
        "a.yaml:6: sandbox: a is in this pod: leave it out"
      ]
    )
  })

  it("takes human forms, snake_case and camelCase", () => {
    assert.deepStrictEqual(
      container(`
name: web
image: web:2.1
command: [sleep, 010, true, 1.50]
environment: { PORT: 8080, DEBUG: yes, MASK: 0022 }
stop_grace_period: 1m30s
resources: { memoryBytes: 64MiB, cpus: 0.5, pids: 32 }
restart: { restart: Transient, backoff: { first: 0, initial: 500ms, max: 1h }, budget: { restarts: 3, within: 10m }, when_spent: keep_trying }
log: { max_bytes: 1M }
`),
      {
        name: "web",
        image: "web:2.1",
        command: ["sleep", "010", "true", "1.50"],
        environment: { PORT: "8080", DEBUG: "yes", MASK: "0022" },
        stopGracePeriod: "90s",
        resources: { memoryBytes: "67108864", cpus: 0.5, pids: 32 },
        restart: {
          restart: "RESTART_TYPE_TRANSIENT",
          backoff: { first: "0s", initial: "0.500s", max: "3600s" },
          budget: { restarts: 3, within: "600s" },
          whenSpent: "WHEN_SPENT_KEEP_TRYING"
        },
        log: { maxBytes: "1048576" }
      }
    )
  })

  it("takes several documents, comments, anchors and empty documents", () => {
    const [first, second, third, ...rest] = objects(`
# images
kind: Image
path: ../build/sample-image
---
kind: Sandbox
name: site
network: HOST
labels: &labels { team: web }
---
---
kind: Container
name: web
image: web
labels: { team: web }
`)
    assert.strictEqual(first?.kind, "Image")
    assert.deepStrictEqual(second?.kind === "Sandbox" ? toJson(SandboxSpecSchema, second.spec) : undefined, {
      name: "site",
      network: "NETWORK_MODE_HOST",
      labels: { team: "web" }
    })
    assert.strictEqual(third?.name, "web")
    assert.deepStrictEqual(third?.fieldAt("labels"), { file: "a.yaml", line: 15 })
    assert.deepStrictEqual(rest, [])
  })

  it("tells every mistake with its line and the nearest name", () => {
    assert.deepStrictEqual(
      problems(`kind: Container
name: web
imge: web:latest
resources:
  memory_byte: 64MiB
  pids: many
restart:
  restart: permanant
  backoff: { initial: 10, factor: fast }
stopGracePeriod: soon
readonlyRootfs: 1
command: sleep
---
kind: Contaner
---
just a text
`),
      [
        'a.yaml:3: no field "imge"; did you mean "image"?',
        'a.yaml:5: resources: no field "memory_byte"; did you mean "memoryBytes"?',
        'a.yaml:6: resources.pids: expected a whole number, not "many"',
        'a.yaml:8: restart.restart: expected one of permanent, transient, temporary, on-success, not "permanant" (did you mean permanent?)',
        'a.yaml:9: restart.backoff.initial: expected a duration such as 500ms, 10s, 5m or 1h30m ("10" has no unit)',
        'a.yaml:9: restart.backoff.factor: expected a number, not "fast"',
        'a.yaml:10: stopGracePeriod: expected a duration such as 500ms, 10s, 5m or 1h30m, not "soon"',
        'a.yaml:11: readonlyRootfs: expected true or false, not "1"',
        "a.yaml:12: command: expected a list, such as [a, b]",
        'a.yaml:14: kind: no such kind "Contaner"; did you mean Container?',
        "a.yaml:16: a document is fields, beginning with kind: Container"
      ]
    )
  })

  it("gives an object without what is wrong in it, and says which fields those are", () => {
    const { objects, problems } = Manifest.parse(
      `kind: Container
imge: web
name: web
command: [sleep, [no], 010]
environment: { A: 1, B: [2] }
resources: { cpus: many, pids: 3 }
restart: soon
`,
      "a.yaml"
    )
    assert.lengthOf(problems, 5)
    const [object] = objects
    assert(object?.kind === "Container")
    assert.deepStrictEqual(toJson(ContainerSpecSchema, object.spec), {
      name: "web",
      command: ["sleep", "", "010"],
      environment: { A: "1" },
      resources: { pids: 3 }
    })
    assert.isTrue(object.isPartial)
    for (const path of ["image", "command[1]", "environment[B]", "resources.cpus", "restart.backoff.initial"]) {
      assert.isTrue(object.isWrong(path), path)
    }
    for (const path of ["name", "command", "command[2]", "environment[A]", "resources", "resources.pids"]) {
      assert.isFalse(object.isWrong(path), path)
    }
    assert.strictEqual(object.fieldAt("environment[A]").line, 5)
    assert.strictEqual(object.fieldAt("command[2]").line, 4)
    assert.strictEqual(object.fieldAt("image").line, 1)
  })

  it("refuses what is no YAML, too much, too deep, or doubled", () => {
    assert.match(problems("kind: [").join(), /^a\.yaml:1: /)
    assert.match(problems("kind: Container\nname: a\nname: b\n").join(), /a\.yaml:3: .*unique/)
    assert.match(problems("kind: Container\nmemory_bytes: 1\nmemoryBytes: 2").join(), /no field/)
    assert.match(
      problems("kind: Container\nstop_signal: A\nstopSignal: B").join(),
      /a\.yaml:3: stopSignal: given twice/
    )
    assert.deepStrictEqual(problems(""), ["a.yaml: nothing in it"])
    assert.match(problems(" ".repeat(5_000_000)).join(), /larger than 4 MiB/)
    assert.match(problems("kind: Container\nresources: &r { memoryBytes: *r }").join(), /a\.yaml:2/)
    assert.deepStrictEqual(problems("kind: Container\nresources: { pids: 4294967296 }"), [
      "a.yaml:2: resources.pids: expected a whole number from 0 to 4294967295, not 4294967296"
    ])
    assert.deepStrictEqual(problems("kind: Image\nfrom: here\n"), [
      'a.yaml:2: no field "from"; there are kind, path, name',
      "a.yaml:1: path: is missing; an OCI layout directory or an archive"
    ])
  })

  it("takes __proto__ for the name it is", () => {
    assert.match(problems("kind: Container\n__proto__: 1\n").join(), /no field "__proto__"/)
    const [object] = objects("kind: Container\nlabels: { __proto__: x, a: b }\n")
    assert.strictEqual(object?.kind === "Container" ? object.spec.labels["a"] : "", "b")
  })

  for (const file of readdirSync(new URL("../../examples", import.meta.url))) {
    it(`reads examples/${file}`, () => {
      const path = fileURLToPath(new URL(`../../examples/${file}`, import.meta.url))
      assert.isAbove(objects(readFileSync(path, "utf8")).length, 0)
    })
  }

  for (const desc of [RestartTypeSchema, WhenSpentSchema, NetworkModeSchema]) {
    it(`knows ${desc.name} by short names that differ`, () => {
      const names = shortNames(desc)
      assert.strictEqual(new Set(names).size, desc.values.length - 1)
      for (const name of names) assert.match(name, /^[a-z-]+$/)
    })
  }

  it.effect.prop(
    "never throws, whatever the file holds",
    { text: Schema.String, name: Schema.String },
    ({ name, text }) =>
      Effect.sync(() => {
        Manifest.parse(text, "a.yaml")
        Manifest.parse(`kind: Container\n${text}`, "a.yaml")
        Manifest.parse(`kind: Container\nname: ${JSON.stringify(name)}\nrestart: {${text}}`, "a.yaml")
      })
  )

  it.effect.prop("keeps every text as it is", { name: Schema.String, value: Schema.String }, ({ name, value }) =>
    Effect.sync(() => {
      const image = value.toWellFormed()
      const [object] = objects(JSON.stringify({ kind: "Container", name: name.toWellFormed(), image }))
      assert.strictEqual(object?.kind === "Container" ? object.spec.image : undefined, image)
    })
  )
})
