/** Programs of this host that are known by where distributions put them, for what is looked up once as a brain starts. */
import { accessSync, constants } from "node:fs"

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** The first of these absolute paths that we may execute; undefined: none. */
export const firstOf = (paths: ReadonlyArray<string>): string | undefined => paths.find(isExecutable)
