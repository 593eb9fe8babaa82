/**
 * `Upgrades`: which brain runs, and every way to run another. Built before the state is opened, because it decides whether this
 * process opens it: the built-in brain, which taproot starts, hands over to the one that was chosen; one on trial keeps a copy
 * of the state before it changes its layout.
 *
 * A switch is data: {@link Upgrades.handOver} gives what taproot is to be asked for, once; whoever runs the tree releases it,
 * asks, and ends. The tree is not stopped, so every workload goes on and is adopted.
 *
 * Trap: without a state directory that lasts (`MachineState`) all of this is forgotten with the machine, which its answers say.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import manifest from "../../package.json" with { type: "json" }
import type { StorageFailed } from "../storage/ContentError.ts"
import * as Files from "../storage/Files.ts"
import { MIGRATIONS } from "../storage/StateSchema.ts"
import { type Hello, Processes, type SuccessorRequest } from "../taproot/Processes.ts"
import { oldestProtocolVersion, protocolVersion } from "../taproot/Wire.ts"
import * as Brains from "./Brains.ts"
import { digestOf, type Manifest, unpack } from "./Bundle.ts"
import * as Lifecycle from "./Lifecycle.ts"
import * as Record from "./Record.ts"
import { signer } from "./Signature.ts"
import * as Snapshot from "./StateSnapshot.ts"
import {
  BrainIncompatible,
  BrainNotInstalled,
  BundleInvalid,
  SignatureRefused,
  UpgradeInProgress
} from "./UpgradeErrors.ts"

/** How long a brain on trial has by default, and one that proved itself at an earlier start. */
export const usualPatienceMillis = 120_000

/** So many may end on trial, less one. */
const tries = 3

/** A brain as it is listed. */
export interface Listed {
  readonly id: string
  readonly version: string
  readonly fault: Record.Fault | undefined
  /** Why it cannot be started; empty when it can. */
  readonly problem: string
}

export interface Status {
  readonly running: string
  readonly version: string
  readonly record: Record.Record
  readonly brains: ReadonlyArray<Listed>
  /** It is this brain that was never confirmed. */
  readonly onTrial: boolean
  /** taproot waits for this brain to prove itself: it is on trial, or was started as the chosen one. */
  readonly proving: boolean
  /** Why the brain that was chosen is not the one that runs, or why nothing is known of it; empty when all is as chosen. */
  readonly note: string
}

/** What was sent. */
export interface Upload {
  readonly bytes: Uint8Array
  readonly digest: string
  readonly signature: Uint8Array | undefined
  /** Those that may vouch for it; none: nobody need. */
  readonly keys: ReadonlyArray<string>
}

export interface Installed {
  readonly id: string
  readonly manifest: Manifest
  /** The key that vouches for it. */
  readonly signedBy: string | undefined
}

export class Upgrades extends Context.Service<
  Upgrades,
  {
    readonly status: Effect.Effect<Status>
    /** Checks it and puts it on the disk; runs nothing. */
    readonly install: (
      upload: Upload
    ) => Effect.Effect<
      Installed,
      BundleInvalid | SignatureRefused | BrainIncompatible | UpgradeInProgress | StorageFailed
    >
    /** Decides that this brain is to run, on trial; the switch follows. Whether there is one: it may run already. */
    readonly activate: (
      brain: string,
      patienceMillis: number
    ) => Effect.Effect<boolean, BrainIncompatible | BrainNotInstalled | UpgradeInProgress | StorageFailed>
    /** This brain, on trial or started as the chosen one, does its work. */
    readonly confirm: Effect.Effect<void, StorageFailed>
    /** Waits for a switch that was decided. */
    readonly handOver: Effect.Effect<SuccessorRequest>
  }
>()("ironwood/upgrade/Upgrades") {}

export interface Options {
  readonly stateDirectory: string
  readonly database: string
  /** Why none can be installed; empty: some can. */
  readonly blocked?: string
  /** Whether the built-in brain hands over to the one that was chosen: the rescue brain does not. */
  readonly hands: boolean
  /** Ends this process, which has asked for another brain. */
  readonly end: Effect.Effect<never>
}

/** The brain that taproot starts: known by what it is made of. */
const ownBuiltIn = (program: string | undefined): Record.BuiltIn => {
  let digest = ""
  try {
    digest = digestOf(readFileSync(program?.replace(/[^/]+$/, "brain.bundle.cjs") ?? ""))
  } catch {
    // from sources: one digest for all of them
  }
  return { digest, version: manifest.version, stateLayout: MIGRATIONS.length }
}

/** Why a brain that says this of itself cannot run beside this taproot, on this Node and with this state. */
const incompatibility = (
  { node, protocol, stateLayout }: Manifest,
  hello: Hello,
  layout: number
): string | undefined => {
  const ownNode = Number.parseInt(process.versions.node, 10)
  if (!hello.features.includes("successor")) return "the taproot of this image starts no other brains"
  if (protocol.newest < oldestProtocolVersion || protocol.oldest > protocolVersion) {
    return `it speaks version ${protocol.oldest} to ${protocol.newest} of the protocol, the taproot of this image ${oldestProtocolVersion} to ${protocolVersion}`
  }
  if (node > ownNode) return `it needs Node ${node}, and the image has ${process.versions.node}`
  if (stateLayout < layout) return `it knows the state's layout ${stateLayout}, and the state has ${layout}`
  return undefined
}

const make = Effect.fnUntraced(function* ({ blocked = "", database, end, hands, stateDirectory }: Options) {
  const processes = yield* Processes
  const { hello } = processes
  const directory = Brains.directoryOf(stateDirectory)
  const [, program] = process.argv
  const self = Brains.selfOf(directory, program)
  let known: Record.BuiltIn | undefined
  /** Looked at when something has to be decided over it, which at most starts it has not. */
  const own = (): Record.BuiltIn => (known ??= ownBuiltIn(program))
  const lock = Semaphore.makeUnsafe(1)
  const wanted = yield* Deferred.make<SuccessorRequest>()

  const found = Record.load(directory)
  let record =
    typeof found === "object"
      ? found
      : Record.initial({ digest: "", version: manifest.version, stateLayout: MIGRATIONS.length })
  let note =
    typeof found === "string" ? `brains/record.json cannot be read, so the image's own brain runs: ${found}` : ""
  let unsaved = typeof found === "string"

  const inspected = (brain: string) => Brains.inspect(directory, brain)
  const problemOf = (brain: string): string | undefined =>
    Result.match(inspected(brain), {
      onFailure: (problem) => problem,
      onSuccess: (found) => incompatibility(found, hello, Snapshot.layoutOf(database) ?? 0)
    })
  const versionOf = (brain: string): string =>
    brain === Record.builtIn
      ? record.builtIn.version
      : Result.match(inspected(brain), { onFailure: () => brain.slice(0, 12), onSuccess: ({ version }) => version })

  const successor = (brain: string, patienceMillis: number): SuccessorRequest => ({
    argv:
      brain === Record.builtIn
        ? []
        : [process.execPath, ...process.execArgv, Brains.entryOf(directory, brain), ...process.argv.slice(2)],
    patienceMillis,
    tries
  })

  const save = (next: Record.Record): Effect.Effect<void, StorageFailed> =>
    Effect.andThen(
      Files.makeDirectory(directory),
      Effect.try({
        try: () => Record.save(directory, next),
        catch: (cause) => Files.storageFailed("write", Record.fileOf(directory), cause)
      })
    ).pipe(Effect.tap(() => Effect.sync(() => (record = next))))

  /** Where it cannot be kept, the next start decides the same again, and nothing that is not kept is handed over to. */
  const saveAnyway = (next: Record.Record) =>
    Effect.catch(save(next), ({ message }) =>
      Effect.sync(() => {
        record = next
        unsaved = true
        note = `what was decided cannot be kept, so the image's own brain runs: ${message}`
      })
    )

  if (typeof found === "object") {
    const decision = Lifecycle.begin(found, {
      self,
      own: self === Record.builtIn ? own() : found.builtIn,
      instance: hello.instance,
      succession: hello.succession,
      problemOf,
      versionOf,
      now: Date.now()
    })
    if (decision.record !== found) yield* saveAnyway(decision.record)
    note = note === "" ? decision.note : note
    if (record.restoring === true && hello.succession.state !== "trial") {
      if (Snapshot.restore(database)) {
        yield* Effect.logWarning(
          "the state is as it was before the brain that was given up; what that one wrote is in state-given-up"
        )
      }
      const { restoring: _, ...restored } = record
      yield* saveAnyway(restored)
    }
    if (hands && self === Record.builtIn && decision.run !== Record.builtIn && !unsaved) {
      const asked = yield* Effect.result(processes.succeed(successor(decision.run, usualPatienceMillis)))
      if (Result.isSuccess(asked)) return yield* end
      note = asked.failure.message
    }
  }
  let proving = hello.succession.state === "trial"
  const onTrial = record.trial?.brain === self && hello.succession.state === "trial"
  const layout = Snapshot.layoutOf(database)
  if (onTrial && layout !== undefined && layout < MIGRATIONS.length) Snapshot.take(database)

  const status = Effect.sync((): Status => ({
    running: self,
    version: manifest.version,
    record,
    onTrial: record.trial?.brain === self,
    proving,
    note,
    brains: Brains.list(directory).map((id) => ({
      id,
      version: versionOf(id),
      fault: record.bad[id],
      problem: problemOf(id) ?? ""
    }))
  }))

  const inProgress = Effect.suspend(() =>
    record.trial === undefined && !Deferred.isDoneUnsafe(wanted)
      ? Effect.void
      : Effect.fail(new UpgradeInProgress({ what: "another brain is on its trial" }))
  )

  const install = Effect.fn("Upgrades.install")(function* ({ bytes, digest, keys, signature }: Upload) {
    const id = digestOf(bytes)
    if (id !== digest) {
      return yield* new BundleInvalid({ field: "digest", problem: `what arrived has sha256:${id}` })
    }
    const signedBy = signature === undefined ? undefined : signer(keys, id, signature)
    if (keys.length > 0 && signedBy === undefined) {
      return yield* new SignatureRefused({
        problem: signature === undefined ? "it is not signed" : "no key of this machine has made its signature"
      })
    }
    const bundle = unpack(bytes)
    if (Result.isFailure(bundle)) return yield* new BundleInvalid({ field: "chunk", problem: bundle.failure })
    const { manifest: said } = bundle.success
    const problem = blocked === "" ? incompatibility(said, hello, MIGRATIONS.length) : blocked
    if (problem !== undefined) return yield* new BrainIncompatible({ version: said.version, problem })
    yield* inProgress
    Brains.keepOnly(directory, new Set([self, record.current, record.previous ?? "", id]))
    yield* Brains.write(directory, id, bundle.success)
    return { id, manifest: said, signedBy }
  })

  const activate = Effect.fn("Upgrades.activate")(function* (brain: string, patienceMillis: number) {
    yield* inProgress
    if (brain !== Record.builtIn && !Brains.list(directory).includes(brain)) {
      return yield* new BrainNotInstalled({ brain })
    }
    if (brain === self) {
      // what is said of the last time is done with, and this one stays
      const { attempt: _, ...settled } = record
      yield* save({ ...settled, current: self, builtIn: self === Record.builtIn ? own() : record.builtIn })
      note = ""
      return false
    }
    const problem =
      brain !== Record.builtIn
        ? problemOf(brain)
        : record.builtIn.stateLayout < MIGRATIONS.length
          ? `it knows the state's layout ${record.builtIn.stateLayout}, and the state has ${MIGRATIONS.length}`
          : undefined
    if (problem !== undefined) return yield* new BrainIncompatible({ version: versionOf(brain), problem })
    const there = new Set(Brains.list(directory))
    const bad = Object.fromEntries(Object.entries(record.bad).filter(([id]) => there.has(id)))
    yield* save(
      Lifecycle.ask(
        { ...record, bad },
        {
          brain,
          version: brain === Record.builtIn ? record.builtIn.version : versionOf(brain),
          instance: hello.instance,
          patienceMillis,
          at: Date.now(),
          ...(self === Record.builtIn ? { own: own() } : {})
        }
      )
    )
    Deferred.doneUnsafe(wanted, Exit.succeed(successor(brain, patienceMillis)))
    return true
  })

  const confirm = Effect.gen(function* () {
    if (!proving) return
    if (record.trial?.brain === self) {
      yield* save(Lifecycle.confirm(record, self))
      Snapshot.drop(database)
    }
    yield* processes.confirm
    proving = false
  })

  return Upgrades.of({
    status,
    install: (upload) => lock.withPermit(install(upload)),
    activate: (brain, patienceMillis) => lock.withPermit(Effect.uninterruptible(activate(brain, patienceMillis))),
    confirm: lock.withPermit(Effect.uninterruptible(confirm)),
    handOver: Deferred.await(wanted)
  })
})

export const layer = (options: Options) => Layer.effect(Upgrades, make(options))

/** Where the database is that a choice depends on. */
export const databaseOf = (stateDirectory: string): string => join(stateDirectory, "state.db")
