/** `ironwood host`: facts about the host Ironwood runs on. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Command from "effect/cli/Command"
import { CgroupLayout, GetHostFactsResponseSchema, HostService } from "../../../proto/generated/ironwood/v1/host_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client } from "../Client.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Output from "../Output.ts"
import { pairs } from "../Table.ts"
import * as Text from "../Text.ts"

const layouts: ReadonlyMap<CgroupLayout, string> = new Map([
  [CgroupLayout.V1, "version 1"],
  [CgroupLayout.HYBRID, "hybrid (controllers in version 1)"],
  [CgroupLayout.V2, "version 2"]
])

export const host = Command.make(
  "host",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const answer = yield* client.call(HostService.method.getHostFacts, {})
    return yield* Output.answer(
      GetHostFactsResponseSchema,
      answer,
      Effect.gen(function* () {
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        const { facts } = answer
        if (facts === undefined) return []
        const booted = ActorText.momentOf(facts.bootTime)
        const { cpu, memory } = facts
        return pairs(
          [
            ["host", Text.clean(facts.hostname)],
            ["system", Text.clean(facts.operatingSystem)],
            ["kernel", Text.clean(facts.kernelRelease)],
            [
              "up",
              `${booted === undefined ? "" : HumanText.span(now - booted)} ${style.dim(`boot ${Text.clean(facts.bootId)}`)}`.trim()
            ],
            [
              "processors",
              cpu === undefined
                ? ""
                : `${cpu.count} × ${Text.clean(cpu.model)} (${Text.clean(cpu.architecture)}), load ${cpu.loadAverages.map((load) => load.toFixed(2)).join(" ")}`
            ],
            [
              "memory",
              memory === undefined
                ? ""
                : `${HumanText.size(memory.availableBytes)} available of ${HumanText.size(memory.totalBytes)}`
            ],
            [
              "cgroups",
              `${layouts.get(facts.cgroupLayout) ?? "unknown"}; limits by ${facts.cgroupControllers.map(Text.clean).join(", ") || "none"}`
            ],
            [
              "OCI runtimes",
              facts.ociRuntimes
                .map((runtime) => {
                  if (runtime.path === "") return style.dim(Text.clean(`${runtime.name}: ${runtime.problem}`))
                  const head = Text.clean([runtime.name, runtime.version, `(${runtime.path})`].join(" "))
                  if (!runtime.works) return style.yellow(`${head}: does not work here: ${Text.clean(runtime.problem)}`)
                  return runtime.inUse ? style.green(`${head}: in use`) : `${head}: works`
                })
                .concat(
                  facts.ociRuntimes.some(({ works }) => works)
                    ? []
                    : [style.red("none works here: install crun or runc")]
                )
                .join("\n")
            ],
            [
              "hypervisors",
              facts.hypervisors
                .map((one) => {
                  if (one.path === "") return style.dim(Text.clean(`${one.name}: ${one.problem}`))
                  const head = Text.clean([one.name, one.version, `(${one.path})`].join(" "))
                  if (!one.works) return style.yellow(`${head}: does not work here: ${Text.clean(one.problem)}`)
                  return one.accelerator === "kvm"
                    ? style.green(`${head}: with KVM`)
                    : `${head}: by emulation (TCG); ${Text.clean(one.acceleratorProblem)}`
                })
                .concat(
                  facts.hypervisors.some(({ works }) => works)
                    ? []
                    : [style.red(Text.clean(`none works here: ${facts.hypervisorAdvice}`))]
                )
                .join("\n")
            ],
            [
              "sandboxes",
              facts.sandboxIsolations
                .map(({ name, problem, works }) =>
                  works ? `${name}: works` : style.yellow(Text.clean(`${name}: not here: ${problem}`))
                )
                .join("\n")
            ]
          ],
          { name: style.dim }
        )
      })
    )
  })
).pipe(
  describe({
    short: "Show what the host is and can do",
    long: [
      "Kernel, processors, memory, cgroup layout, which OCI runtimes and hypervisors were found and work, and how sandboxes can be kept apart."
    ],
    examples: [["ironwood host -o json | jq '.facts.ociRuntimes[] | select(.works)'", "The runtimes that work here"]]
  })
)
