/**
 * The smallest program there is: an ELF executable that needs no library and ends at once with code 0. A trial container
 * can run it on any host, without an image and without knowing what is installed.
 *
 * Trap: machine code; hosts that are neither x86-64 nor arm64 have none, and are tried without running anything.
 */

const machines: ReadonlyMap<string, { readonly machine: number; readonly code: ReadonlyArray<number> }> = new Map([
  // xor edi, edi; mov eax, 60 (exit); syscall
  ["x64", { machine: 62, code: [0x31, 0xff, 0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05] }],
  // mov x0, #0; mov x8, #93 (exit); svc #0
  ["arm64", { machine: 183, code: [0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4] }]
])

const LOAD_ADDRESS = 0x400000n
const HEADERS = 64 + 56

/** The file's content for an architecture as Node names it (`process.arch`). */
export const trialProgram = (architecture: string): Uint8Array | undefined => {
  const target = machines.get(architecture)
  if (target === undefined) return undefined
  const file = Buffer.alloc(HEADERS + target.code.length)
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]) // ELF, 64 bits, little-endian, version 1
  file.writeUInt16LE(2, 16) // executable
  file.writeUInt16LE(target.machine, 18)
  file.writeUInt32LE(1, 20)
  file.writeBigUInt64LE(LOAD_ADDRESS + BigInt(HEADERS), 24) // entry
  file.writeBigUInt64LE(64n, 32) // program headers
  file.writeUInt16LE(64, 52)
  file.writeUInt16LE(56, 54)
  file.writeUInt16LE(1, 56)
  file.writeUInt32LE(1, 64) // PT_LOAD
  file.writeUInt32LE(5, 68) // readable, executable
  file.writeBigUInt64LE(LOAD_ADDRESS, 80)
  file.writeBigUInt64LE(LOAD_ADDRESS, 88)
  file.writeBigUInt64LE(BigInt(file.length), 96)
  file.writeBigUInt64LE(BigInt(file.length), 104)
  file.writeBigUInt64LE(0x1000n, 112)
  file.set(target.code, HEADERS)
  return file
}
