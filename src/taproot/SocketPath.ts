/**
 * Connecting to a unix socket at a path of any length: what the kernel takes has at most 107 bytes (unix(7)), and a state
 * directory may be deep. The socket is reached through its directory, which is short by its descriptor.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { constants } from "node:fs"
import { open } from "node:fs/promises"
import { connect, type Socket } from "node:net"
import { basename, dirname } from "node:path"

/** Connected; destroyed with the scope. `failed` makes the error of what the system said. */
export const connectTo = <E>(path: string, failed: (cause: unknown) => E): Effect.Effect<Socket, E, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const directory = await open(dirname(path), constants.O_DIRECTORY | constants.O_RDONLY)
        try {
          return await new Promise<Socket>((resolve, reject) => {
            const socket = connect(`/proc/self/fd/${directory.fd}/${basename(path)}`, () => resolve(socket))
            socket.once("error", reject)
          })
        } finally {
          await directory.close()
        }
      },
      catch: failed
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
