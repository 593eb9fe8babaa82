/**
 * Writes docs/machine-config.md and docs/machine-config.schema.json from the schema that the brain reads machine configs with. A
 * test holds them against each other. Usage: `scripts/node scripts/machine-config-page.ts`.
 */
import * as Schema from "effect/Schema"
import { writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { configSchema } from "../src/config/ConfigSchema.ts"
import { keptRevisions } from "../src/config/ConfigErrors.ts"
import { parameterOf } from "../src/config/Effective.ts"
import { type Reach, rowOf, takenEverywhere } from "../src/config/Reach.ts"
import { nameOf, usualSources } from "../src/host/ConfigSource.ts"

/** What of JSON Schema the table is made from. */
interface Node {
  readonly description?: string
  readonly type?: string
  readonly properties?: { readonly [name: string]: Node }
  readonly items?: Node
  readonly patternProperties?: { readonly [pattern: string]: Node }
  readonly anyOf?: ReadonlyArray<Node>
  readonly enum?: ReadonlyArray<string>
  readonly minimum?: number
  readonly maximum?: number
}
const Node: Schema.Codec<Node> = Schema.suspend(() =>
  Schema.Struct({
    description: Schema.optionalKey(Schema.String),
    type: Schema.optionalKey(Schema.String),
    properties: Schema.optionalKey(Schema.Record(Schema.String, Node)),
    items: Schema.optionalKey(Node),
    patternProperties: Schema.optionalKey(Schema.Record(Schema.String, Node)),
    anyOf: Schema.optionalKey(Schema.Array(Node)),
    enum: Schema.optionalKey(Schema.Array(Schema.String)),
    minimum: Schema.optionalKey(Schema.Finite),
    maximum: Schema.optionalKey(Schema.Finite)
  })
)

const typeOf = (node: Node): string => {
  if (node.enum !== undefined) return node.enum.map((value) => `\`${value}\``).join(" or ")
  if (node.items !== undefined) return `list of ${typeOf(node.items)}`
  if (node.patternProperties !== undefined) return "map of names to values"
  if (node.anyOf !== undefined) return [...new Set(node.anyOf.map(typeOf))].join(" or ")
  if (node.minimum !== undefined && node.maximum !== undefined) return `${node.minimum} to ${node.maximum}`
  return node.type === "string" ? "text" : (node.type ?? "text")
}

const reaches: Readonly<Record<Reach, string>> = {
  live: "at once",
  reboot: "at the next start",
  overridden: "",
  elsewhere: ""
}

/** The fields that are described, with their paths; a struct that is described by its own page is one field. */
const rows = (node: Node, path: string): ReadonlyArray<string> =>
  Object.entries(node.properties ?? {}).flatMap(([name, child]) => {
    const field = path === "" ? name : `${path}.${name}`
    const inner = rows(child, field)
    if (inner.length > 0) return inner
    if (child.description === undefined) return []
    const row = rowOf(field)
    const reach = row === undefined ? "" : reaches[row.reach]
    return [`| \`${field}\` | ${typeOf(child)} | ${child.description} | ${reach} | ${parameterOf(field)} |`]
  })

const table = (): string => rows(Schema.decodeUnknownSync(Node)(JSON.parse(configSchema())), "").join("\n")

export const page = (): string => `# Machine config

What a machine that boots into Ironwood is to be, as one document in YAML or JSON. Every field may be left out; then the machine
does what it would do without a config. The [kernel parameters](kernel-parameters.md) win where both say something.

\`\`\`yaml
# yaml-language-server: $schema=machine-config.schema.json
version: ironwood/v1
hostname: node-1
network:
  nameServers: [192.0.2.53]
  links:
    - { name: uplink, mac: 52:54:00:12:34:56, dhcp4: true, acceptRouterAdvertisements: true }
    - { name: storage, bond: { mode: active-backup, members: [eth1, eth2] }, mtu: 9000 }
    - name: storage.42
      vlan: { parent: storage, id: 42 }
      addresses: [192.0.2.9/24]
      gateways: [192.0.2.1]
      mtu: 9000
time:
  servers: [192.0.2.123]
kernel:
  sysctls: { vm.swappiness: 10 }
state:
  format: /dev/vda
\`\`\`

| field | takes | means | takes effect | kernel parameter that wins |
|---|---|---|---|---|
${table()}

An editor that knows JSON Schema checks a document against [machine-config.schema.json](machine-config.schema.json), which is also
what \`ironwood config schema\` prints. What Ironwood itself checks goes further, and tells everything that is wrong at once, each by
its field: a document that is wrong in one place changes nothing.

An Ironwood that is a process on a machine that is not its own (\`npm start\`) takes
${takenEverywhere()}, and refuses the rest.

## Where a machine has it from

\`ironwood.config=\` on the kernel command line says where. Without it, these are looked at in this order, and the first that is
there counts:

${usualSources.map((source, index) => `${index + 1}. \`${kernelWords[source._tag]}\`: ${nameOf(source)}`).join("\n")}

| \`ironwood.config=\` | where the document is | in QEMU |
|---|---|---|
| \`base64:BASE64\` | on the command line itself | |
| \`fw_cfg\` | QEMU's firmware configuration device | \`-fw_cfg name=opt/ironwood/config,file=machine.yaml\` |
| \`smbios\` | an OEM string (type 11) of the SMBIOS tables | \`-smbios type=11,value=ironwood.config=$(base64 -w0 machine.yaml)\` |
| \`blob\` | a disk whose content it is, with zeros behind it | \`-device virtio-blk-pci,drive=D,serial=ironwood-config\` |
| \`disk:LABEL\` | the file \`ironwood.yaml\` or \`ironwood.json\` on an ext4 or FAT with this label | |
| \`http://…\`, \`https://…\` | there; asked for until it answers, once the network is up | |
| \`none\` | nowhere | |

\`ironwood.config_digest=sha256:HEX\` (as \`sha256sum FILE\` prints it) is the digest that the document must have, wherever it comes
from. Over plain http whoever is on the way can write another document: say a digest there.

No source holds up the start. What is wrong with it, or that it does not answer, is told by \`ironwood tree\`, on the console and
by \`ironwood config get\`, each field by its name, and the last good config stays in force. What a source says counts when it is
new, so a change over the API is not undone at the next start by the document the machine was installed with.

\`state\` says on which disk everything is kept, so it counts only in a document that is there before the network.

## Changing it

\`\`\`console
$ ironwood config get > machine.yaml
$ ironwood config diff -f machine.yaml           # field by field, and when each change takes effect
$ ironwood config apply -f machine.yaml --try 60s
$ ironwood config confirm                        # or it goes back by itself
$ ironwood config patch 'hostname: node-2'       # JSON Merge Patch (RFC 7396), in JSON or YAML
$ ironwood config history                        # the newest ${keptRevisions} revisions
$ ironwood config apply --revision 3
\`\`\`

A change is a revision in the state directory before it takes effect. With \`--try\` the revision before holds again after that
time unless somebody confirms: also when you have cut yourself off, when Ironwood's brain dies meanwhile, and at once when the
machine is reset. [The state table](lifecycle/config.md) says what happens when.

Generated by \`scripts/machine-config-page.ts\` from \`src/config\`.
`

const kernelWords = {
  Inline: "base64:BASE64",
  FirmwareConfig: "fw_cfg",
  Smbios: "smbios",
  Blob: "blob",
  Disk: "disk:ironwoodcfg",
  Url: "http://…",
  None: "none"
} as const

/** The pages by their files. */
export const pages = (): ReadonlyMap<string, string> =>
  new Map([
    ["machine-config.md", page()],
    ["machine-config.schema.json", configSchema()]
  ])

export const directory = fileURLToPath(new URL("../docs", import.meta.url))

if (import.meta.main) for (const [file, text] of pages()) writeFileSync(`${directory}/${file}`, text)
