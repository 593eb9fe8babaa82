/**
 * What the kernel command line says to Ironwood: `ironwood.*`, and of what others have words for already, the kernel (`ip=`,
 * which Debian's kernels leave to user space) and dracut, those words. {@link table} is the documentation too: docs/kernel-parameters.md is made from it.
 *
 * Reading never fails. A machine with a typing mistake on its command line boots without what was meant and says so:
 * every word that is not understood becomes one of `problems`, with what it would have taken.
 *
 * Trap: whoever writes the command line owns the machine (it could say `rdinit=`), so nothing here is a border against
 * that person; with a signed image the command line is part of what is signed.
 */
import { isIP } from "node:net"
import { type ConfigSource, configValue, parseConfigSource } from "./ConfigSource.ts"
import { type BondParameter, parseBond, parseVlan, type VlanParameter } from "./DeviceParameters.ts"
import { type LinkParameter, parseIp } from "./IpParameter.ts"
import { endBytes, sample } from "./StateDisk.ts"

/** What it says, decoded. */
export interface KernelParameters {
  /** `ip=`, in the order in which they stand. */
  readonly links: ReadonlyArray<LinkParameter>
  readonly bonds: ReadonlyArray<BondParameter>
  readonly vlans: ReadonlyArray<VlanParameter>
  /** `nameserver=`. */
  readonly nameServers: ReadonlyArray<string>
  /** Where the API is served without authentication besides its unix socket, as `host:port`. */
  readonly listenInsecure: ReadonlyArray<string>
  /** The label of the disk that keeps the state, when one was named. */
  readonly state: string | undefined
  /** The device that is made into that disk when it is empty. */
  readonly stateFormat: string | undefined
  /** Addresses of time servers: those of `ironwood.ntp=`, else those of `ip=`. */
  readonly timeServers: ReadonlyArray<string>
  /** Serve the calls that make the brain fail. */
  readonly debug: boolean
  /** Where the machine config is, when it was said. */
  readonly config: ConfigSource | undefined
  /** The digest that it must have, as `sha256:HEX`. */
  readonly configDigest: string | undefined
  /** The host's name: `hostname=`, or that of an `ip=`. */
  readonly hostname: string | undefined
  /** The word that says what the console shows of the kernel's log. */
  readonly consoleLevel: string | undefined
  /** Names of the kernel settings that it sets itself (`sysctl.NAME=`), with dots. */
  readonly sysctls: ReadonlySet<string>
  /** What was not understood, each a sentence. */
  readonly problems: ReadonlyArray<string>
}

/** A word and its value; a word without `=` has none. */
interface Word {
  readonly name: string
  readonly value: string | undefined
}

/** Splits as the kernel does: blanks outside double quotes; what stands after `--` is init's. */
export const words = (commandLine: string): ReadonlyArray<Word> => {
  const found: Array<Word> = []
  for (const [text] of commandLine.matchAll(/(?:[^\s"]|"[^"]*(?:"|$))+/g)) {
    if (text === "--") break
    const plain = text.replaceAll('"', "")
    const equals = plain.indexOf("=")
    found.push(
      equals < 0 ? { name: plain, value: undefined } : { name: plain.slice(0, equals), value: plain.slice(equals + 1) }
    )
  }
  return found
}

/** What a parameter makes of what was known so far; a string is the problem with its value. */
type Read = (value: string, known: KernelParameters) => KernelParameters | string

interface Row {
  readonly name: string
  readonly value: string
  readonly means: string
  readonly read: Read
}

const flag =
  (key: "debug"): Read =>
  (value, known) =>
    value === "1" || value === "0" ? { ...known, [key]: value === "1" } : "takes 0 or 1"

const hostAndPort = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/

/** All parameters, in the order of the page. */
export const table: ReadonlyArray<Row> = [
  {
    name: "ip",
    value: "`ADDRESS::GATEWAY:NETMASK:HOSTNAME:DEVICE:HOW[:DNS[:DNS[:NTP]]]`, `DEVICE:HOW[:MTU]` or `HOW`",
    means:
      "What a link is to have, as the kernel and dracut have it; may be repeated, also for one device. `NETMASK` is a mask or a " +
      "prefix length; IPv6 addresses stand in brackets. `HOW` is `none` (an address that is written out), `dhcp` (also `on`, " +
      "`any`), `dhcp6` (DHCPv6, and routers' advertisements), `auto6` (advertisements alone), `either6` or `link6`. Without " +
      "`DEVICE` an address is that of the first link there is, and the others are for each. `DNS` are servers to ask for names " +
      "and `NTP` is a time server, all by their addresses. Without any `ip`, and without a " +
      "machine configuration, no link is touched.",
    read: (value, known) => {
      const link = parseIp(value)
      return typeof link === "string" ? link : { ...known, links: [...known.links, link] }
    }
  },
  {
    name: "bond",
    value: "`NAME:DEVICE[,DEVICE][:mode=MODE[:MTU]]`",
    means:
      "Makes one link of several, as dracut has it; may be repeated. `MODE` is the kernel's name, default `active-backup`.",
    read: (value, known) => {
      const bond = parseBond(value)
      return typeof bond === "string" ? bond : { ...known, bonds: [...known.bonds, bond] }
    }
  },
  {
    name: "vlan",
    value: "`NAME:DEVICE`",
    means:
      "Makes a link of a VLAN of another one, as dracut has it; may be repeated. `NAME` ends with the VLAN's number, like `eth0.42` or `vlan42`.",
    read: (value, known) => {
      const vlan = parseVlan(value)
      return typeof vlan === "string" ? vlan : { ...known, vlans: [...known.vlans, vlan] }
    }
  },
  {
    name: "nameserver",
    value: "an address",
    means: "A server to ask for names, before those that links bring; may be repeated.",
    read: (value, known) =>
      isIP(value) === 0
        ? "takes the address of a name server, like 192.0.2.53 or 2001:db8::53"
        : { ...known, nameServers: [...new Set([...known.nameServers, value])] }
  },
  {
    name: "ironwood.listen_insecure",
    value: "`ADDRESS:PORT`",
    means:
      "Serves the API on TCP, too, **to anybody who can reach it**, without authentication or encryption: for tests and " +
      "closed networks. May be repeated. Without it the API is on `/run/ironwood/ironwood.sock` only.",
    read: (value, known) => {
      const [, six, four, port] = hostAndPort.exec(value) ?? []
      const host = six ?? four ?? ""
      return isIP(host) === (six === undefined ? 4 : 6) && Number(port) > 0 && Number(port) < 65_536
        ? { ...known, listenInsecure: [...new Set([...known.listenInsecure, value])] }
        : "takes an address and a port, like 192.0.2.1:50051 or [2001:db8::1]:50051"
    }
  },
  {
    name: "ironwood.state",
    value: "a label",
    means:
      "The label of the ext4 file system that keeps the state of this machine, waited for up to 5 seconds. Default: " +
      "`ironwood-state` where there is one, else memory, which the tree says.",
    read: (value, known) =>
      /^[\x21-\x7e]{1,16}$/.test(value) ? { ...known, state: value } : "takes the label of an ext4, 1 to 16 characters"
  },
  {
    name: "ironwood.state_format",
    value: "a device, like `/dev/vda`",
    means:
      "Makes this disk the one that keeps the state, if none has the label yet and nothing but zeros is found on this one, in " +
      `the ${endBytes / 1024 / 1024} MiB at each of its ends and in ${sample.pieces} samples between (a smaller disk is read ` +
      "wholly). A disk with anything on it is left alone.",
    read: (value, known) =>
      /^\/dev\/[a-z0-9]{1,32}$/.test(value) ? { ...known, stateFormat: value } : "takes a device, like /dev/vda"
  },
  {
    name: "ironwood.ntp",
    value: "`ADDRESS[,ADDRESS]`",
    means:
      "Time servers, asked in this order until one answers. Default: those of `ip`; without any the real-time clock is believed.",
    read: (value, known) => {
      const servers = value.split(",")
      return servers.every((server) => isIP(server) !== 0)
        ? { ...known, timeServers: servers }
        : "takes addresses of time servers, like 192.0.2.123,2001:db8::123"
    }
  },
  {
    name: "ironwood.config",
    value: configValue,
    means:
      "Where the [machine config](machine-config.md) is. Default: the first of `fw_cfg`, `smbios`, `blob` and " +
      "`disk:ironwoodcfg` that is there.",
    read: (value, known) => {
      const config = parseConfigSource(value)
      return typeof config === "string" ? config : { ...known, config }
    }
  },
  {
    name: "ironwood.config_digest",
    value: "`sha256:HEX`",
    means: "The digest that the machine config must have, wherever it comes from; another one is refused.",
    read: (value, known) =>
      /^sha256:[0-9a-f]{64}$/.test(value)
        ? { ...known, configDigest: value }
        : "takes sha256: and 64 hexadecimal digits, as `sha256sum FILE` prints them"
  },
  {
    name: "ironwood.debug",
    value: "`0` or `1`",
    means: "Serves `ironwood.v1.DebugService`, whose calls make the brain crash, hang or run out of memory. For tests.",
    read: flag("debug")
  }
]

const nothing: KernelParameters = {
  links: [],
  bonds: [],
  vlans: [],
  nameServers: [],
  listenInsecure: [],
  state: undefined,
  stateFormat: undefined,
  timeServers: [],
  debug: false,
  config: undefined,
  configDigest: undefined,
  hostname: undefined,
  consoleLevel: undefined,
  sysctls: new Set(),
  problems: []
}

const noted = (known: KernelParameters, problem: string): KernelParameters => ({
  ...known,
  problems: [...known.problems, problem]
})

/** What the kernel takes from its command line itself, as far as the machine config could say something else. */
const ofKernel = (all: ReadonlyArray<Word>): Pick<KernelParameters, "consoleLevel" | "hostname" | "sysctls"> => ({
  hostname: all.findLast(({ name }) => name === "hostname")?.value,
  consoleLevel: all.findLast(({ name }) => ["loglevel", "quiet", "debug", "ignore_loglevel"].includes(name))?.name,
  sysctls: new Set(
    all
      .filter(({ name }) => name.startsWith("sysctl."))
      .map(({ name }) => name.slice("sysctl.".length).replaceAll("/", "."))
  )
})

const ofIronwood = (all: ReadonlyArray<Word>): KernelParameters =>
  all.reduce((known, { name, value }) => {
    // the kernel takes both for the same
    const asked = name.replaceAll("-", "_")
    const row = table.find((candidate) => candidate.name === asked)
    if (row === undefined) {
      return asked.startsWith("ironwood.")
        ? noted(known, `${name} is unknown and ignored; is it a typing mistake?`)
        : known
    }
    const read = value === undefined ? "has no value" : row.read(value, known)
    return typeof read === "string" ? noted(known, `${name}=${value ?? ""} is ignored: it ${read}`) : read
  }, nothing)

/** Reads a command line. */
export const parse = (commandLine: string): KernelParameters => {
  const all = words(commandLine)
  const known = ofIronwood(all)
  const kernel = ofKernel(all)
  const ofLinks = known.links.flatMap(({ timeServer }) => (timeServer === undefined ? [] : [timeServer]))
  return {
    ...known,
    ...kernel,
    hostname: kernel.hostname ?? known.links.find((link) => link.hostname)?.hostname,
    timeServers: known.timeServers.length > 0 ? known.timeServers : [...new Set(ofLinks)]
  }
}
