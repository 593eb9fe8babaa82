/**
 * What to do about something a new container needs and the server does not have.
 */
import { status } from "./Client.ts"
import { type Failure, withNext } from "./Failure.ts"

/** The failure with the next step for a missing image or sandbox; others pass as they are. */
export const withMissing = (error: Failure): Failure => {
  if (error.status !== status.notFound) return error
  return error.about?.type === "sandbox"
    ? withNext(
        error,
        "Make it with `ironwood pod create`, or a `kind: Pod` document; `ironwood pod ls` lists those there are"
      )
    : withNext(
        error,
        "`ironwood image ls` lists the images, `ironwood image pull NAME` and `ironwood image import PATH` bring one in"
      )
}
