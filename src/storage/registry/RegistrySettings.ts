/**
 * How registries are reached: what the machine config says in `registries`, and what is assumed where it says nothing.
 *
 * Plain HTTP is spoken to this machine itself (loopback), and elsewhere only where it is configured: an answer that came in the
 * clear may be anybody's, though every byte of an image is checked against its digest.
 */
import { isIPv4 } from "node:net"

/** Who we are to a registry. */
export interface Credentials {
  readonly username: string
  readonly password: string
  /** A refresh token (`identitytoken` of Docker's config.json), which a token server takes instead of a password. */
  readonly identityToken?: string
}

/** What is configured for one registry. */
export interface RegistryHost {
  /** Base addresses that are asked first, in this order. */
  readonly mirrors: ReadonlyArray<string>
  /** Undefined: only when it is on loopback. */
  readonly plainHttp: boolean | undefined
  /** PEM; trusted besides the usual authorities. */
  readonly certificateAuthority: string | undefined
  readonly credentials: Credentials | undefined
}

export interface RegistrySettings {
  readonly hosts: Readonly<Record<string, RegistryHost>>
  readonly proxy: { readonly http?: string; readonly https?: string; readonly none: ReadonlyArray<string> } | undefined
  /** How long a registry may be silent. */
  readonly timeoutSeconds: number
  /** How often a request is made that fails in a way that may pass; of a mirror, twice at most. */
  readonly tries: number
}

/** Registries that answer within seconds, and a network that drops a packet now and then. */
export const usualTimeoutSeconds = 30
/** With the waits between them about 8 seconds. */
export const usualTries = 6

/** What holds where nothing is configured; proxies are those of the environment. */
export const usualSettings: RegistrySettings = {
  hosts: {},
  proxy: undefined,
  timeoutSeconds: usualTimeoutSeconds,
  tries: usualTries
}

const nothing: RegistryHost = {
  mirrors: [],
  plainHttp: undefined,
  certificateAuthority: undefined,
  credentials: undefined
}

export const hostOf = (settings: RegistrySettings, registry: string): RegistryHost =>
  settings.hosts[registry] ?? nothing

/** Whether this is the name or an address of this machine itself; with or without a port. */
export const isLoopback = (hostAndPort: string): boolean => {
  const host = hostAndPort.replace(/:\d+$/, "").replace(/^\[|\]$/g, "")
  return host === "localhost" || host === "::1" || (isIPv4(host) && host.startsWith("127."))
}

/** An address inside the machine or the link: no registry elsewhere has business to send us there. */
export const isInside = (host: string): boolean => {
  const plain = host.replace(/^\[|\]$/g, "").toLowerCase()
  return (
    isLoopback(plain) ||
    plain.startsWith("169.254.") ||
    /^fe[89ab]/.test(plain) ||
    plain === "0.0.0.0" ||
    plain === "::"
  )
}

/** One place that may have the image. */
export interface Endpoint {
  /** What it is called in errors and in the config. */
  readonly name: string
  /** Up to and without `/v2/`; no slash at its end. */
  readonly base: string
  readonly certificateAuthority: string | undefined
  readonly credentials: Credentials | undefined
}

/** docker.io is a name only; its API answers elsewhere. */
const addressOf = (registry: string): string => (registry === "docker.io" ? "registry-1.docker.io" : registry)

/** Where to ask for the images of a registry: its mirrors, then itself. `given`: credentials for it that came with a request. */
export const endpoints = (
  settings: RegistrySettings,
  registry: string,
  given: Credentials | undefined
): ReadonlyArray<Endpoint> => {
  const host = hostOf(settings, registry)
  const plain = host.plainHttp ?? isLoopback(registry)
  return [
    ...host.mirrors.map((mirror): Endpoint => {
      const base = mirror.replace(/\/+$/, "")
      const name = base.replace(/^https?:\/\//, "")
      const configured = hostOf(settings, name)
      return { name, base, certificateAuthority: configured.certificateAuthority, credentials: configured.credentials }
    }),
    {
      name: registry,
      base: `${plain ? "http" : "https"}://${addressOf(registry)}`,
      certificateAuthority: host.certificateAuthority,
      credentials: given ?? host.credentials
    }
  ]
}
