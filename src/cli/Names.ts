/**
 * Names for containers that were given none: two words, from the workshop and the wood.
 */
const adjectives = [
  "amber",
  "brisk",
  "calm",
  "deft",
  "eager",
  "fine",
  "keen",
  "lucid",
  "mellow",
  "nimble",
  "plain",
  "quiet",
  "rugged",
  "sound",
  "tidy",
  "vivid"
]
const nouns = [
  "acorn",
  "alder",
  "anvil",
  "beech",
  "birch",
  "bough",
  "cedar",
  "ember",
  "forge",
  "grove",
  "hazel",
  "larch",
  "maple",
  "rivet",
  "rowan",
  "willow"
]

/** E.g. `brisk-alder-4f`: a valid name, unlikely to be taken. `random` gives numbers from 0 to below 1. */
export const generateName = (random: () => number): string => {
  const pick = (words: ReadonlyArray<string>) => words[Math.floor(random() * words.length)] ?? "oak"
  const tail = Math.floor(random() * 256)
    .toString(16)
    .padStart(2, "0")
  return `${pick(adjectives)}-${pick(nouns)}-${tail}`
}
