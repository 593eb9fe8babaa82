/**
 * The flags of `ironwood run` that put something into a container's file system, in docker's words: `--volume`, `--mount`,
 * `--tmpfs`, `--device`, `--secret`.
 *
 * A source with a slash is a path of the host, which the machine config must allow; without, it is the name of a volume.
 */
import * as Result from "effect/Result"
import { parseBytes } from "./Quantity.ts"

export interface Bind {
  readonly source: string
  readonly target: string
  readonly readOnly: boolean
  /** podman's `idmap`. */
  readonly mapIds: boolean
}

export interface Volume {
  readonly name: string
  readonly target: string
  readonly readOnly: boolean
}

export type Tmpfs = readonly [string, { readonly sizeBytes?: bigint }]

/** What `--volume` can ask for. */
export type Source = { readonly bind: Bind } | { readonly volume: Volume }

/** What `--mount` can ask for. */
export type Mount = Source | { readonly tmpfs: Tmpfs }

const sourceOf = (source: string, target: string, readOnly: boolean, mapIds: boolean): Source =>
  source.includes("/") ? { bind: { source, target, readOnly, mapIds } } : { volume: { name: source, target, readOnly } }

/** `data:/data`, `/srv/data:/data`, either with `:ro`, the latter with `:idmap` too. */
export const parseVolume = (text: string): Result.Result<Source, string> => {
  const [source = "", target = "", words = "", ...rest] = text.split(":")
  const options = words === "" ? [] : words.split(",")
  if (target === "" && source.startsWith("/")) {
    return Result.fail(`a name before the path, as in data:${source}: a volume without one nobody would find again`)
  }
  const label = options.find((option) => option === "z" || option === "Z")
  if (label !== undefined) return Result.fail(`no :${label}: files have no SELinux labels here`)
  const known = options.every((option) => ["ro", "rw", "idmap"].includes(option))
  if (source === "" || target === "" || rest.length > 0 || !known) {
    return Result.fail("a volume or a path of the host, as in data:/data, /srv/data:/data or data:/data:ro")
  }
  return source.startsWith(".") || source.startsWith("~")
    ? Result.fail(`a path from / on, not ${source}: the host that runs it need not be this one`)
    : Result.succeed(sourceOf(source, target, options.includes("ro"), options.includes("idmap")))
}

/** `/tmp`, `/tmp:size=16m`; docker's other options of tmpfs are told to be none. */
export const parseTmpfs = (text: string): Result.Result<Tmpfs, string> => {
  const [path = "", options] = text.split(":", 2)
  if (options === undefined || options === "") return Result.succeed([path, {}])
  const size = /^size=(.+)$/.exec(options)?.[1]
  if (size === undefined) return Result.fail(`a path, or a path and its size as in ${path}:size=16MiB`)
  return Result.map(parseBytes(size), (sizeBytes) => [path, { sizeBytes }] as const)
}

const keys: Readonly<Record<string, string>> = {
  type: "type",
  source: "source",
  src: "source",
  target: "target",
  dst: "target",
  destination: "target",
  readonly: "readonly",
  ro: "readonly",
  "tmpfs-size": "tmpfs-size",
  idmap: "idmap"
}

/** `type=bind,source=/srv/data,target=/data,readonly`, `type=volume,source=data,target=/data` or `type=tmpfs,target=/tmp,tmpfs-size=16m`. */
export const parseMount = (text: string): Result.Result<Mount, string> => {
  const usage =
    "type=volume,source=NAME,target=PATH[,readonly], type=bind,source=PATH,target=PATH[,readonly] or type=tmpfs,target=PATH[,tmpfs-size=SIZE]"
  const given = new Map<string, string>()
  for (const part of text.split(",")) {
    const [, name = "", value = "true"] = /^([^=]*)(?:=(.*))?$/.exec(part) ?? []
    const key = keys[name]
    if (key === undefined) return Result.fail(usage)
    given.set(key, value)
  }
  const { idmap = "false", readonly = "false", source = "", target = "", type = "bind" } = Object.fromEntries(given)
  const size = given.get("tmpfs-size")
  if (type === "tmpfs" && target !== "" && source === "") {
    if (size === undefined) return Result.succeed({ tmpfs: [target, {}] })
    return Result.map(parseBytes(size), (sizeBytes) => ({ tmpfs: [target, { sizeBytes }] }))
  }
  if (!["bind", "volume"].includes(type) || size !== undefined || !["true", "false"].includes(readonly))
    return Result.fail(usage)
  const isNamed = type === "volume" && source !== "" && !source.includes("/")
  return target !== "" && (isNamed || (type === "bind" && source.startsWith("/")))
    ? Result.succeed(sourceOf(source, target, readonly === "true", idmap === "true"))
    : Result.fail(usage)
}

/** `/dev/kvm`, `/dev/kvm:/dev/kvm:rw`. */
export const parseDevice = (
  text: string
): Result.Result<{ readonly path: string; readonly target: string; readonly access: string }, string> => {
  const [path = "", second = "", third = "", ...rest] = text.split(":")
  const isAccess = /^[rwm]+$/.test(second) && third === ""
  const [target, access] = isAccess ? ["", second] : [second, third]
  return path.startsWith("/") && rest.length === 0 && (target === "" || target.startsWith("/"))
    ? Result.succeed({ path, target, access })
    : Result.fail("a device, as in /dev/kvm, /dev/kvm:rw or /dev/kvm:/dev/inside:rw")
}

/** `token`, `token:/etc/token`. */
export const parseSecret = (
  text: string
): Result.Result<{ readonly name: string; readonly target: string }, string> => {
  const [name = "", target = "", ...rest] = text.split(":")
  return name !== "" && rest.length === 0 && (target === "" || target.startsWith("/"))
    ? Result.succeed({ name, target })
    : Result.fail("a secret, and where its file is when not in /run/secrets: token, or token:/etc/token")
}
