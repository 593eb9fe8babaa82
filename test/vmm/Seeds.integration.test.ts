/** What a guest is told at its first start, as a real guest finds it. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { problemsOf } from "../../src/vmm/Seeds.ts"
import { consoleText, says, specOf, withVms } from "./world.ts"

describe("Seeds", () => {
  it.live("cloud-init's data are a disk, Ignition's config is in the firmware configuration", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const seeds = {
          cloudInit: {
            userData: "#cloud-config\nhostname: seeded\n",
            networkConfig: "version: 2\nethernets: {}\n"
          },
          ignition: '{"ignition": {"version": "3.4.0"}}\n'
        }
        yield* vms.create(yield* specOf("web", seeds))
        yield* says(vms, "web", "guest: ready")
        yield* Effect.flatMap(vms.attach("web"), ({ write }) => write(Buffer.from("seeds\n")))
        yield* says(vms, "web", "guest: no more seeds")
        const text = yield* consoleText(vms, "web")
        for (const line of [
          "guest: user-data: #cloud-config",
          "guest: user-data: hostname: seeded",
          'guest: meta-data: instance-id: "web"',
          'guest: meta-data: local-hostname: "web"',
          "guest: network-config: version: 2",
          'guest: ignition: {"ignition": {"version": "3.4.0"}}'
        ]) {
          assert.include(text, line)
        }
        assert.match(text, /disk vda serial= ro=1/)
        yield* vms.remove("web", { force: true })
      })
    )
  )

  it("what is none of it is told with its field", () => {
    const wrong = problemsOf({
      cloudInit: { userData: "hostname: x\n", metaData: "- a list\n", networkConfig: "{" },
      ignition: '{"ignition": {"version": "2.0.0"}}'
    })
    assert.deepStrictEqual(
      wrong.map(({ field }) => field),
      ["cloudInit.userData", "cloudInit.metaData", "cloudInit.networkConfig", "ignition"]
    )
    assert.include(wrong[0]?.problem, "must begin with #cloud-config")
    const script = { userData: "#!/bin/sh\ntrue\n" }
    assert.deepStrictEqual(problemsOf({ cloudInit: script }), [])
    assert.match(problemsOf({ cloudInit: { userData: "#cloud-config\na: [\n" } })[0]?.problem ?? "", /is no YAML/)
  })
})
