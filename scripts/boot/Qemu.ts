/**
 * The virtual machine that an image is tried in: QEMU's command line, and which accelerator works here.
 *
 * The guest sees one network card on QEMU's user network, which reaches nothing (`restrict=on`) but for one port of the
 * host's loopback that leads to the API.
 *
 * Trap: a /dev/kvm that can be opened is no proof that a kernel runs on it (nested virtualization, missing CPU features),
 * so {@link accelerator} boots the kernel and waits for its first words.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { accessSync, constants } from "node:fs"
import { createServer } from "node:net"
import { taprootFile } from "../image.ts"
import type { CpioEntry } from "../image/Cpio.ts"

export type Accelerator = "kvm" | "tcg"

export interface Machine {
  readonly kernel: string
  readonly initramfs: string
  /** Boots this disk by UEFI, with Secure Boot once keys are enrolled, instead of the kernel. */
  readonly firmware?: {
    readonly disk: string
    /** The firmware's variables: a copy of {@link freshVariables}, which it changes. */
    readonly variables: string
  }
  /** Boots what this directory's `ironwood.ipxe` says, by PXE and TFTP, instead of the kernel: see `Netboot.ts`. */
  readonly netboot?: string
  /** More for the kernel command line. */
  readonly parameters?: ReadonlyArray<string>
  readonly accelerator: Accelerator
  /** Default 768. */
  readonly memoryMiB?: number
  /** Default 2. */
  readonly processors?: number
  /** Of the host's loopback: leads to the API of the guest. Without it there is no network. */
  readonly port?: number
  /** A program that is run for each connection to {@link served}, with the connection as its input and output. */
  readonly serve?: string
  /**
   * How the guest gets its address: as parameters of its kernel, the default; by DHCP from QEMU's user network; or with all
   * else that makes the API reachable from its machine config ({@link networkConfig}).
   */
  readonly addresses?: "written" | "dhcp" | "config"
  /** The kernel's console, one of a kind: default ttyS0, QEMU's standard input and output. */
  readonly console?: string
  /** More of QEMU's own arguments. */
  readonly more?: ReadonlyArray<string>
}

/** For a machine that has machines itself. */
export const hypervisorMemoryMiB = 2048

export const emulator = "qemu-system-x86_64"

/** The address that QEMU's user network gives to its first guest, and the port that {@link Machine.port} leads to. */
const guest = { address: "10.0.2.15", gateway: "10.0.2.2", port: 50051 } as const

/** Where the guest reaches the program that serves it; nothing else of the host. */
export const served = { address: "10.0.2.100", port: 80 } as const

/** The address of the guest's first card, and the API on it. */
export const networkParameters = (addresses: "written" | "dhcp"): ReadonlyArray<string> => [
  addresses === "dhcp" ? "ip=eth0:dhcp" : `ip=${guest.address}::${guest.gateway}:24::eth0:none`,
  `ironwood.listen_insecure=${guest.address}:${guest.port}`
]

/** The same as fields of a machine config. */
export const networkConfig = `
network: { links: [{ name: eth0, addresses: [${guest.address}/24], gateways: [${guest.gateway}] }] }
api: { listenInsecure: ["${guest.address}:${guest.port}"] }
`

const accelerators: Readonly<Record<Accelerator, ReadonlyArray<string>>> = {
  kvm: ["-accel", "kvm", "-cpu", "host"],
  tcg: ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"]
}

/** OVMF of the Debian package `ovmf`: firmware that enforces Secure Boot, and its variables with no keys in them. */
const firmwareCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
export const freshVariables = "/usr/share/OVMF/OVMF_VARS_4M.fd"

/** The kernel command line of a machine that has no firmware with one of its own. */
export const commandLine = ({
  accelerator,
  addresses = "written",
  console = "ttyS0",
  parameters,
  port
}: Omit<Machine, "kernel" | "initramfs">): string => {
  const network = port === undefined || addresses === "config" ? [] : networkParameters(addresses)
  // where the host is busy an emulated timer may tick too late for the kernel's test of it, which would panic
  const timer = accelerator === "tcg" ? ["no_timer_check"] : []
  return [`console=${console}`, "panic=-1", ...timer, ...network, ...(parameters ?? [])].join(" ")
}

/** What is booted. */
const bootArguments = (machine: Machine): ReadonlyArray<string> => {
  const { firmware, initramfs, kernel, netboot } = machine
  if (netboot !== undefined) return ["-machine", "q35", "-boot", "n"]
  if (firmware === undefined) {
    return ["-machine", "q35", "-kernel", kernel, "-initrd", initramfs, "-append", commandLine(machine)]
  }
  return [
    "-machine",
    "q35,smm=on",
    // else the guest could change the variables behind the firmware's back
    "-global",
    "driver=cfi.pflash01,property=secure,value=on",
    "-drive",
    `if=pflash,format=raw,unit=0,readonly=on,file=${firmwareCode}`,
    "-drive",
    `if=pflash,format=raw,unit=1,file=${firmware.variables}`,
    "-drive",
    `if=none,id=boot,format=raw,cache=unsafe,file=${firmware.disk}`,
    "-device",
    "virtio-blk-pci,drive=boot,bootindex=1"
  ]
}

/** QEMU's arguments; the guest's serial console is QEMU's standard input and output. */
export const argumentsOf = (machine: Machine): ReadonlyArray<string> => [
  ...bootArguments(machine),
  ...accelerators[machine.accelerator],
  "-smp",
  String(machine.processors ?? 2),
  "-m",
  String(machine.memoryMiB ?? 768),
  "-nodefaults",
  "-no-user-config",
  "-display",
  "none",
  "-serial",
  "stdio",
  "-device",
  "virtio-rng-pci",
  ...(machine.port === undefined
    ? []
    : [
        "-netdev",
        [
          "user,id=net,restrict=on",
          `hostfwd=tcp:127.0.0.1:${machine.port}-${guest.address}:${guest.port}`,
          ...(machine.serve === undefined
            ? []
            : [`guestfwd=tcp:${served.address}:${served.port}-cmd:${machine.serve}`]),
          ...(machine.netboot === undefined ? [] : [`tftp=${machine.netboot}`, "bootfile=ironwood.ipxe"])
        ].join(","),
        "-device",
        // with its ROM, which is iPXE, when that is to boot
        `virtio-net-pci,netdev=net${machine.netboot === undefined ? ",romfile=" : ""}`
      ]),
  ...(machine.more ?? [])
]

/** A port of the hypervisor for the API, at this unix socket here. */
export const serialPort = (socket: string): ReadonlyArray<string> => [
  "-device",
  "virtio-serial-pci",
  "-chardev",
  `socket,id=api,path=${socket},server=on,wait=off`,
  "-device",
  "virtserialport,chardev=api,name=org.ironwood.api"
]

/** A port of loopback that nobody has at this moment. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() =>
        typeof address === "object" && address !== null ? resolve(address.port) : reject(new Error("no port"))
      )
    })
  })

const canOpen = (path: string): boolean => {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** Whether the kernel runs to the start of its first process within the deadline. */
const boots = (machine: Machine, deadline: number): Promise<boolean> =>
  new Promise((resolve) => {
    const child: ChildProcess = spawn(emulator, [...argumentsOf(machine), "-no-reboot"], {
      stdio: ["ignore", "pipe", "ignore"]
    })
    const answer = (works: boolean): void => {
      clearTimeout(timer)
      child.kill("SIGKILL")
      resolve(works)
    }
    const timer = setTimeout(() => answer(false), deadline)
    let seen = ""
    child.stdout?.on("data", (chunk) => {
      seen = (seen + String(chunk)).slice(-4096)
      if (seen.includes("as init process")) answer(true)
    })
    child.once("error", () => answer(false))
    child.once("exit", () => answer(false))
  })

/** KVM where a kernel runs on it, else TCG. */
export const accelerator = async (
  image: Pick<Machine, "kernel" | "initramfs">,
  deadline = 10_000
): Promise<Accelerator> =>
  canOpen("/dev/kvm") && (await boots({ ...image, accelerator: "kvm" }, deadline)) ? "kvm" : "tcg"

/**
 * Without KVM a second of the guest is little work: a brain that only starts can be silent for longer than a real one ever
 * is, and taproot would take it for hung.
 */
export const patienceFor = (accelerator: Accelerator): ReadonlyArray<CpioEntry> =>
  accelerator === "tcg" ? [taprootFile({ heartbeatMillis: 30_000 })] : []
