/**
 * Content digests as the OCI image specification writes them (`sha256:<hex>`), and the chain ids made from them.
 *
 * A digest is the only name a blob has here; it is checked at every border because it also becomes a file name.
 * Only the two algorithms that the specification registers are taken (sha256 and sha512).
 *
 * Trap: a *chain id* looks like a digest and is not the digest of any bytes: it names a layer applied on top of all
 * those below it, so the same tar on another base has another one.
 */
import * as Schema from "effect/Schema"
import { createHash, type Hash } from "node:crypto"

const pattern = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/

/** `sha256:` and 64, or `sha512:` and 128, lower-case hexadecimal digits. */
export const Digest = Schema.String.pipe(
  Schema.check(
    Schema.isPattern(pattern, { expected: `a digest (sha256:<64 hex digits> or sha512:<128 hex digits>, lower case)` })
  ),
  Schema.brand("Digest")
)
export type Digest = typeof Digest.Type

/** Whether a text is a digest. */
export const isDigest: (text: unknown) => text is Digest = Schema.is(Digest)

/** The algorithm and the hexadecimal part, which are also its directory and file name in an OCI layout. */
export const parts = (digest: Digest): { readonly algorithm: "sha256" | "sha512"; readonly hex: string } => ({
  algorithm: digest.startsWith("sha512:") ? "sha512" : "sha256",
  hex: digest.slice(7)
})

/** A running hash of the algorithm that `digest` names: feed it the bytes, then compare with `matches`. */
export const hasher = (digest: Digest): Hash => createHash(parts(digest).algorithm)

/** The sha256 digest of bytes that are all in memory (documents; blobs are hashed while they stream). */
export const ofBytes = (bytes: Uint8Array | string): Digest =>
  Digest.make(`sha256:${createHash("sha256").update(bytes).digest("hex")}`)

/** The finished hash as a digest of the same algorithm as `like`. The hash cannot be used after. */
export const finish = (hash: Hash, like: Digest): Digest =>
  Digest.make(`${parts(like).algorithm}:${hash.digest("hex")}`)

/** The digest as people like to see it: the first twelve digits. */
export const short = (digest: Digest): string => parts(digest).hex.slice(0, 12)

/**
 * The chain ids of an image's layers, lowest first, from its diff ids (OCI image specification, "Layer ChainID"):
 * the first is the diff id itself, each later one the digest of "<chain id below> <diff id>".
 */
export const chainIds = (diffIds: ReadonlyArray<Digest>): ReadonlyArray<Digest> => {
  const chain: Array<Digest> = []
  let below: Digest | undefined
  for (const diffId of diffIds) {
    below = below === undefined ? diffId : ofBytes(`${below} ${diffId}`)
    chain.push(below)
  }
  return chain
}
