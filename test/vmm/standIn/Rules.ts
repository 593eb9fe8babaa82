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
}

export interface Rules {
  /** What the API says to a request; `body` is undefined when there was none. */
  readonly answer: (method: string, path: string, body: string | undefined) => Answer
}
