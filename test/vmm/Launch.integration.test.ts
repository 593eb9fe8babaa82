/** `launch`: which files it opens for a program, which it does not, and what the program is then. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import {
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { helperPath } from "../../src/taproot/Helper.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => realpathSync(mkdtempSync(join(tmpdir(), "ironwood-launch-")))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Runs `program` with the files; its exit code and what it said. */
const launch = Effect.fnUntraced(function* (
  directory: string,
  files: ReadonlyArray<string>,
  program: string,
  options: ReadonlyArray<string> = []
) {
  const processes = yield* Processes
  const launcher = helperPath(processes.hello.taprootPid, "launch")
  const { exit, stderr, stdout } = yield* processes.run({
    label: "launch",
    argv: [launcher, ...options, "1900000123", "1900000123", ...files, "--", "sh", "-c", program],
    environment: { PATH: process.env["PATH"] ?? "" },
    directory
  })
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8")
  return { code: exit._tag === "Exited" ? exit.code : exit._tag, stdout: text(stdout), stderr: text(stderr) }
})

describe("launch", () => {
  it.live("opens what a person named through links, and what is a program's own through none", () =>
    Effect.gen(function* () {
      const home = yield* temporary
      writeFileSync(join(home, "secret"), "of root's\n", { mode: 0o600 })
      symlinkSync("secret", join(home, "link"))
      const named = yield* launch(home, ["3=ro:link"], "cat <&3")
      assert.deepStrictEqual(named, { code: 0, stdout: "of root's\n", stderr: "" })
      const linked = yield* launch(home, ["3=own:link"], "cat <&3")
      assert.deepStrictEqual([linked.code, linked.stdout], [66, ""])
      assert.match(linked.stderr, /^launch: link: /)

      writeFileSync(join(home, "own"), "")
      assert.strictEqual((yield* launch(home, ["3=own:own"], "echo mine >&3")).code, 0)
      assert.strictEqual(statSync(join(home, "own")).size, 5)
      linkSync(join(home, "secret"), join(home, "second"))
      const twice = yield* launch(home, ["3=own:second"], "cat <&3")
      assert.deepStrictEqual([twice.code, twice.stdout], [66, ""])
      assert.strictEqual((yield* launch(home, ["3=own:."], "true")).code, 66)
      assert.strictEqual((yield* launch(home, ["3=any:own"], "true")).code, 64)
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("shows a program what it may see, read-only, and nothing else of the host", () =>
    Effect.gen(function* () {
      const home = yield* temporary
      mkdirSync(join(home, "seen"))
      writeFileSync(join(home, "seen", "file"), "seen\n")
      writeFileSync(join(home, "hidden"), "hidden\n")
      symlinkSync("seen", join(home, "link"))
      symlinkSync("hidden", join(home, "to-hidden"))
      const sees = [
        `${home}/seen`,
        `${home}/link`,
        `${home}/nothing`,
        "/usr/bin",
        "/bin",
        "/usr/lib",
        "/lib",
        "/lib64",
        "/usr/lib64"
      ]
      const { code, stderr, stdout } = yield* launch(
        home,
        [],
        `cat ${home}/link/file; ls -A / ${home}; cat /etc/passwd ${home}/hidden; echo > ${home}/seen/new; echo > /new;
         echo > /dev/null && ls /proc | grep -c '^[0-9]'; readlink /proc/1/exe; pwd`,
        sees.flatMap((path) => ["--sees", path])
      )
      assert.strictEqual(code, 0)
      const [first = "", ...rest] = home.split("/").slice(1)
      assert.isNotEmpty(rest)
      assert.deepStrictEqual(stdout.split("\n"), [
        "seen",
        "/:",
        ...["bin", "dev", "lent", "lib", "lib64", "proc", first, "usr"].toSorted(),
        "",
        `${home}:`,
        "link",
        "seen",
        // the shell, ls and grep
        "3",
        "/",
        ""
      ])
      for (const refused of ["/etc/passwd", `${home}/hidden`]) assert.include(stderr, `${refused}: No such file`)
      assert.match(stderr, /seen\/new: Read-only file system/)
      assert.match(stderr, / \/new: Read-only file system/)
      assert.deepStrictEqual(readdirSync(join(home, "seen")), ["file"])
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("takes no number for another user, nor for none", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const launcher = helperPath(processes.hello.taprootPid, "launch")
      // as before, as -1 is to the kernel; 0 in 32 bits
      for (const wrong of ["4294967295", "4294967296", "-1", "99999999999999999999"]) {
        for (const [user, groups] of [
          [wrong, "1900000123"],
          ["1900000123", wrong],
          ["1900000123", `1900000123,${wrong}`]
        ] as const) {
          const { exit, stdout } = yield* processes.run({
            label: "launch",
            argv: [launcher, user, groups, "--", "/usr/bin/id"]
          })
          assert.strictEqual(exit._tag === "Exited" ? exit.code : exit._tag, 64, `${user} ${groups}`)
          assert.strictEqual(Buffer.from(stdout).toString("utf8"), "")
        }
      }
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("makes sockets where the program itself cannot, in the place of what was there", () =>
    Effect.gen(function* () {
      const home = yield* temporary
      symlinkSync("/etc/passwd", join(home, "control"))
      const { code, stdout } = yield* launch(home, ["3=socket:control"], "readlink /proc/self/fd/3")
      assert.strictEqual(code, 0)
      assert.match(stdout, /^socket:/)
      assert.isTrue(statSync(join(home, "control")).isSocket())
      assert.isTrue(statSync("/etc/passwd").isFile())
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("lets a program open its files by name, those alone, until that is taken back", () =>
    Effect.gen(function* () {
      const home = yield* temporary
      const modes = () => ["disk", "shared", "other"].map((name) => statSync(join(home, name)).mode & 0o777)
      writeFileSync(join(home, "disk"), "disk\n", { mode: 0o600 })
      writeFileSync(join(home, "shared"), "shared\n", { mode: 0o640 })
      writeFileSync(join(home, "other"), "other\n", { mode: 0o600 })
      writeFileSync(join(home, "log"), "", { mode: 0o600 })
      mkdirSync(join(home, "own"), { mode: 0o700 })
      chownSync(join(home, "own"), 1_900_000_123, 1_900_000_123)
      const before = modes()
      const files = ["3=rw:disk", "4=ro:shared", "5=log:log", "6=dir:own"]
      const open = "cat /proc/self/fd/3 /proc/self/fd/4; echo more >> /proc/self/fd/3; echo one >&5; echo two >&5"
      const alone = launch(home, files, "cat /proc/self/fd/3")
      assert.notStrictEqual((yield* alone).code, 0, "having it open is not enough")
      for (const sees of [[], ["/usr/bin", "/bin", "/usr/lib", "/lib", "/lib64", "/usr/lib64"]]) {
        const { code, stderr, stdout } = yield* launch(
          home,
          files,
          `${open}; : > /proc/self/fd/6/made; cat ${home}/other; echo x >> /proc/self/fd/4`,
          ["--by-name", ...sees.flatMap((path) => ["--sees", path])]
        )
        assert.notStrictEqual(code, 0)
        assert.match(stdout, /^disk\n(more\n)*shared\n$/)
        assert.match(stderr, /other: (Permission denied|No such file)/)
        assert.match(stderr, /fd\/4: Permission denied/)
        assert.isTrue(existsSync(join(home, "own/made")))
        rmSync(join(home, "own/made"))
        const processes = yield* Processes
        const launcher = helperPath(processes.hello.taprootPid, "launch")
        const back = yield* processes.run({
          label: "withdraw",
          argv: [launcher, "--withdraw", "1900000123", "disk", "shared", "other", "nothing"],
          environment: {},
          directory: home
        })
        assert.deepStrictEqual([back.exit._tag, Buffer.from(back.stderr).toString("utf8")], ["Exited", ""])
        assert.deepStrictEqual(modes(), before)
        assert.notStrictEqual((yield* alone).code, 0)
      }
      assert.strictEqual(readFileSync(join(home, "log"), "utf8"), "one\ntwo\n".repeat(2), "written at its end")
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("lends a program that runs one more file or directory, seen by it alone, until that is taken back", () =>
    Effect.gen(function* () {
      const home = yield* temporary
      const processes = yield* Processes
      const launcher = helperPath(processes.hello.taprootPid, "launch")
      const user = "1900000123"
      writeFileSync(join(home, "disk"), "disk\n", { mode: 0o600 })
      for (const name of ["own", "lent"]) mkdirSync(join(home, name), { mode: 0o700 })
      const run = (...words: ReadonlyArray<string>) =>
        Effect.map(
          processes.run({ label: "lend", argv: [launcher, ...words], environment: {}, directory: home }),
          ({ exit, stderr }) => [exit._tag === "Exited" ? exit.code : exit._tag, Buffer.from(stderr).toString("utf8")]
        )
      const ways = [
        { words: ["/usr/bin", "/bin", "/usr/lib", "/lib", "/lib64", "/usr/lib64"].flatMap((path) => ["--sees", path]) },
        { words: [], file: `250=lent:${home}/lent`, above: join(home, "lent"), seen: "/proc/self/fd/250" }
      ]
      for (const { above = "/lent", file, seen = above, words } of ways) {
        const program = `
          until test -e ${seen}/disk -a -e ${seen}/a/own; do sleep 0.05; done
          cat ${seen}/disk; echo x >> ${seen}/disk; echo y > ${seen}/new; echo made > ${seen}/a/own/made
          while test -e ${seen}/disk -o -e ${seen}/a; do sleep 0.05; done; echo gone`
        const process = yield* processes.spawn({
          label: "lent",
          argv: [launcher, ...words, user, user, ...(file === undefined ? [] : [file]), "--", "sh", "-c", program],
          environment: { PATH: "/usr/bin:/bin" },
          directory: home,
          stdout: { _tag: "Stream" },
          stderr: { _tag: "Stdout" }
        })
        const pid = String(process.pid)
        const shown = () => readFileSync(`/proc/${pid}/mountinfo`, "utf8").includes(` ${above} `)
        yield* eventually("its place for what it is lent", Effect.sync(shown), (is) => is)
        assert.deepStrictEqual(yield* run("--lend", pid, user, "ro:disk", `${above}/disk`), [0, ""])
        assert.deepStrictEqual(yield* run("--lend", pid, user, "dir:own", `${above}/a/own`), [0, ""])
        yield* eventually(
          "what it makes there",
          Effect.sync(() => existsSync(join(home, "own/made"))),
          (is) => is
        )
        assert.notInclude(readFileSync("/proc/self/mountinfo", "utf8"), above)
        for (const place of ["disk", "a/own", "a/own"]) {
          assert.deepStrictEqual(yield* run("--take-back", pid, `${above}/${place}`), [0, ""])
        }
        const said = yield* Stream.runFold(
          process.output("stdout"),
          () => "",
          (text, { bytes }) => text + Buffer.from(bytes).toString("utf8")
        )
        assert.match(said, /^disk\n(.*Read-only file system\n|.*Permission denied\n){2}gone\n$/)
        yield* process.acknowledge
        assert.deepStrictEqual(yield* run("--take-back", pid, `${above}/disk`), [0, ""], "it has ended")
        rmSync(join(home, "own/made"))
        chownSync(join(home, "own"), 0, 0)
        yield* run("--withdraw", user, "disk")
      }
      const [code, words] = yield* run("--lend", String(processes.hello.taprootPid), user, "ro:disk", "/lent/disk")
      assert.strictEqual(code, 71, "never among our own mounts")
      assert.match(String(words), /link/)
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )
})
