/**
 * What a layer becomes, as a tar: for comparison with what is on the disk. The *main* archive comes while the layer's tar is
 * pushed, then its `tail`; `closing` is a second one, for directories whose attributes were known only at the end. Pure.
 */
import { type LayerFilter, type LayerLimits, makeLayerFilter } from "./LayerFilter.ts"
import type { Attributes } from "./LayerTree.ts"
import { paddingAfter, type TarEntry } from "./Tar.ts"
import { encodeEntry, endOfArchive } from "./TarWriter.ts"

export interface LayerArchive extends Omit<
  LayerFilter,
  "tail" | "closing" | "closingAll" | "skippable" | "skip" | "rest"
> {
  /** After `end`: the last part of the main archive, in pieces. */
  readonly tail: () => Iterable<Uint8Array>
  /** After `end`: the second archive, in pieces. */
  readonly closing: (inherited: ReadonlyMap<string, Attributes>) => Iterable<Uint8Array>
}

/** An archive of these entries and its end, in pieces of about 64 KiB. */
function* inPieces(entries: Iterable<TarEntry>): Generator<Uint8Array> {
  let pieces: Array<Uint8Array> = []
  let size = 0
  for (const entry of entries) {
    const header = encodeEntry(entry)
    pieces.push(header)
    size += header.length
    if (size < 65_536) continue
    yield Buffer.concat(pieces)
    pieces = []
    size = 0
  }
  yield Buffer.concat([...pieces, endOfArchive])
}

const zeros = new Uint8Array(512)

/** `output` gets views of the pushed bytes: what it wants to keep it must copy before the next push. */
export const makeLayerArchive = (limits: LayerLimits, output: (bytes: Uint8Array) => void): LayerArchive => {
  let contentLeft = 0
  let padding = 0
  const { closing, end, entries, bytes, implicit, push, special, tail } = makeLayerFilter(limits, {
    entry: (entry) => {
      output(encodeEntry(entry))
      contentLeft = entry.size
      padding = paddingAfter(entry.size)
      return undefined
    },
    data: (bytes) => {
      output(bytes)
      contentLeft -= bytes.length
      if (contentLeft === 0) output(zeros.subarray(0, padding))
    },
    dropped: () => {}
  })
  return {
    push,
    end,
    tail: () => inPieces(tail()),
    implicit,
    closing: (inherited) => inPieces(closing(inherited)),
    special,
    entries,
    bytes
  }
}
