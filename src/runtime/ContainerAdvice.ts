/**
 * What helps a container that ended so: what a person who looks at the failure should know or do. One sentence per kind
 * of failure; the failure's own message says what happened.
 */
import type { ContainerFailure } from "./ContainerExit.ts"

const advice = {
  ContainerExited:
    "its log has what it said before it ended; a code that no restart heals deserves a rule in its policy",
  ContainerSignaled: "somebody or something sent it that signal; its log has what it said before",
  ContainerOomKilled: "give it more memory, or find out what it needs so much for: no restart changes that",
  ProbeFailed:
    "its log has what it was doing; a probe that is too strict wants a longer timeout or a higher failureThreshold",
  CreateFailed: "the OCI runtime's words above say what is wrong with it or with the host",
  ImageMissing: "pull or import the image again; its next start finds it",
  ImagePullFailed:
    "its next start tries again; the registry's words above say what is wrong, `ironwood image pull` shows it at once",
  RootfsFailed: "look at the disk and the mounts of the host: the words above say where",
  MicroVmFailed:
    "the words above say what the host lacks, or what its guest said; the rest is in runtime/microvms/SANDBOX.log below the state directory",
  MicroVmEnded: "what its guest had on the console before is in runtime/microvms/SANDBOX.log below the state directory",
  UserUnknown: "name a user that its image has, or a number",
  ProgramNotFound: "name a program that its image has, with its path, or a shell that finds it",
  ProgramNotExecutable: "give the file the right to be executed in the image, or run its interpreter with it",
  HostPathRefused: "make the path, or allow it in the machine config: containers.allowMounts, containers.allowDevices",
  SecretMissing: "give it again: `ironwood secret create NAME FILE`; its next start finds it",
  NothingToRun: "remove it and say what to run: its image does not",
  RuntimeMissing: "install crun or runc; its next start finds it"
} as const satisfies Record<ContainerFailure["_tag"], string>

const byTag: ReadonlyMap<string, string> = new Map(Object.entries(advice))

/** Nothing for a failure that is no container's. */
export const adviceFor = (tag: string): string | undefined => byTag.get(tag)
