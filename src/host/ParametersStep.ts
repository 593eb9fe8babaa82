/** What the kernel command line said, in the tree: a mistake in it is seen there, not only on a console nobody reads. */
import * as Effect from "effect/Effect"
import type { KernelParameters } from "./KernelParameters.ts"
import { step } from "./Step.ts"

export const parametersStep = ({ problems }: KernelParameters) =>
  step(
    "kernel-parameters",
    { description: "the kernel command line", deadline: "10 seconds" },
    Effect.succeed({ facts: {}, ...(problems.length === 0 ? {} : { degraded: problems.join("; ") }) })
  )
