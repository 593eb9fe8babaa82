/**
 * A simulated host of about a thousand actors, and what persons want of it: the desired state that outlives the brain.
 *
 * `spec` makes the tree of one brain from it: storage, network and gateway of our own, and below `runtime` sandboxes of
 * every kind that there is: single containers, pods with dependencies, replicas, and groups under the other strategies.
 */
import * as Effect from "effect/Effect"
import * as Actor from "../../../src/actor/Actor.ts"
import type { ChildSpec, Dependencies, Intensity } from "../../../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../../../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../../../src/actor/RestartPolicy.ts"
import * as Supervisor from "../../../src/actor/Supervisor.ts"
import { SeededRandom } from "./SeededRandom.ts"
import { policies, type Temper, tempers } from "./Workload.ts"
import * as Workload from "./Workload.ts"
import type { World } from "./World.ts"

/** One container as a person wants it. */
export interface Wish {
  readonly id: string
  policy: RestartPolicy.RestartPolicy
  stopped: boolean
  readonly temper: Temper
  readonly dependencies: Partial<Dependencies>
}

export type SandboxKind = "single" | "pod" | "replicas" | "one_for_all" | "rest_for_one"

export interface Sandbox {
  readonly id: string
  readonly kind: SandboxKind
  stopped: boolean
  readonly containers: Map<string, Wish>
  /** While it runs; those under the other strategies take no more children here. */
  handle: DynamicSupervisor.DynamicSupervisor<never, never> | undefined
}

/** Their own intensity, and that of `init`. */
const GROUP: Intensity = { restarts: 4, within: 60_000 }
const INIT: Intensity = { restarts: 8, within: 60_000 }

/** In groups one that cannot be healed takes all with it. */
const escalating = RestartPolicy.make({
  backoff: { initial: "1 second", factor: 3, max: "2 minutes" },
  whenSpent: "escalate"
})
const patient = RestartPolicy.make({ backoff: { initial: "1 second", max: "1 minute" } })

const none: Partial<Dependencies> = {}

export class Host {
  readonly sandboxes = new Map<string, Sandbox>()
  readonly #world: World
  readonly #random: SeededRandom
  /** By path. */
  readonly #dependencies = new Map<string, Partial<Dependencies>>([
    ["init/network/fabric", { requires: ["links"] }],
    ["init/network/names", { bindsTo: ["fabric"] }]
  ])
  #made = 0

  constructor(world: World, sandboxes: number) {
    this.#world = world
    this.#random = new SeededRandom(world.seed, "host")
    const kinds = ["single", "single", "pod", "pod", "replicas", "replicas", "one_for_all", "rest_for_one"] as const
    for (let index = 0; index < sandboxes; index++) this.#addSandbox(this.#random.pick(kinds))
  }

  #addSandbox(kind: SandboxKind): void {
    const id = `${kind}-${this.sandboxes.size}`
    const sandbox: Sandbox = { id, kind, stopped: false, containers: new Map(), handle: undefined }
    this.sandboxes.set(id, sandbox)
    switch (kind) {
      case "single":
        this.wish(sandbox)
        return
      case "replicas":
        for (let index = this.#random.between(4, 16); index > 0; index--) this.wish(sandbox)
        return
      case "pod": {
        this.wish(sandbox, "db")
        this.wish(sandbox, "app", { requires: ["db"] })
        this.wish(sandbox, "proxy", { bindsTo: ["app"] })
        this.wish(sandbox, "logs", { after: ["app"] })
        this.wish(sandbox, "shipper", { bindsTo: ["logs"], after: ["proxy"] })
        return
      }
      case "one_for_all":
      case "rest_for_one":
        for (const name of ["a", "b", "c"]) this.wish(sandbox, name).policy = escalating
    }
  }

  /** One more container. */
  wish(sandbox: Sandbox, id = `c${++this.#made}`, dependencies: Partial<Dependencies> = {}): Wish {
    const temper = this.#random.pick(tempers)
    const wish: Wish = { id, policy: this.#random.pick(policies), stopped: false, temper, dependencies }
    sandbox.containers.set(id, wish)
    this.#dependencies.set(`init/runtime/${sandbox.id}/${id}`, dependencies)
    return wish
  }

  /** What is wanted of `path`, where it is a container or a sandbox. */
  find(path: string): { readonly sandbox: Sandbox; readonly wish: Wish | undefined } | undefined {
    const [init, runtime, id = "", container, ...more] = path.split("/")
    const sandbox = this.sandboxes.get(id)
    if (init !== "init" || runtime !== "runtime" || sandbox === undefined || more.length > 0) return undefined
    return { sandbox, wish: container === undefined ? undefined : sandbox.containers.get(container) }
  }

  /** The siblings that an actor needs. */
  dependenciesOf(path: string): Partial<Dependencies> {
    return this.#dependencies.get(path) ?? none
  }

  /** The intensity of the supervisor at `path`. */
  intensityOf(path: string): Intensity | undefined {
    if (path === "init") return INIT
    if (path === "init/runtime") return undefined
    const kind = this.find(path)?.sandbox.kind
    return kind === undefined || kind === "one_for_all" || kind === "rest_for_one" ? GROUP : undefined
  }

  // --- the tree of one brain ---

  spec(first: ChildSpec<unknown, never>): Effect.Effect<ChildSpec<unknown, never>> {
    return Effect.gen({ self: this }, function* () {
      const own = (above: string, id: string) => {
        const path = `init/${above}/${id}`
        return Actor.make(id, { dependencies: this.dependenciesOf(path) }, Workload.run(this.#world, path, "own"))
      }
      const within = { intensity: GROUP.restarts, period: GROUP.within } as const
      const runtime = yield* DynamicSupervisor.make("runtime", {
        children: Effect.suspend(() =>
          Effect.forEach([...this.sandboxes.values()], (sandbox) => this.#sandbox(sandbox))
        )
      })
      return Supervisor.make("init", {
        strategy: "rest_for_one",
        intensity: INIT.restarts,
        period: INIT.within,
        children: [
          first,
          Supervisor.make("storage", {
            ...within,
            strategy: "rest_for_one",
            children: ["state", "content", "volumes"].map((id) => own("storage", id))
          }),
          Supervisor.make("network", {
            ...within,
            children: [own("network", "links"), own("network", "fabric"), own("network", "names")]
          }),
          runtime.spec,
          Supervisor.make("gateway", { ...within, children: [own("gateway", "grpc"), own("gateway", "metrics")] })
        ]
      })
    })
  }

  #sandbox(sandbox: Sandbox): Effect.Effect<ChildSpec<unknown, never>> {
    const { containers, id, kind, stopped } = sandbox
    const options = { policy: patient, autoStart: !stopped } as const
    if (kind === "one_for_all" || kind === "rest_for_one") {
      const children = [...containers.values()].map((wish) => this.container(sandbox, wish))
      const limits = { intensity: GROUP.restarts, period: GROUP.within } as const
      return Effect.succeed(Supervisor.make(id, { ...options, ...limits, strategy: kind, children }))
    }
    const children = Effect.sync(() => [...containers.values()].map((wish) => this.container(sandbox, wish)))
    return Effect.map(DynamicSupervisor.make(id, { ...options, children }), (handle) => {
      sandbox.handle = handle
      return handle.spec
    })
  }

  container(sandbox: Sandbox, { dependencies, id, policy, stopped, temper }: Wish): ChildSpec<unknown, never> {
    return Actor.make(
      id,
      { policy, dependencies, autoStart: !stopped, resume: true, shutdown: "5 seconds" },
      Workload.run(this.#world, `init/runtime/${sandbox.id}/${id}`, temper)
    )
  }
}
