/**
 * A collection of V8's young generation, now: about a millisecond.
 *
 * Use it where buffers pass through in great numbers: V8 counts what its heap holds of them, a hundred bytes each, so their
 * 64 KiB outside of it stay until the heap has filled for other reasons, tens of megabytes later.
 *
 * Trap: Node has no call for it; a V8 without the flag does nothing here.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

let collector: (() => void) | undefined

/** Collects; on this thread's heap only. */
export const collectYoung = (): void => {
  if (collector === undefined) {
    setFlagsFromString("--expose-gc")
    const found: unknown = runInNewContext("typeof gc === 'function' ? () => gc({ type: 'minor' }) : () => {}")
    collector = typeof found === "function" ? () => void found() : () => {}
  }
  collector()
}
