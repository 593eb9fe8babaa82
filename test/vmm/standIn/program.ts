/**
 * A recording stand-in for the programs `cloud-hypervisor` and `firecracker`: NO hypervisor. It takes their options, speaks their
 * REST APIs by the rules of `…Rules.ts`, and has a guest that is a few lines of text. It is started like the real ones: by
 * `launch`, as another user, with descriptors. What it was asked is written to the file `requests` beside it.
 *
 * Its guest prints that it is ready, echoes what is typed, ends when the power button is pressed, and does what its kernel's command
 * line says, or is typed: `guest.do=poweroff|reboot|panic|crash|fail|flood`, or `deaf`, to the button. What is typed after `set:` it
 * remembers, and says to `get`; after `cling` it keeps what it is asked to let go of, until `behave`. How the program itself misbehaves
 * is in the file `behaviour` beside it, read anew at each request: JSON, see {@link Behaviour}.
 */
import * as fs from "node:fs"
import { createServer } from "node:http"
import type { Socket } from "node:net"
import { join } from "node:path"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as CloudHypervisorRules from "./CloudHypervisorRules.ts"
import * as FirecrackerRules from "./FirecrackerRules.ts"
import type { World } from "./Rules.ts"

const Behaviour = Schema.Struct({
  /** It ends at once, with this code. */
  exit: Schema.optionalKey(Schema.Int),
  /** KVM does not work for it. */
  noKvm: Schema.optionalKey(Schema.Boolean),
  /** An older version: without options that newer ones have. */
  older: Schema.optionalKey(Schema.Boolean),
  /** What becomes of the answer to requests to this path. */
  path: Schema.optionalKey(Schema.String),
  answer: Schema.optionalKey(Schema.Literals(["never", "rubbish", "cut", "huge", "drip", "teapot", "late"]))
})
type Behaviour = typeof Behaviour.Type

const [name = "", home = "", ...words] = process.argv.slice(2)

const behaviour = (): Behaviour => {
  try {
    const text = fs.readFileSync(join(home, "behaviour"), "utf8")
    return Option.getOrElse(Schema.decodeUnknownOption(Schema.fromJsonString(Behaviour))(text), () => ({}))
  } catch {
    return {}
  }
}

const optionOf = (option: string): string | undefined => {
  const at = words.indexOf(option)
  return at < 0 ? undefined : words[at + 1]
}
const descriptorOf = (option: string): number => Number(/^fd=(\d+)$/.exec(optionOf(option) ?? "")?.[1])

// --- the guest ---

let halted = false
let deaf = false
/** It keeps what it is asked to let go of. */
let clings = false
let mark = ""
/** What it is asked to let go of, and has not got to yet. */
const asked: Array<() => void> = []
const letGo = (): void => {
  if (halted || clings) return
  for (const one of asked.splice(0)) one()
}
const say = (text: string): void => void fs.writeSync(1, `${text}\r\n`)

type Wish = (ends: { readonly off: () => void; readonly reset: () => void }) => void

const wishes: Readonly<Record<string, Wish>> = {
  poweroff: ({ off }) => off(),
  reboot: ({ reset }) => reset(),
  crash: () => process.abort(),
  fail: () => process.exit(152),
  flood: () => {
    for (let time = 0; time < 20_000; time++) world.event("virtio-device", "reset", { id: "_disk0" })
    say("guest: flooded")
  },
  panic: ({ reset }) => {
    say("Kernel panic - not syncing: as it was told")
    world.event("guest", "panic", { event: "panic" })
    reset()
  }
}

const ends = {
  off: () => (name === "firecracker" ? say("System halted") : chRules?.poweredOff()),
  reset: () => (name === "firecracker" ? end(0) : setTimeout(() => chRules?.rebooted(), 20))
}

const guest = (commandLine: string): void => {
  const wish = /guest\.do=(\S+)/.exec(commandLine)?.[1] ?? "idle"
  halted = false
  clings = false
  mark = ""
  deaf = wish === "deaf"
  say("guest: ready")
  setTimeout(() => wishes[wish]?.(ends), 20)
}

process.stdin.on("data", (bytes) => {
  if (halted || rules === undefined) return
  const text = String(bytes).trim()
  const wish = wishes[text]
  if (text.startsWith("set:")) {
    mark = text.slice("set:".length)
    say("guest: set")
  } else if (text === "get") say(`guest: mark <${mark}>`)
  else if (text === "cling" || text === "behave") {
    clings = text === "cling"
    say(`guest: heard ${text}`)
    letGo()
  } else if (wish === undefined) say(`guest: heard ${text}`)
  else wish(ends)
})
process.stdin.on("error", () => {})

const end = (code: number): void => {
  // what is answered goes out first
  setTimeout(() => process.exit(code), 20)
}

/** What goes wrong with it, in words. */
const problemOf = (run: () => void): string | undefined => {
  try {
    run()
    return undefined
  } catch (error) {
    return String(error)
  }
}

const eventsTo = descriptorOf("--event-monitor")
const world: World = {
  boot: guest,
  event: (source, event, properties) => {
    if (Number.isNaN(eventsTo)) return
    const time = process.hrtime()
    const record = { timestamp: { secs: time[0], nanos: time[1] }, source, event, properties: properties ?? null }
    fs.writeSync(eventsTo, `${JSON.stringify(record, undefined, 2)}\n\n`)
  },
  press: () => {
    if (halted || deaf) return
    say("guest: power button")
    if (name === "firecracker") end(0)
    else chRules?.poweredOff()
  },
  halt: (now) => {
    halted = now
    setTimeout(letGo, 20)
  },
  exit: end,
  open: (path, writes) => problemOf(() => fs.closeSync(fs.openSync(path, writes ? "r+" : "r"))),
  grow: (path, bytes) => problemOf(() => fs.truncateSync(path, bytes)),
  ask: (one) => {
    asked.push(one)
    setTimeout(letGo, 20)
  },
  memory: () => mark,
  recall: (memory) => {
    mark = memory
    halted = true
  },
  write: (path, text) => problemOf(() => fs.writeFileSync(path, text, { flag: "wx", mode: 0o600 })),
  read: (path) => {
    try {
      return fs.readFileSync(path, "utf8")
    } catch {
      return undefined
    }
  }
}

const chRules =
  name === "cloud-hypervisor" ? CloudHypervisorRules.make(words.includes("--no-shutdown"), world) : undefined
const rules = chRules ?? FirecrackerRules.make(optionOf("--id") ?? "anonymous-instance", world)

// --- the program ---

const serve = (): void => {
  const server = createServer((request, response) => {
    const pieces: Array<Buffer> = []
    request.on("data", (piece: Buffer) => pieces.push(piece))
    request.on("end", () => {
      const text = pieces.length === 0 ? undefined : Buffer.concat(pieces).toString("utf8")
      const { method = "", url = "" } = request
      fs.appendFileSync(join(home, "requests"), `${method} ${url} ${text ?? ""}\n`)
      const { answer, path } = behaviour()
      const socket: Socket = request.socket
      if (answer !== undefined && path === url) {
        switch (answer) {
          case "never":
            return
          case "rubbish":
            return void socket.end("SSH-2.0-OpenSSH_9.2\r\n")
          case "cut":
            return void socket.end("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
          case "huge":
            response.writeHead(200)
            return void response.end("x".repeat(4_000_000))
          // it does what it is asked, and the answer comes when nobody waits for it any more
          case "late":
            rules.answer(method, url, text)
            return
          case "drip":
            socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            return void setInterval(() => socket.write(" "), 20)
          default:
            response.writeHead(418)
            return void response.end("{")
        }
      }
      const { body, status } = rules.answer(method, url, text)
      response.writeHead(status, { server: "stand-in", "content-type": "application/json" })
      response.end(body === undefined ? undefined : JSON.stringify(body))
    })
  })
  if (name === "firecracker") server.listen(optionOf("--api-sock"))
  else server.listen({ fd: descriptorOf("--api-socket") })
}

const { exit, noKvm, older } = behaviour()
const isTrial = words.includes("--no-api") || words.includes("--kernel")
if (words.includes("--version")) {
  say(name === "firecracker" ? "Firecracker v1.17.0-dev" : "cloud-hypervisor v53.0")
  process.exit(0)
}
if (words.includes("--help")) {
  say(older === true ? "--landlock" : "--landlock --no-shutdown")
  process.exit(0)
}
if (isTrial) {
  // the kernel, and what else it was given, it must be able to open
  for (const file of [optionOf("--kernel"), optionOf("--config-file")]) if (file !== undefined) fs.readFileSync(file)
  fs.writeSync(noKvm === true ? 2 : 1, noKvm === true ? "Error creating KVM object\n" : "!")
  process.exit(noKvm === true ? 1 : 0)
}
if (exit !== undefined) {
  fs.writeSync(2, `${name}: told to end\n`)
  process.exit(exit)
}
world.event("vmm", "starting")
// Firecracker has no handler for it
if (chRules !== undefined) process.on("SIGTERM", () => void chRules.answer("PUT", "/api/v1/vmm.shutdown", undefined))
serve()
