/**
 * An image in a registry as an `ImageSource`: what `Content` imports like any other, from whoever has the bytes.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { ImageSource } from "../ImageSource.ts"
import type { RegistryError } from "./RegistryError.ts"
import type { Found, Repository } from "./RegistryClient.ts"
import * as RemoteName from "./RemoteName.ts"

/** The source of what a name stands for, once that is known. */
export const make = (repository: Repository, name: RemoteName.RemoteName, found: Found): ImageSource<RegistryError> => {
  const reference = RemoteName.describe(name)
  return {
    path: reference,
    images: [
      {
        descriptor: found.descriptor,
        names: name.tag === undefined ? [] : [`${name.name}:${name.tag}`],
        field: reference
      }
    ],
    blob: (descriptor, field) =>
      descriptor.digest === found.descriptor.digest
        ? Stream.fromEffect(Effect.succeed(found.bytes))
        : repository.blob(descriptor, field)
  }
}
