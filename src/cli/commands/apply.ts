/** `ironwood apply -f`: makes what spec files say. */
import * as Effect from "effect/Effect"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Apply from "../Apply.ts"
import { describe } from "../Help.ts"
import * as SpecFiles from "../SpecFiles.ts"

export const apply = Command.make(
  "apply",
  {
    files: Flag.String("file").pipe(
      Flag.withAlias("f"),
      Flag.withMetavar("FILE|-"),
      Flag.withDescription("A spec file, or - for standard input; may be repeated"),
      Flag.atLeast(1)
    ),
    replace: Flag.Boolean("replace").pipe(
      Flag.withDescription(
        "Stop containers that differ in what cannot be changed live in order, remove them, and make them anew"
      ),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ files, replace }) {
    yield* Apply.apply(yield* SpecFiles.read(files), { replace })
  })
).pipe(
  describe({
    short: "Make what spec files say: images, sandboxes, containers, virtual machines",
    long: [
      "A file is one or more YAML documents, each with a kind (Container, Sandbox, Pod, Image, Vm) and the fields of the API at the top:",
      "",
      "    kind: Container",
      "    name: web",
      "    image: web:latest",
      "    environment: { PORT: 8080 }",
      "    resources: { memoryBytes: 64MiB, cpus: 0.5 }",
      "    restart: { restart: permanent, backoff: { initial: 500ms, max: 1m } }",
      "",
      "Durations are 500ms or 1h30m, sizes 64MiB; `kind: Image` has a path (relative to the file) and imports it.",
      "`kind: Pod` is a sandbox with its `initContainers` and `containers` in one (examples/pod.yaml).",
      "All files are read first and all objects checked by the server; one mistake anywhere changes nothing, and all mistakes are",
      "told at once. Applying again changes nothing. A container that is there and differs in its restart policy is changed live",
      "(`changed`): the file holds, also against an earlier `ironwood policy set`. Any other difference is a conflict, told field",
      "by field, unless --replace is given. -o json prints what is there then as the API answers: an object",
      "`container`, `sandbox` or `image` on a line each."
    ],
    examples: [
      ["ironwood apply -f examples/hello.yaml", "The examples that come with Ironwood"],
      ["ironwood apply -f web.yaml -f db.yaml", "Several files"],
      ["sed s/latest/2.1/ web.yaml | ironwood apply --replace -f -", "From standard input, replacing what differs"]
    ]
  })
)
