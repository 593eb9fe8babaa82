/**
 * The actor of a sandbox's user-mode network: it has the process that makes it (the one that is still there, or a new one), and ends
 * with why that has ended. Containers run on meanwhile; what they had open is lost.
 *
 * A port that somebody else has taken meanwhile is tried again until it is free; the rest of the network works, and the tree says so.
 *
 * *Stop* ends the process, after the containers, which come later in their sandbox. *Release* touches nothing.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Actor from "../actor/Actor.ts"
import type { ChildSpec } from "../actor/ChildSpec.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import * as ProcessAge from "../taproot/ProcessAge.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { RuntimeFailed } from "./OciRuntime.ts"
import type { SandboxRecord } from "./Records.ts"
import { listenerOf, portsOf } from "./PublishedPorts.ts"
import type { PublishedPort } from "./SandboxSpec.ts"
import { Systems } from "./System.ts"
import { missingText } from "./UserNetworks.ts"

/** What makes it has ended by itself. */
export class UserNetworkEnded extends Schema.TaggedError<UserNetworkEnded>()("UserNetworkEnded", {
  sandbox: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `slirp4netns, which makes the network of sandbox ${this.sandbox}, ${this.detail}`
  }
}

const BETWEEN_TRIES = "1 second"

/** Tries to have the ports that are missing, says which they are, and never ends. */
const keepTrying = Effect.fnUntraced(function* (sandbox: SandboxRecord, first: ReadonlyArray<PublishedPort>) {
  const { userNetworks } = yield* Systems
  for (let missing = first; ;) {
    yield* Actor.degraded(missing.length === 0 ? "" : `it ${missingText(missing)}`)
    if (missing.length === 0) return yield* Effect.never
    yield* Effect.sleep(BETWEEN_TRIES)
    missing = (yield* userNetworks.of(sandbox)).missing
  }
})

/** No container can be called so. */
export const ID = "userNetwork"

export const userNetworkActor = (sandbox: SandboxRecord): ChildSpec<RuntimeFailed | UserNetworkEnded, Systems> => {
  const { name } = sandbox.spec
  return Actor.make(
    ID,
    { kind: "network", description: "what the host reaches, and published ports", policy: RestartPolicy.workload },
    Effect.gen(function* () {
      const { userNetworks } = yield* Systems
      yield* Actor.onStop(userNetworks.forget(name))
      const { missing, process } = yield* userNetworks.of(sandbox)
      const published = portsOf(sandbox)
        .map((port) => `${listenerOf(port)} to ${port.containerPort}`)
        .join(", ")
      const facts = { pid: String(process.pid), ...(published === "" ? {} : { ports: published }) }
      yield* process.adopted ? Actor.adopted(facts, yield* ProcessAge.of(process)) : Actor.ready(facts)
      const exit = yield* Effect.raceFirst(process.exit, keepTrying(sandbox, missing))
      return yield* new UserNetworkEnded({ sandbox: name, detail: ProcessExit.describe(exit) })
    })
  )
}
