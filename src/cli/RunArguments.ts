/**
 * Where the flags of `ironwood run`, `create` and `exec` end and the container's own command begins: at the image, or the
 * container's name, as with docker.
 *
 * `ironwood run -d web ls -la` must not take `-la` for flags of ours, so this runs over the words before they are parsed and
 * puts a `--` behind that word. It also takes docker's `-eNAME=VALUE` apart. Words of other commands pass unchanged.
 */
import type * as Command from "effect/cli/Command"
import * as Completions from "effect/cli/Completions"

/** Names (long, and one letter) of the flags of a command that take a value. */
export const valueFlags = (command: Command.Command.Any): ReadonlySet<string> =>
  new Set(
    Completions.fromCommand(command).flags.flatMap(({ aliases, name, type }) =>
      type._tag === "Boolean" ? [] : [name, ...aliases.map((alias) => alias.replace(/^-+/, ""))]
    )
  )

/** The words with the container's command set apart. `globals` and `own`: what takes a value before and after each command. */
export const separate = (
  words: ReadonlyArray<string>,
  globals: ReadonlySet<string>,
  own: Readonly<Record<string, ReadonlySet<string>>>
): ReadonlyArray<string> => {
  const command = firstValue(words, 0, globals)
  const takesValue = command === undefined ? undefined : own[words[command] ?? ""]
  if (command === undefined || takesValue === undefined) return words
  const head = words.slice(0, command + 1)
  const flags = new Set([...globals, ...takesValue])
  const tail = words.slice(command + 1).flatMap((word, index, all) => {
    const image = firstValue(all, 0, flags)
    const letter = word[1] ?? ""
    const attached = (image === undefined || index < image) && /^-[a-zA-Z][^=]/.test(word) && flags.has(letter)
    return attached ? [word.slice(0, 2), word.slice(2)] : [word]
  })
  const image = firstValue(tail, 0, flags)
  if (image === undefined) return [...head, ...tail]
  const rest = tail.slice(image + 1)
  return [...head, ...tail.slice(0, image + 1), "--", ...(rest[0] === "--" ? rest.slice(1) : rest)]
}

/** The index of the first word that is neither a flag nor the value of one; undefined when there is none before `--`. */
const firstValue = (
  words: ReadonlyArray<string>,
  from: number,
  takesValue: ReadonlySet<string>
): number | undefined => {
  for (let i = from; i < words.length; i++) {
    const word = words[i] ?? ""
    if (word === "--") return undefined
    if (!word.startsWith("-") || word === "-") return i
    if (word.includes("=")) continue
    const name = word.startsWith("--") ? word.slice(2) : word.slice(-1)
    const attached = !word.startsWith("--") && word.length > 2 && takesValue.has(word[1] ?? "")
    if (takesValue.has(name) && !attached) i++
  }
  return undefined
}
