/** Containers whose image is pulled as they start: by policy, with a failure that the restart policy judges. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { scriptedRegistry } from "../support/scriptedRegistry.ts"
import { busybox, create, until, withContainers } from "./world.ts"

const patient = { restart: "permanent", backoff: { initial: 50, max: 50, jitter: 0 } }

describe("the image of a container", () => {
  it.live("is pulled when it is not here, backing off while its registry refuses", () =>
    withContainers(({ containers, content }) =>
      Effect.gen(function* () {
        let isOpen = false
        const registry = yield* scriptedRegistry(busybox({ Labels: { pulled: "yes" } }), (turn) =>
          isOpen ? turn.serve() : void turn.response.writeHead(403).end()
        )
        const fields = { name: "web", image: registry.name, restart: patient }
        const none = yield* Effect.flip(create(containers, fields))
        assert.strictEqual(none._tag, "ImageNotFound")
        const waiting = yield* create(containers, { ...fields, imagePull: "if-not-present" }, false)
        assert.isUndefined(waiting.image)
        const refused = yield* until(containers, "web", ({ restarts }) => restarts > 1)
        assert.strictEqual(refused.lastExit?.tag, "ImagePullFailed")
        assert.match(refused.lastExit?.message ?? "", /could not be pulled: .* none were given/)
        isOpen = true
        const running = yield* until(containers, "web", ({ state }) => state === "running")
        assert.strictEqual(running.image, (yield* content.get(registry.name)).digest)
        assert.strictEqual((yield* Effect.flip(content.remove(registry.name)))._tag, "ImageInUse")
        // with all of it here, nobody is asked again
        const asked = registry.asked.length
        const again = yield* create(containers, { ...fields, name: "other", imagePull: "if-not-present" })
        assert.strictEqual(again.state, "running")
        assert.strictEqual(registry.asked.length, asked)
        // but for who wants to know each time
        yield* create(containers, { ...fields, name: "eager", imagePull: "always" })
        assert.strictEqual(registry.asked.length, asked + 1)
        for (const name of ["web", "other", "eager"]) yield* containers.remove(name, { force: true })
      })
    )
  )
})
