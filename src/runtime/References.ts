/**
 * What a container's spec refers to: its sandbox, its image, the containers that it needs and the one it falls back to. All
 * of it is looked up in one go, so that whoever asks is told in one answer what is not there.
 *
 * Trap: what is `assumed` (whoever asks is about to make it) counts in a check. What is made now needs the things
 * themselves, but for the container it falls back to: that one is asked for only once a budget is spent.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Content, ImageRecord, IndexError, PullPolicy } from "../storage/Content.ts"
import type { ImageNotFound } from "../storage/ContentError.ts"
import * as Reference from "../storage/Reference.ts"
import type { FieldProblem } from "../storage/StateErrors.ts"
import { SandboxNotFound, SpecInvalid } from "./ContainerError.ts"
import type { StateError } from "./Containers.ts"
import { dependsOnAny, fallbackProblems, type Needed, type Needs, neededOf, problemsOf } from "./Dependencies.ts"
import type { Records, StoredSandbox } from "./Records.ts"

/** The part of a spec that names other things. Texts that nobody has checked yet are fine: they name nothing. */
export interface References extends Needs {
  readonly name: string
  /** Undefined: one of its own. */
  readonly sandbox: string | undefined
  readonly image: string
  /** It is pulled when it is wanted, so it need not be here. */
  readonly pulls: boolean
  readonly fallback: string | undefined
}

/** What is taken for granted beside what is there. */
export interface Assumed {
  /** Names with their tag, and digests. */
  readonly images: ReadonlyArray<string>
  readonly sandboxes: ReadonlyArray<string>
  readonly containers: ReadonlyArray<Needed & { readonly name: string; readonly sandbox: string | undefined }>
}

export const nothingAssumed: Assumed = { images: [], sandboxes: [], containers: [] }

/** Something that a spec refers to and that is wrong; `error`: when it is wrong with nothing else, this says it. */
export interface Unresolved extends FieldProblem {
  readonly error?: SandboxNotFound | ImageNotFound
}

/** What was found. */
export interface Resolved {
  /** None: there is no such sandbox (yet), or the container gets one of its own. */
  readonly sandbox: Option.Option<StoredSandbox>
  /** None: there is no such image (yet). */
  readonly image: Option.Option<ImageRecord>
  readonly problems: ReadonlyArray<Unresolved>
}

const sandboxOf = ({ name, sandbox }: { readonly name: string; readonly sandbox: string | undefined }): string =>
  sandbox ?? name

const isAssumedImage = (reference: string, { images }: Assumed): Effect.Effect<boolean> =>
  Effect.map(Effect.option(Reference.parse(reference)), (parsed) =>
    [
      reference,
      ...Option.match(parsed, { onNone: () => [], onSome: (one) => [one.digest, Reference.tagged(one)] })
    ].some((name) => name !== undefined && images.includes(name))
  )

/** Looks up what a spec refers to. `check`: nothing is made, and all that is assumed counts. */
export const make =
  (records: Records, content: Content["Service"]) =>
  (
    references: References,
    assumed: Assumed,
    { check }: { readonly check: boolean }
  ): Effect.Effect<Resolved, StateError | IndexError> =>
    Effect.gen(function* () {
      const { fallback, name } = references
      const problems: Array<Unresolved> = []
      const own = sandboxOf(references)

      const present = Option.filter(yield* records.sandboxes.get(own), ({ value }) => !value.implicit)
      const isLacking = Option.isNone(present) && !(check && assumed.sandboxes.includes(own))
      if (references.sandbox !== undefined && isLacking) {
        const error = new SandboxNotFound({ name: own })
        problems.push({ field: "sandbox", problem: error.message, error })
      }

      const refersToOthers = fallback !== undefined || dependsOnAny(references)
      const stored = refersToOthers ? (yield* records.containers.partition).records : []
      const there = new Map(
        stored.map(({ name, value }) => [name, { needs: neededOf(value.spec), sandbox: value.sandbox }])
      )
      const coming = assumed.containers.map((one) => [one.name, { needs: one, sandbox: sandboxOf(one) }] as const)
      const all = new Map<string, { readonly needs: Needed; readonly sandbox: string }>([...there, ...coming])
      const siblingsIn = (others: typeof all) =>
        new Map([...others].flatMap(([name, { needs, sandbox }]) => (sandbox === own ? [[name, needs]] : [])))
      const others = check ? all : there
      problems.push(
        ...problemsOf(references, {
          siblings: siblingsIn(others),
          sandboxOf: (name) => others.get(name)?.sandbox
        }),
        ...fallbackProblems(name, fallback, siblingsIn(all))
      )

      const image = yield* content.get(references.image).pipe(
        Effect.asSome,
        Effect.catchTags({
          ReferenceInvalid: ({ message }) =>
            Effect.sync(() => {
              problems.push({ field: "image", problem: message })
              return Option.none()
            }),
          ImageNotFound: (error) =>
            Effect.map(isAssumedImage(references.image, assumed), (isAssumed) => {
              if (!references.pulls && (!check || !isAssumed))
                problems.push({ field: "image", problem: error.message, error })
              return Option.none()
            })
        })
      )
      return { sandbox: present, image, problems }
    })

/** The failure of a spec that refers to what is not so; none: all of it is. */
export const refusalOf = (
  problems: ReadonlyArray<Unresolved>
): Option.Option<SpecInvalid | SandboxNotFound | ImageNotFound> => {
  const [first, second] = problems
  if (first === undefined) return Option.none()
  return Option.some(
    first.error !== undefined && second === undefined
      ? first.error
      : new SpecInvalid({
          what: "container",
          problems: problems.map(({ field, problem }) => ({ field, problem }))
        })
  )
}

/** What the spec that a container shall have refers to. */
export const referencesOf = (
  spec: Needs & {
    readonly name: string
    readonly sandbox?: string
    readonly image: string
    readonly imagePull?: PullPolicy
    readonly restart: { readonly fallback?: string | undefined }
  }
): References => ({
  name: spec.name,
  sandbox: spec.sandbox,
  image: spec.image,
  pulls: spec.imagePull !== undefined && spec.imagePull !== "never",
  fallback: spec.restart.fallback,
  after: spec.after,
  afterSuccess: spec.afterSuccess,
  requires: spec.requires,
  bindsTo: spec.bindsTo
})
