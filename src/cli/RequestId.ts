/**
 * Ids that make a changing call safe to repeat: the server carries out the same id once.
 */
import { randomUUID } from "node:crypto"

/** A new id, unlike any other. */
export const requestId = (): string => randomUUID()
