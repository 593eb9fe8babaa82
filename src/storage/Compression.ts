/**
 * Unpacking gzip and zstd as a stream. The work is done on Node's thread pool; memory is bounded by the format's window
 * (128 MiB at most for zstd, the limit that its own tools have).
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import type * as Stream from "effect/Stream"
import { constants, createGunzip, createZstdDecompress } from "node:zlib"
import type { Compression } from "./OciImage.ts"

/** What the first four bytes of a file say. */
export const sniff = (start: Uint8Array): Compression =>
  start[0] === 0x1f && start[1] === 0x8b
    ? "gzip"
    : start[0] === 0x28 && start[1] === 0xb5 && start[2] === 0x2f && start[3] === 0xfd
      ? "zstd"
      : "none"

const chunkSize = 64 * 1024

/** The unpacked bytes; damage fails with what `onError` makes of its description. */
export const decompress = <E, R, E2>(
  bytes: Stream.Stream<Uint8Array, E, R>,
  compression: Compression,
  onError: (problem: string) => E2
): Stream.Stream<Uint8Array, E | E2, R> =>
  compression === "none"
    ? bytes
    : NodeStream.pipeThroughDuplex(bytes, {
        evaluate: () =>
          compression === "gzip"
            ? createGunzip({ chunkSize })
            : createZstdDecompress({ chunkSize, params: { [constants.ZSTD_d_windowLogMax]: 27 } }),
        onError: (cause) =>
          onError(`it cannot be unpacked (${compression}: ${cause instanceof Error ? cause.message : String(cause)})`)
      })
