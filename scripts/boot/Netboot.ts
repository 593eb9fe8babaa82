/**
 * What a machine that boots over the network is given, for `npm run boot -- --netboot`: a script of iPXE by TFTP, from QEMU's
 * own server, and the kernel and the initramfs that it names by HTTP. The network is QEMU's, and leads nowhere else.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Qemu from "./Qemu.ts"

/** Answers one request of HTTP, on standard input and output, with a file of a directory. */
const server = (directory: string): string => `#!/bin/sh
read -r method path version
while read -r line && [ "$line" != "$(printf '\\r')" ]; do :; done
file='${directory}'/"$(basename "$path")"
if [ ! -f "$file" ]; then
  printf 'HTTP/1.1 404 Not Found\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'
  exit
fi
printf 'HTTP/1.1 200 OK\\r\\nContent-Length: %s\\r\\nConnection: close\\r\\n\\r\\n' "$(stat -c %s "$file")"
exec cat "$file"
`

const script = (commandLine: string): string => {
  const base = `http://${Qemu.served.address}`
  return `#!ipxe
kernel ${base}/vmlinuz initrd=initramfs.img ${commandLine}
initrd ${base}/initramfs.img
boot
`
}

/** Lays out `directory`, which has the files `vmlinuz` and `initramfs.img`; what a {@link Qemu.Machine} needs besides. */
export const netboot = (directory: string, commandLine: string): Required<Pick<Qemu.Machine, "netboot" | "serve">> => {
  const tftp = join(directory, "tftp")
  const serve = join(directory, "server")
  mkdirSync(tftp, { recursive: true })
  writeFileSync(join(tftp, "ironwood.ipxe"), script(commandLine))
  writeFileSync(serve, server(directory), { mode: 0o755 })
  return { netboot: tftp, serve }
}
