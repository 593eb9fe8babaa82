/**
 * The kernel settings of a machine that runs containers and virtual machines, and those of its machine config, as a step of its
 * start. What the kernel command line sets itself (`sysctl.net.ipv4.ip_forward=0`) is left alone.
 *
 * A setting that the machine config no longer names goes back to what it was before it did: to Ironwood's own value, or to the
 * kernel's (`Before.ts`).
 */
import * as Effect from "effect/Effect"
import { readFile, writeFile } from "node:fs/promises"
import { before } from "./Before.ts"
import type { Setting } from "./Setting.ts"
import { following } from "./Step.ts"

/** Name, value; in the order in which they are written. */
export const usual: ReadonlyArray<readonly [name: string, value: string]> = [
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

/** `net.ipv4.conf.eth0/100.rp_filter` is `…/eth0.100/rp_filter`: sysctl(8) swaps the two where a name holds a dot. */
export const pathOf = (name: string): string =>
  `/proc/sys/${name.replaceAll(/[./]/g, (mark) => (mark === "." ? "/" : "."))}`

/** Writes one; false when this kernel has none or refuses the value. */
const set = (name: string, value: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    writeFile(pathOf(name), value).then(
      () => true,
      () => false
    )
  )

/** What is to be written: all of what is usual and wanted, and what was there before for what is not wanted any more. */
export const plan = (
  wanted: Readonly<Record<string, string>>,
  kept: Readonly<Record<string, string>>
): ReadonlyMap<string, string> => new Map([...Object.entries(kept), ...usual, ...Object.entries(wanted)])

/** `ofKernel`: the names that the kernel command line sets. */
export const sysctls = (setting: Setting<Readonly<Record<string, string>>>, ofKernel: ReadonlySet<string>) =>
  following("sysctls", { description: "settings of the kernel", deadline: "10 seconds" }, setting, (wanted) =>
    Effect.gen(function* () {
      const kept = yield* before("sysctls", Object.keys(wanted), (name) => readFile(pathOf(name), "utf8"))
      const refused: Array<string> = []
      let written = 0
      for (const [name, value] of plan(wanted, kept)) {
        if (ofKernel.has(name)) continue
        if (yield* set(name, value)) written += 1
        else refused.push(name)
      }
      return {
        facts: {
          written: String(written),
          ...(ofKernel.size === 0 ? {} : { "from the command line": [...ofKernel].join(" ") })
        },
        // what it lacks may come with a module or a link
        ...(refused.length === 0
          ? {}
          : { degraded: `this kernel does not take ${refused.join(", ")}`, again: "1 minute" as const })
      }
    })
  )
