/**
 * Keys that vouch for brains: Ed25519, made and used here with Node's own cryptography. The secret half is a file in PEM
 * (PKCS #8) that openssl reads, too; the public half is the one line that goes into the machine config.
 *
 * Trap: what is signed is not the file but the sentence of {@link signedText}, which the server has as its own.
 */
import * as Effect from "effect/Effect"
import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject, sign as signWith } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { exitCodes } from "./ExitCode.ts"
import { type Failure, failure } from "./Failure.ts"

/** The largest brain that a server takes. */
const maximumBytes = 32 * 1024 * 1024

export const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`

const signedText = (digest: string): string => `ironwood brain ${digest}\n`

const wrong = (summary: string, next?: string): Failure =>
  failure(summary, { exitCode: exitCodes.usage, ...(next === undefined ? {} : { next }) })

/** The bytes of a file that a person has named. */
export const readBytes = (file: string): Effect.Effect<Buffer, Failure> =>
  Effect.try({
    try: () => readFileSync(file),
    catch: (error) => wrong(`${file} cannot be read (${error instanceof Error ? error.message : "?"})`)
  })

/** A brain's file. */
export const readBrain = (file: string): Effect.Effect<Buffer, Failure> =>
  Effect.filterOrFail(
    readBytes(file),
    ({ length }) => length > 0 && length <= maximumBytes,
    ({ length }) =>
      wrong(`${file} is no brain: it has ${length} bytes`, "A checkout that was set up has one as build/brain.tar")
  )

/** A file that must not be there yet. */
const writeNew = (file: string, text: string, mode: number): Effect.Effect<void, Failure> =>
  Effect.try({
    try: () => writeFileSync(file, text, { flag: "wx", mode }),
    catch: (error) => wrong(`${file} cannot be written (${error instanceof Error ? error.message : "?"})`)
  })

/** The 32 bytes of the public half in base64: the last of what DER wraps them in. */
const publicText = (key: KeyObject): string =>
  key.export({ type: "spki", format: "der" }).subarray(-32).toString("base64")

/** Makes a key in `file` and `file.pub`; the public half. */
export const generate = Effect.fnUntraced(function* (file: string) {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  const text = publicText(publicKey)
  yield* writeNew(file, privateKey.export({ type: "pkcs8", format: "pem" }).toString(), 0o600)
  yield* writeNew(`${file}.pub`, `${text}\n`, 0o644)
  return text
})

/** Signs a brain: writes `file.sig`. */
export const sign = Effect.fnUntraced(function* (file: string, keyFile: string) {
  const bytes = yield* readBrain(file)
  const pem = yield* readBytes(keyFile)
  const key = yield* Effect.try({
    try: () => createPrivateKey(pem),
    catch: () => wrong(`${keyFile} is no secret key in PEM`, "`ironwood upgrade keygen` makes one")
  })
  if (key.asymmetricKeyType !== "ed25519") {
    return yield* wrong(`${keyFile} is a key for ${key.asymmetricKeyType ?? "something else"}, not for Ed25519`)
  }
  const digest = digestOf(bytes)
  const signature = `${signWith(null, Buffer.from(signedText(digest)), key).toString("base64")}\n`
  yield* Effect.try({
    try: () => writeFileSync(`${file}.sig`, signature),
    catch: (error) => wrong(`${file}.sig cannot be written (${error instanceof Error ? error.message : "?"})`)
  })
  return digest
})

/** The signature in a file. */
export const readSignature = (file: string): Effect.Effect<Buffer, Failure> =>
  Effect.flatMap(readBytes(file), (bytes) => {
    const text = bytes.toString("utf8").trim()
    return /^[A-Za-z0-9+/]{86}==$/.test(text)
      ? Effect.succeed(Buffer.from(text, "base64"))
      : Effect.fail(wrong(`${file} is no signature`, "`ironwood upgrade sign` makes one"))
  })
