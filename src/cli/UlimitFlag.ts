/** `--ulimit` of `ironwood run`, in docker's words: `nofile=1024:4096`; one number is both; -1 is no limit. */
import * as Result from "effect/Result"

export interface Ulimit {
  readonly resource: string
  readonly soft: bigint
  readonly hard: bigint
}

/** The largest number that a container's OCI configuration can hold whole: for every resource as good as none. */
const NO_LIMIT = BigInt(Number.MAX_SAFE_INTEGER)

export const parseUlimit = (text: string): Result.Result<Ulimit, string> => {
  const match = /^(\w+)=(-1|\d+)(?::(-1|\d+))?$/.exec(text)
  const [, resource = "", soft = "", hard = soft] = match ?? []
  if (match === null) return Result.fail("a resource and its limits, as in nofile=1024:4096")
  const of = (number: string) => (number === "-1" ? NO_LIMIT : BigInt(number))
  return Result.succeed({ resource: resource.toLowerCase(), soft: of(soft), hard: of(hard) })
}
