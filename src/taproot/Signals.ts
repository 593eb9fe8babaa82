/**
 * Linux signals by name and number: the names a program meets (`SIGTERM`, `SIGRTMIN+3`), typed, and both ways of
 * converting them. The numbers are those of x86-64, arm64 and RISC-V (asm-generic/signal.h), where they are the same.
 *
 * Traps: 32 and 33 belong to the C library and have no standard name (`SIG32` and `SIG33` here, so that every number
 * has one); real-time signals are counted from SIGRTMIN as glibc shows it to programs (34), the last one is SIGRTMAX;
 * an image's STOPSIGNAL may be a bare number, lower case or lack the `SIG`: read it with `parseSignal`.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** Every signal, in the order of the numbers: the name at index 0 is signal 1, the one at index 63 is signal 64. */
export const signalNames = [
  "SIGHUP",
  "SIGINT",
  "SIGQUIT",
  "SIGILL",
  "SIGTRAP",
  "SIGABRT",
  "SIGBUS",
  "SIGFPE",
  "SIGKILL",
  "SIGUSR1",
  "SIGSEGV",
  "SIGUSR2",
  "SIGPIPE",
  "SIGALRM",
  "SIGTERM",
  "SIGSTKFLT",
  "SIGCHLD",
  "SIGCONT",
  "SIGSTOP",
  "SIGTSTP",
  "SIGTTIN",
  "SIGTTOU",
  "SIGURG",
  "SIGXCPU",
  "SIGXFSZ",
  "SIGVTALRM",
  "SIGPROF",
  "SIGWINCH",
  "SIGIO",
  "SIGPWR",
  "SIGSYS",
  "SIG32",
  "SIG33",
  "SIGRTMIN",
  "SIGRTMIN+1",
  "SIGRTMIN+2",
  "SIGRTMIN+3",
  "SIGRTMIN+4",
  "SIGRTMIN+5",
  "SIGRTMIN+6",
  "SIGRTMIN+7",
  "SIGRTMIN+8",
  "SIGRTMIN+9",
  "SIGRTMIN+10",
  "SIGRTMIN+11",
  "SIGRTMIN+12",
  "SIGRTMIN+13",
  "SIGRTMIN+14",
  "SIGRTMIN+15",
  "SIGRTMIN+16",
  "SIGRTMIN+17",
  "SIGRTMIN+18",
  "SIGRTMIN+19",
  "SIGRTMIN+20",
  "SIGRTMIN+21",
  "SIGRTMIN+22",
  "SIGRTMIN+23",
  "SIGRTMIN+24",
  "SIGRTMIN+25",
  "SIGRTMIN+26",
  "SIGRTMIN+27",
  "SIGRTMIN+28",
  "SIGRTMIN+29",
  "SIGRTMAX"
] as const

/** The name of a signal; decodes exactly these spellings (people's spellings: `parseSignal`). */
export const SignalName = Schema.Literals(signalNames)
export type SignalName = (typeof signalNames)[number]

const numbers: ReadonlyMap<string, number> = new Map(signalNames.map((name, index) => [name, index + 1]))

const aliases: ReadonlyMap<string, SignalName> = new Map([
  ["SIGIOT", "SIGABRT"],
  ["SIGCLD", "SIGCHLD"],
  ["SIGPOLL", "SIGIO"],
  ["SIGUNUSED", "SIGSYS"]
] as const)

/** The number of a signal, 1 to 64. */
export const signalNumber = (name: SignalName): number => numbers.get(name) ?? 0

/** The name of a signal number; none outside 1 to 64. */
export const signalName = (number: number): Option.Option<SignalName> => Option.fromUndefinedOr(signalNames[number - 1])

const isSignalName = Schema.is(SignalName)

/** Reads what people and image configurations write: `SIGTERM`, `term`, `15`, `RTMIN+3`, `SIGRTMAX-14`. */
export const parseSignal = (text: string): Option.Option<SignalName> => {
  const trimmed = text.trim().toUpperCase()
  if (/^\d{1,2}$/.test(trimmed)) return signalName(Number(trimmed))
  const name = trimmed.startsWith("SIG") ? trimmed : `SIG${trimmed}`
  if (isSignalName(name)) return Option.some(name)
  const realTime = /^SIGRT(MIN\+|MAX-)(\d{1,2})$/.exec(name)
  if (realTime !== null) {
    const number = realTime[1] === "MIN+" ? 34 + Number(realTime[2]) : 64 - Number(realTime[2])
    return number >= 34 ? signalName(number) : Option.none()
  }
  return Option.fromUndefinedOr(aliases.get(name))
}
