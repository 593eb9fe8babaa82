/**
 * The machine config: one versioned document that says what a machine is to be. Its schema decodes what people write, is the
 * JSON Schema for their editors, and the table in docs/machine-config.md.
 *
 * Every field may be left out, and then the machine does what it would do without a config. A config is kept as the JSON that was
 * written, without the defaults that the schema fills in, so it can be compared, patched and written again.
 *
 * Traps: a field belongs here only when something does what it says (`Effective.ts` is where that begins). A new field needs
 * its line in `Reach.ts`, which says how it takes effect; a test asks for it.
 */
import * as Schema from "effect/Schema"
import { isIP, isIPv4, isIPv6 } from "node:net"
import { ImagesDocument, RegistriesDocument } from "./ImagesDocument.ts"
import { NetworkDocument } from "../network/NetworkConfig.ts"

/** What the field `version` must say. */
export const version = "ironwood/v1"

const list = <S extends Schema.Top>(item: S, most: number) =>
  Schema.Array(item).pipe(Schema.check(Schema.isMaxLength(most, { expected: `at most ${most} of them` })))

const text = (pattern: RegExp, expected: string) =>
  Schema.String.pipe(Schema.check(Schema.isPattern(pattern, { expected })))

const between = (minimum: number, maximum: number) =>
  Schema.Int.pipe(
    Schema.check(Schema.isBetween({ minimum, maximum }, { expected: `a whole number from ${minimum} to ${maximum}` }))
  )

/** An IP address. */
const Address = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter((address: string) => (isIP(address) === 0 ? "Expected an IP address" : undefined), {
      toJsonSchema: () => [{ anyOf: [{ format: "ipv4" }, { format: "ipv6" }] }, true]
    })
  )
)

const hostAndPort = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/u

/** Whether this is an address and a port, as in `192.0.2.1:50051` or `[2001:db8::1]:50051`. */
export const isEndpoint = (endpoint: string): boolean => {
  const [, six, four, port] = hostAndPort.exec(endpoint) ?? []
  return Number(port) > 0 && Number(port) < 65_536 && (six === undefined ? isIPv4(four ?? "") : isIPv6(six))
}

const Endpoint = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter(
      (endpoint: string) =>
        isEndpoint(endpoint)
          ? undefined
          : "Expected an address and a port, like 192.0.2.1:50051 or [2001:db8::1]:50051",
      { toJsonSchema: () => [{ pattern: hostAndPort.source }, true] }
    )
  )
)

const Hostname = text(
  /^(?=.{1,64}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?)*$/u,
  "a host name: at most 64 letters, digits, hyphens and dots"
)

const SysctlName = text(
  /^[a-z][a-z0-9_-]*(?:[./][A-Za-z0-9_:-]+)+$/u,
  "the name of a kernel setting, like vm.swappiness"
)

const SysctlValue = Schema.Union([
  Schema.Int,
  text(/^[\x20-\x7e\t]{0,512}$/u, "a number, or a text of one line with at most 512 characters")
])

const Time = Schema.Struct({
  servers: Schema.optionalKey(list(Address, 8)).annotate({
    description: "Addresses of time servers (SNTP), asked in this order until one answers. None: the clock is believed."
  })
})

const Parameters = Schema.Record(
  text(/^[A-Za-z][A-Za-z0-9_.-]{0,63}$/u, "the name of a parameter"),
  Schema.Union([
    Schema.Int,
    Schema.Boolean,
    text(/^[\x21\x23-\x7e]{0,256}$/u, "a number, true, false, or a word of at most 256 characters without quotes")
  ])
)

const Module = Schema.Struct({
  name: text(/^[A-Za-z0-9_-]{1,64}$/u, "the name of a kernel module"),
  parameters: Schema.optionalKey(Parameters)
})

const Kernel = Schema.Struct({
  modules: Schema.optionalKey(list(Module, 64)).annotate({
    description:
      "Modules that are loaded, each a `name` and `parameters` by name, with what they depend on. The image must carry " +
      "them. One that is taken out stays until the machine starts the next time."
  }),
  sysctls: Schema.optionalKey(
    Schema.Record(SysctlName, SysctlValue).pipe(
      Schema.check(Schema.isMaxProperties(512, { expected: "at most 512 settings" }))
    )
  ).annotate({
    description:
      "Settings below /proc/sys, by name. They come on top of Ironwood's own. One that is taken out goes back to what it was."
  }),
  consoleLevel: Schema.optionalKey(between(1, 8)).annotate({
    description:
      "The console shows messages of the kernel that are more urgent than this (`dmesg -n`); 1 shows emergencies."
  })
})

const State = Schema.Struct({
  label: Schema.optionalKey(text(/^[\x21-\x7e]{1,16}$/u, "the label of an ext4, 1 to 16 characters")).annotate({
    description: "Label of the ext4 file system that keeps the state."
  }),
  format: Schema.optionalKey(text(/^\/dev\/[a-z0-9]{1,32}$/u, "a device, like /dev/vda")).annotate({
    description:
      "A disk that is made into the one that keeps the state, if none has the label yet and this one is empty."
  })
})

const Api = Schema.Struct({
  listenInsecure: Schema.optionalKey(list(Endpoint, 16)).annotate({
    description:
      "Where the API is served on TCP **to everybody who can reach it**, without authentication, besides its unix socket."
  })
})

const Watchdog = Schema.Struct({
  timeoutSeconds: Schema.optionalKey(between(10, 3600)).annotate({
    description: "The hardware resets the machine when taproot has not fed it for so long. Default: 30."
  }),
  patienceSeconds: Schema.optionalKey(between(10, 86_400)).annotate({
    description: "taproot does not feed it any more when no brain has been heard for so long. Default: 600."
  })
})

const Restarts = Schema.Struct({
  perSecond: Schema.optionalKey(between(1, 100_000)).annotate({
    description: "Restarts per second of all actors together, in the long run. Default: 5 per processor."
  }),
  burst: Schema.optionalKey(between(1, 1_000_000)).annotate({
    description: "Restarts at once after a quiet time. Default: 50 per processor."
  })
})

const PublicKey = text(/^[A-Za-z0-9+/]{43}=$/u, "an Ed25519 public key: the base64 of its 32 bytes")

const Upgrade = Schema.Struct({
  keys: Schema.optionalKey(list(PublicKey, 16)).annotate({
    description:
      "Public keys, as `ironwood upgrade keygen` prints them. A brain that is sent must be signed with one of them. None: its " +
      "digest is enough."
  }),
  whenBrainFails: Schema.optionalKey(Schema.Literals(["wait", "reboot"])).annotate({
    description:
      "What the rescue brain does when no brain could keep itself up: `wait` for a person and let the ordinary one try again " +
      "every 5 minutes (the default), or `reboot` the machine after the first 5 minutes, which ends its workloads; at most as often " +
      "as restart policies may. A machine whose boot loader still counts the tries of its image reboots in either case, so that the " +
      "loader goes back to the image before."
  })
})

const HostPath = text(
  /^\/(?:(?!\.{1,2}(?:\/|$))[^/\p{Cc}]+(?:\/(?!\.{1,2}(?:\/|$))[^/\p{Cc}]+)*)?$/u,
  "an absolute path without . and .., like /srv/data"
)

const Containers = Schema.Struct({
  allowPrivileged: Schema.optionalKey(Schema.Boolean).annotate({
    description:
      "Whether a container may be made that asks for more than containers usually have: `privileged`, further capabilities, " +
      "no filter of system calls. **Whoever may call the API is then root of this machine.** Those that are there stay as " +
      "they are. Default: false."
  }),
  allowMounts: Schema.optionalKey(
    list(Schema.Struct({ path: HostPath, readOnly: Schema.optionalKey(Schema.Boolean) }), 64)
  ).annotate({
    description:
      "Directories and files of the host that containers may have, with what is in them: `path`, and `readOnly` for those that they " +
      "may only read. Looked at when a container is made and at each of its starts; below `path` no symbolic link is followed. " +
      "**Whoever may call the API then reads and writes what is there.** Default: none."
  }),
  allowDevices: Schema.optionalKey(
    list(text(/^\/dev\/[A-Za-z0-9._/-]{1,128}$/u, "a device file, like /dev/kvm"), 64)
  ).annotate({ description: "Device files of the host that containers may have, like `/dev/kvm`. Default: none." })
})

export const MachineConfig = Schema.Struct({
  version: Schema.Literal(version).annotate({ description: "Of this document's format." }),
  hostname: Schema.optionalKey(Hostname).annotate({ description: "What the machine calls itself." }),
  time: Schema.optionalKey(Time).annotate({ description: "Where the time comes from." }),
  kernel: Schema.optionalKey(Kernel).annotate({ description: "What the kernel is told." }),
  network: Schema.optionalKey(NetworkDocument).annotate({
    description:
      "How the machine is reached. A field that is left out is what the kernel command line says, if it does."
  }),
  state: Schema.optionalKey(State).annotate({ description: "The disk that keeps the state of the machine." }),
  api: Schema.optionalKey(Api).annotate({ description: "Where Ironwood can be reached." }),
  watchdog: Schema.optionalKey(Watchdog).annotate({ description: "What resets a machine that hangs." }),
  upgrade: Schema.optionalKey(Upgrade).annotate({
    description: "Who may bring another brain, and what happens when none can keep itself up."
  }),
  registries: Schema.optionalKey(RegistriesDocument).annotate({ description: "Where images are pulled from." }),
  images: Schema.optionalKey(ImagesDocument).annotate({ description: "What of images is taken and kept." }),
  containers: Schema.optionalKey(Containers).annotate({ description: "What containers may ask for." }),
  restarts: Schema.optionalKey(Restarts).annotate({
    description: "The limit on restarts of the whole tree, so that a storm of crashes does not starve the host."
  })
}).annotate({ title: "Ironwood machine config", description: "What a machine that boots into Ironwood is to be." })
/** As it is written: what the schema fills in is left out. */
export type MachineConfig = typeof MachineConfig.Encoded

/** A config that says nothing. */
export const empty: MachineConfig = { version }
