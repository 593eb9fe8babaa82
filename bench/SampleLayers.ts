/** Layers of images for benchmarks: files with content that compresses as programs do. */
import { createHash } from "node:crypto"
import { directory, file, type LayerEntry } from "../test/support/images.ts"

/** Bytes that compress to about two fifths: half of them noise, half words. */
const content = (bytes: number, seed: string): Buffer => {
  const noise: Array<Buffer> = []
  for (let have = 0, round = 0; have < bytes; round++) {
    const block = createHash("sha512").update(`${seed}/${round}`).digest()
    noise.push(block, Buffer.from(`${"the same words again and again ".repeat(3)}\n`))
    have += block.length + 94
  }
  return Buffer.concat(noise).subarray(0, bytes)
}

/** A layer of so many MiB in so many files. */
export const layer = (name: string, mebibytes: number, count: number): ReadonlyArray<LayerEntry> => {
  const size = Math.floor((mebibytes * 1024 * 1024) / count) - 1024
  const whole = content(8 * 1024 * 1024, name)
  const entries = [directory(name)]
  for (let number = 0; number < count; number++) {
    if (number % 100 === 0) entries.push(directory(`${name}/${Math.floor(number / 100)}`))
    const from = (number * 7919) % (whole.length - size)
    entries.push(file(`${name}/${Math.floor(number / 100)}/${number}`, whole.subarray(from, from + size)))
  }
  return entries
}
