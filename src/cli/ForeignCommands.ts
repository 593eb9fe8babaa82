/**
 * Commands of docker and podman that have another name here, or no use: each is known, is refused, and says what to type instead.
 * They are in no help and no completion.
 */

/** The command that does the same; what was typed behind the foreign one goes behind it. */
const renamed: ReadonlyMap<string, string> = new Map([
  ["images", "image ls"],
  ["pull", "image pull"],
  ["rmi", "image rm"],
  ["tag", "image tag"],
  ["info", "host"],
  ["unpause", "resume"]
])

const built =
  "images are built elsewhere: `ironwood image pull` takes them from a registry, `ironwood image import` from an OCI layout or archive"
const specFiles = "`ironwood apply -f FILE` makes what a spec file says (see `ironwood apply --help`)"

const instead: ReadonlyMap<string, string> = new Map([
  ["container", "its commands stand alone here: `ironwood ps`, `ironwood rm`… (`ironwood --help` has all)"],
  ["build", built],
  ["commit", built],
  ["save", "here it is `ironwood image export IMAGE -O FILE.tar`"],
  ["load", "here it is `ironwood image import FILE.tar`"],
  ["push", "nothing is pushed: `ironwood image export` writes an OCI layout or archive for a program that does"],
  ["search", "a registry's own site knows what it has; `ironwood image pull` takes it"],
  [
    "login",
    "`docker login` on this machine is enough: `ironwood image pull` finds its config.json; the credentials of the host itself are in its machine config (`ironwood config`)"
  ],
  ["logout", "the credentials of the host itself are in its machine config (`ironwood config`)"],
  [
    "system",
    "`ironwood image df` tells what images take, `ironwood image gc` makes room, `ironwood host` tells of the machine"
  ],
  ["compose", specFiles],
  ["kube", specFiles],
  ["play", specFiles],
  ["network", "a container says which it has: `ironwood run --network none|host|user`"],
  ["rename", "a container keeps its name: `ironwood create` one of the other name, and `ironwood rm` this one"],
  ["diff", "`ironwood cp NAME:/ DIRECTORY` copies what a container has"]
])

/** What to do instead of a command that is none, given what was typed behind it; undefined where nobody knows. */
export const insteadOf = (command: string, rest: ReadonlyArray<string>): string | undefined => {
  const name = renamed.get(command)
  if (name === undefined) return instead.get(command)
  const plain = rest.every((word) => /^[\w@%+=:,./-]+$/.test(word))
  return `here it is \`${["ironwood", name, ...(plain ? rest : ["…"])].join(" ")}\``
}
