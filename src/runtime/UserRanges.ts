/**
 * Which users of the host those of a private user namespace are: each sandbox has a range of 65,536 of its own, above all that
 * distributions, systemd and our own hypervisors give away, and below 2^31, where kernel and programs still agree on what a user is.
 *
 * Traps: a range is given to another sandbox only when nothing runs as any of it any more; so what runs is asked, too (a process that
 * the kernel cannot end, or another Ironwood of this host). What another Ironwood has given to a sandbox in which nothing runs is not
 * known here: so each begins somewhere else ({@link startOf}), and two get the same only if that is near by chance.
 */
import { createHash } from "node:crypto"
import type { FieldProblem } from "../storage/StateErrors.ts"
import type { ContainerSpec } from "./ContainerSpec.ts"
import type { UserNamespaceMode } from "./SandboxSpec.ts"
import { COUNT } from "../taproot/IdMap.ts"

const FIRST = 29_145 * COUNT
const LAST = 2 ** 31 - COUNT
const RANGES = (LAST - FIRST) / COUNT + 1
/** In how many of them an Ironwood may begin: the rest is for those that begin last. */
const STARTS = 3_000

/** Where the ranges of an Ironwood begin, by the name of its cgroup. */
export const startOf = (cgroup: string): number =>
  FIRST + (createHash("sha256").update(cgroup).digest().readUInt32BE(0) % STARTS) * COUNT

/**
 * The lowest range from `start` on, and then from the lowest of all on, that neither a sandbox has (`taken`: the first users of
 * theirs) nor anything runs in; none: there is no more.
 */
export const lowestFree = (
  taken: ReadonlySet<number>,
  running: ReadonlySet<number>,
  start: number
): number | undefined => {
  const busy = new Set([...taken, ...[...running].map((user) => user - (user % COUNT))])
  for (let index = 0; index < RANGES; index++) {
    const first = FIRST + (((start - FIRST) / COUNT + index) % RANGES) * COUNT
    if (!busy.has(first)) return first
  }
  return undefined
}

/** Who a user of the host is in the namespace whose first one is `first`: 65534 (nobody) when it is none of those there. */
export const inside = (user: number, first: number | undefined): number =>
  first === undefined ? user : user >= first && user < first + COUNT ? user - first : 65_534

/** What of a container's spec cannot be in a sandbox with such users, by field. */
export const problemsOf = (
  { mounts, security }: Pick<ContainerSpec, "mounts" | "security">,
  mode: UserNamespaceMode
): ReadonlyArray<FieldProblem> =>
  mode === "host"
    ? mounts.flatMap(({ mapIds }, index) =>
        mapIds
          ? [
              {
                field: `mounts[${index}].mapIds`,
                problem:
                  "the users of its sandbox are those of the host already: leave it out, or have userNamespace: private"
              }
            ]
          : []
      )
    : security.privileged
      ? [
          {
            field: "security.privileged",
            problem:
              "it would be root of the host, and nobody is in a sandbox with users of its own: use one with userNamespace: host"
          }
        ]
      : []
