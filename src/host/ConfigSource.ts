/** Where the machine config of this machine is, as the kernel command line says it (`ironwood.config=`). */

export type ConfigSource =
  /** On the command line itself. */
  | { readonly _tag: "Inline"; readonly bytes: Uint8Array }
  /** QEMU's firmware configuration device: `-fw_cfg name=opt/ironwood/config,file=FILE`. */
  | { readonly _tag: "FirmwareConfig" }
  /** An OEM string of the SMBIOS tables: `-smbios type=11,value=ironwood.config=BASE64`. */
  | { readonly _tag: "Smbios" }
  /** A disk that is the document: `-device virtio-blk-pci,drive=D,serial=ironwood-config`. */
  | { readonly _tag: "Blob" }
  /** The file `ironwood.yaml` on the disk with this label. */
  | { readonly _tag: "Disk"; readonly label: string }
  | { readonly _tag: "Url"; readonly url: string }
  /** Nowhere: what is found is not looked at. */
  | { readonly _tag: "None" }

/** The syntax, for the page. */
export const configValue =
  "`base64:BASE64`, `fw_cfg`, `smbios`, `blob`, `disk:LABEL`, `http://…`, `https://…` or `none`"

/** The label of the disk that is looked for when nobody says another: eleven characters, all that FAT has room for. */
export const usualLabel = "ironwoodcfg"

/** Where it is looked for when nobody says, in this order; the first that is there counts. */
export const usualSources: ReadonlyArray<ConfigSource> = [
  { _tag: "FirmwareConfig" },
  { _tag: "Smbios" },
  { _tag: "Blob" },
  { _tag: "Disk", label: usualLabel }
]

/** What a person calls it. */
export const nameOf = (source: ConfigSource): string => {
  switch (source._tag) {
    case "Inline":
      return "the kernel command line"
    case "FirmwareConfig":
      return "fw_cfg opt/ironwood/config"
    case "Smbios":
      return "the SMBIOS string ironwood.config"
    case "Blob":
      return "the disk with the serial ironwood-config"
    case "Disk":
      return `ironwood.yaml on the disk ${source.label}`
    case "Url":
      return source.url
    case "None":
      return "nowhere"
  }
}

const words: ReadonlyMap<string, ConfigSource> = new Map([
  ["fw_cfg", { _tag: "FirmwareConfig" }],
  ["smbios", { _tag: "Smbios" }],
  ["blob", { _tag: "Blob" }],
  ["none", { _tag: "None" }]
])

/** Base64 of standard or URL alphabet, or undefined. */
export const fromBase64 = (text: string): Uint8Array | undefined =>
  /^[A-Za-z0-9+/_-]+={0,2}$/.test(text) ? Buffer.from(text, "base64") : undefined

/** The source, or what is wrong with it, to be put after "it ". */
export const parseConfigSource = (value: string): ConfigSource | string => {
  const word = words.get(value)
  if (word !== undefined) return word
  const [, kind, rest = ""] = /^(base64|disk|https?):(.+)$/.exec(value) ?? []
  if (kind === "base64") {
    const bytes = fromBase64(rest)
    return bytes === undefined ? "holds something else than base64" : { _tag: "Inline", bytes }
  }
  if (kind === "disk") {
    return /^[\x21-\x7e]{1,16}$/.test(rest) ? { _tag: "Disk", label: rest } : "has no label of 1 to 16 characters"
  }
  if (kind !== undefined && URL.canParse(value)) return { _tag: "Url", url: value }
  return "takes base64:BASE64, fw_cfg, smbios, blob, disk:LABEL, a URL with http or https, or none"
}
