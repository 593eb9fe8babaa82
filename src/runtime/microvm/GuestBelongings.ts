/**
 * What a run in a microVM has beside its image. Volumes are disks of its machine, and directories of the host that it may write to are
 * shared with it (`GuestShares.ts`). Of secrets, and of files and directories that are mounted read-only, it is given copies, in its
 * memory, as the run starts. They are taken back when the run is forgotten.
 *
 * Traps: what is changed on the host in a copy's original the run does not see; the next one does. Whoever takes the guest over has the copies,
 * as whoever takes over a container has its secrets.
 */
import * as Effect from "effect/Effect"
import type { FileFailed, SystemFiles } from "../../host/SystemFiles.ts"
import type { Belongings } from "../Belongings.ts"
import { CreateFailed, HostPathRefused } from "../ContainerExit.ts"
import type { HostPaths } from "../HostPaths.ts"
import type { Secrets } from "../Secrets.ts"
import type { GuestShares } from "./GuestShares.ts"
import * as SharedDirectories from "./SharedDirectories.ts"

/** Gives a file or directory of the guest an owner and a mode. */
export type Own = (
  path: string,
  owner: { readonly uid: number; readonly gid: number; readonly mode: number }
) => Effect.Effect<void, FileFailed>

export const make = (input: {
  /** In the guest. */
  readonly directory: string
  readonly files: SystemFiles
  readonly own: Own
  readonly removeTree: (path: string) => Effect.Effect<void>
  /** The directory of a volume, for a container whose image has `model` there. */
  readonly volume: (container: string, name: string, model: string) => Effect.Effect<string, CreateFailed>
  readonly hostPaths: HostPaths
  readonly shares: GuestShares
  readonly secrets: Secrets["Service"]
}): Belongings => {
  const { directory, files, hostPaths, own, removeTree, secrets, shares, volume } = input
  const placeOf = (run: string) => `${directory}/${run}`

  return {
    give: (run, spec, owner, { root }) =>
      Effect.gen(function* () {
        const { devices, mounts, name, volumes } = spec
        const refused = (path: string, problem: string) => new HostPathRefused({ name, path, problem })
        const [device] = devices
        if (device !== undefined) return yield* refused(device.path, "a microVM has no device of its host")
        const ofVolumes = yield* Effect.forEach(volumes, ({ name: wanted, readOnly, target }) =>
          Effect.map(volume(name, wanted, `${root}${target}`), (source) => ({ source, target, readOnly }))
        )
        const shared = yield* Effect.forEach(SharedDirectories.sharedOf(spec), (mount) =>
          Effect.map(shares.of(name, mount), (source) => ({ source, target: mount.target, readOnly: false }))
        )
        const place = placeOf(run)
        const values = yield* secrets.values(spec)
        const copied = mounts.filter(({ readOnly }) => readOnly)
        const copies = yield* hostPaths.contents({ name, mounts: copied })
        yield* Effect.mapError(
          Effect.gen(function* () {
            for (const [index, { value }] of values.entries()) {
              yield* files.makeDirectory(`${place}/secrets`)
              yield* files.write(`${place}/secrets/${index}`, value, 0o400)
              yield* own(`${place}/secrets/${index}`, { ...owner, mode: 0o400 })
            }
            for (const [index, entries] of copies.entries()) {
              yield* files.makeDirectory(`${place}/mounts`)
              for (const { content, gid, mode, path, uid } of entries) {
                const target = `${place}/mounts/${index}${path}`
                yield* content === undefined ? files.makeDirectory(target) : files.write(target, content)
                yield* own(target, { uid, gid, mode })
              }
            }
          }),
          ({ message }) => new CreateFailed({ name, detail: `what it has of the host could not be copied: ${message}` })
        )
        return {
          binds: [
            ...ofVolumes,
            ...shared,
            ...copied.map(({ target }, index) => ({ source: `${place}/mounts/${index}`, target, readOnly: true })),
            ...values.map(({ target }, index) => ({
              source: `${place}/secrets/${index}`,
              target,
              readOnly: true,
              noPrograms: true
            }))
          ],
          devices: []
        }
      }),
    takeBack: (run) =>
      files.list(placeOf(run)).pipe(
        Effect.andThen(removeTree(placeOf(run))),
        // it was given nothing
        Effect.ignore
      )
  }
}
