/**
 * UEFI of a machine that QEMU makes, as Debian's package `ovmf` has it: firmware, and the variables that a machine begins with. With
 * Secure Boot it starts only what is signed by a key that is in its variables: by default Microsoft's keys, which sign the loaders
 * of most distributions.
 *
 * Traps:
 * - Variables are copied at a machine's first start and are its own from then on: another template changes nothing any more.
 * - Variables without keys are in setup mode: everything starts, until something enrols keys (systemd-boot can) and starts anew.
 * - Cloud Hypervisor has firmware of its own, and no variables.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import * as Remedy from "../host/Remedy.ts"
import type { FieldProblem } from "../storage/StateErrors.ts"
import * as Disks from "./Disks.ts"

/** The fields of a spec that are about it. */
export interface Firmed {
  readonly hypervisor: string
  readonly kernel?: string
  readonly firmware: "bios" | "uefi"
  readonly secureBoot: boolean
  readonly firmwareVariables?: string
}

/** Where `ovmf` has its files. */
const OVMF = "/usr/share/OVMF"

/** What the chip for variables has, and where the file system in it says that it is one (`EFI_FIRMWARE_VOLUME_HEADER`). */
const VARIABLES = { bytes: 540_672, signatureAt: 40, signature: "_FVH" } as const

/** The firmware itself. */
export const codeOf = ({ secureBoot }: Pick<Firmed, "secureBoot">, directory = OVMF): string =>
  join(directory, secureBoot ? "OVMF_CODE_4M.secboot.fd" : "OVMF_CODE_4M.fd")

/** What its variables are copied from. */
const templateOf = ({ firmwareVariables, secureBoot }: Firmed, directory: string): string =>
  firmwareVariables ?? join(directory, secureBoot ? "OVMF_VARS_4M.ms.fd" : "OVMF_VARS_4M.fd")

/** Whether it is what boots a machine. */
export const isWanted = ({ firmware, hypervisor, kernel }: Firmed): boolean =>
  kernel === undefined && firmware === "uefi" && hypervisor !== "cloud-hypervisor"

/** What is wrong with fields that are right one by one. */
export const problemsOf = ({
  firmware,
  firmwareVariables,
  kernel,
  secureBoot
}: Firmed): ReadonlyArray<FieldProblem> => {
  const problem =
    kernel !== undefined
      ? "is a matter of firmware, and the machine's kernel is booted without"
      : firmware !== "uefi"
        ? "needs firmware uefi"
        : undefined
  if (problem === undefined) return []
  return [
    ...(secureBoot ? [{ field: "secureBoot", problem }] : []),
    ...(firmwareVariables === undefined ? [] : [{ field: "firmwareVariables", problem }])
  ]
}

/** The variables in a file of a person's, who may have named anything. */
const variablesIn = (path: string): Effect.Effect<Buffer, string> =>
  Effect.gen(function* () {
    yield* Disks.plain(path)
    const bytes = yield* Disks.start(path, VARIABLES.bytes + 1)
    const { signature, signatureAt } = VARIABLES
    const said = bytes.toString("latin1", signatureAt, signatureAt + signature.length)
    if (bytes.length === VARIABLES.bytes && said === signature) return bytes
    return yield* Effect.fail(
      `it is no file of variables of this firmware, which has ${VARIABLES.bytes} bytes, like ${OVMF}/OVMF_VARS_4M.fd`
    )
  })

/** What of the host's files its firmware lacks, by the field that wants it. */
export const hostProblems = (spec: Firmed, directory = OVMF): Effect.Effect<ReadonlyArray<FieldProblem>> => {
  if (!isWanted(spec)) return Effect.succeed([])
  const field = spec.secureBoot ? "secureBoot" : "firmware"
  const template = templateOf(spec, directory)
  const look = (field: string, look: Effect.Effect<void, string>, words: (problem: string) => string) =>
    Effect.match(look, {
      onSuccess: (): ReadonlyArray<FieldProblem> => [],
      onFailure: (problem) => [{ field, problem: words(problem) }]
    })
  const ofPackage = (path: string) =>
    look(
      field,
      Disks.plain(path),
      (problem) => `${path}: ${problem}; ${Remedy.ofHypervisor("install the package ovmf")}`
    )
  return Effect.map(
    Effect.all([
      ofPackage(codeOf(spec, directory)),
      spec.firmwareVariables === undefined
        ? ofPackage(template)
        : look("firmwareVariables", Effect.asVoid(variablesIn(template)), (problem) => problem)
    ]),
    (found) => found.flat()
  )
}

const isThere = (path: string) =>
  Effect.promise(() =>
    fs.lstat(path).then(
      () => true,
      () => false
    )
  )

/** Gives a machine that has no variables yet its own, whole or not at all. What is there stays, whatever it is. */
export const prepareVariables = (spec: Firmed, place: string): Effect.Effect<void, string> =>
  Effect.gen(function* () {
    if (!isWanted(spec) || (yield* isThere(place))) return
    const bytes = yield* variablesIn(templateOf(spec, OVMF))
    yield* Effect.tryPromise({
      try: async () => {
        await fs.mkdir(dirname(place), { recursive: true, mode: 0o700 })
        const making = `${place}.new`
        await fs.rm(making, { force: true })
        await fs.writeFile(making, bytes, { mode: 0o600, flag: "wx", flush: true })
        await fs.rename(making, place)
      },
      catch: String
    })
  })
