/**
 * A host with links for tests: taproot and a brain (`brain.ts`) in namespaces of their own, with the real `network` branch, and
 * neighbours beyond its links, which run real servers. Links are the ends of veth pairs; the other end is in the neighbour's
 * namespace. All of it is gone when the scope closes.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { eventually } from "../support/eventually.ts"
import * as Taproot from "../support/taproot.ts"

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

const Node = Schema.Struct({
  path: Schema.String,
  kind: Schema.String,
  state: Schema.String,
  annotations: Schema.Record(Schema.String, Schema.String),
  lastExit: Schema.String
})
export type Node = typeof Node.Type
const Written = Schema.fromJsonString(Schema.Struct({ pid: Schema.Int, nodes: Schema.Array(Node) }))

export class NeverSeen extends Data.TaggedError("NeverSeen")<{ readonly what: string; readonly tree: string }> {
  override get message() {
    return `it did not happen in time: ${this.what}; the tree:\n${this.tree}`
  }
}

export interface Host {
  /** Runs a command in the host's namespaces; what it printed. */
  readonly run: (...argv: readonly [string, ...Array<string>]) => string
  /** A pair of devices: `device` here, its other end in the namespace `neighbour`, which is made. */
  readonly pair: (device: string, neighbour: string) => void
  /** Starts a program in a neighbour's namespace, to the end of the test. */
  readonly serve: (
    neighbour: string,
    argv: readonly [string, ...Array<string>]
  ) => Effect.Effect<unknown, never, Scope.Scope>
  /** Writes a file for such a program; where it is. */
  readonly file: (name: string, text: string) => string
  /** Gives the brain another configuration. */
  readonly configure: (config: unknown) => void
  /** The pid of the brain that wrote the tree last. */
  readonly brain: Effect.Effect<number>
  /** Waits until the link's actor is as wanted. */
  readonly sees: (
    link: string,
    what: string,
    is: (node: Node) => boolean,
    seconds?: number
  ) => Effect.Effect<Node, NeverSeen>
  /** Whether this kernel has such devices. */
  readonly can: (kind: "bond" | "vlan") => boolean
  readonly nodes: Effect.Effect<ReadonlyArray<Node>>
}

/** A host whose brain starts with this configuration, once `before` has made its surroundings. */
export const host = (config: unknown, before: (host: Host) => Effect.Effect<void, never, Scope.Scope>) =>
  Effect.gen(function* () {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-network-"))),
      (made) => Effect.sync(() => rmSync(made, { recursive: true }))
    )
    const configure = (wanted: unknown): void => writeFileSync(join(directory, "config.json"), JSON.stringify(wanted))
    const go = join(directory, "go")
    // the brain's first life waits until there is something to see
    const brain = `until test -e ${go}; do sleep 0.05; done; exec ${process.execPath} ${path("brain.ts")} ${directory}`
    const taproot = yield* Taproot.startWithBrain(["/bin/sh", "-c", brain], { program: path("in-namespaces") })
    // `in-namespaces` becomes taproot once it has made them: whoever enters before that enters the test's own
    yield* Effect.orDie(
      eventually("taproot runs in namespaces of its own", () => {
        try {
          return readFileSync(`/proc/${taproot.pid}/comm`, "utf8").trim() === "taproot"
        } catch {
          return false
        }
      })
    )
    const enter = ["-t", String(taproot.pid), "--net", "--mount", "--uts"]
    const run = (...argv: readonly [string, ...Array<string>]): string =>
      execFileSync("nsenter", [...enter, ...argv], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })
    const written = Effect.flatMap(
      Effect.sync(() => {
        try {
          return readFileSync(join(directory, "tree.json"), "utf8")
        } catch {
          return '{"pid":0,"nodes":[]}'
        }
      }),
      (text) => Effect.orDie(Schema.decodeEffect(Written)(text))
    )
    const made: Host = {
      run,
      pair: (device, neighbour) => {
        try {
          run("ip", "netns", "add", neighbour)
        } catch {
          // it is there
        }
        run("ip", "link", "add", device, "type", "veth", "peer", "name", device, "netns", neighbour)
        run("ip", "netns", "exec", neighbour, "ip", "link", "set", "lo", "up")
        run("ip", "netns", "exec", neighbour, "ip", "link", "set", device, "up")
      },
      serve: (neighbour, argv) =>
        Effect.acquireRelease(
          Effect.sync(() =>
            spawn("nsenter", [...enter, "ip", "netns", "exec", neighbour, ...argv], { stdio: "ignore" })
          ),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        ),
      file: (name, text) => {
        const file = join(directory, name)
        writeFileSync(file, text)
        return file
      },
      configure,
      can: (kind) => {
        try {
          run(
            "ip",
            "link",
            "add",
            ...(kind === "vlan" ? ["link", "lo"] : []),
            "name",
            "try",
            "type",
            kind,
            ...(kind === "vlan" ? ["id", "1"] : [])
          )
          run("ip", "link", "delete", "try")
          return true
        } catch {
          return false
        }
      },
      brain: Effect.map(written, ({ pid }) => pid),
      nodes: Effect.map(written, ({ nodes }) => nodes),
      sees: (link, what, is, seconds = 40) =>
        Effect.gen(function* () {
          const began = Date.now()
          for (;;) {
            const { nodes } = yield* written
            const node = nodes.find((one) => one.path === `init/network/${link}`)
            if (node !== undefined && is(node)) return node
            if (Date.now() - began > seconds * 1000) {
              return yield* new NeverSeen({ what: `${link}: ${what}`, tree: JSON.stringify(nodes, null, 1) })
            }
            yield* Effect.sleep("50 millis")
          }
        })
    }
    configure(config)
    // the namespaces are made by the time taproot runs
    yield* Effect.retry(Effect.try({ try: () => run("test", "-d", "/run/ironwood"), catch: String }), {
      times: 200,
      while: () => true
    }).pipe(Effect.orDie)
    yield* before(made)
    writeFileSync(go, "")
    return made
  })
