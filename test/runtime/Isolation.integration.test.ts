/** What a container without special wishes may do, seen from inside: as its first process and as a program run later. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { create, logText, shell, until, withContainers } from "./world.ts"

const look = `
while read key value; do case "$key" in CapEff:|CapBnd:|NoNewPrivs:|Seccomp:) echo "$key $value";; esac; done < /proc/self/status
tries() { if "$@" > /dev/null 2>&1; then echo "$1 $2 went"; else echo "$1 $2 refused"; fi; }
tries unshare -U true
tries mount -t tmpfs none /tmp
tries mknod /tmp/disk b 8 0
tries cat /tmp/disk
tries cat /dev/mem
tries dmesg -r
echo "keys: $(cat /proc/keys 2>/dev/null | wc -c) kcore: $(cat /proc/kcore 2>/dev/null | head -c 10 | wc -c)"
(echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo "sysctl went" || echo "sysctl refused"
(echo b > /proc/sysrq-trigger) 2>/dev/null && echo "sysrq went" || echo "sysrq refused"
(echo 1 > /sys/kernel/profiling) 2>/dev/null && echo "sys went" || echo "sys refused"
echo "first: $(cat /proc/1/comm)"
while IFS=: read n name path; do case "$name" in *pids*|"") echo "cgroup $path"; break;; esac; done < /proc/self/cgroup
echo "interfaces: $(ls /sys/class/net)"
`

const expected = [
  // chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap
  "CapEff: 00000000a80425fb",
  "CapBnd: 00000000a80425fb",
  "NoNewPrivs: 1",
  "Seccomp: 2",
  "unshare -U refused",
  "mount -t refused",
  "mknod /tmp/disk went",
  "cat /tmp/disk refused",
  "cat /dev/mem refused",
  "dmesg -r refused",
  "keys: 0 kcore: 0",
  "sysctl refused",
  "sysrq refused",
  "sys refused",
  "first: sh",
  "cgroup /",
  "interfaces: lo"
]

describe("isolation by default", () => {
  it.live("memory for files, a root that cannot be written, an init that reaps and hands on signals", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        const script = [
          "touch /x 2>/dev/null || echo root refused",
          "echo a > /scratch/a && cat /scratch/a",
          "dd if=/dev/zero of=/scratch/b bs=64k count=3 2>/dev/null || echo full",
          "(sleep 0.1 &)",
          "trap 'echo got TERM; exit 9' TERM",
          "cat /proc/1/comm",
          "while [ ! -e /scratch/go ]; do sleep 0.05; done; sleep 0.3",
          "cat /proc/[0-9]*/stat | while read pid name state rest; do case $state in Z) echo zombie $name;; esac; done",
          "echo ready; while :; do sleep 0.05; done"
        ]
        yield* create(containers, {
          name: "careful",
          command: shell(script.join("; ")),
          init: true,
          readonlyRootfs: true,
          tmpfs: { "/scratch": { sizeBytes: 65_536 } },
          restart: { restart: "temporary" }
        })
        const touch = { command: ["/bin/touch", "/scratch/go"], environment: {}, stdin: false, detach: false }
        yield* Effect.scoped(Effect.flatMap(containers.exec("careful", touch), ({ process }) => process.exit))
        while (!(yield* logText(containers, "careful")).includes("ready")) yield* Effect.sleep("5 millis")
        yield* containers.kill("careful", "SIGTERM")
        const ended = yield* until(containers, "careful", ({ state }) => state === "failed")
        assert.deepStrictEqual(ended.lastExit?.facts, { exitCode: 9 })
        assert.deepStrictEqual((yield* logText(containers, "careful")).trim().split("\n"), [
          "root refused",
          "a",
          "full",
          "init",
          "ready",
          "got TERM"
        ])
      })
    )
  )

  it.live("is the same for the first process and for those run later", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* create(containers, {
          name: "first",
          command: shell(`${look}sleep 100000`),
          restart: { restart: "temporary" }
        })
        yield* until(containers, "first", ({ state }) => state === "running")
        while (!(yield* logText(containers, "first")).includes("interfaces")) yield* Effect.sleep("5 millis")
        assert.deepStrictEqual((yield* logText(containers, "first")).trim().split("\n"), expected)

        yield* create(containers, { name: "later", command: shell("sleep 100000; true") })
        const said = yield* Effect.scoped(
          Effect.flatMap(
            containers.exec("later", { command: shell(look), environment: {}, stdin: false, detach: false }),
            ({ output }) =>
              Stream.runFold(
                output("stdout"),
                () => "",
                (all, bytes) => all + Buffer.from(bytes).toString()
              )
          )
        )
        assert.deepStrictEqual(said.trim().split("\n"), expected)
      })
    )
  )
})
