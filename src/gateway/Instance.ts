/**
 * This run of Ironwood, as the API tells of it and ends it. Provided by whoever runs the tree (`Init`), since only that
 * knows where the state is and how to stop everything.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { ShutdownAction } from "../taproot/Processes.ts"

export class Instance extends Context.Service<
  Instance,
  {
    /** Of Ironwood, as in package.json. */
    readonly version: string
    /** Absolute path. */
    readonly stateDirectory: string
    /** When this brain was started, in milliseconds since 1970. */
    readonly startedAt: number
    /** It is the init of a machine, which ends with it. */
    readonly isMachine: boolean
    /** Why it is the rescue brain that runs; empty for the ordinary one. */
    readonly rescue: string
    /** Asks for an orderly end of everything. Answers as soon as that is under way, not when it is over. */
    readonly stop: (action: ShutdownAction) => Effect.Effect<void>
  }
>()("ironwood/gateway/Instance") {}
