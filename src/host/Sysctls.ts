/**
 * The kernel settings of a machine that runs containers and virtual machines, as a step of its start. What the kernel command
 * line sets itself (`sysctl.net.ipv4.ip_forward=0`) is left alone.
 */
import * as Effect from "effect/Effect"
import { readFile, writeFile } from "node:fs/promises"
import { words } from "./KernelParameters.ts"
import { step } from "./Step.ts"

/** Name, value; in the order in which they are written. */
export const wanted: ReadonlyArray<readonly [name: string, value: string]> = [
  // a kernel that is broken starts anew
  ["kernel.panic", "10"],
  ["kernel.panic_on_oops", "1"],
  ["kernel.pid_max", "4194304"],
  // addresses and messages of the kernel are for root
  ["kernel.kptr_restrict", "1"],
  ["kernel.dmesg_restrict", "1"],
  ["fs.protected_hardlinks", "1"],
  ["fs.protected_symlinks", "1"],
  ["fs.protected_fifos", "1"],
  ["fs.protected_regular", "2"],
  // per user, and all containers may be root's
  ["fs.inotify.max_user_instances", "8192"],
  ["fs.inotify.max_user_watches", "1048576"],
  ["vm.max_map_count", "1048576"],
  // containers are reached through the host
  ["net.ipv4.ip_forward", "1"],
  ["net.ipv6.conf.all.forwarding", "1"],
  ["net.ipv4.conf.all.rp_filter", "2"],
  ["net.core.somaxconn", "4096"]
]

const pathOf = (name: string): string => `/proc/sys/${name.replaceAll(".", "/")}`

/** Names that a command line sets itself. */
export const setByKernel = (commandLine: string): ReadonlySet<string> =>
  new Set(
    words(commandLine)
      .filter(({ name }) => name.startsWith("sysctl."))
      .map(({ name }) => name.slice("sysctl.".length).replaceAll("/", "."))
  )

/** Writes one; false when this kernel has none or refuses the value. */
const set = (name: string, value: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    writeFile(pathOf(name), value).then(
      () => true,
      () => false
    )
  )

export const sysctls = step(
  "sysctls",
  { description: "settings of the kernel", deadline: "10 seconds" },
  Effect.gen(function* () {
    const own = setByKernel(yield* Effect.promise(() => readFile("/proc/cmdline", "utf8")))
    const refused: Array<string> = []
    let written = 0
    for (const [name, value] of wanted) {
      if (own.has(name)) continue
      if (yield* set(name, value)) written += 1
      else refused.push(name)
    }
    return {
      facts: { written: String(written), ...(own.size === 0 ? {} : { "from the command line": [...own].join(" ") }) },
      ...(refused.length === 0 ? {} : { degraded: `this kernel does not take ${refused.join(", ")}` })
    }
  })
)
