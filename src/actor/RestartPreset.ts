/**
 * Policies by name: OTP's restart types, and what other systems do when something ends, as they do it.
 *
 * When to use: by somebody who knows one of those systems and wants the same here; single fields can be said otherwise
 * ({@link expand}). Who has no such wish is better off with the defaults, which spread their delays.
 *
 * What is the same: which exits lead to a restart, every delay, when the delays begin anew, and when it is given up.
 * What is not, on purpose:
 * - a person's `start` or `restart` forgets what was spent; systemd refuses it at its start limit;
 * - docker's container that a person stops and starts keeps its delay; ours begins anew;
 * - OTP's intensity is not the child's but its supervisor's (one restart in 5 s unless it says otherwise), and OTP counts
 *   it in whole seconds, we in milliseconds.
 */
import * as Schema from "effect/Schema"
import * as RestartPolicy from "./RestartPolicy.ts"

/** The names. */
export const Name = Schema.Literals([
  "permanent",
  "transient",
  "temporary",
  "on-failure",
  "kubernetes",
  "systemd",
  "docker",
  "unless-stopped",
  "docker-always"
])
export type Name = typeof Name.Type

/** A policy with a name, and what it does in a sentence. */
export interface Preset {
  readonly description: string
  readonly policy: RestartPolicy.RestartPolicy
}

const docker = RestartPolicy.make({
  restart: "permanent",
  backoff: { initial: "100 millis", factor: 2, max: "1 minute", jitter: 0, resetAfter: "10 seconds" },
  whenSpent: "keep-trying"
})

const dockerCurve = "after 100 ms, 200 ms … 1 min; from the beginning after 10 s up"

/** All of them, by name. */
export const presets: { readonly [Key in Name]: Preset } = {
  permanent: {
    description:
      "Erlang/OTP's permanent: always again, at once; over its supervisor's intensity the supervisor gives up",
    policy: RestartPolicy.permanent
  },
  transient: {
    description: "Erlang/OTP's transient: as permanent, but a normal end is the end",
    policy: RestartPolicy.transient
  },
  temporary: {
    description: "Erlang/OTP's temporary: runs once",
    policy: RestartPolicy.temporary
  },
  "on-failure": {
    description: `docker run --restart on-failure: unless it ended with code 0, ${dockerCurve}`,
    policy: RestartPolicy.make({ restart: "transient" }, docker)
  },
  kubernetes: {
    description:
      "restartPolicy: Always: at once, then 10 s, 20 s … 5 min after the end, for ever; from the beginning after 10 min up",
    policy: RestartPolicy.make({
      restart: "permanent",
      backoff: {
        first: 0,
        initial: "10 seconds",
        factor: 2,
        max: "5 minutes",
        jitter: 0,
        resetAfter: "10 minutes"
      },
      whenSpent: "keep-trying"
    })
  },
  systemd: {
    description:
      "Restart=on-failure: after 100 ms, unless it ended with code 0, SIGHUP, SIGINT, SIGTERM or SIGPIPE; the sixth start within 10 s is refused, and it waits for a person",
    policy: RestartPolicy.make({
      restart: "transient",
      rules: [{ on: { signals: ["SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"], outOfMemory: false }, then: "finish" }],
      backoff: { initial: "100 millis", factor: 1, jitter: 0 },
      budget: { restarts: 5, within: "10 seconds", window: "tumbling" },
      whenSpent: "park"
    })
  },
  docker: {
    description: `docker run --restart unless-stopped: always again, ${dockerCurve}; a person's stop is remembered`,
    policy: docker
  },
  "unless-stopped": {
    description: "the same as docker",
    policy: docker
  },
  "docker-always": {
    description: `docker run --restart always: always again, ${dockerCurve}; stopped by a person, it starts with Ironwood again`,
    policy: RestartPolicy.make({ rememberStop: false }, docker)
  }
}

/** The names in the order in which they are shown. */
export const names: ReadonlyArray<Name> = Name.literals

/** Whether there is a preset of this name. */
export const isName = Schema.is(Name)

const encode = Schema.encodeSync(RestartPolicy.RestartPolicy)

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

/** The stored form of a preset with what `changes`, in the stored form too, says otherwise: of the back-off field by field. */
export const expand = (name: Name, changes: Readonly<Record<string, unknown>>): Record<string, unknown> => {
  const base = encode(presets[name].policy)
  const backoff = isRecord(changes["backoff"]) ? { ...base.backoff, ...changes["backoff"] } : base.backoff
  return { ...base, ...changes, backoff }
}
