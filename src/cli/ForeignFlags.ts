/**
 * Flags of `docker run` and `podman run` that mean nothing here, or not yet: each is known, is refused, and says what to do instead.
 * They are in no help and no completion.
 */
import * as Flag from "effect/cli/Flag"
import type { FlagProblem } from "./FlagProblems.ts"

interface Foreign {
  readonly instead: string
  /** One letter. */
  readonly alias?: string
  /** It takes no value. */
  readonly alone?: true
  /** Values with which it asks for what is so anyway. */
  readonly usual?: ReadonlyArray<string>
}

const limits = "a container's limits are --memory, --cpus and --pids-limit"
const address =
  "its network is --network none, host or user; with user its address is 10.0.2.100, and --publish leads to it"
const shared = "containers share it as members of one pod: `ironwood pod create NAME`, then --pod NAME"
const ownLog = "Ironwood keeps its output itself (`ironwood logs`); --log-opt says how much of it"
const probes = "a spec file says it: `probes` of a `kind: Container` (see `ironwood apply --help`)"

const table: ReadonlyArray<readonly [string, Foreign]> = Object.entries<Foreign>({
  expose: {
    instead: "nothing needs it: containers of a pod reach each other's ports, and --publish 8080:80 opens one to others"
  },
  link: { instead: shared },
  ip: { instead: address },
  ip6: { instead: address },
  "mac-address": { instead: address },
  "network-alias": { instead: address },
  domainname: { instead: "--hostname is all that it is called" },
  pid: {
    usual: ["private"],
    instead:
      "its processes are its own; those of a pod made with `ironwood pod create --share-processes` see each other"
  },
  ipc: { usual: ["private", "shareable"], instead: `its IPC is its own; ${shared}` },
  uts: { usual: ["private"], instead: "its host name is its own; with --network host it is the host's" },
  cgroupns: { usual: ["private"], instead: "its cgroup namespace is always its own" },
  "cgroup-parent": { instead: "its cgroup is where Ironwood looks after it" },
  sysctl: { instead: "sysctls are set for the host, in its machine config (`ironwood config`)" },
  "group-add": { instead: "say --user USER:GROUP, or let the image's /etc/group list the user" },
  "memory-swap": { instead: "--memory is the limit of memory and swap together" },
  "memory-reservation": { instead: limits },
  "memory-swappiness": { instead: limits },
  "kernel-memory": { instead: limits },
  "cpu-shares": { alias: "c", instead: `--cpus is a quota, not a share; ${limits}` },
  "cpu-period": { instead: limits },
  "cpu-quota": { instead: "say it in processors: --cpus 1.5 is a quota of 150000 in a period of 100000" },
  "cpuset-cpus": { instead: limits },
  "cpuset-mems": { instead: limits },
  "blkio-weight": { instead: limits },
  "device-read-bps": { instead: limits },
  "device-write-bps": { instead: limits },
  "device-cgroup-rule": { instead: "name the devices: --device" },
  gpus: { instead: "name its devices: --device /dev/dri/renderD128" },
  "oom-kill-disable": {
    alone: true,
    instead: "the kernel ends what memory is out for, and --restart says what follows"
  },
  "oom-score-adj": { instead: "--memory says how much it may have; its own processes are ended at that" },
  "volumes-from": { instead: "name the volume in both: --volume NAME:PATH" },
  "volume-driver": { instead: "a volume is a directory of this host: --volume NAME:PATH" },
  "log-driver": { usual: ["json-file", "local", "k8s-file"], instead: ownLog },
  platform: { instead: "images are pulled for the host's own platform: leave it out" },
  runtime: { instead: "the host chooses the OCI runtime that works on it: see `ironwood host`" },
  "no-healthcheck": { alone: true, instead: "an image's own HEALTHCHECK is not run: leave it out" },
  "health-start-interval": { instead: probes },
  "health-on-failure": { instead: "one that is unwell ends, and --restart says what follows" },
  cidfile: { instead: "a container is called by its name: --name, or what `ironwood run -d` prints" },
  pidfile: { instead: "`ironwood inspect -o json` has its pid" },
  attach: { alias: "a", instead: "it is attached unless -d says otherwise; `ironwood attach` comes back to it" },
  "sig-proxy": { usual: ["true"], instead: "Ctrl-C stops it in order; `ironwood attach` passes signals on" },
  "label-file": { instead: "give each with --label" },
  annotation: { instead: "marks are --label" },
  replace: { alone: true, instead: "`ironwood rm -f NAME` first" },
  authfile: { instead: "`ironwood image pull --help` says where credentials come from" },
  "tls-verify": {
    usual: ["true"],
    instead: "the machine config says which registries are asked without TLS (`ironwood config`)"
  }
})

/** What is wrong with a flag that was typed. */
const problemsOf = (name: string, { instead, usual = [] }: Foreign, given: ReadonlyArray<string>) =>
  given.filter((value) => !usual.includes(value)).map((): FlagProblem => ({ flag: `--${name}`, text: instead }))

/** All of them; the values: what was typed, as problems. */
export const foreignFlags: ReadonlyArray<Flag.Flag<ReadonlyArray<FlagProblem>>> = table.map(([name, entry]) => {
  const typed: Flag.Flag<ReadonlyArray<string>> =
    entry.alone === true
      ? Flag.Boolean(name).pipe(
          Flag.withDefault(false),
          Flag.map((given) => (given ? [""] : []))
        )
      : Flag.String(name).pipe(Flag.atLeast(0))
  const named = entry.alias === undefined ? typed : Flag.withAlias(typed, entry.alias)
  return Flag.withHidden(Flag.map(named, (given) => problemsOf(name, entry, given)))
})

/** Names, long and of one letter, of those that take a value. */
export const foreignValueFlags: ReadonlyArray<string> = table.flatMap(([name, { alias, alone }]) =>
  alone === true ? [] : [name, ...(alias === undefined ? [] : [alias])]
)
