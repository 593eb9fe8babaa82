/**
 * Quantities as people write them: durations (`500ms`, `1h30m`) and byte sizes (`64MiB`, `64M`).
 *
 * Used by the flags and by spec files. Both are exact: a text that does not come out as a whole number of
 * nanoseconds or bytes is refused instead of rounded, and so is a bare number where the unit would be a guess.
 *
 * Trap: a lone letter counts in 1024s (`64M` = `64m` = `64MiB`), as docker and systemd read a memory limit;
 * only the SI form with a B (`64MB`) counts in 1000s.
 */
import * as Result from "effect/Result"

/** A length of time as google.protobuf.Duration has it: whole seconds and 0 … 999,999,999 nanoseconds. */
export interface Seconds {
  readonly seconds: bigint
  readonly nanos: number
}

const nanosecondsPerUnit: ReadonlyMap<string, bigint> = new Map([
  ["ns", 1n],
  ["us", 1_000n],
  ["µs", 1_000n],
  ["ms", 1_000_000n],
  ["s", 1_000_000_000n],
  ["m", 60_000_000_000n],
  ["h", 3_600_000_000_000n],
  ["d", 86_400_000_000_000n]
])

/** The longest duration protobuf allows: about 10,000 years. */
const maximumSeconds = 315_576_000_000n

/** A decimal (`1.5`) times a whole number, exactly; undefined when it does not come out whole. */
const multiply = (decimal: string, factor: bigint): bigint | undefined => {
  const [whole = "", fraction = ""] = decimal.split(".")
  const scale = 10n ** BigInt(fraction.length)
  const product = BigInt(`${whole}${fraction}`) * factor
  return product % scale === 0n ? product / scale : undefined
}

const durationHelp = "a duration such as 500ms, 10s, 5m or 1h30m"

/**
 * Reads a duration: one or more numbers each with a unit out of `ns us ms s m h d`, largest first or not, summed.
 * Zero may stand without a unit. The failure is what would have been right.
 */
export const parseDuration = (text: string): Result.Result<Seconds, string> => {
  const trimmed = text.trim()
  if (trimmed === "0") return Result.succeed({ seconds: 0n, nanos: 0 })
  if (!/^(?:\d{1,15}(?:\.\d{1,9})?(?:ns|us|µs|ms|s|m|h|d))+$/.test(trimmed)) {
    return Result.fail(
      /^\d+(\.\d+)?$/.test(trimmed) ? `${durationHelp} ("${trimmed}" has no unit)` : `${durationHelp}, not "${text}"`
    )
  }
  let total = 0n
  for (const [, amount = "0", unit = ""] of trimmed.matchAll(/(\d+(?:\.\d+)?)([a-zµ]+)/g)) {
    const nanoseconds = multiply(amount, nanosecondsPerUnit.get(unit) ?? 0n)
    if (nanoseconds === undefined) return Result.fail(`a duration of whole nanoseconds, not "${text}"`)
    total += nanoseconds
  }
  const seconds = total / 1_000_000_000n
  if (seconds > maximumSeconds) return Result.fail(`a duration of at most 10,000 years, not "${text}"`)
  return Result.succeed({ seconds, nanos: Number(total % 1_000_000_000n) })
}

const bytesPerUnit: ReadonlyMap<string, bigint> = new Map(
  ["", "k", "m", "g", "t", "p"].flatMap((letter, power): Array<[string, bigint]> => {
    const binary = 1024n ** BigInt(power)
    return letter === ""
      ? [
          ["", 1n],
          ["b", 1n]
        ]
      : [
          [letter, binary],
          [`${letter}i`, binary],
          [`${letter}ib`, binary],
          [`${letter}b`, 1000n ** BigInt(power)]
        ]
  })
)

const bytesHelp = "a size such as 512KiB, 64MiB or 1.5GiB"

/** The largest size that fits a signed 64-bit field. */
const maximumBytes = 2n ** 63n - 1n

/**
 * Reads a size in bytes: a number and a unit (`B KiB MiB GiB TiB PiB`, short `Mi` or `M`; `MB` = 1000²). A bare number is
 * bytes. The failure is what would have been right.
 */
export const parseBytes = (text: string): Result.Result<bigint, string> => {
  const match = /^(\d{1,19}(?:\.\d{1,9})?) ?([a-z]{0,3})$/.exec(text.trim().toLowerCase())
  const factor = match === null ? undefined : bytesPerUnit.get(match[2] ?? "")
  if (match === null || factor === undefined) return Result.fail(`${bytesHelp}, not "${text}"`)
  const bytes = multiply(match[1] ?? "0", factor)
  if (bytes === undefined) return Result.fail(`a whole number of bytes, not "${text}"`)
  if (bytes > maximumBytes) return Result.fail(`a size of at most 8EiB, not "${text}"`)
  return Result.succeed(bytes)
}
