/**
 * The number that a container's end is for a shell, as people know it from docker.
 */
import { constants } from "node:os"
import type { ContainerExit } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { exitCodes } from "./ExitCode.ts"

const signalNumbers: ReadonlyMap<string, number> = new Map(Object.entries(constants.signals))

/** Its own, 128 + N for signal N, 127 and 126 without a program, 1 when it never came up else. */
export const exitCodeOf = (exit: Pick<ContainerExit, "code" | "signal"> | undefined): number => {
  if (exit === undefined) return exitCodes.failed
  if (exit.code !== undefined) return exit.code
  const number = signalNumbers.get(exit.signal)
  return number === undefined ? exitCodes.failed : 128 + number
}
