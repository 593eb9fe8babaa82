/**
 * Builds `build/sample-image/`, an OCI layout with two small images made of Debian's static busybox, so that `npm start` has
 * something to run without a network: `hello:latest` prints a counter every second and ends well on TERM; `flaky:latest`
 * works for a few seconds and then fails. Run by set-up; says nothing and does nothing when all is up to date.
 *
 * Usage: `scripts/node scripts/sample-image.ts [DIRECTORY]`. The bytes depend on nothing but busybox and this file.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs"
import { dirname, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { buildImage, directory, file, type LayerEntry, symlink, writeLayout } from "../test/support/images.ts"

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

const target = resolve(process.argv[2] ?? here("../build/sample-image"))
const busybox = ["/bin/busybox", "/usr/bin/busybox"].find((path) => existsSync(path))
if (busybox === undefined) {
  process.stderr.write("sample-image: there is no busybox here. Run:  apt-get install -y busybox-static\n")
  process.exit(1)
}

const inputs = [busybox, here("sample-image.ts"), here("../test/support/images.ts")]
const isUpToDate = (): boolean => {
  const made = statSync(`${target}/index.json`, { throwIfNoEntry: false })
  return made !== undefined && inputs.every((input) => statSync(input).mtimeMs < made.mtimeMs)
}

const applets =
  "sh ash cat ls echo sleep date env id ps kill mkdir rm mv cp touch head tail grep sed awk wc sort seq true false test " +
  "hostname ip ping nc wget httpd mount umount stat df du free top vi tar gzip md5sum sha256sum printenv pwd uname whoami yes"

const base: ReadonlyArray<LayerEntry> = [
  directory("bin"),
  file("bin/busybox", readFileSync(busybox), { mode: 0o755 }),
  ...applets.split(" ").map((applet) => symlink(`bin/${applet}`, "busybox")),
  directory("etc"),
  file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
  file("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
  directory("root", { mode: 0o700 }),
  directory("tmp", { mode: 0o1777 }),
  directory("proc"),
  directory("sys"),
  directory("dev")
]

const hello = `#!/bin/sh
# Counts, one line a second, until it is told to stop.
trap 'echo "hello: stopping after $n lines"; exit 0' TERM INT
n=0
while true; do
  n=$((n + 1))
  echo "hello $n"
  sleep 1 &
  wait $!
done
`

const flaky = `#!/bin/sh
# Works for a while, then fails: what restart policies are for.
trap 'echo "flaky: stopping"; exit 0' TERM INT
echo "flaky: working"
sleep 3 &
wait $!
echo "flaky: something went wrong" >&2
exit 1
`

const image = (name: string, script: string) =>
  buildImage({
    layers: [base, [directory("bin"), file(`bin/${name}`, script, { mode: 0o755 })]],
    config: {
      Cmd: [`/bin/${name}`],
      Env: ["PATH=/bin"],
      WorkingDir: "/",
      StopSignal: "SIGTERM",
      Labels: { "org.opencontainers.image.title": name }
    }
  })

if (!isUpToDate()) {
  const made = `${target}.new`
  rmSync(made, { recursive: true, force: true })
  mkdirSync(dirname(target), { recursive: true })
  writeLayout(made, [
    { image: image("hello", hello), name: "hello:latest" },
    { image: image("flaky", flaky), name: "flaky:latest" }
  ])
  rmSync(target, { recursive: true, force: true })
  renameSync(made, target)
}
