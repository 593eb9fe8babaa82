/**
 * Which images there are, what they are called, and what a reference stands for: the records of images and of names in `State`,
 * as questions. Who changes them does so under `Content`'s lock over the index.
 *
 * Trap: a name points to a digest and can move; what is asked twice may have two answers.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Image, type ImageRecord } from "./Content.ts"
import { ImageNotFound } from "./ContentError.ts"
import { Digest, parts } from "./Digest.ts"
import * as Reference from "./Reference.ts"
import type { State, StateRecord } from "./State.ts"

const NameRecord = Schema.Struct({ digest: Digest })

/** Whether a name, with a tag or a digest, points to it. */
export const isCalled = ({ digests, references }: ImageRecord, name: string): boolean =>
  references.includes(name) || digests.includes(name)

export const make = Effect.fnUntraced(function* (state: State["Service"]) {
  const images = yield* state.collection("image", Image)
  const names = yield* state.collection("image-name", NameRecord)

  /** What every image is called, by digest. */
  const namesByDigest = Effect.map(names.list, (list) => {
    const byDigest = new Map<Digest, Array<string>>()
    for (const { name, value } of list) {
      const known = byDigest.get(value.digest)
      if (known === undefined) byDigest.set(value.digest, [name])
      else known.push(name)
    }
    return byDigest
  })

  const withNames = (record: StateRecord<Image>, called: ReadonlyArray<string> = []): ImageRecord => ({
    ...record.value,
    references: called.filter((name) => !name.includes("@")).toSorted(),
    digests: called.filter((name) => name.includes("@")).toSorted(),
    importedAt: record.createdAt
  })

  const list = Effect.gen(function* () {
    const byDigest = yield* namesByDigest
    const found = (yield* images.list).map((record) => withNames(record, byDigest.get(record.value.digest)))
    const order = ({ digest, digests, references }: ImageRecord) =>
      `${references[0] === undefined ? 1 : 0}${references[0] ?? digests[0] ?? digest}`
    return found.toSorted((left, right) => (order(left) < order(right) ? -1 : 1))
  })

  const byDigest = Effect.fnUntraced(function* (digest: Digest) {
    const record = yield* images.get(digest)
    return Option.isNone(record) ? undefined : withNames(record.value, (yield* namesByDigest).get(digest))
  })

  /** A manifest or configuration digest, or the first digits of one when only one image has them. */
  const byDigits = (digits: string) =>
    Effect.map(list, (all) => {
      const starts = (digest: Digest) => digest === digits || parts(digest).hex.startsWith(digits)
      const found = all.filter(({ configDigest, digest }) => starts(digest) || starts(configDigest))
      return found.length === 1 ? found[0] : undefined
    })

  const get = Effect.fn("Content.get")(function* (reference: string) {
    const parsed = yield* Reference.parse(reference)
    const name = Reference.tagged(parsed)
    // what a registry calls it wins over a tag, which may have moved since
    const exact =
      parsed.name === undefined || parsed.digest === undefined
        ? Option.none()
        : yield* names.get(Reference.pinned(parsed.name, parsed.digest))
    const pointer = Option.isSome(exact) || name === undefined ? exact : yield* names.get(name)
    const digest = Option.isSome(pointer) ? pointer.value.value.digest : parsed.digest
    const found =
      digest !== undefined
        ? ((yield* byDigest(digest)) ?? (yield* byDigits(digest)))
        : /^[0-9a-f]{6,64}$/.test(reference)
          ? yield* byDigits(reference)
          : undefined
    if (
      found === undefined ||
      (Option.isNone(exact) &&
        parsed.digest !== undefined &&
        parsed.digest !== found.digest &&
        parsed.name !== undefined)
    ) {
      return yield* new ImageNotFound({ reference: name ?? reference })
    }
    return found
  })

  /**
   * What registries call the images that lose their last tag of a repository to this one: with it they would stay for ever,
   * though nobody has asked for them by digest.
   */
  const leftBehind = Effect.fnUntraced(function* (moving: ReadonlyArray<string>, to: Digest) {
    const left: Array<string> = []
    for (const name of moving.filter((one) => !one.includes("@"))) {
      const pointer = yield* names.get(name)
      if (Option.isNone(pointer) || pointer.value.value.digest === to) continue
      const before = yield* byDigest(pointer.value.value.digest)
      if (before === undefined || before.references.some((other) => !moving.includes(other))) continue
      const repository = name.slice(0, name.lastIndexOf(":"))
      left.push(...before.digests.filter((pinned) => pinned.startsWith(`${repository}@`)))
    }
    return left
  })

  return { images, names, list, byDigest, get, leftBehind }
})

export type ImageIndex = Effect.Success<ReturnType<typeof make>>
