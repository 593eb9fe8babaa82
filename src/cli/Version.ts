/** The version of this command line: package.json's, bundled in. */
import manifest from "../../package.json" with { type: "json" }

/** E.g. `0.1.0`. */
export const version: string = manifest.version
