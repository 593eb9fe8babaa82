/**
 * The peers that run containers, as a benchmark needs them: bare crun, containerd by `ctr`, podman with conmon. All of
 * them run a static busybox from the same root file system, without a network, on a tmpfs workspace of their own.
 *
 * Trap: crun 1.8 refuses a hybrid cgroup layout, so the benchmark runs itself again in a mount namespace without
 * `/sys/fs/cgroup/unified` (`inOwnMountNamespace`) and every peer is started from there.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { copyFileSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"

/** Runs a command to its end; its standard output; an error with what it printed when it fails. */
export const command = (
  name: string,
  args: ReadonlyArray<string>,
  options?: { readonly input?: string }
): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: ["pipe", "pipe", "pipe"] })
    let output = ""
    let errors = ""
    child.stdout.on("data", (chunk) => (output += String(chunk)))
    child.stderr.on("data", (chunk) => (errors += String(chunk)))
    child.once("error", reject)
    child.once("close", (code) =>
      code === 0
        ? resolve(output)
        : reject(new Error(`${name} ${args.join(" ")} ended with ${code}: ${errors}${output}`))
    )
    // it may end before it has read
    child.stdin.on("error", () => {})
    child.stdin.end(options?.input ?? "")
  })

/**
 * The same without reading what it prints, for programs that leave a process behind which keeps their output open
 * (`crun create`, `podman run -d`): ends with the program itself.
 */
export const quiet = (name: string, args: ReadonlyArray<string>): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: "ignore" })
    child.once("error", reject)
    child.once("exit", (code) =>
      code === 0 ? resolve() : reject(new Error(`${name} ${args.join(" ")} ended with ${code}`))
    )
  })

/** Starts this program again in a private mount namespace where crun works; returns only in that second life. */
export const inOwnMountNamespace = (): void => {
  if (process.env["IRONWOOD_BENCH_NAMESPACE"] === "1") return
  const script = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
  const done = spawnSync(
    "unshare",
    [
      "-m",
      "--propagation",
      "private",
      "sh",
      "-c",
      script,
      "sh",
      process.execPath,
      ...process.execArgv,
      ...process.argv.slice(1)
    ],
    { stdio: "inherit", env: { ...process.env, IRONWOOD_BENCH_NAMESPACE: "1" } }
  )
  process.exit(done.status ?? 1)
}

/** Milliseconds until the first byte of a command's standard output; waits for its end. */
const firstByte = (name: string, args: ReadonlyArray<string>): Promise<number> =>
  new Promise((resolve, reject) => {
    const begun = performance.now()
    let took = Number.NaN
    const child = spawn(name, args, { stdio: ["ignore", "pipe", "inherit"] })
    child.stdout.once("data", () => (took = performance.now() - begun))
    child.once("error", reject)
    child.once("close", (code) =>
      code === 0 ? resolve(took) : reject(new Error(`${name} ${args.join(" ")} ended with ${code}`))
    )
  })

/** What is run in containers: one line, and the end. */
export const saying = ["/bin/busybox", "echo", "here"]

/** A directory on tmpfs with a busybox root file system in `rootfs/`; removed at exit. */
export const workspace = (): string => {
  // lower case: podman makes an image name of the path
  const path = `/dev/shm/ironwood-bench-${process.pid}`
  mkdirSync(path, { mode: 0o700 })
  process.on("exit", () => rmSync(path, { recursive: true, force: true }))
  mkdirSync(join(path, "rootfs/bin"), { recursive: true })
  copyFileSync("/usr/bin/busybox", join(path, "rootfs/bin/busybox"))
  for (const name of ["sh", "sleep", "true"]) symlinkSync("busybox", join(path, "rootfs/bin", name))
  return path
}

/** A peer under measurement: start one container, end and remove it, end everything. */
export interface Peer {
  /** Resolves when the container's process runs. */
  readonly start: (id: string) => Promise<void>
  readonly remove: (id: string) => Promise<void>
  readonly pid: (id: string) => Promise<number>
  /** Milliseconds until the first byte of a program's output is here, that is run in a container. */
  readonly exec: (id: string) => Promise<number>
  readonly close: () => Promise<void>
}

/** One whose output is measured. */
export interface Writer {
  /** Starts a container that writes to a log at this path. */
  readonly write: (id: string, entrypoint: ReadonlyArray<string>, log: string) => Promise<void>
}

/** One whose network is measured. */
export interface Server {
  /** Starts a container with a network by slirp4netns, and ports of the host's loopback (the second ones) that lead to its own. */
  readonly serve: (
    id: string,
    entrypoint: ReadonlyArray<string>,
    ports: ReadonlyArray<readonly [number, number]>
  ) => Promise<void>
}

const sleeping = ["/bin/sleep", "100000"]

/**
 * `crun create` and `crun start` with nothing around them, or one `crun run --detach`. The bundle is made by `prepare`, which
 * is not to be timed: the others have their specs made in their own processes.
 */
export const bareCrun = (
  space: string,
  { once = false }: { readonly once?: boolean } = {}
): Peer & { readonly prepare: (id: string) => void } => {
  const root = join(space, once ? "crun-run" : "crun")
  const bundleOf = (id: string): string => join(root, "bundles", id)
  mkdirSync(root, { recursive: true })
  return {
    prepare: (id) => {
      const bundle = bundleOf(id)
      mkdirSync(bundle, { recursive: true })
      spawnSync("crun", ["spec"], { cwd: bundle })
      const spec = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8"))
      Object.assign(spec.process, { terminal: false, args: sleeping, rlimits: [] })
      Object.assign(spec.root, { path: join(space, "rootfs"), readonly: true })
      spec.linux.cgroupsPath = `/ironwood-bench/${id}`
      writeFileSync(join(bundle, "config.json"), JSON.stringify(spec))
      writeFileSync(join(bundle, "process.json"), JSON.stringify({ ...spec.process, args: saying }))
    },
    start: async (id) => {
      const bundle = ["--bundle", bundleOf(id), id]
      if (once) return quiet("crun", ["--root", root, "run", "--detach", ...bundle])
      await quiet("crun", ["--root", root, "create", ...bundle])
      await quiet("crun", ["--root", root, "start", id])
    },
    remove: (id) => quiet("crun", ["--root", root, "delete", "--force", id]),
    exec: (id) => firstByte("crun", ["--root", root, "exec", "--process", join(bundleOf(id), "process.json"), id]),
    pid: async (id) => JSON.parse(await command("crun", ["--root", root, "state", id])).pid,
    close: async () => {}
  }
}

/** containerd of its own (no CRI), driven by `ctr`, with its runc shim; snapshots as overlay. */
export const containerd = async (
  space: string,
  archive: string
): Promise<Peer & Writer & { readonly restart: () => Promise<void> }> => {
  const home = join(space, "containerd")
  mkdirSync(home, { recursive: true })
  const address = join(home, "containerd.sock")
  writeFileSync(
    join(home, "config.toml"),
    `version = 2\nroot = "${home}/root"\nstate = "${home}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "${address}"\n`
  )
  let daemon: ChildProcess | undefined
  const ctr = (...args: ReadonlyArray<string>) => command("ctr", ["--address", address, ...args])
  const boot = async (): Promise<void> => {
    daemon = spawn("containerd", ["--config", join(home, "config.toml")], { stdio: "ignore" })
    for (let attempt = 0; ; attempt++) {
      try {
        await ctr("version")
        return
      } catch (error) {
        if (attempt > 500) throw error
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
  }
  const halt = (signal: NodeJS.Signals) =>
    new Promise<void>((resolve) => {
      daemon?.once("exit", () => resolve())
      daemon?.kill(signal)
    })
  await boot()
  await ctr("image", "import", "--base-name", "bench", archive)
  const image = (await ctr("image", "ls", "--quiet")).trim().split("\n")[0] ?? ""
  // runc keeps its containers by name for the whole host
  let execs = 0
  const unique = (id: string) => `bench-${process.pid}-${id}`
  const remove = async (name: string) => {
    await ctr("task", "rm", "--force", name)
    await ctr("container", "rm", name)
  }
  return {
    start: (id) => quiet("ctr", ["--address", address, "run", "--detach", "--null-io", image, unique(id), ...sleeping]),
    exec: (id) =>
      firstByte("ctr", ["--address", address, "task", "exec", "--exec-id", `e${execs++}`, unique(id), ...saying]),
    remove: (id) => remove(unique(id)),
    pid: async (id) => {
      const line = (await ctr("task", "ls")).split("\n").find((text) => text.startsWith(`${unique(id)} `))
      return Number(line?.split(/\s+/)[1])
    },
    write: (id, entrypoint, log) =>
      quiet("ctr", [
        "--address",
        address,
        "run",
        "--detach",
        "--log-uri",
        `file://${log}`,
        image,
        unique(id),
        ...entrypoint
      ]),
    restart: async () => {
      await halt("SIGKILL")
      await boot()
    },
    close: async () => {
      for (const name of (await ctr("task", "ls", "--quiet")).trim().split("\n")) if (name !== "") await remove(name)
      await halt("SIGTERM")
    }
  }
}

/** podman with crun and conmon, storage of its own. */
export const podman = async (space: string, source: string): Promise<Peer & Writer & Server> => {
  const home = join(space, "podman")
  const base = [
    "--root",
    join(home, "root"),
    "--runroot",
    join(home, "run"),
    // a path of a socket is made of it and 68 characters, and may have 107
    "--tmpdir",
    join(space, "t"),
    "--cgroup-manager",
    "cgroupfs",
    "--events-backend",
    "none",
    "--runtime",
    "crun"
  ]
  const image = (await command("podman", [...base, "pull", "--quiet", source])).trim()
  const run = (id: string, entrypoint: ReadonlyArray<string>, options: ReadonlyArray<string>, network = "none") => {
    const limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    const how = ["--detach", "--name", id, "--network", network, "--log-driver", "k8s-file", ...limits, ...options]
    return quiet("podman", [...base, "run", ...how, image, ...entrypoint])
  }
  return {
    start: (id) => run(id, sleeping, []),
    write: (id, entrypoint, log) => run(id, entrypoint, ["--log-opt", `path=${log}`]),
    serve: (id, entrypoint, ports) => {
      const published = ports.flatMap(([inside, outside]) => ["-p", `127.0.0.1:${outside}:${inside}`])
      return run(id, entrypoint, published, "slirp4netns:port_handler=slirp4netns")
    },
    exec: (id) => firstByte("podman", [...base, "exec", id, ...saying]),
    remove: async (id) => void (await command("podman", [...base, "rm", "--force", "--time", "0", id])),
    pid: async (id) => Number(await command("podman", [...base, "inspect", "--format", "{{.State.Pid}}", id])),
    close: async () => {
      await command("podman", [...base, "rm", "--all", "--force", "--time", "0"])
      // a container that has run until now leaves it
      spawnSync("umount", [join(home, "root/overlay")], { stdio: "ignore" })
    }
  }
}
