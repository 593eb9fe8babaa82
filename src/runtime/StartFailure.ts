/**
 * What it means that an OCI runtime could not start a container: no such program, one that cannot be executed, or anything
 * else. A shell and docker tell the first two apart as exit codes 127 and 126, and so do we.
 *
 * Trap: runtimes have no codes for it, only words on standard error. Those of crun, runc and youki are known here; words that
 * are not mean `CreateFailed`, whose detail has them. On a full disk crun may find no words at all, only the errno as its code.
 */
import { type ContainerFailure, CreateFailed, ProgramNotExecutable, ProgramNotFound } from "./ContainerExit.ts"
import type { RuntimeFailed } from "./OciRuntime.ts"

/** crun: executable file `x` not found in $PATH; runc: exec: "x": stat x: no such file or directory. */
const notFound =
  /executable (?:file )?\S+ (?:was )?not found|executable file not found|exec: "[^"]*": stat .*: no such file/i

/** crun: open executable: Permission denied; runc: exec: "x": permission denied; either: exec format error. */
const notExecutable = /open executable: (.*)|exec: "[^"]*": (permission denied|is a directory)|(exec format error)/i

const fullDisk = /no space left on device|ENOSPC/i

/** With what helps, where `words` mean that the disk is full. */
export const orFullDisk = (words: string): string =>
  fullDisk.test(words) || words.endsWith("exited with code 28")
    ? "the disk is full: make room with `ironwood rm` or `ironwood image rm`"
    : words

/** The failure of a container whose `program` a runtime was to start. */
export const startFailure = (name: string, program: string, error: RuntimeFailed): ContainerFailure => {
  if (notFound.test(error.stderr)) return new ProgramNotFound({ name, program })
  const found = notExecutable.exec(error.stderr)
  if (found === null) return new CreateFailed({ name, detail: orFullDisk(error.message) })
  return new ProgramNotExecutable({ name, program, detail: found.slice(1).find((words) => words !== undefined) ?? "" })
}
