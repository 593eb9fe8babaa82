/**
 * The capabilities of Linux (capabilities(7)) as containers get them: which there are, which a container has when nobody says
 * otherwise, and what a spec makes of that.
 *
 * Traps: people write `NET_ADMIN`, `cap_net_admin` and `ALL`; {@link parse} reads all of these. A container can have no
 * capability that Ironwood itself lacks (it may run in a container): `all` means those that the host has, see {@link held}.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as fs from "node:fs/promises"

/** In the order of their numbers: the one at index 0 is bit 0 (linux/capability.h). */
export const names = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE"
] as const
export type Capability = (typeof names)[number]

/** Docker's: enough for what runs as root out of habit, and nothing that reaches the host. */
export const usual: ReadonlyArray<Capability> = [
  "CAP_AUDIT_WRITE",
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_MKNOD",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_RAW",
  "CAP_SETFCAP",
  "CAP_SETGID",
  "CAP_SETPCAP",
  "CAP_SETUID",
  "CAP_SYS_CHROOT"
]

/** One of them, or all. */
export const CapabilityOrAll = Schema.Literals([...names, "ALL"])
export type CapabilityOrAll = typeof CapabilityOrAll.Type

const isKnown = Schema.is(CapabilityOrAll)

/** As people write it. */
export const parse = (text: string): Option.Option<CapabilityOrAll> => {
  const upper = text.toUpperCase()
  return Option.liftPredicate(upper === "ALL" || upper.startsWith("CAP_") ? upper : `CAP_${upper}`, isKnown)
}

const unknown = (text: string) =>
  new SchemaIssue.InvalidValue(
    { message: "must be the name of a capability such as NET_ADMIN or CAP_NET_ADMIN, or ALL" },
    text
  )

/** A list of capabilities, each as people write it. */
export const List = Schema.Array(
  Schema.String.pipe(
    Schema.decodeTo(
      CapabilityOrAll,
      SchemaTransformation.transformEffect({
        decode: (text) => Effect.fromOption(parse(text)).pipe(Effect.mapError(() => unknown(text))),
        encode: (name) => Effect.succeed(name)
      })
    )
  )
).pipe(
  Schema.check(Schema.isMaxLength(64, { expected: "at most 64 capabilities" })),
  Schema.withConstructorDefault(Effect.succeed([])),
  Schema.withDecodingDefaultKey(Effect.succeed([]))
)

/** What a container has of what it was given (`add`) and denied (`drop`). One that is in both it has. */
export const granted = (
  base: ReadonlyArray<Capability>,
  add: ReadonlyArray<CapabilityOrAll>,
  drop: ReadonlyArray<CapabilityOrAll>
): ReadonlyArray<Capability> => {
  const isBase = new Set(base)
  return names.filter((name) => {
    if (add.includes(name)) return true
    if (drop.includes(name)) return false
    if (add.includes("ALL")) return true
    return isBase.has(name) && !drop.includes("ALL")
  })
}

/** Those that this process may hand on: its bounding set. */
export const held: Effect.Effect<ReadonlyArray<Capability>> = Effect.map(
  Effect.promise(() => fs.readFile("/proc/self/status", "latin1").catch(() => "")),
  (status) => {
    const mask = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)$/mu.exec(status)?.[1] ?? "0"}`)
    return names.filter((_, bit) => (mask >> BigInt(bit)) & 1n)
  }
)
