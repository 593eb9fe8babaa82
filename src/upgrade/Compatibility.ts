/**
 * What a brain can run beside: the taproot of the image, its Node, and the layout that the state has. Known before anything is
 * tried, by what a brain says of itself; what it really is shows its trial.
 */
import { readFileSync } from "node:fs"
import manifest from "../../package.json" with { type: "json" }
import { MIGRATIONS } from "../storage/StateSchema.ts"
import type { Hello } from "../taproot/Processes.ts"
import { oldestProtocolVersion, protocolVersion } from "../taproot/Wire.ts"
import { digestOf, type Manifest } from "./Bundle.ts"
import type { BuiltIn } from "./Record.ts"

/** The brain that taproot starts: known by what it is made of. */
export const ownBuiltIn = (program: string | undefined): BuiltIn => {
  let digest = ""
  try {
    digest = digestOf(readFileSync(program?.replace(/[^/]+$/, "brain.bundle.cjs") ?? ""))
  } catch {
    // from sources: one digest for all of them
  }
  return { digest, version: manifest.version, stateLayout: MIGRATIONS.length }
}

/** Why a brain that says this of itself cannot run beside this taproot, on this Node and with this state. */
export const incompatibility = (
  { node, protocol, stateLayout }: Manifest,
  hello: Hello,
  layout: number
): string | undefined => {
  const ownNode = Number.parseInt(process.versions.node, 10)
  if (!hello.features.includes("successor")) return "the taproot of this image starts no other brains"
  if (protocol.newest < oldestProtocolVersion || protocol.oldest > protocolVersion) {
    return `it speaks version ${protocol.oldest} to ${protocol.newest} of the protocol, the taproot of this image ${oldestProtocolVersion} to ${protocolVersion}`
  }
  if (node > ownNode) return `it needs Node ${node}, and the image has ${process.versions.node}`
  if (stateLayout < layout) return `it knows the state's layout ${stateLayout}, and the state has ${layout}`
  return undefined
}
