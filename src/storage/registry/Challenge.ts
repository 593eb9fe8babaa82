/**
 * `WWW-Authenticate`: what a registry asks for before it answers (RFC 9110, section 11.6.1). A header may hold several
 * challenges, and a response several headers, which Node joins with commas.
 *
 * Trap: a comma separates both parameters and challenges; a word is a scheme when no `=` follows it.
 */

export interface Challenge {
  /** In lower case: `basic`, `bearer`. */
  readonly scheme: string
  readonly parameters: ReadonlyMap<string, string>
}

const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y
const quoted = /"((?:[^"\\]|\\[\s\S])*)"/y
const space = /[\s,]*/y
const equals = /\s*=\s*/y

/** The challenges of a header; what is malformed ends the list. */
export const parse = (header: string): ReadonlyArray<Challenge> => {
  const found: Array<{ readonly scheme: string; readonly parameters: Map<string, string> }> = []
  let at = 0
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    const match = pattern.exec(header)
    if (match !== null) at = pattern.lastIndex
    return match
  }
  // more than this no registry sends; it bounds what a hostile one can make us do
  for (let count = 0; count < 64 && at < header.length; count++) {
    take(space)
    const word = take(token)?.[0]
    if (word === undefined) break
    const current = found.at(-1)
    if (take(equals) === null) {
      found.push({ scheme: word.toLowerCase(), parameters: new Map() })
      continue
    }
    const text = take(quoted)?.[1]?.replace(/\\([\s\S])/g, "$1") ?? take(token)?.[0]
    if (text === undefined || current === undefined) break
    current.parameters.set(word.toLowerCase(), text)
  }
  return found
}
