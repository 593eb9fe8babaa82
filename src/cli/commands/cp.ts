/** `ironwood cp`: files into a container and out of it. */
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { existsSync, mkdtempSync, renameSync, rmSync, statSync } from "node:fs"
import { basename, dirname, join, posix, resolve } from "node:path"
import { exitCodes } from "../ExitCode.ts"
import { changed, Failure, failure } from "../Failure.ts"
import { describe } from "../Help.ts"
import { Keyboard } from "../Keyboard.ts"
import * as LocalTar from "../LocalTar.ts"
import { runIn, runInWell } from "../RunIn.ts"
import { Screen } from "../Screen.ts"
import * as Target from "../Target.ts"

/** `NAME:PATH`, else a path here; a path with a `:` is told apart by a slash before it. */
const parse = (word: string) => {
  const colon = word.indexOf(":")
  return colon > 0 && !word.slice(0, colon).includes("/")
    ? { name: word.slice(0, colon), path: word.slice(colon + 1) || "/" }
    : { name: undefined, path: word }
}

const isDirectory = (path: string): boolean => existsSync(path) && statSync(path).isDirectory()

/** Whose tar is missing. */
const explained = (error: Failure): Failure =>
  error.about?.type === "program" ? changed(error, { next: "`ironwood cp` needs tar in the container's image" }) : error

/** Where a path is taken from and as what; `dir/.` means what is in it. */
const split = (path: string): readonly [from: string, what: string] =>
  /(^|\/)\.$/.test(path) ? [path, "."] : [posix.dirname(path), posix.basename(path)]

const out = Effect.fnUntraced(function* (name: string, path: string, destination: string) {
  const [from, what] = split(posix.join("/", path) + (path.endsWith("/.") ? "/." : ""))
  const packed = ["tar", "-cf", "-", "-C", from, "--", what]
  if (destination === "-") {
    const screen = yield* Screen
    return yield* runInWell(name, packed, { output: screen.write })
  }
  const unpackTo = Effect.fnUntraced(function* (directory: string) {
    const tar = yield* LocalTar.unpack(["--no-same-owner", "--directory", directory])
    const { code, words } = yield* runIn(name, packed, { output: tar.write })
    if (code !== 0) return yield* failure(`nothing was copied: ${words === "" ? `tar ended with ${code}` : words}`)
    return yield* tar.end
  })
  const target = resolve(destination)
  if (isDirectory(target)) return yield* unpackTo(target)
  if (!isDirectory(dirname(target)) || destination.endsWith("/")) {
    return yield* failure(`there is no directory ${destination.endsWith("/") ? target : dirname(target)}`, {
      exitCode: exitCodes.usage,
      next: "Make it first"
    })
  }
  // beside where it shall be, and there only when all of it is
  const scratch = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(dirname(target), ".ironwood-cp-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  yield* unpackTo(scratch)
  return yield* Effect.sync(() => renameSync(what === "." ? scratch : join(scratch, what), target))
})

/** For tar's `--transform`: the text as it stands. */
const literal = (text: string): string => text.replaceAll(/[\\.*[\]^$|&+?(){}]/g, "\\$&")

const into = Effect.fnUntraced(function* (source: string, name: string, path: string) {
  const target = posix.join("/", path)
  if (source === "-") {
    const { input } = yield* Keyboard
    return yield* runInWell(name, ["tar", "-xf", "-", "-C", target], { input })
  }
  if (!existsSync(source)) {
    return yield* failure(`there is no ${source}`, { exitCode: exitCodes.notFound })
  }
  const { code } = yield* runIn(name, ["test", "-d", target])
  const contents = /(^|\/)\.$/.test(source)
  const absolute = resolve(source)
  const [from, what] = contents ? [absolute, "."] : [dirname(absolute), basename(absolute)]
  const renamed = code === 0 ? [] : [`--transform=flags=r;s|^${literal(what)}|${literal(posix.basename(target))}|`]
  const input = LocalTar.pack(["--owner=0", "--group=0", ...renamed, "--directory", from, "--", what])
  const directory = code === 0 ? target : posix.dirname(target)
  return yield* runInWell(name, ["tar", "-xf", "-", "-C", directory], { input })
})

export const cp = Command.make(
  "cp",
  {
    source: Argument.String("SOURCE").pipe(Argument.withDescription("NAME:PATH, a path here, or - for a tar stream")),
    destination: Argument.String("DESTINATION").pipe(Argument.withDescription("The same, on the other side"))
  },
  Effect.fnUntraced(function* ({ destination, source }) {
    const [from, to] = [parse(source), parse(destination)]
    if ((from.name === undefined) === (to.name === undefined)) {
      return yield* failure("one side must be in a container, and the other one here", {
        exitCode: exitCodes.usage,
        next: "Name a path in a container as NAME:PATH"
      })
    }
    const copy = Effect.gen(function* () {
      if (from.name !== undefined) return yield* out(yield* Target.container(from.name), from.path, destination)
      return yield* into(source, yield* Target.container(to.name ?? ""), to.path)
    })
    return yield* Effect.mapError(copy, (error) => (error instanceof Failure ? explained(error) : error))
  }, Effect.scoped)
).pipe(
  describe({
    short: "Copy files into a container that runs, and out of it",
    long: [
      "A directory goes with all that is in it; into a directory that is there, under its own name (SOURCE/. copies what is in it). It",
      "needs tar in the container. What comes out cannot be written anywhere else than in DESTINATION, whatever the container says."
    ],
    examples: [
      ["ironwood cp web:/etc/nginx ./nginx", "Out of it"],
      ["ironwood cp page.html web:/srv/", "Into it"],
      ["ironwood cp web:/var/log - | tar -t", "As a tar stream"]
    ]
  })
)
