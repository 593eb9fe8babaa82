/**
 * Who a container's process runs as: `user`, `uid`, `user:group`, `uid:gid` and their mixtures turned into numbers, by
 * the `/etc/passwd` and `/etc/group` of the container's own root file system.
 *
 * The rules are Docker's: a name must be in the file, a number need not; without a group it is the user's own from
 * `/etc/passwd` (0 for an unlisted uid) and the user gets the further groups that list it; with a group it gets that one
 * only. An empty text is root.
 *
 * Traps: a *name* that consists of digits wins over the number. `HOME` is left to the OCI runtime, which looks it up in the
 * same file.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { readFileInRoot, type RootedFileRefused } from "./RootedFile.ts"
import type { ReadInRoot } from "./System.ts"

export interface ContainerUser {
  readonly uid: number
  readonly gid: number
  /** Supplementary groups, ascending, without `gid`. */
  readonly groups: ReadonlyArray<number>
}

export const root: ContainerUser = { uid: 0, gid: 0, groups: [] }

/** The user or group is not in the image, or not possible. */
export class UserNotFound extends Schema.TaggedError<UserNotFound>()("UserNotFound", {
  user: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `user "${this.user}": ${this.problem}`
  }
}

interface PasswdEntry {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

interface GroupEntry {
  readonly name: string
  readonly gid: number
  readonly members: ReadonlyArray<string>
}

/** The largest id that kernel and runtimes take without reading it as "none". */
const MAXIMUM_ID = 2_147_483_647
const MAXIMUM_FILE = 1_048_576

const parseId = (text: string): number | undefined => {
  if (!/^\d{1,10}$/.test(text)) return undefined
  const id = Number(text)
  return id <= MAXIMUM_ID ? id : undefined
}

const lines = (text: string): ReadonlyArray<ReadonlyArray<string>> =>
  text.split("\n").map((line) => line.trim().split(":"))

/** The entries of a passwd(5) file; lines that are none are skipped, as libc does. */
export const parsePasswd = (text: string): ReadonlyArray<PasswdEntry> =>
  lines(text).flatMap(([name, , uidText, gidText]) => {
    const uid = parseId(uidText ?? "")
    const gid = parseId(gidText ?? "")
    return name === undefined || name === "" || uid === undefined || gid === undefined ? [] : [{ name, uid, gid }]
  })

/** The entries of a group(5) file. */
export const parseGroup = (text: string): ReadonlyArray<GroupEntry> =>
  lines(text).flatMap(([name, , gidText, members]) => {
    const gid = parseId(gidText ?? "")
    return name === undefined || name === "" || gid === undefined
      ? []
      : [{ name, gid, members: (members ?? "").split(",").filter((member) => member !== "") }]
  })

/** The decision itself, on the texts of the two files. */
export const resolve = Effect.fnUntraced(function* (
  user: string,
  passwd: string,
  group: string
): Effect.fn.Return<ContainerUser, UserNotFound> {
  const colon = user.indexOf(":")
  const userPart = colon < 0 ? user : user.slice(0, colon)
  const groupPart = colon < 0 ? "" : user.slice(colon + 1)
  const wantedUser = userPart === "" ? "0" : userPart
  const uid = parseId(wantedUser)
  const accounts = parsePasswd(passwd)
  const account = accounts.find(({ name }) => name === wantedUser) ?? accounts.find((entry) => entry.uid === uid)
  if (account === undefined && uid === undefined) {
    const problem = /^\d+$/.test(wantedUser) ? `uids end at ${MAXIMUM_ID}` : "not in the image's /etc/passwd"
    return yield* new UserNotFound({ user, problem })
  }
  const who = { uid: account?.uid ?? uid ?? 0, gid: account?.gid ?? 0 }
  if (groupPart === "") {
    const groups = parseGroup(group)
      .filter(({ gid, members }) => gid !== who.gid && account !== undefined && members.includes(account.name))
      .map(({ gid }) => gid)
    return { ...who, groups: [...new Set(groups)].sort((left, right) => left - right) }
  }
  const number = parseId(groupPart)
  const entries = parseGroup(group)
  const entry = entries.find(({ name }) => name === groupPart)
  const gid = entry?.gid ?? number
  if (gid === undefined) return yield* new UserNotFound({ user, problem: "its group is not in the image's /etc/group" })
  return { uid: who.uid, gid, groups: [] }
})

const text = (read: ReadInRoot, rootfs: string, path: string) =>
  Effect.map(read(rootfs, path, MAXIMUM_FILE), (bytes) =>
    Option.match(bytes, { onNone: () => "", onSome: (found) => new TextDecoder().decode(found) })
  )

const numbers = /^(\d{1,10}):(\d{1,10})$/

/** Looks up who `user` is in the root file system at `rootfs`, which `read` reads. Reads no file when the text says it all. */
export const lookUp = Effect.fnUntraced(function* (
  rootfs: string,
  user: string,
  read: ReadInRoot = readFileInRoot
): Effect.fn.Return<ContainerUser, UserNotFound | RootedFileRefused> {
  if (user === "") return root
  if (numbers.test(user)) return yield* resolve(user, "", "")
  return yield* resolve(user, yield* text(read, rootfs, "/etc/passwd"), yield* text(read, rootfs, "/etc/group"))
})
