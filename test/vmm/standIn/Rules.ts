/** What stand-ins of hypervisors share: requests and answers, and what their guests do. */

export interface Answer {
  readonly status: number
  readonly body?: unknown
}

/** What happens besides the answer. */
export interface World {
  /** The guest begins, with its kernel's command line. */
  readonly boot: (commandLine: string) => void
  readonly event: (source: string, name: string, properties?: Readonly<Record<string, string>>) => void
  /** The power button, or what is as good as one. */
  readonly press: () => void
  /** The processors stand still, or go on. */
  readonly halt: (halted: boolean) => void
  readonly exit: (code: number) => void
  /** Opens a file and closes it again; why it cannot be opened. */
  readonly open: (path: string, writes: boolean) => string | undefined
  /** Makes a file longer; why that cannot be. */
  readonly grow: (path: string, bytes: number) => string | undefined
  /** The guest is asked to let go of something: it does when it gets to it, which one that stands still does not. */
  readonly ask: (letGo: () => void) => void
  /** What the guest has in its memory; and a guest that goes on with it, once it is told to. */
  readonly memory: () => string
  readonly recall: (memory: string) => void
  /** A file that must not be there; why it cannot be written. */
  readonly write: (path: string, text: string) => string | undefined
  /** What is in a file; nothing: it cannot be read. */
  readonly read: (path: string) => string | undefined
}

/** A world in which nothing is, and nothing happens. */
export const nowhere: World = {
  boot: () => {},
  event: () => {},
  press: () => {},
  halt: () => {},
  exit: () => {},
  open: () => undefined,
  grow: () => undefined,
  ask: (letGo) => letGo(),
  memory: () => "",
  recall: () => {},
  write: () => undefined,
  read: () => undefined
}

export interface Rules {
  /** What the API says to a request; `body` is undefined when there was none. */
  readonly answer: (method: string, path: string, body: string | undefined) => Answer
}
