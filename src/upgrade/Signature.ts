/**
 * Who vouches for a brain: an Ed25519 signature over its digest, made with a key whose public half is in the machine config
 * (`upgrade.keys`, each the base64 of its 32 bytes). What is signed is {@link signedText}, so that a signature for something
 * else never fits.
 */
import { createPublicKey, verify as verifySignature } from "node:crypto"

/** What is signed, in UTF-8. */
export const signedText = (digest: string): string => `ironwood brain sha256:${digest}\n`

export const signatureBytes = 64

const publicKey = (text: string) =>
  createPublicKey({
    format: "jwk",
    key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(text, "base64").toString("base64url") }
  })

/** The key that has made the signature, if it is one of these. */
export const signer = (keys: ReadonlyArray<string>, digest: string, signature: Uint8Array): string | undefined =>
  keys.find((key) => {
    try {
      return verifySignature(null, Buffer.from(signedText(digest)), publicKey(key), signature)
    } catch {
      return false // a text that is no point of the curve
    }
  })
