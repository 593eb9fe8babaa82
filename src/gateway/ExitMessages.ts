/** How actors end, between the domain and the wire: sorts of endings, facts, and whole exits on their way out. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Proto from "../../proto/generated/ironwood/v1/exit_pb.ts"
import type { ActorExitSchema } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import type { ExitClass, ExitFacts, ExitView } from "../actor/ExitView.ts"
import { timestamp } from "./Time.ts"

/** Sorts of endings on the wire. */
export const exitClasses = {
  normal: Proto.ExitClass.NORMAL,
  failure: Proto.ExitClass.FAILURE,
  defect: Proto.ExitClass.DEFECT,
  interrupted: Proto.ExitClass.INTERRUPTED,
  "not-started": Proto.ExitClass.NOT_STARTED
} as const satisfies Record<ExitClass, Proto.ExitClass>

const factsToProto = (facts: ExitFacts): MessageInitShape<typeof Proto.ExitFactsSchema> => ({
  exitCode: facts.exitCode,
  signal: facts.signal ?? "",
  outOfMemory: facts.outOfMemory ?? false,
  probe: facts.probe ?? ""
})

/** How an actor ended, as it goes over the wire. */
export const exitToProto = (exit: ExitView): MessageInitShape<typeof ActorExitSchema> => ({
  time: timestamp(exit.at),
  ...untimed(exit)
})

/** The same of an exit that has no time: it only could happen. */
export const untimed = (exit: ExitView): MessageInitShape<typeof ActorExitSchema> => ({
  tag: exit.tag,
  message: exit.message,
  detail: exit.detail,
  exitClass: exitClasses[exit.class],
  beforeReady: exit.beforeReady,
  facts: exit.facts && factsToProto(exit.facts),
  causes: exit.causes?.map(({ message, path = "", tag }) => ({ path, tag, message })) ?? []
})
