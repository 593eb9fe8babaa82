/**
 * Tells the boot loader that the image it started is good: systemd-boot takes a try off an image with each start
 * (`ironwood_0.2.0+2-1.efi` has two left, and has had one), and leaves one that has none left for an older one. A machine
 * whose tree has come up and stayed up for a while takes the counter off the name, and the image is started from then on
 * (systemd.io/AUTOMATIC_BOOT_ASSESSMENT; the loader's variables: systemd.io/BOOT_LOADER_INTERFACE).
 *
 * Use it as the last child of the root: it starts when all others have, and anew when one of them has had to.
 *
 * Trap: the file system of the loader is FAT, which a power cut in the middle can damage. It is mounted for the moment of
 * the renaming only, and nothing else is ever written there.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { access, mkdir, open, readdir, readFile, rename, rmdir, writeFile } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { Processes } from "../taproot/Processes.ts"
import { step, StepFailed } from "./Step.ts"

const variable = "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

/** The partition's name in the table of `npm run image -- --disk`. */
const partition = "ironwood-esp"

const mountPoint = "/run/ironwood/esp"

/** nosuid, nodev, noexec: mount(2). */
const flags = 14n

/** Is there once the loader has been told, until the machine is started anew. */
const toldFile = "/run/ironwood/image-is-good"

/** How long all must have been up. */
const patience = "10 seconds"

const name = "boot-assessment"

/** The image that was started, as the loader counts it. */
export interface CountedImage {
  /** On the loader's file system: `/EFI/Linux/ironwood_0.2.0+2-1.efi`. */
  readonly path: string
  /** The same without the counter: where it is once it is good. */
  readonly good: string
  readonly triesLeft: number
}

/** The image in the text of the loader's variable; none when its name has no counter. */
export const countedImage = (text: string): Option.Option<CountedImage> => {
  const path = text.replaceAll("\\", "/")
  const found = /^((?:\/[^/]+)*\/[^/+]+)\+(\d{1,9})(?:-\d{1,9})?(\.[A-Za-z]+)$/.exec(path)
  const [, before = "", left = "", extension = ""] = found ?? []
  return found === null || path.split("/").includes("..")
    ? Option.none()
    : Option.some({ path, good: `${before}${extension}`, triesLeft: Number(left) })
}

/** What a variable of efivarfs holds: four bytes of attributes, then UTF-16 with a NUL at its end. */
export const variableText = (bytes: Uint8Array): string =>
  Buffer.from(bytes.subarray(4)).toString("utf16le").replace(/\0+$/, "")

/** The image that this machine was started from, if the loader counts its tries. `file`: for tests. */
export const startedFrom = (file: string): Effect.Effect<Option.Option<CountedImage>> =>
  Effect.map(
    Effect.option(Effect.tryPromise(() => readFile(file))),
    Option.flatMap((bytes) => countedImage(variableText(bytes)))
  )
export const started = startedFrom(variable)

/** The same while the loader has not been told that it is good: the variable stays as it is until the next start. */
export const unprovenFrom = (file: string, told: string): Effect.Effect<Option.Option<CountedImage>> =>
  Effect.flatMap(isThere(told), (isTold) => (isTold ? Effect.succeedNone : startedFrom(file)))
export const unproven = Effect.suspend(() => unprovenFrom(variable, toldFile))

/**
 * Why a machine reboots whose brain cannot keep itself up, or none: then it stays as it is. An image that has not proved
 * itself is left for the one before only by a reboot, also after its last try, so then the machine config is not asked.
 */
export const rebootReason = (
  whenBrainFails: "wait" | "reboot",
  image: Option.Option<CountedImage>
): Option.Option<string> =>
  Option.match(image, {
    onNone: () => (whenBrainFails === "reboot" ? Option.some("the machine config says so") : Option.none()),
    onSome: ({ path, triesLeft }) =>
      Option.some(
        `its image ${basename(path)} has never proved itself; the boot loader ${
          triesLeft === 0
            ? "leaves it for the one before"
            : `leaves it for the one before after its last try (left: ${triesLeft})`
        }`
      )
  })

const failed = (problem: string) => new StepFailed({ step: name, problem })

const attempt = <A>(what: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: (cause) => failed(`${what}: ${String(cause)}`) })

/** The devices whose partition has the name. */
const candidates = attempt("looking for the loader's partition", async () => {
  const devices = await readdir("/sys/class/block")
  const named = await Promise.all(
    devices.map(async (device) => {
      const facts = await readFile(`/sys/class/block/${device}/uevent`, "utf8").catch(() => "")
      return facts.split("\n").includes(`PARTNAME=${partition}`) ? [`/dev/${device}`] : []
    })
  )
  return named.flat()
})

const isThere = (path: string) => Effect.map(Effect.option(Effect.tryPromise(() => access(path))), Option.isSome)

/** Takes the counter off on one partition; false when it is not the one that was started from. */
const bless = Effect.fnUntraced(function* (device: string, image: CountedImage) {
  const processes = yield* Processes
  // a brain that died in the middle has left it mounted
  yield* Effect.ignore(processes.unmount(mountPoint))
  yield* attempt(`making ${mountPoint}`, () => mkdir(mountPoint, { recursive: true }))
  yield* Effect.acquireRelease(
    Effect.mapError(
      processes.mount({ source: device, target: mountPoint, type: "vfat", flags, data: "umask=0077" }),
      ({ message }) => failed(message)
    ),
    () =>
      Effect.andThen(
        Effect.ignore(processes.unmount(mountPoint)),
        Effect.ignore(Effect.tryPromise(() => rmdir(mountPoint)))
      )
  )
  const [counted, good] = [join(mountPoint, image.path), join(mountPoint, image.good)]
  if (!(yield* isThere(counted))) return yield* isThere(good)
  yield* attempt(`renaming ${basename(counted)}`, async () => {
    await rename(counted, good)
    const folder = await open(dirname(good), "r")
    await folder.sync().finally(() => folder.close())
  })
  return true
}, Effect.scoped)

/** The step that waits until all has been up for a while, and says so to the loader. */
export const bootAssessment = (image: CountedImage) =>
  step(
    name,
    { description: "tells the boot loader that this image is good", deadline: "2 minutes" },
    Effect.gen(function* () {
      yield* Effect.sleep(patience)
      for (const device of yield* candidates) {
        if (!(yield* bless(device, image))) continue
        yield* attempt(`writing ${toldFile}`, () => writeFile(toldFile, image.good))
        return { facts: { image: basename(image.good), partition: device } }
      }
      return yield* failed(
        `no partition named ${partition} has ${image.path}: the loader goes on counting, and leaves this image after ${image.triesLeft} more starts`
      )
    })
  )
