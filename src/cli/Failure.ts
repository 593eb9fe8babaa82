/**
 * The one error that reaches a person: a sentence that says what is wrong, details where several things are, and
 * the next step.
 *
 * Every command fails with a {@link Failure} (or {@link ReaderGone}); nothing else is printed. Write the summary
 * without a full stop and without the name of the program: {@link render} adds both. A defect (a bug of ours) is
 * not a Failure; `main` prints it whole.
 */
import * as Schema from "effect/Schema"
import { type ExitCode, exitCodes } from "./ExitCode.ts"

/** A command could not do what it was asked. */
export class Failure extends Schema.TaggedError<Failure>()("Failure", {
  /** One sentence, e.g. `no container is named "helo"`. */
  summary: Schema.String,
  /** One line per thing that is wrong, e.g. `resources.memory_bytes: …`. */
  details: Schema.Array(Schema.String),
  /** What to do now, as an imperative sentence. */
  next: Schema.optionalKey(Schema.String),
  /** Of the process; see ExitCode.ts. */
  exitCode: Schema.Literals(Object.values(exitCodes)),
  /** The gRPC status code, when a server said no. */
  status: Schema.optionalKey(Schema.Int),
  /** The fields that are wrong, when the server said so; the details say the same. */
  violations: Schema.optionalKey(Schema.Array(Schema.Struct({ field: Schema.String, description: Schema.String }))),
  /** Of a name that is taken: the fields of the spec in which the one that is there differs, when the server said so. */
  differing: Schema.optionalKey(Schema.Array(Schema.String)),
  /** What it is about, when the server said so: `image`, `nginx:1.27`. */
  about: Schema.optionalKey(Schema.Struct({ type: Schema.String, name: Schema.String }))
}) {
  override get message() {
    return render(this)
  }
}

/**
 * Whoever read our standard output has closed it (`| head`). The command stops without a word and without blame.
 */
export class ReaderGone extends Schema.TaggedError<ReaderGone>()("ReaderGone", {}) {
  override get message() {
    return "the reader of the output has closed it"
  }
}

/** A {@link Failure} with the default of no details. */
export const failure = (
  summary: string,
  options: { readonly exitCode?: ExitCode; readonly next?: string; readonly details?: ReadonlyArray<string> } = {}
): Failure =>
  new Failure({
    summary,
    details: options.details ?? [],
    exitCode: options.exitCode ?? exitCodes.failed,
    ...(options.next === undefined ? {} : { next: options.next })
  })

/** The same failure with some parts changed. */
export const changed = (
  error: Failure,
  parts: { readonly summary?: string; readonly next?: string; readonly details?: ReadonlyArray<string> }
): Failure => {
  const { about, details, differing, exitCode, next, status, summary, violations } = error
  return new Failure({
    summary,
    details,
    exitCode,
    ...(next === undefined ? {} : { next }),
    ...(status === undefined ? {} : { status }),
    ...(about === undefined ? {} : { about }),
    ...(violations === undefined ? {} : { violations }),
    ...(differing === undefined ? {} : { differing }),
    ...parts
  })
}

/** The same failure with another next step. */
export const withNext = (error: Failure, next: string): Failure => changed(error, { next })

const sentence = (text: string): string => (/[.!?:]$/.test(text) ? text : `${text}.`)

/** The text a person reads: the sentence, the details indented, the next step. */
export const render = (error: Failure): string => {
  const head = error.details.length > 0 ? `${error.summary.replace(/[.:]$/, "")}:` : sentence(error.summary)
  const next = error.next === undefined ? "" : sentence(error.next)
  if (error.details.length === 0) return next === "" ? head : `${head} ${next}`
  return [head, ...error.details.map((line) => `  ${line}`), ...(next === "" ? [] : [next])].join("\n")
}
