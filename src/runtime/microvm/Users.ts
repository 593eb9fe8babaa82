/**
 * Whom the virtual machine monitors of microVMs run as: each sandbox has a user of its own, above all that distributions give away
 * and apart from those of VMs. It is found before the sandbox has its first machine, and stored with the sandbox: two of them
 * never share one, whatever their names are.
 *
 * Trap: as that user may run what another Ironwood of this host has started, or what the kernel cannot end. So what runs is
 * asked each time; ask while the sandbox has no machine.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import { MicroVmFailed } from "../ContainerExit.ts"
import * as Users from "../../vmm/Users.ts"
import type { Records, SandboxRecord } from "../Records.ts"

const FIRST_USER = 1_800_000_000

/** The lowest that none of these has. */
const freeUser = (found: ReadonlyArray<SandboxRecord>, running: ReadonlySet<number>): number => {
  const taken = new Set([...found.map(({ user }) => user), ...running])
  let user = FIRST_USER
  while (taken.has(user)) user++
  return user
}

/** Nobody looks for a free one before another has stored the one it has found. */
const turn = Semaphore.makeUnsafe(1)

/** That of a sandbox for its next machine: the one it has had, unless something runs as it. */
export const userOf = ({ sandboxes }: Pick<Records, "sandboxes">, name: string): Effect.Effect<number, MicroVmFailed> =>
  turn.withPermit(
    Effect.gen(function* () {
      const found = (yield* sandboxes.partition).records
      const known = found.find((record) => record.name === name)?.value.user
      const running = yield* Users.running
      if (known !== undefined && !running.has(known)) return known
      const user = freeUser(
        found.map(({ value }) => value),
        running
      )
      const stored = yield* Effect.mapError(
        sandboxes.update(name, ({ value }) => ({ ...value, user })),
        ({ message }) => new MicroVmFailed({ name, detail: message })
      )
      if (Option.isNone(stored)) return yield* new MicroVmFailed({ name, detail: "the sandbox has been removed" })
      return user
    }).pipe(Effect.uninterruptible)
  )
