/** `bond=` and `vlan=` of the kernel command line: devices that are made of others, in the syntax of dracut.cmdline(7). */

/** `bond=NAME:MEMBER[,MEMBER][:mode=MODE[:MTU]]`. */
export interface BondParameter {
  readonly name: string
  readonly members: ReadonlyArray<string>
  readonly mode: string
  readonly mtu: number | undefined
}

/** `vlan=NAME:PARENT`, whose number is at the end of its name. */
export interface VlanParameter {
  readonly name: string
  readonly parent: string
  readonly id: number
}

export const isDevice = (text: string): boolean => /^[^/\s:]{1,15}$/.test(text)

/** The bond, or what is wrong with it, to be put after "it ". */
export const parseBond = (value: string): BondParameter | string => {
  const [name = "", list = "", options = "", mtu = "", ...more] = value.split(":")
  const members = list.split(",")
  if (!isDevice(name) || !members.every(isDevice) || more.length > 0) {
    return "takes a name and devices, like bond0:eth0,eth1:mode=active-backup"
  }
  const [, mode = "active-backup"] = /^mode=([a-z0-9.-]+)$/.exec(options) ?? []
  if (options !== "" && options !== `mode=${mode}`) return `has other options than a mode, "${options}"`
  if (mtu !== "" && !/^\d{3,5}$/.test(mtu)) return `has an MTU that is none, "${mtu}"`
  return { name, members, mode, mtu: mtu === "" ? undefined : Number(mtu) }
}

/** The VLAN, or what is wrong with it, to be put after "it ". */
export const parseVlan = (value: string): VlanParameter | string => {
  const [name = "", parent = "", ...more] = value.split(":")
  const [, digits = "0"] = /(?:\.|^vlan)(\d{1,4})$/.exec(name) ?? []
  const id = Number(digits)
  return isDevice(name) && isDevice(parent) && more.length === 0 && id >= 1 && id <= 4094
    ? { name, parent, id }
    : "takes a name that ends with the number of the VLAN, 1 to 4094, and a device, like eth0.42:eth0 or vlan42:eth0"
}
