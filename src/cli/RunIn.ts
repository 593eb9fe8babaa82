/** A program in a container for the needs of a command: what it is fed, what it says, how it ends. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { ContainerService, type ExecContainerRequestSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "./Client.ts"
import { type Failure, failure } from "./Failure.ts"
import * as Text from "./Text.ts"

type Request = MessageInitShape<typeof ExecContainerRequestSchema>

const mostInput = 65_536
const mostWords = 2_000

/** Runs it to its end; its exit code, and the end of what it wrote to standard error. */
export const runIn = Effect.fnUntraced(function* <E = never, R = never>(
  name: string,
  command: ReadonlyArray<string>,
  options: {
    readonly input?: Stream.Stream<Uint8Array, Failure>
    readonly output?: (bytes: Uint8Array) => Effect.Effect<void, E, R>
  } = {}
) {
  const client = yield* Client
  const { input, output } = options
  const start: Request = {
    request: { case: "start", value: { name, command: [...command], stdin: input !== undefined } }
  }
  const said = (input ?? Stream.empty).pipe(
    Stream.flatMap((bytes) =>
      Stream.fromIterable(
        Array.from({ length: Math.ceil(bytes.length / mostInput) }, (_, index) =>
          bytes.subarray(index * mostInput, (index + 1) * mostInput)
        )
      )
    ),
    Stream.map((value): Request => ({ request: { case: "stdin", value } }))
  )
  let code: number | undefined
  let words = ""
  yield* client
    .exchange(ContainerService.method.execContainer, Stream.concat(Stream.make<[Request]>(start), said))
    .pipe(
      Stream.runForEach(({ response }): Effect.Effect<void, E, R> => {
        if (response.case === "stdout") return output === undefined ? Effect.void : output(response.value)
        if (response.case === "stderr") words = (words + Buffer.from(response.value).toString()).slice(-mostWords)
        if (response.case === "exited") code = response.value.code
        return Effect.void
      })
    )
  return { code: code ?? 1, words: Text.clean(words.trim().split("\n").at(-1) ?? "") }
})

/** The same; fails unless it ends with 0. */
export const runInWell = Effect.fnUntraced(function* <E = never, R = never>(
  name: string,
  command: ReadonlyArray<string>,
  options: {
    readonly input?: Stream.Stream<Uint8Array, Failure>
    readonly output?: (bytes: Uint8Array) => Effect.Effect<void, E, R>
  }
) {
  const { code, words } = yield* runIn(name, command, options)
  if (code === 0) return yield* Effect.void
  return yield* failure(`${command[0]} in ${name} ended with ${code}${words === "" ? "" : ` (${words})`}`)
})
