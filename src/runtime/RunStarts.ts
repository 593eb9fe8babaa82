/**
 * How a run of a container begins: the part of `ContainerRuns` that has its image and its root file system, writes what the OCI
 * runtime reads and has it made.
 *
 * Trap: what fails or is interrupted on the way takes along all that there is of that run.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import { Content } from "../storage/Content.ts"
import { COUNT } from "../taproot/IdMap.ts"
import { CreateFailed, ImageMissing, ImagePullFailed, RootfsFailed, UserUnknown } from "./ContainerExit.ts"
import type { ContainerRuns } from "./ContainerRuns.ts"
import * as ContainerUser from "./ContainerUser.ts"
import * as Isolation from "./Isolation.ts"
import * as KnownRuns from "./KnownRuns.ts"
import type { RunRequest } from "./OciRuntime.ts"
import type { ContainerRecord } from "./Records.ts"
import * as RunEnds from "./RunEnds.ts"
import * as RuntimeSpec from "./RuntimeSpec.ts"
import type * as SandboxNamespaces from "./SandboxNamespaces.ts"
import { SeccompFilters } from "./SeccompFilters.ts"
import { orFullDisk, startFailure } from "./StartFailure.ts"
import { type System, Systems } from "./System.ts"

/** Root file systems mounted at a time: taproot takes 16 mounts at once, and refuses more. */
const PREPARED_AT_ONCE = 6

export const make = Effect.fnUntraced(function* (lives: KnownRuns.KnownRuns) {
  const content = yield* Content
  const systems = yield* Systems
  const filters = new SeccompFilters()
  const preparing = Semaphore.makeUnsafe(PREPARED_AT_ONCE)

  const image: ContainerRuns["Service"]["image"] = Effect.fnUntraced(function* ({ image: known, spec }) {
    const { image, imagePull = "never", name } = spec
    const isHere = known !== undefined && Option.isSome(yield* Effect.option(content.get(known)))
    if (imagePull === "never" || (imagePull === "if-not-present" && isHere)) return known
    const pulled = yield* Effect.mapError(
      content.pull(image, { policy: imagePull }),
      ({ _tag, message }) => new ImagePullFailed({ name, image, reason: _tag, detail: message })
    )
    return pulled.digest
  })

  /** Writes what the runtime reads; gives the program that it is to execute. */
  const configure = Effect.fnUntraced(function* (
    system: System,
    record: ContainerRecord,
    request: RunRequest,
    surroundings: SandboxNamespaces.Surroundings
  ) {
    const { spec } = record
    const { name } = spec
    const missing = () => new ImageMissing({ name, image: spec.image })
    const digest = record.image ?? (yield* missing())
    const image = yield* Effect.mapError(content.get(digest), (error) =>
      error._tag === "StorageFailed" ? new RootfsFailed({ name, detail: error.message }) : missing()
    )
    const { users } = surroundings
    const mount = yield* Effect.mapError(system.root(digest, name, record.identity ?? "", users), (error) =>
      error._tag === "ImageNotFound" ? missing() : error
    )
    const asUser = spec.user ?? image.config.user
    const user = yield* Effect.mapError(
      ContainerUser.lookUp(mount.seen, asUser, system.readInRoot),
      (error) =>
        new UserUnknown({ name, user: asUser, detail: error._tag === "UserNotFound" ? error.problem : error.message })
    )
    const beyond = users === undefined ? undefined : [user.uid, user.gid, ...user.groups].find((id) => id >= COUNT)
    if (beyond !== undefined) {
      const detail = `its sandbox has the users and groups 0 to ${COUNT - 1} alone (userNamespace: private), and not ${beyond}`
      return yield* new UserUnknown({ name, user: asUser, detail })
    }
    const isolation = Isolation.of(spec.security, system.capabilities)
    const belongings = yield* system.belongings.give(request.id, spec, user, { root: mount.seen, users })
    const config = yield* RuntimeSpec.make({
      spec,
      image: image.config,
      rootfs: mount.path,
      user,
      cgroupsPath: request.cgroup,
      limitSwap: system.limitSwap,
      isolation,
      seccompFilter: filters.of(isolation.seccomp),
      processLimit: system.processLimits.each,
      init: system.helper("init"),
      ...belongings,
      ...surroundings
    })
    yield* system.files.makeDirectory(request.bundle).pipe(
      Effect.andThen(system.files.write(`${request.bundle}/config.json`, JSON.stringify(config))),
      Effect.mapError(({ message }) => new CreateFailed({ name, detail: orFullDisk(message) }))
    )
    return { program: config.process.args[0] ?? "", seccomp: isolation.seccomp }
  })

  const start: ContainerRuns["Service"]["start"] = Effect.fnUntraced(function* (record, sandbox, incarnation) {
    const { name } = record.spec
    for (const { run } of lives.those(name)) yield* run.process.exit
    const system = yield* systems.ready(sandbox)
    yield* system.runtime.announce
    const request = KnownRuns.requestOf(system, record, incarnation)
    const started = yield* system
      .within(sandbox, name, (surroundings) =>
        Effect.flatMap(preparing.withPermit(configure(system, record, request, surroundings)), ({ program, seccomp }) =>
          system.runtime.run(request).pipe(
            Effect.tap(filters.learn(seccomp, `${system.paths.oci}/${request.id}`, system.files)),
            Effect.catchTag("RuntimeFailed", (error) => Effect.fail(startFailure(name, program, error)))
          )
        ).pipe(Effect.scoped)
      )
      .pipe(
        Effect.catchTag("RuntimeFailed", ({ message }) => Effect.fail(new CreateFailed({ name, detail: message }))),
        Effect.onError(() =>
          Effect.andThen(Effect.ignore(system.files.remove(request.bundle)), system.belongings.takeBack(request.id))
        ),
        Effect.map((process) => ({ process })),
        Effect.catch((error) =>
          Effect.gen(function* () {
            if (yield* system.isRenewed) return undefined
            return yield* (yield* RunEnds.endedWith(system, name)) ?? error
          })
        )
      )
    if (started === undefined) return yield* start(record, sandbox, incarnation)
    return yield* lives.register(system, record, started.process, incarnation)
  })

  return { image, start }
})
