/**
 * "Did you mean": the nearest of the known words to one that is not known.
 *
 * Distance is Damerau's (a swap of neighbours is one mistake); a candidate must share more than half of the word,
 * so that nonsense gets no advice. Case does not count.
 */

const distance = (left: string, right: string): number => {
  const rows: Array<Array<number>> = []
  const at = (row: number, column: number): number => rows[row]?.[column] ?? 0
  for (let i = 0; i <= left.length; i++) {
    const row: Array<number> = []
    rows.push(row)
    for (let j = 0; j <= right.length; j++) {
      if (i === 0 || j === 0) {
        row.push(i + j)
        continue
      }
      const same = left[i - 1] === right[j - 1] ? 0 : 1
      let best = Math.min(at(i - 1, j) + 1, (row[j - 1] ?? 0) + 1, at(i - 1, j - 1) + same)
      if (i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1]) {
        best = Math.min(best, at(i - 2, j - 2) + 1)
      }
      row.push(best)
    }
  }
  return at(left.length, right.length)
}

/** The nearest candidate, or undefined when none is near enough to be meant. */
export const nearest = (word: string, candidates: Iterable<string>): string | undefined => {
  const wanted = word.toLowerCase().slice(0, 256)
  let best: string | undefined
  let bestDistance = Number.POSITIVE_INFINITY
  for (const candidate of candidates) {
    const found = distance(wanted, candidate.toLowerCase().slice(0, 256))
    if (found < bestDistance) {
      best = candidate
      bestDistance = found
    }
  }
  return best !== undefined && bestDistance <= Math.max(1, Math.floor(Math.max(wanted.length, best.length) / 3))
    ? best
    : undefined
}
