/**
 * The command line of a script of this folder. Its usage is the comment that it opens with: `--help` prints that, and what is
 * wrong with a command line is told in one line above it.
 */
import { readFileSync } from "node:fs"
import { basename } from "node:path"
import { parseArgs, type ParseArgsConfig } from "node:util"

/** The comment that a file opens with, without its stars. */
export const headerOf = (text: string): string =>
  (/^\/\*\*\n?(.*?)\*\//s.exec(text)?.[1] ?? "").replaceAll(/^ \* ?/gm, "").trim()

const usageOf = (file: string): string => `${headerOf(readFileSync(file, "utf8"))}\n`

/** Ends the script. `file`: the script's own. */
export const refuse = (file: string, problem: string): never => {
  process.stderr.write(`${basename(file, ".ts")}: ${problem}\n\n${usageOf(file)}`)
  process.exit(2)
}

/** What `parseArgs` makes of the words behind the script's name; ends the script when that is nothing, or help was asked for. */
export const commandLine = <T extends ParseArgsConfig>(file: string, config: T) => {
  const words = process.argv.slice(2)
  if (words.some((word) => word === "--help" || word === "-h")) {
    process.stdout.write(usageOf(file))
    process.exit(0)
  }
  try {
    return parseArgs({ ...config, args: words })
  } catch (error) {
    // the rest of what Node says is about a `--` that nobody needs here
    return refuse(file, (error instanceof Error ? error.message : String(error)).replace(/\. To specify.*/s, ""))
  }
}

/** A whole number from `least` on that an option takes. */
export const wholeNumber = (file: string, option: string, text: string, least: number): number => {
  const number = /^\d{1,9}$/.test(text) ? Number(text) : -1
  return number >= least ? number : refuse(file, `${option}: expected a whole number from ${least}, not "${text}"`)
}
