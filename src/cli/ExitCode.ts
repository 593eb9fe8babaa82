/**
 * What the exit code of `ironwood` means: one table for the commands, `--help` and the documentation.
 *
 * Scripts may rely on these numbers. `ironwood run` in the foreground is the exception: it ends with the exit code
 * of the container, as people know it from `docker run`.
 */

/** The exit codes by name. */
export const exitCodes = {
  /** Done. A reader that closes the pipe early (`| head`) is no error either. */
  ok: 0,
  /** The request was understood and could not be carried out. */
  failed: 1,
  /** The command line or a spec file is wrong; nothing was changed. */
  usage: 2,
  /** What was named does not exist. */
  notFound: 3,
  /** It exists already with another content, or its state does not allow the request now. */
  conflict: 4,
  /** Nobody answers at the address: Ironwood is not running there. */
  unavailable: 5,
  /** Whoever runs the command may not do this. */
  denied: 6,
  /** The answer did not come in time; the request may still be carried out. */
  timeout: 7,
  /** The host lacks something: memory, disk space, a free slot. */
  exhausted: 8,
  /** Interrupted by Ctrl-C or a signal. */
  interrupted: 130
} as const

/** One of the numbers in {@link exitCodes}. */
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

/** The table as lines for `--help`. */
export const exitCodeHelp: ReadonlyArray<string> = [
  "0 done   1 failed   2 wrong usage or spec   3 not found   4 conflict (exists already, or not in this state)",
  "5 Ironwood does not answer   6 not permitted   7 timed out   8 the host is out of something   130 interrupted"
]
