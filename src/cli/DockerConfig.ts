/**
 * What `docker login` (or podman's) has left here: credentials for a registry, from `$DOCKER_CONFIG/config.json`, else
 * `~/.docker/config.json`, or the file that `$REGISTRY_AUTH_FILE` names. Also from a credential helper, where the file says so
 * (`credHelpers` for a registry, `credsStore` for those that have nothing else).
 *
 * A pull takes them along in its request, for the one registry that it is about; they are never printed.
 *
 * Traps: Docker writes docker.io as `https://index.docker.io/v1/`, and a helper answers with the user name `<token>` when the
 * password is a refresh token. A file that cannot be read is no credentials, and is remarked upon.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { execFile } from "node:child_process"
import { homedir } from "node:os"
import { join } from "node:path"
import * as Output from "./Output.ts"
import * as Text from "./Text.ts"

export interface Credentials {
  readonly username: string
  readonly password: string
  readonly identityToken: string
}

const Entry = Schema.Struct({
  auth: Schema.optionalKey(Schema.String),
  username: Schema.optionalKey(Schema.String),
  password: Schema.optionalKey(Schema.String),
  identitytoken: Schema.optionalKey(Schema.String)
})

const ConfigFile = Schema.fromJsonString(
  Schema.Struct({
    auths: Schema.optionalKey(Schema.Record(Schema.String, Entry)),
    credsStore: Schema.optionalKey(Schema.String),
    credHelpers: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
  })
)

const HelperAnswer = Schema.fromJsonString(Schema.Struct({ Username: Schema.String, Secret: Schema.String }))

/** The registry of an image's name, as docker reads it: the part before the first slash, if it looks like one. */
export const registryOf = (reference: string): string => {
  const [first = ""] = reference.split("/", 1)
  const isHost = reference.includes("/") && (/[.:[]/.test(first) || first === "localhost")
  return isHost && first !== "index.docker.io" ? first : "docker.io"
}

/** Under which keys a registry may stand. */
const keysOf = (registry: string): ReadonlyArray<string> => {
  const names = registry === "docker.io" ? ["docker.io", "index.docker.io", "registry-1.docker.io"] : [registry]
  return names.flatMap((name) => [
    name,
    `https://${name}`,
    `http://${name}`,
    `https://${name}/v1/`,
    `https://${name}/v2/`
  ])
}

/** Under which key docker puts a registry into its store. */
const storedAs = (registry: string): string => (registry === "docker.io" ? "https://index.docker.io/v1/" : registry)

const ofEntry = (entry: typeof Entry.Type): Credentials | undefined => {
  const decoded = Buffer.from(entry.auth ?? "", "base64")
    .toString("utf8")
    .replace(/\0+$/, "")
  const colon = decoded.indexOf(":")
  const username = entry.username ?? (colon < 0 ? "" : decoded.slice(0, colon))
  const password = entry.password ?? (colon < 0 ? "" : decoded.slice(colon + 1))
  const identityToken = entry.identitytoken ?? ""
  return identityToken !== "" || (username !== "" && password !== "")
    ? { username, password, identityToken }
    : undefined
}

/** Asks `docker-credential-NAME`; undefined when it knows nothing. */
const fromHelper = (name: string, key: string): Effect.Effect<Credentials | undefined> =>
  Effect.callback<string | undefined>((resume) => {
    const child = execFile(`docker-credential-${name}`, ["get"], { timeout: 10_000 }, (error, stdout) =>
      resume(Effect.succeed(error === null ? stdout : undefined))
    )
    child.stdin?.on("error", () => {})
    child.stdin?.end(key)
    return Effect.sync(() => void child.kill())
  }).pipe(
    Effect.map((stdout) =>
      Option.match(Schema.decodeUnknownOption(HelperAnswer)(stdout), {
        onNone: () => undefined,
        onSome: ({ Secret, Username }) =>
          Username === "<token>"
            ? { username: "", password: "", identityToken: Secret }
            : { username: Username, password: Secret, identityToken: "" }
      })
    )
  )

/** The credentials for the registry of an image; undefined: none. */
export const credentialsFor = Effect.fnUntraced(function* (reference: string) {
  const system = yield* FileSystem.FileSystem
  const { env } = process
  const file = env["REGISTRY_AUTH_FILE"] ?? join(env["DOCKER_CONFIG"] ?? join(homedir(), ".docker"), "config.json")
  const text = yield* Effect.option(system.readFileString(file))
  if (Option.isNone(text)) return undefined
  const decoded = Schema.decodeUnknownResult(ConfigFile)(text.value)
  if (Result.isFailure(decoded)) {
    yield* Output.remark(`${Text.clean(file)} is left aside: it is not what docker writes`)
    return undefined
  }
  const { auths = {}, credHelpers = {}, credsStore } = decoded.success
  const registry = registryOf(reference)
  for (const key of keysOf(registry)) {
    const helper = credHelpers[key]
    const found =
      helper !== undefined ? yield* fromHelper(helper, key) : auths[key] === undefined ? undefined : ofEntry(auths[key])
    if (found !== undefined) return found
  }
  return credsStore === undefined ? undefined : yield* fromHelper(credsStore, storedAs(registry))
})
