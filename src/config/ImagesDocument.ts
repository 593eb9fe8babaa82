/**
 * The parts `registries` and `images` of a machine config: where images come from, and what this machine keeps and takes of
 * them. What is left out is what `storage` does by itself.
 *
 * Trap: a password in a machine config is read by whoever may read the config; changes of it are told without the words.
 */
import * as Schema from "effect/Schema"
import type { ImageSettings } from "../storage/ImageSettings.ts"
import { type RegistryHost, type RegistrySettings, usualSettings } from "../storage/registry/RegistrySettings.ts"

const text = (pattern: RegExp, expected: string) =>
  Schema.String.pipe(Schema.check(Schema.isPattern(pattern, { expected })))

const between = (minimum: number, maximum: number) =>
  Schema.Int.pipe(
    Schema.check(Schema.isBetween({ minimum, maximum }, { expected: `a whole number from ${minimum} to ${maximum}` }))
  )

const list = <S extends Schema.Top>(item: S, most: number) =>
  Schema.Array(item).pipe(Schema.check(Schema.isMaxLength(most, { expected: `at most ${most} of them` })))

const Address = text(
  /^https?:\/\/[A-Za-z0-9.[\]:-]{1,253}(?:\/[A-Za-z0-9._~/-]{0,256})?$/u,
  "an address like https://mirror.example.com or http://10.0.0.1:5000/hub"
)

const Host = Schema.Struct({
  mirrors: Schema.optionalKey(list(Address, 16)),
  plainHttp: Schema.optionalKey(Schema.Boolean),
  username: Schema.optionalKey(text(/^[^\p{Cc}]{1,256}$/u, "a user name")),
  password: Schema.optionalKey(text(/^[^\p{Cc}]{1,8192}$/u, "a password of one line")),
  identityToken: Schema.optionalKey(text(/^[\x21-\x7e]{1,8192}$/u, "a refresh token")),
  certificateAuthority: Schema.optionalKey(
    text(
      /^-----BEGIN CERTIFICATE-----[\s\S]{1,65000}$/u,
      "certificates in PEM, the first line being -----BEGIN CERTIFICATE-----"
    )
  )
})

const Proxy = Schema.Struct({
  http: Schema.optionalKey(Address).annotate({ description: "The proxy for registries that are asked in the clear." }),
  https: Schema.optionalKey(Address).annotate({ description: "The proxy for all others." }),
  none: Schema.optionalKey(list(text(/^[A-Za-z0-9.*:[\]-]{1,253}$/u, "a host or a domain"), 256)).annotate({
    description: "Hosts and domains (`.example.com`) that are asked directly."
  })
})

export const RegistriesDocument = Schema.Struct({
  hosts: Schema.optionalKey(
    Schema.Record(
      text(
        /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?(?:\/[A-Za-z0-9._~/-]{0,256})?$/u,
        "a registry as in an image's name, like ghcr.io or 10.0.0.1:5000"
      ),
      Host
    ).pipe(Schema.check(Schema.isMaxProperties(256, { expected: "at most 256 registries" })))
  ).annotate({
    description:
      "By the registry's name as in an image's (`docker.io`, `10.0.0.1:5000`): `mirrors`, addresses that are asked first, in this " +
      "order; `plainHttp`, to ask it in the clear (loopback is, all others are not); `username` and `password`, or an " +
      "`identityToken`, for who gives none of his own; `certificateAuthority`, PEM, trusted besides the usual ones. **Whoever " +
      "may read the config may read the password.**"
  }),
  proxy: Schema.optionalKey(Proxy).annotate({ description: "Instead of the proxies that the environment names." }),
  timeoutSeconds: Schema.optionalKey(between(1, 3600)).annotate({
    description: "How long a registry may be silent, or slower than 1 KiB/s. Default: 30."
  }),
  tries: Schema.optionalKey(between(1, 20)).annotate({
    description: "How often a request is made that fails in a way that may pass. Default: 6."
  })
})

const Limits = Schema.Struct({
  entries: Schema.optionalKey(between(1, 100_000_000)).annotate({
    description: "Entries of a layer. Default: 1000000."
  }),
  totalBytes: Schema.optionalKey(between(1, Number.MAX_SAFE_INTEGER)).annotate({
    description: "Bytes of all files of a layer together, unpacked. Default: 64 GiB."
  }),
  ratio: Schema.optionalKey(between(1, 1_000_000)).annotate({
    description: "How many times larger than its blob a layer of more than 1 GiB may be. Default: 10000."
  }),
  depth: Schema.optionalKey(between(1, 4096)).annotate({
    description: "How deep directories may be nested. Default: 256."
  })
})

const Collection = Schema.Struct({
  unusedDays: Schema.optionalKey(between(0, 36_500)).annotate({
    description: "Images that nobody has used for so long are removed. Not set: none is for its age alone."
  }),
  highPercent: Schema.optionalKey(between(1, 100)).annotate({
    description: "When the disk is fuller than this, unused images go, those unused for longest first. Not set: none."
  }),
  lowPercent: Schema.optionalKey(between(0, 99)).annotate({
    description: "Until it is no fuller than this. Default: 10 less than `highPercent`."
  })
})

export const ImagesDocument = Schema.Struct({
  limits: Schema.optionalKey(Limits).annotate({ description: "What a layer may hold; one with more is refused." }),
  collection: Schema.optionalKey(Collection).annotate({
    description: "What is removed by itself. An image that a container uses never is."
  })
})

const credentialsOf = ({ identityToken, password = "", username = "" }: typeof Host.Encoded) =>
  identityToken === undefined && (username === "" || password === "")
    ? undefined
    : { username, password, ...(identityToken === undefined ? {} : { identityToken }) }

const hostOf = (host: typeof Host.Encoded): RegistryHost => ({
  mirrors: host.mirrors ?? [],
  plainHttp: host.plainHttp,
  certificateAuthority: host.certificateAuthority,
  credentials: credentialsOf(host)
})

/** How registries are reached, with what is left out. */
export const registrySettings = ({
  hosts = {},
  proxy,
  timeoutSeconds,
  tries
}: typeof RegistriesDocument.Encoded = {}): RegistrySettings => ({
  hosts: Object.fromEntries(Object.entries(hosts).map(([name, host]) => [name, hostOf(host)])),
  proxy: proxy === undefined ? undefined : { ...proxy, none: proxy.none ?? [] },
  timeoutSeconds: timeoutSeconds ?? usualSettings.timeoutSeconds,
  tries: tries ?? usualSettings.tries
})

/** What is kept and taken of images, with what is left out. */
export const imageSettings = ({ collection = {}, limits = {} }: typeof ImagesDocument.Encoded = {}): ImageSettings => ({
  limits,
  collection
})

/** A field whose value is told to nobody. */
export const isSecret = (field: string): boolean => /^registries\..*\.(?:password|identityToken)$/.test(field)
