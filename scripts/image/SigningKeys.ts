/**
 * The keys of UEFI Secure Boot for images made here: made on the first run, kept, and used from then on.
 *
 * Three pairs, as UEFI 2.10, section 32.3 has them: whoever holds the *platform key* (PK) owns a machine, the *key exchange
 * key* (KEK) may change what is allowed, and what the *signature database* (db) names is allowed to run. Images are signed
 * with the last. The `.auth` files enrol them in a machine that is in setup mode.
 *
 * Trap: whoever has the directory can sign for every machine that has enrolled these keys. Keep it out of backups that
 * others read; lose it, and the machines have to be enrolled anew.
 */
import { randomUUID } from "node:crypto"
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { run } from "./Kernel.ts"

const names = ["PK", "KEK", "db"] as const

/** Which key signs the list of another: the platform key its own. */
const signers = { PK: "PK", KEK: "PK", db: "KEK" } as const satisfies Record<(typeof names)[number], string>

export interface SigningKeys {
  /** PEM; of `db`. */
  readonly key: string
  /** PEM; of `db`. */
  readonly certificate: string
  /** Authenticated updates of the variables PK, KEK and db, by the names that systemd-boot enrols them from. */
  readonly enrolment: ReadonlyArray<{ readonly name: string; readonly file: string }>
}

/** The keys in a directory; makes them when it is not there. */
export const signingKeys = (directory: string, say: (text: string) => void): SigningKeys => {
  if (!existsSync(directory)) {
    const making = `${directory}.new`
    rmSync(making, { recursive: true, force: true })
    mkdirSync(making, { recursive: true, mode: 0o700 })
    const at = (name: string) => join(making, name)
    const owner = randomUUID()
    writeFileSync(at("owner"), `${owner}\n`)
    for (const name of names) {
      // firmware takes no longer keys everywhere, and knows no time but that of a clock that may be wrong
      const subject = ["-subj", `/CN=Ironwood images, ${name}/`, "-days", "36500"]
      const pair = ["-keyout", at(`${name}.key`), "-out", at(`${name}.crt`)]
      run("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", ...subject, ...pair])
      chmodSync(at(`${name}.key`), 0o600)
      run("cert-to-efi-sig-list", ["-g", owner, at(`${name}.crt`), at(`${name}.esl`)])
    }
    for (const name of names) {
      const signer = [`-k`, at(`${signers[name]}.key`), "-c", at(`${signers[name]}.crt`)]
      run("sign-efi-sig-list", ["-g", owner, ...signer, name, at(`${name}.esl`), at(`${name}.auth`)])
    }
    renameSync(making, directory)
    say(`made keys for Secure Boot in ${directory}: keep that directory, and keep it secret`)
  }
  const at = (name: string) => join(directory, name)
  return {
    key: at("db.key"),
    certificate: at("db.crt"),
    enrolment: names.map((name) => ({ name: `${name}.auth`, file: at(`${name}.auth`) }))
  }
}

/** A signed copy of an EFI program. `time`, in seconds since 1970, is in the signature: the same one makes the same bytes. */
export const sign = (keys: SigningKeys, program: string, signed: string, time: number): void => {
  rmSync(`${signed}.new`, { force: true })
  const signer = ["-key", keys.key, "-certs", keys.certificate, "-h", "sha256", "-time", `${time}`]
  run("osslsigncode", ["sign", ...signer, "-in", program, "-out", `${signed}.new`])
  renameSync(`${signed}.new`, signed)
}
