/**
 * `Rootfs`: the root file system of a container: an overlay mount of its image's layers and a writable layer of its own.
 *
 * `acquire` when a container is about to start, `release` when it is removed. The writable layer belongs to the
 * container, not to one incarnation: it survives restarts of the container, of the brain and of the machine.
 *
 * Traps: mounts are made by taproot, in its mount namespace: `path` means something there (and so in the brain, which
 * taproot started), not outside. A mount vanishes with taproot; the next `acquire` mounts the same writable layer again.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { IdMapFailed, UserNamespace } from "../taproot/IdMap.ts"
import type { MountFailed, UnmountFailed } from "../taproot/Processes.ts"
import type { IndexError } from "./Content.ts"
import type { ImageNotFound, RootfsConflict, RootfsKeyInvalid, StorageFailed } from "./ContentError.ts"
import type { Digest } from "./Digest.ts"

/** A mounted root file system. Paths are absolute. */
export interface RootfsMount {
  readonly key: string
  readonly image: Digest
  /** Where it is mounted: the container's `root.path`. */
  readonly path: string
  readonly readonly: boolean
  /** Its writable layer on the host; undefined when read-only. */
  readonly upper: string | undefined
}

export interface RootfsOptions {
  readonly readonly?: boolean
  /** The user namespace whose root the image belongs to; default: that of the host. */
  readonly users?: UserNamespace
}

/** Why there is no root file system to start a container in. */
export type AcquireError =
  | ImageNotFound
  | RootfsConflict
  | RootfsKeyInvalid
  | MountFailed
  | UnmountFailed
  | IdMapFailed
  | IndexError

export class Rootfs extends Context.Service<
  Rootfs,
  {
    /**
     * Mounts the image's layers under the name `key` (a file name: letters, digits, `.`, `_`, `-`; at most 128). When it
     * is mounted already with the same image and options it is left as it is. With others: `RootfsConflict`.
     */
    readonly acquire: (image: Digest, key: string, options?: RootfsOptions) => Effect.Effect<RootfsMount, AcquireError>
    /** Unmounts and removes the writable layer. Fine when there is none. */
    readonly release: (key: string) => Effect.Effect<void, RootfsKeyInvalid | UnmountFailed | StorageFailed>
    /** Every root file system on disk, mounted or not. */
    readonly list: Effect.Effect<ReadonlyArray<RootfsMount>>
    /** Releases all whose key is not wanted; at start, after desired state is known. Returns the keys released. */
    readonly reconcile: (
      wanted: ReadonlySet<string>
    ) => Effect.Effect<ReadonlyArray<string>, UnmountFailed | StorageFailed>
  }
>()("ironwood/storage/Rootfs") {}
